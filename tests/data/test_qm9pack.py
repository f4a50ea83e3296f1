"""QM9 as qm9pack has it: units against the literature and torch_geometric, the cache, bonds; 51 of its molecules lie beside."""

from __future__ import annotations

import csv
import importlib.util
import multiprocessing
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from equipoise.data import QM9Molecules
from equipoise.data.qm9 import TARGETS, packed, stored
from equipoise.data.qm9.packed import package_folder, read_packed
from equipoise.errors import DataSetError, MissingExtraError

SAMPLE = Path(__file__).parent / "qm9_tables"
KCAL_MOL = 0.04336414  # eV


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "qm9"


@pytest.fixture
def tables(tmp_path):
    tables = tmp_path / "tables"
    tables.mkdir()
    for path in SAMPLE.iterdir():
        shutil.copyfile(path, tables / path.name)  # contents alone: a checkout may be one that nobody may write to
    return tables


def rewritten(folder, change):
    """Changes the cells of the second molecule of the first table, ammonia."""
    path = folder / "qm9_part1.csv"
    with path.open(newline="") as file:
        heads, *rows = csv.reader(file)
    cells = dict(zip(heads, rows[1], strict=True))
    change(cells)
    rows[1] = list(cells.values())
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([list(cells), *rows])


def test_known_molecules_in_the_units_of_the_literature():
    """Methane, ammonia and water; energies of atomisation in kcal/mol from the table that MoleculeNet distributes."""
    read = read_packed(SAMPLE)
    assert read.number[:3].tolist() == [1, 2, 3]
    known = [  # mu, alpha; homo, lumo and zpve in hartree; r2, Cv; U0, U, H, G of atomisation in kcal/mol
        (
            (0.0, 13.21),
            (-0.3877, 0.1171, 0.044749),
            (35.3641, 6.469),
            "-395.999594594 -398.643290011 -401.014646522 -372.471772148",
        ),
        (
            (1.6256, 9.46),
            (-0.257, 0.0829, 0.034358),
            (26.1563, 6.316),
            "-276.861363363 -278.620270977 -280.399259105 -259.338802047",
        ),
        (
            (1.8511, 6.31),
            (-0.2928, 0.0687, 0.021375),
            (19.0002, 6.002),
            "-213.087623973 -213.974294189 -215.159658403 -201.407170885",
        ),
    ]
    for row, (electric, energies, others, atomised) in zip(read.targets, known, strict=False):
        named = dict(zip([target.name for target in TARGETS], row[[target.column for target in TARGETS]], strict=True))
        expected = dict(zip(("mu", "alpha", "r2", "Cv"), electric + others, strict=True))
        expected |= {name: own * 27.211386246 for name, own in zip(("homo", "lumo", "zpve"), energies, strict=True)}
        expected |= {name: float(own) * KCAL_MOL for name, own in zip(("U0", "U", "H", "G"), atomised.split(), strict=True)}
        assert named == pytest.approx(expected, rel=1e-6)
        assert row[4] == pytest.approx(float(row[3]) - float(row[2]), abs=3e-3)  # the gap
    # Total energies: torch_geometric's methane has U0 = -1101.4878 eV.
    assert read.targets[0, 7] == pytest.approx(-1101.4878, abs=1e-3)
    assert read.targets[2, 16:].tolist() == pytest.approx([799.58812, 437.90386, 282.94545])
    # Water: 0.96 Å and 104° in B3LYP.
    start, end = read.first_atom[2:4]
    oxygen, first, second = read.pos[start:end][np.argsort(-read.z[start:end].astype(int), kind="stable")]
    a, b = first - oxygen, second - oxygen
    assert np.linalg.norm(a) == pytest.approx(0.962, abs=0.002)
    assert np.degrees(np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))) == pytest.approx(103.7, abs=0.5)


