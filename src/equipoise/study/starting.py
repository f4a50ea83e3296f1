"""A problem to start from: a commented file made to fit a table, a folder of images or two tensors."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

from equipoise.errors import InputError, near_misses
from equipoise.reading import Unreadable, read_tensors, read_text, shielded
from equipoise.store import write_whole
from equipoise.terminal import printable

__all__ = ["start_problem"]

_MOST_CLASSES = 20
"""A column of more different whole numbers is a number to predict."""

_TABLE = '''\
def read():
    """Inputs [N, columns] and targets by task, from the table."""
    with open(SOURCE, encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    inputs = torch.tensor([[float(row[column]) for column in COLUMNS] for row in rows])
    return inputs, targets_of(rows)'''

_IMAGES = '''\
def read():
    """Inputs [N, 3, SIZE, SIZE] and targets by task, from the images that the table names in its first column."""
    with open(f"{SOURCE}/labels.csv", encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    images = []
    for row in rows:
        with Image.open(f"{SOURCE}/{row[FILE]}") as image:
            pixels = torch.frombuffer(bytearray(image.convert("RGB").resize((SIZE, SIZE)).tobytes()), dtype=torch.uint8)
        images.append(pixels.view(SIZE, SIZE, 3).permute(2, 0, 1) / 255)
    return torch.stack(images), targets_of(rows)'''

_TARGETS = '''\
def targets_of(rows):
    """Numbers, or the places of classes in their list."""

    def number(task, value):
        return TASKS[task].index(value) if TASKS[task] else float(value)

    return {task: torch.tensor([number(task, row[task]) for row in rows]) for task in TASKS}'''

_TENSORS = '''\
def read():
    """Inputs [N, …] and targets by task, the columns of the second tensor."""
    inputs, targets = torch.load(SOURCE, weights_only=True)
    columns = dict(zip(TASKS, targets.reshape(len(targets), -1).T))
    return inputs.float().clone(), {task: own.long() if TASKS[task] else own.float() for task, own in columns.items()}'''

_MADE_UP = '''\
def read():
    """Inputs [N, columns] and targets by task. CHANGE THIS: these are made up."""
    inputs = torch.randn(600, 6, generator=torch.Generator().manual_seed(0))
    return inputs, {"price": 10 * inputs[:, 0] + inputs[:, 2], "sold": (inputs[:, 1] > inputs[:, 0]).long()}'''

_LINEAR = """\
        layers = nn.Linear(shape.numel(), WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU()
        self.encoder = nn.Sequential(nn.Flatten(), *layers)"""
_CONVOLUTIONS = """\
        self.encoder = nn.Sequential(
            *(nn.Conv2d(shape[0], 32, 3, stride=2, padding=1), nn.ReLU()),
            *(nn.Conv2d(32, WIDTH, 3, stride=2, padding=1), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        )"""


def start_problem(file: str | Path, source: str | Path | None = None, targets: Sequence[str] = ()) -> Path:
    """Writes a problem that can be studied at once, and then changed.

    Args:
        file: where to; nothing is there yet.
        source: a CSV table with a head; a folder with images and a table ``labels.csv``, whose first column names them; or a
            file of ``torch.save((inputs, targets))``, tensors ``[N, …]`` and ``[N]`` or ``[N, K]``, whole numbers for classes.
            Left out, the data are made up.
        targets: the columns to predict, one per task; of tensors the names of the columns. All but the first column of
            ``labels.csv`` if left out.

    Returns:
        The file.

    Raises:
        InputError: the file is there already, or the source is none of these or does not fit the targets.
        StorageError: the file cannot be written.
    """
    path = Path(file)
    if path.suffix != ".py":
        raise InputError(f'"{path}" must be the name of a Python file, such as my_problem.py')
    if path.exists():
        raise InputError(f'there is a file "{path}" already; give another name')
    where = None if source is None else Path(source)
    constants: dict[str, Any] = {} if where is None else {"SOURCE": str(where.resolve())}
    imports, encoder = ["import torch"], _LINEAR
    if where is None:
        if targets:
            raise InputError("targets were given without a source to take them from; give --from")
        title, read, tasks = "A made-up problem of two tasks.", _MADE_UP, {"price": None, "sold": ["no", "yes"]}
    elif where.is_dir():
        rows = _rows(where / "labels.csv")
        named, *others = rows[0]
        tasks = {task: _classes(task, rows) for task in _chosen(targets or others, others)}
        missing = next((row[named] for row in rows if not (where / row[named]).is_file()), None)
        if missing is not None:
            raise InputError(f'"{where / "labels.csv"}" names "{missing}", which is not in the folder')
        title, read, encoder = f"Images of {where.name}.", f"{_TARGETS}\n\n\n{_IMAGES}", _CONVOLUTIONS
        constants |= {"FILE": named, "SIZE": 64}
        imports = ["import csv\n\nimport torch\nfrom PIL import Image"]
    elif where.suffix.lower() == ".csv":
        rows = _rows(where)
        if not targets:
            raise InputError(f"say which columns are to be predicted, --targets a,b; there are {', '.join(rows[0])}")
        tasks = {task: _classes(task, rows) for task in _chosen(targets, list(rows[0]))}
        columns = [name for name in rows[0] if name not in tasks and all(_number(row[name]) is not None for row in rows)]
        if not columns:
            raise InputError(f'"{where}" has no column of numbers beside the targets, so there are no inputs')
        left = [name for name in rows[0] if name not in tasks and name not in columns]
        title = f"The table {where.name}." + (f" Left out, for they are no numbers: {', '.join(left)}." if left else "")
        read = f"{_TARGETS}\n\n\n{_TABLE}"
        constants |= {"COLUMNS": columns}
        imports = ["import csv\n\nimport torch"]
    elif where.suffix.lower() in (".pt", ".pth"):
        tasks = _tensors(where, targets)
        title, read = f"The tensors of {where.name}.", _TENSORS
    else:
        raise InputError(f'"{where}" must be a CSV table, a folder of images with labels.csv, or two tensors in a .pt file')
    said = "".join(f"{name} = {value!r}\n" for name, value in constants.items())
    template = Template((Path(__file__).parent / "templates" / "problem.py.txt").read_text(encoding="utf-8"))
    # Names come from a stranger's table, and go into a file that will be run: into its docstring without quotes and escapes.
    title, shown = (printable(text).replace("\\", "/").replace('"', "'") for text in (title, path.name))
    filled = {"title": title, "file": shown, "imports": "\n".join(imports), "name": repr(path.stem), "encoder": encoder}
    text = template.substitute(filled, tasks=f"{tasks!r}\n{said}".rstrip("\n"), read=read)
    write_whole(path, text)
    return path


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise InputError(f'there is no table "{path}"')
    try:
        with shielded():
            rows = list(csv.DictReader(io.StringIO(read_text(path))))
    except Unreadable as error:
        raise InputError(f'"{path}" cannot be read as a CSV table: {error}') from error
    if not rows or any(None in row or None in row.values() for row in rows):
        raise InputError(f'"{path}" must have a line of names and then lines with one cell for each of them')
    return rows


def _chosen(targets: Sequence[str], columns: Sequence[str]) -> list[str]:
    for name in targets:
        if name not in columns:
            raise InputError(f'there is no column "{name}".{near_misses(name, columns)} There are {", ".join(columns)}')
        if name == "inputs":
            raise InputError('a column to predict cannot be called "inputs", which is what a batch calls its inputs; rename it')
    if not targets:
        raise InputError("there is no column to predict")
    return list(targets)


def _classes(task: str, rows: Sequence[dict[str, str]]) -> list[str] | None:
    """The classes of a column, or ``None`` for numbers."""
    values = [row[task] for row in rows]
    if any(not value.strip() for value in values):
        raise InputError(f'the column "{task}" has empty cells, so it cannot be predicted everywhere; fill or drop those rows')
    numbers = [_number(value) for value in values]
    different = set(values)
    whole = all(number is not None and number == int(number) for number in numbers)
    if None not in numbers and not (whole and len(different) <= _MOST_CLASSES):
        return None
    if len(different) < 2 or len(different) > len(values) // 2:
        raise InputError(f'the column "{task}" has {len(different)} different texts in {len(values)} rows: no classes to learn')
    return sorted(different, key=lambda value: (_number(value) or 0.0, value))


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _tensors(path: Path, names: Sequence[str]) -> dict[str, list[str] | None]:
    if not path.is_file():
        raise InputError(f'there is no file "{path}"')
    try:
        with shielded():
            inputs, targets = read_tensors(path)
            fits = len(inputs) == len(targets) and inputs.dim() > 1 and targets.dim() in (1, 2)
    except Unreadable as error:
        raise InputError(f'"{path}" must hold two tensors, torch.save((inputs, targets)): {error}') from error
    if not fits:
        raise InputError(f'"{path}" must hold inputs [N, …] and targets [N] or [N, K] of the same N')
    columns = targets.reshape(len(targets), -1).T
    if names and len(names) != len(columns):
        raise InputError(f"{len(names)} names were given for {len(columns)} columns of targets")
    whole = not targets.is_floating_point()
    if whole and int(targets.min()) < 0:
        raise InputError("targets of whole numbers are classes, counted from 0; there is one below")
    own = names or [f"task{place}" for place in range(len(columns))]
    counts = [[str(label) for label in range(int(column.max()) + 1)] if whole else None for column in columns]
    return dict(zip(own, counts, strict=True))
