"""QM9: graphs against torch_geometric's own transforms, splits, scaling, and files in all the places."""

from __future__ import annotations

import importlib.util
import shutil
import sys

import pytest
import torch

from equipoise.data import QM9Molecules, TargetScaling, qm9_loaders
from equipoise.data.qm9 import TARGETS
from equipoise.errors import DataSetError, InputError, MissingExtraError
from equipoise_papers.samples import write_qm9_sample

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("torch_geometric"), reason="needs torch_geometric")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = write_qm9_sample(tmp_path_factory.mktemp("qm9"))
    QM9Molecules(root, held_out=10)  # so that torch_geometric's own file is there
    return root


@pytest.fixture
def qm9(written, tmp_path):
    return shutil.copytree(written, tmp_path / "qm9")


def raw(root):
    return torch.load(root / "raw/qm9_v3.pt")


def test_eleven_targets_and_their_units():
    assert [target.name for target in TARGETS] == ["mu", "alpha", "homo", "lumo", "r2", "zpve", "U0", "U", "H", "G", "Cv"]
    assert [target.name for target in TARGETS if target.unit == "meV"] == ["homo", "lumo", "zpve", "U0", "U", "H", "G"]
    assert all(target.factor == (1000 if target.unit == "meV" else 1) for target in TARGETS)


def test_graphs_are_complete_with_bonds_and_distances(qm9):
    """Against loops over atoms, and against torch_geometric's Distance and Batch."""
    from torch_geometric.data import Batch, Data
    from torch_geometric.transforms import Distance

    molecules = QM9Molecules(qm9, held_out=10)
    rows = [7, 0, 31]
    expected = []
    for row in rows:
        own = raw(qm9)[int(molecules.rows[row])]
        kinds = {tuple(pair): kind for pair, kind in zip(own["edge_index"].T.tolist(), own["edge_attr"], strict=True)}
        pairs = [(a, b) for a in range(len(own["z"])) for b in range(len(own["z"])) if a != b]
        graph = Data(
            x=own["x"],
            pos=own["pos"],
            z=own["z"],
            edge_index=torch.tensor(pairs).T,
            edge_attr=torch.stack([kinds.get(pair, torch.zeros(4)) for pair in pairs]),
        )
        expected.append(Distance(norm=False)(graph))
    theirs = Batch.from_data_list(expected)
    ours = molecules.batch(rows, epoch=0)["graph"]
    for name in ("x", "pos", "z", "edge_index", "edge_attr", "batch", "ptr"):
        assert torch.equal(ours[name], theirs[name])
    assert ours.num_graphs == 3
    assert ours.edge_attr.shape[1] == 5
    alone = molecules[7]
    assert torch.equal(alone["graph"].edge_attr, expected[0].edge_attr)


def test_splits_are_disjoint_and_by_seed(qm9):
    loaders = qm9_loaders(qm9, 8, held_out=10)
    rows = [set(loader.dataset.rows.tolist()) for loader in loaders]
    assert [len(own) for own in rows] == [40, 10, 10]
    assert set().union(*rows) == set(range(60))
    assert rows[2] == set(torch.randperm(60, generator=torch.Generator().manual_seed(0))[:10].tolist())
    assert QM9Molecules(qm9, "test", held_out=10, split_seed=1).rows.tolist() != loaders[2].dataset.rows.tolist()
    assert torch.equal(QM9Molecules(qm9, "val", held_out=10).labels, loaders[1].dataset.labels)


def test_labels_are_scaled_by_the_training_split(qm9):
    train, validation, _ = (loader.dataset for loader in qm9_loaders(qm9, held_out=10))
    torch.testing.assert_close(train.labels.mean(0), torch.zeros(11), atol=1e-4, rtol=0)
    torch.testing.assert_close(train.labels.std(0), torch.ones(11), atol=1e-4, rtol=0)
    assert float(validation.labels.mean(0).abs().max()) > 0.05
    columns = [0, 1, 2, 3, 5, 6, 12, 13, 14, 15, 11]
    y = torch.cat([raw(qm9)[int(row)]["y"] for row in validation.rows])[:, columns]
    torch.testing.assert_close(validation.scaling.unscaled(validation.labels), y)
    unscaled = QM9Molecules(qm9, "val", held_out=10, scale=False)
    assert torch.equal(unscaled.labels, y)
    assert unscaled.scaling.reported(torch.ones(2, 11))["homo"] == 1000.0