def test_units_are_torch_geometrics():
    """Its own factors and energies of free atoms, on rows of the table."""
    theirs = pytest.importorskip("torch_geometric.datasets.qm9")
    read = read_packed(SAMPLE)
    names = ["Dipole_debye", "Polarizability_bohr3", "HOMO_au", "LUMO_au", "HOMO_LUMO_gap_au", "R2_bohr2", "ZPVE_au"]
    names += ["InternalEnergy_0K_au", "InternalEnergy_298K_au", "Enthalphy_298K_au", "GibbsFreeEnergy_298K_au"]
    with (SAMPLE / "qm9_part2.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    ours = torch.from_numpy(read.targets[-len(rows) :])
    tables = torch.tensor([[float(row[name]) for name in names] for row in rows], dtype=torch.float64)
    torch.testing.assert_close(ours[:, :11].double(), tables * theirs.conversion[:11].double(), rtol=1e-6, atol=1e-6)
    for place, row in enumerate(read.targets):
        z = read.z[read.first_atom[place] : read.first_atom[place + 1]]
        for column in range(7, 11):
            free = sum(theirs.atomrefs[column][(1, 6, 7, 8, 9).index(number)] for number in z.tolist())
            # Not closer, because single precision has a total energy of thousands of eV to no more.
            assert row[column + 5] == pytest.approx(row[column] - free, abs=3e-3)


def test_the_second_reading_is_of_the_cache(tables, cache, monkeypatch):
    first = read_packed(tables)
    (kept,) = cache.glob("*.npz")
    with np.load(kept, allow_pickle=False) as arrays:
        assert {name: array.dtype.kind for name, array in arrays.items()}["targets"] == "f"
    with monkeypatch.context() as patch:
        patch.setattr(packed, "_read", lambda folder: pytest.fail("read again"))
        for one, two in zip(first, read_packed(tables), strict=True):
            assert one.dtype == two.dtype
            assert np.array_equal(one, two)
    kept.write_bytes(kept.read_bytes()[:5000])  # a machine that died: read again, and whole again
    assert np.array_equal(read_packed(tables).targets, first.targets)
    assert len(np.load(kept, allow_pickle=False)["number"]) == 51
    rewritten(tables, lambda cells: cells.update(Dipole_debye="9.5"))
    assert read_packed(tables).targets[1, 0] == 9.5


def _read_and_say(tables, made):
    original = packed._read

    def read(folder):
        with open(made, "a") as file:
            file.write("made\n")
        return original(folder)

    packed._read = read
    assert len(read_packed(Path(tables)).number) == 51


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_of_two_processes_one_reads_the_tables(tables, tmp_path):
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=_read_and_say, args=(str(tables), str(tmp_path / "made"))) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert (tmp_path / "made").read_text() == "made\n"


def test_without_a_cache_it_is_read_each_time(tables, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path / "file"))
    assert len(read_packed(tables).number) == 51


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda cells: cells.pop("ZPVE_au"), r"qm9_part1.csv cannot be read .*lacks the column ZPVE_au"),
        (lambda cells: cells.update(N_atoms="5"), r"molecule 2 of .* 5 atoms, 4 elements and 12 coordinates"),
        (
            lambda cells: cells.update(Elements="['N','H','H','Xx']"),
            r'molecule 2 of .*it has an atom "Xx"; those of QM9 are H, C, N, O, F',
        ),
        (lambda cells: cells.update(XYZ_Ang="[[1.0,here,2.0]]"), "molecule 2 of .* cannot be read"),
        (lambda cells: cells.update(Dipole_debye="nan"), "no finite numbers"),
        (lambda cells: cells.update(Index="9"), "not in ascending order"),
    ],
)
def test_broken_tables_are_refused_in_one_line(tables, cache, change, message):
    rewritten(tables, change)
    with pytest.raises(DataSetError, match=message) as raised:
        read_packed(tables)
    assert "\n" not in str(raised.value)
    assert "pip install" in str(raised.value)
    assert not list(cache.glob("*.npz"))


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(packed, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'"qm9pack".*pip install "equipoise\[qm9\]"'):
        package_folder()
    with pytest.raises(DataSetError, match=r"no tables qm9_part1\.csv"):
        read_packed(Path(__file__).parent)


# -- bonds

needs_rdkit = pytest.mark.skipif(importlib.util.find_spec("rdkit") is None, reason="needs rdkit")


def _molecule(name):
    """SMILES, atomic numbers and places of a molecule of the sample, by its number in QM9."""
    read = read_packed(SAMPLE)
    place = int(np.flatnonzero(read.number == name)[0])
    texts = [row[0] for row in packed.rows_of(SAMPLE, ["SMILES"])]
    start, end = read.first_atom[place : place + 2]
    return texts[place], read.z[start:end], read.pos[start:end]


