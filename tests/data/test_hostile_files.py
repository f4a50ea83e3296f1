"""Files of strangers run nothing, take no memory that they do not hold, and lose nothing without a word."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import sys
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
import torch

from equipoise.data import MNIST, CelebA, NYUv2, QM9Molecules, read_idx
from equipoise.data.celeba import ATTRIBUTES, Listed
from equipoise.data.images import decode
from equipoise.errors import DataSetError
from equipoise.reading import Unreadable, read_npy, read_npz, read_tensors, read_text
from equipoise_papers.samples import write_celeba_sample, write_mnist_sample, write_nyuv2_sample, write_qm9_sample

RAN = []


def _run() -> None:
    RAN.append(1)


class Bait:
    def __reduce__(self):
        return _run, ()


def refused(call, match: str | None = None) -> None:
    """In one line and within 64 MB."""
    tracemalloc.start()
    with pytest.raises((DataSetError, Unreadable), match=match) as raised:
        call()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "\n" not in str(raised.value)
    assert most < 64 << 20
    assert not RAN


def npy(header: str, body: bytes = b"") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


HEADERS = {
    "a quadrillion": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000,), }", b"\0" * 80),
    "a product that wraps": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 4294967296), }"),
    "negative": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 5), }", b"\0" * 40),
    "more than 64": npy(f"{{'descr': '<f8', 'fortran_order': False, 'shape': {(1,) * 70}, }}", b"\0" * 8),
    "too short": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (10,), }", b"\0" * 72),
    "too long": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (10,), }", b"\0" * 88),
    "objects": npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"\0" * 8),
    "nothing each": npy("{'descr': '|V0', 'fortran_order': False, 'shape': (1000000000000000,), }"),
    "text": npy("{'descr': '<U1', 'fortran_order': False, 'shape': (2,), }", b"\0" * 8),
    "no header": npy("[" * 9000),
    "no array": b"hello",
    "empty": b"",
}


@pytest.mark.parametrize("kind", HEADERS)
def test_headers_of_arrays(kind: str, tmp_path) -> None:
    root = write_nyuv2_sample(tmp_path / "nyu", images=2)
    for folder in ("image", "label", "depth"):
        file = root / "train" / folder / "1.npy"
        before = file.read_bytes()
        file.write_bytes(HEADERS[kind])
        refused(lambda: NYUv2(root)[1], r"1\.npy")
        refused(lambda path=file: read_npy(path))
        file.write_bytes(before)


def idx(*shape: int, body: bytes = b"") -> bytes:
    return bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape) + body


def bomb() -> bytes:
    """Half a gigabyte of nothing."""
    packer = zlib.compressobj(9, wbits=31)
    packed = packer.compress(idx(10, 28, 28)) + b"".join(packer.compress(b"\0" * (1 << 24)) for _ in range(32))
    return packed + packer.flush()


@pytest.mark.parametrize(
    "content",
    [
        bomb,  # packed when its turn comes: workers that do not run it collect it, too
        lambda: gzip.compress(b"\0" * (1 << 28)),
        lambda: gzip.compress(idx(4294967295, 4294967295)),
        lambda: gzip.compress(idx(1 << 30)),
        lambda: idx(4294967295, 4294967295, 4294967295),
        lambda: idx(*[1] * 70, body=b"a"),
        lambda: gzip.compress(idx(*[1] * 255, body=b"a")),
        lambda: idx(0, 4294967295, 4294967295, 4294967295),
        lambda: gzip.compress(idx(2, 28, 28, body=b"a" * 1568))[:-20],
    ],
    ids=range(9),
)
def test_packed_bombs_and_dimensions(content, tmp_path) -> None:
    root = write_mnist_sample(tmp_path, packed=False)
    (root / "train-images-idx3-ubyte").write_bytes(content())
    refused(lambda: MNIST(root))
    refused(lambda: read_idx(root / "train-images-idx3-ubyte"))


def test_digits_of_another_size(tmp_path) -> None:
    root = write_mnist_sample(tmp_path, packed=False)
    (root / "train-images-idx3-ubyte").write_bytes(idx(60, 14, 56, body=b"a" * 60 * 784))
    refused(lambda: MNIST(root), "28×28")


@pytest.mark.parametrize("where", ["processed", "processed alone", "raw", "pre_transform"])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_folder_of_qm9_runs_nothing(where: str, legacy: bool, tmp_path) -> None:
    pytest.importorskip("torch_geometric")
    root = write_qm9_sample(tmp_path)
    save = lambda value, path: torch.save(value, path, _use_new_zipfile_serialization=not legacy)  # noqa: E731
    if where == "raw":
        save([Bait()], root / "raw/qm9_v3.pt")
    else:
        (root / "processed").mkdir()
        save(Bait(), root / ("processed/pre_transform.pt" if where == "pre_transform" else "processed/data_v3.pt"))
    if where == "processed alone":
        shutil.rmtree(root / "raw")
    if where == "pre_transform":
        assert len(QM9Molecules(root, held_out=10)) == 40
        assert not RAN
    else:
        refused(lambda: QM9Molecules(root, held_out=10), "cannot be read as QM9")


def _change(name: str, change):
    def spoil(root):
        found = torch.load(root / "raw/qm9_v3.pt")
        found[3][name] = change(found[3][name].clone())
        torch.save(found, root / "raw/qm9_v3.pt")

    return spoil


def _put(value: float):
    def change(tensor):
        tensor.view(-1)[0] = value
        return tensor

    return change


@pytest.mark.parametrize(
    "spoil",
    [
        _change("y", _put(float("nan"))),
        _change("pos", _put(float("inf"))),
        _change("edge_index", _put(99)),
        _change("edge_index", _put(-1)),
        _change("edge_index", lambda bonds: bonds[:, 1:]),
        _change("z", lambda z: z[1:]),
        _change("y", lambda y: y[:, :12]),
        _change("x", lambda x: x[:, :5]),
    ],
)
def test_a_wrong_raw_file_is_not_kept(spoil, tmp_path) -> None:
    pytest.importorskip("torch_geometric")
    root = write_qm9_sample(tmp_path)
    good = (root / "raw/qm9_v3.pt").read_bytes()
    spoil(root)
    refused(lambda: QM9Molecules(root, held_out=10), "cannot be read as QM9")
    assert not (root / "processed").exists()
    (root / "raw/qm9_v3.pt").write_bytes(good)
    assert len(QM9Molecules(root, held_out=10)) == 40


def test_a_raw_file_that_changes_is_read_anew(tmp_path) -> None:
    pytest.importorskip("torch_geometric")
    root = write_qm9_sample(tmp_path / "a", seed=1)
    wrong = QM9Molecules(root, held_out=10, scale=False).labels
    shutil.copyfile(write_qm9_sample(tmp_path / "b", seed=2) / "raw/qm9_v3.pt", root / "raw/qm9_v3.pt")
    os.utime(root / "raw/qm9_v3.pt", (1e9, 1e9))  # as unpacking an old archive leaves it
    right = QM9Molecules(root, held_out=10, scale=False).labels
    assert torch.equal(right, QM9Molecules(tmp_path / "b", held_out=10, scale=False).labels)
    assert not torch.equal(right, wrong)


def test_torch_geometric_reads_what_is_kept(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("torch_geometric.datasets")
    monkeypatch.setitem(sys.modules, "rdkit", None)  # with it, torch_geometric asks for the raw files of the molecules instead
    root = write_qm9_sample(tmp_path)
    ours = QM9Molecules(root, held_out=10, scale=False)
    theirs = datasets.QM9(str(root))
    assert torch.equal(theirs[int(ours.rows[4])].z, ours[4]["graph"].z)


def test_tensors_that_claim_more_than_is_stored(tmp_path) -> None:
    torch.save(torch.ones(1).expand(10**12, 19), tmp_path / "strides.pt")
    refused(lambda: read_tensors(tmp_path / "strides.pt"), "claims")
    with zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * (1 << 26))
    refused(lambda: read_tensors(tmp_path / "packed.pt"), "packed")
    refused(lambda: read_npz(tmp_path / "packed.pt"), "packed")


def test_pipes_and_devices_do_not_hang(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path, tmp_path / "none"):
        for read in (read_npy, read_npz, read_tensors, read_text, read_idx, lambda path: decode(path, (2, 2))):
            refused(lambda read=read, path=path: read(path))


def test_numbers_with_zeros_before_them(tmp_path) -> None:
    root = write_nyuv2_sample(tmp_path, images=3)
    expected = NYUv2(root)[2]["image"]
    for folder in (root / "train").iterdir():
        for path in list(folder.iterdir()):
            path.rename(path.with_stem(path.stem.zfill(4)))
    assert len(NYUv2(root)) == 3
    assert torch.equal(NYUv2(root)[2]["image"], expected)
    shutil.copy(root / "train/image/0001.npy", root / "train/image/1.npy")
    refused(lambda: NYUv2(root), r"1\.npy has the number of")


@pytest.mark.parametrize(
    ("folder", "change", "match"),
    [
        ("label", lambda a: a + 0.5, "no whole numbers"),
        ("label", lambda a: np.where(a == a.max(), np.nan, a), "no whole numbers"),
        ("label", lambda a: np.full(a.shape, 2**64 - 1, np.uint64), "no whole numbers"),
        ("label", lambda a: a[:0], "no pixels"),
        ("image", lambda a: (a * 255).astype(np.int64), "int64"),
        ("image", lambda a: (a * 255).astype(np.uint16), "uint16"),
        ("depth", lambda a: np.where(a == a.max(), np.nan, a), "not finite"),
        ("depth", lambda a: np.full(a.shape, 1e200), "not finite"),
    ],
)
def test_conversions_that_would_lose_something(folder: str, change, match: str, tmp_path) -> None:
    root = write_nyuv2_sample(tmp_path, images=1)
    file = root / "train" / folder / "0.npy"
    np.save(file, change(np.load(file).astype(np.float64)))
    refused(lambda: NYUv2(root)[0], match)


def test_lists_of_faces_that_do_not_fit(tmp_path) -> None:
    root = write_celeba_sample(tmp_path, images=8)
    attributes, partition = root / "list_attr_celeba.txt", root / "list_eval_partition.txt"
    lines, parts = attributes.read_text(), partition.read_text()
    attributes.write_text("\n".join(lines.splitlines()[:-2]))
    refused(lambda: CelebA(root), "8 images are announced")
    attributes.write_text("\n".join(lines.splitlines()[1:-2]))
    refused(lambda: Listed.read(root), "lacks")
    attributes.write_text(lines)
    partition.write_text(parts.rstrip() + "\n" + parts.splitlines()[0].split()[0] + " 2\n")
    refused(lambda: CelebA(root), "there twice")
    partition.write_bytes(b"\xff\xfe")
    refused(lambda: CelebA(root), "cannot be read")
    assert len(ATTRIBUTES) == 40


def test_images_whose_values_are_no_bytes_or_that_are_programs(tmp_path) -> None:
    image = pytest.importorskip("PIL.Image")
    image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "deep.png")
    refused(lambda: decode(tmp_path / "deep.png", (2, 2)), "mode")
    content = io.BytesIO()
    image.new("RGB", (4, 4)).save(content, "EPS")
    (tmp_path / "program.jpg").write_bytes(content.getvalue())
    refused(lambda: decode(tmp_path / "program.jpg", (2, 2)), "cannot be read")


@pytest.mark.parametrize("legacy", [False, True])
def test_weights_run_nothing_and_do_not_hang(legacy: bool, tmp_path) -> None:
    from equipoise.errors import InputError
    from equipoise.nets import load_weights

    torch.save({"weight": Bait()}, tmp_path / "weights.pt", _use_new_zipfile_serialization=not legacy)
    os.mkfifo(tmp_path / "pipe")
    for name in ("weights.pt", "pipe", "none"):
        with pytest.raises(InputError) as raised:
            load_weights(torch.nn.Linear(1, 1), tmp_path / name)
        assert "\n" not in str(raised.value)
        assert not RAN