def test_errors_are_reported_in_the_fields_units(qm9):
    dataset = QM9Molecules(qm9, "test", held_out=10)
    outputs = dataset.labels + torch.linspace(-1, 2, 110).reshape(10, 11)
    reported = dataset.scaling.reported((outputs - dataset.labels).abs())
    for number, target in enumerate(TARGETS):
        physical = (dataset.scaling.unscaled(outputs) - dataset.scaling.unscaled(dataset.labels))[:, number].abs().mean()
        factor = 1000 if target.name in ("homo", "lumo", "zpve", "U0", "U", "H", "G") else 1
        assert reported[target.name] == pytest.approx(float(physical) * factor, rel=1e-3)


def test_workers_give_the_same_batches(qm9):
    alone = qm9_loaders(qm9, 8, held_out=10, seed=2)[0]
    helped = qm9_loaders(qm9, 8, held_out=10, seed=2, workers=2)[0]
    for one, two in zip(alone, helped, strict=True):
        assert torch.equal(one["label"], two["label"])
        assert torch.equal(one["graph"].edge_attr, two["graph"].edge_attr)
        assert one["graph"].num_graphs == two["graph"].num_graphs


def test_either_file_is_enough(qm9, monkeypatch):
    expected = QM9Molecules(qm9, held_out=10).labels
    shutil.rmtree(qm9 / "processed")
    assert torch.equal(QM9Molecules(qm9, held_out=10).labels, expected)
    shutil.rmtree(qm9 / "raw")
    assert sorted(path.name for path in (qm9 / "processed").iterdir()) == ["data_v3.json", "data_v3.pt"]
    assert torch.equal(QM9Molecules(qm9, held_out=10).labels, expected)


def test_nothing_is_downloaded_unasked(tmp_path, monkeypatch):
    from torch_geometric.datasets import QM9

    asked = []
    monkeypatch.setattr(QM9, "download", lambda self: asked.append(write_qm9_sample(self.root)))
    with pytest.raises(DataSetError, match=r"QM9 needs .*data_v3.pt or .*qm9_v3.pt .*gdb9.sdf.*torch_geometric.datasets.QM9"):
        QM9Molecules(tmp_path)
    assert not asked
    assert not list(tmp_path.iterdir())
    # Files that only rdkit can read are of no use without it.
    monkeypatch.setitem(sys.modules, "rdkit", None)
    (tmp_path / "raw").mkdir()
    for name in ("gdb9.sdf", "gdb9.sdf.csv", "uncharacterized.txt"):
        (tmp_path / "raw" / name).touch()
    with pytest.raises(DataSetError, match=r"with rdkit installed, gdb9.sdf"):
        QM9Molecules(tmp_path)
    assert not asked
    assert len(QM9Molecules(tmp_path, held_out=10, download=True)) == 40
    assert len(asked) == 1


def _cut_off(root):
    path = root / "processed/data_v3.pt"
    path.write_bytes(path.read_bytes()[:1000])


def _no_pickle(root):
    (root / "processed/data_v3.pt").write_bytes(b"something else")


def _broken_raw(root):
    shutil.rmtree(root / "processed")
    (root / "raw/qm9_v3.pt").write_bytes(b"")


def _other_targets(root):
    shutil.rmtree(root / "processed")
    found = [molecule | {"y": molecule["y"][:, :12]} for molecule in raw(root)]
    torch.save(found, root / "raw/qm9_v3.pt")


def _no_positions(root):
    shutil.rmtree(root / "processed")
    torch.save([{key: value for key, value in one.items() if key != "pos"} for one in raw(root)], root / "raw/qm9_v3.pt")


@pytest.mark.parametrize("break_it", [_cut_off, _no_pickle, _broken_raw, _other_targets, _no_positions])
def test_broken_qm9_files(qm9, break_it):
    break_it(qm9)
    with pytest.raises(DataSetError, match="cannot be read as QM9") as raised:
        QM9Molecules(qm9, held_out=10)
    assert "\n" not in str(raised.value)


def test_bad_input_to_qm9(qm9, monkeypatch):
    with pytest.raises(DataSetError, match="holds 60 molecules, too few to keep back 10000"):
        QM9Molecules(qm9)
    with pytest.raises(InputError, match="held_out is 0"):
        QM9Molecules(qm9, held_out=0)
    with pytest.raises(InputError, match='split is "valid"'):
        QM9Molecules(qm9, "valid")
    with pytest.raises(DataSetError, match="the targets mu are the same"):
        TargetScaling.of(torch.cat([torch.ones(5, 1), torch.randn(5, 10)], dim=1))
    monkeypatch.setitem(sys.modules, "torch_geometric", None)
    monkeypatch.setitem(sys.modules, "torch_geometric.datasets", None)
    with pytest.raises(MissingExtraError, match=r"equipoise\[graphs\]"):
        QM9Molecules(qm9, held_out=10)
