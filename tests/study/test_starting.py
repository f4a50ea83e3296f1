"""Problems to start from: every file that is written can be studied as it is."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

import equipoise as eq
from equipoise.cli import main
from equipoise.errors import InputError
from equipoise.study import find_problem
from equipoise.study.starting import start_problem

GENERATOR = torch.Generator().manual_seed(0)


def table(path: Path, rows: int = 80) -> Path:
    numbers = torch.randn(rows, 3, generator=GENERATOR).tolist()
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["street", "area", "rooms", "price", "sold", "stars"])
        for place, (area, rooms, noise) in enumerate(numbers):
            sold = "yes" if area > rooms else "no"
            writer.writerow([f"{place} Main Street", area, rooms, 10 * area + noise, sold, place % 3 + 1])
    return path


def images(folder: Path) -> Path:
    image = pytest.importorskip("PIL.Image")
    folder.mkdir()
    lines = ["file,bright,kind"]
    for place in range(20):
        image.new("RGB", (8, 6), (12 * place, 40, 200)).save(folder / f"{place}.png")
        lines.append(f"{place}.png,{place / 7},{'ab'[place % 2]}")
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder


def learns(path: Path, *tasks: str) -> dict[str, float]:
    """One epoch and an evaluation; the losses must fall, and data made twice be the same."""
    problem = find_problem(str(path))
    assert tuple(problem.tasks) == tasks
    torch.manual_seed(0)
    train, validation, test = problem.data(0)
    (model, losses), again = problem.build(0)[:2], problem.data(0)[0]
    first, second = next(iter(train)), next(iter(again))
    assert all(torch.equal(first[name], second[name]) for name in first)
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), torch.optim.Adam(model.parameters(), 1e-2), "ls")
    before = mtl.step(first)
    for _ in range(20):
        after = mtl.step(first)
    assert all(after[task] < before[task] for task in tasks)
    assert validation is not None
    with torch.no_grad():
        found = problem.evaluate(model, test)
    assert set(found) == {metric.name for metric in problem.metrics}
    return dict(found)


def test_from_a_table_through_the_command_line(tmp_path, capsys):
    source, path = table(tmp_path / "houses.csv"), tmp_path / "houses.py"
    arguments = ["init", str(path), "--from", str(source), "--targets", "price,sold,stars"]
    assert main(arguments) == 0
    assert f"equipoise diagnose {path}" in capsys.readouterr().out
    assert set(learns(path, "price", "sold", "stars")) == {"price error", "sold accuracy", "stars accuracy"}
    text = path.read_text()
    assert "Left out, for they are no numbers: street." in text
    assert "{'price': None, 'sold': ['no', 'yes'], 'stars': ['1', '2', '3']}" in text
    assert main(arguments) == 2  # what is there stays
    assert "there is a file" in capsys.readouterr().err
    assert path.read_text() == text


def test_names_of_a_strangers_table_stay_names(tmp_path):
    bad = '"""\nraise SystemExit("run")\n"""'
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([[bad, "keys", "$read", "a.b\\"], *[["x", n % 2, n / 9, n / 7] for n in range(40)]])
    learns(start_problem(tmp_path / "made.py", tmp_path / "t.csv", ["keys", "a.b\\"]), "keys", "a.b\\")


def test_from_nothing_images_and_tensors(tmp_path):
    assert set(learns(start_problem(tmp_path / "a.py"), "price", "sold")) == {"price error", "sold accuracy"}
    learns(start_problem(tmp_path / "b.py", images(tmp_path / "images")), "bright", "kind")
    inputs = torch.randn(60, 2, 3, generator=GENERATOR)
    torch.save((inputs, inputs[:, :, 0]), tmp_path / "numbers.pt")
    learns(start_problem(tmp_path / "c.py", tmp_path / "numbers.pt"), "task0", "task1")
    torch.save((inputs, (inputs[:, :, 0] > 0).long()), tmp_path / "classes.pt")
    assert set(learns(start_problem(tmp_path / "d.py", tmp_path / "classes.pt", ["x", "y"]), "x", "y")) == {
        "x accuracy",
        "y accuracy",
    }


@pytest.mark.parametrize(
    ("source", "targets", "said"),
    [
        ("houses.csv", [], "say which columns are to be predicted.*there are street, area"),
        ("houses.csv", ["prize"], 'no column "prize". Did you mean "price"'),
        ("houses.csv", ["street"], "80 different texts in 80 rows"),
        ("absent.csv", ["a"], "there is no table"),
        ("bad.csv", ["a"], "one cell for each of them"),
        ("latin.csv", ["a"], "cannot be read as a CSV table: 'utf-8' codec"),
        ("empty.csv", ["a"], 'the column "a" has empty cells'),
        ("alone.csv", ["a"], "no column of numbers beside the targets"),
        (".", ["a"], "there is no table"),
        ("bad.pt", [], "must hold two tensors"),
        ("absent.pt", [], "there is no file"),
        ("one.pt", [], "of the same N"),
        ("file.txt", [], "must be a CSV table, a folder"),
        (None, ["a"], "targets were given without a source"),
    ],
)
def test_what_cannot_be_read_is_said_and_nothing_is_written(tmp_path, source, targets, said):
    table(tmp_path / "houses.csv")
    (tmp_path / "bad.csv").write_text("a,b\n1\n")
    (tmp_path / "latin.csv").write_text("a,b\né,1\n", encoding="latin-1")
    (tmp_path / "empty.csv").write_text("a,b\n1,2\n,2\n")
    (tmp_path / "alone.csv").write_text("a,b\n1,x\n2,y\n1,x\n2,y\n")
    (tmp_path / "bad.pt").write_text("no tensors")
    torch.save((torch.ones(3, 2), torch.ones(2)), tmp_path / "one.pt")
    with pytest.raises(InputError, match=said):
        start_problem(tmp_path / "made.py", None if source is None else tmp_path / source, targets)
    assert not (tmp_path / "made.py").exists()
    with pytest.raises(InputError, match="must be the name of a Python file"):
        start_problem(tmp_path / "made.txt")