@needs_rdkit
def test_bonds_are_those_of_the_smiles_at_their_places():
    from equipoise.data.qm9.bonds import IN_ORDER, NO_BONDS, OF_PLACES, bonds_of, read_bonds

    read = read_packed(SAMPLE)
    found = read_bonds(SAMPLE, read)
    # Diacetylene and cyanoacetylene come with their atoms in another order; 133857 has not the bonds of its SMILES.
    assert read.number[found.source == OF_PLACES].tolist() == [23, 24, 133857]
    assert not (found.source == NO_BONDS).any()
    # An independent count: every atom has the valence of its element, but for the charges of a zwitterion.
    value = np.array([2, 4, 6, 3])  # halves of a bond
    for place, number in enumerate(read.number):
        own = slice(*found.first_bond[place : place + 2])
        z = read.z[read.first_atom[place] : read.first_atom[place + 1]]
        valence = np.bincount(found.bonds[0, own], weights=value[found.kinds[own]], minlength=len(z)) / 2
        usual = np.array([0, 1, 0, 0, 0, 0, 4, 3, 2, 1])[z]
        assert sorted(valence - usual) == ([-1] + [0] * 8 + [1] if number == 282 else [0] * len(z))
    text, z, pos = _molecule(214)  # benzene
    kinds, flags, source = bonds_of(text, z, pos)
    assert (kinds == 4).sum() == 12
    assert flags[z == 6].tolist() == [[1, 0, 1, 0]] * 6
    assert source == IN_ORDER


@needs_rdkit
def test_the_order_of_atoms_is_checked():
    from equipoise.data.qm9.bonds import IN_ORDER, NO_BONDS, OF_PLACES, bonds_of

    text, z, pos = _molecule(20)  # urea: every atom has neighbours of its own
    kinds, flags, source = bonds_of(text, z, pos)
    assert source == IN_ORDER
    order = np.array([7, 3, 1, 5, 0, 2, 6, 4])
    shuffled, others, source = bonds_of(text, z[order], pos[order])
    assert source == OF_PLACES
    assert np.array_equal(shuffled, kinds[np.ix_(order, order)])
    assert np.array_equal(others, flags[order])
    pos = pos.copy()
    pos[0] += 3  # an atom that nothing can be bound to
    kinds, flags, source = bonds_of(text, z, pos)
    assert source == NO_BONDS
    assert not kinds.any()
    assert not flags.any()
    _, z, pos = _molecule(3)
    for text in ("O.O", "O"):  # two molecules of water are no molecule, and have no SMILES of one
        assert bonds_of(text, np.tile(z, 2), np.concatenate([pos, pos + 9]))[2] == NO_BONDS


@needs_rdkit
def test_molecules_for_the_published_network(tables, recwarn):
    pytest.importorskip("torch_geometric")
    train = QM9Molecules(tables, "train", held_out=10)
    assert len(train) == 31
    molecules = train.molecules
    water = molecules.graph([2])
    # Elements one-hot (H C N O F), number, aromatic, sp, sp2, sp3, hydrogens bound.
    assert water.x[water.z == 8].tolist() == [[0, 0, 0, 1, 0, 8, 0, 0, 0, 1, 2]]
    assert water.x[water.z == 1].tolist() == [[1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]] * 2
    methanal = molecules.graph([5])
    carbon, oxygen = (int((methanal.z == number).nonzero()) for number in (6, 8))
    kinds = {tuple(pair): row for pair, row in zip(methanal.edge_index.T.tolist(), methanal.edge_attr.tolist(), strict=True)}
    assert kinds[carbon, oxygen] == pytest.approx([0, 1, 0, 0, 1.2], abs=0.01)  # a double bond of 1.20 Å
    assert sum(row[0] for row in kinds.values()) == 4  # two single bonds, in both directions
    assert train.batch([0, 1, 2], 0)["graph"].edge_attr.shape[1] == 5
    assert not [one for one in recwarn if "no bonds fit" in str(one.message)]


@needs_rdkit
def test_molecules_without_bonds_are_kept_and_named(tables):
    pytest.importorskip("torch_geometric")
    rewritten(tables, lambda cells: cells.update(XYZ_Ang="[[0,0,0],[9,0,0],[0,9,0],[0,0,9]]"))
    with pytest.warns(UserWarning, match="no bonds fit 1 of 51 molecules; these have none: 2$"):
        molecules = stored.read_molecules(tables)
    assert len(molecules) == 51
    assert molecules.graph([1]).edge_attr[:, :4].sum() == 0
