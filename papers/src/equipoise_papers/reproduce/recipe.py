"""What a recipe is: a published table, and everything that is needed to make its rows again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from rich.console import Console

from equipoise.cluster import Ray
from equipoise.errors import InputError, near_misses
from equipoise_papers.reproduce.cost import Workload, hours

__all__ = ["Asked", "FoundRows", "Part", "Recipe", "RecipeRow", "Setting"]

FoundRows: TypeAlias = Mapping[str, Mapping[str, Sequence[float]]]
"""Published row → column → our values, one per seed."""


@dataclass(frozen=True)
class Setting:
    """What differs from machine to machine, not from paper to paper.

    Attributes:
        data: the data set's folder, or the name of a package that has it; ``None`` where nothing is to be read yet.
        device: where models live, such as ``"cuda"``.
        workers: processes per loader that read ahead.
        cache: folder of decoded images and features; ``None`` to keep none.
        weights: file of ImageNet weights, where the network starts from such; ``None`` to start from random numbers.
        smoke: a narrow network and small batches, to see whether everything runs.
        extra: further things that only some recipes need, such as ``clip``.
    """

    data: Path | None = None
    device: str = "cpu"
    workers: int = 0
    cache: Path | None = None
    weights: Path | None = None
    smoke: bool = False
    extra: Mapping[str, str] = field(default_factory=dict)

    def within(self, subfolder: str) -> Setting:
        """The same, with a folder inside of the data set's."""
        if not subfolder or self.data is None:
            return self
        return replace(self, data=self.data / subfolder)

    def folder(self) -> Path:
        """The data set's folder.

        Raises:
            InputError: it was not given.
        """
        if self.data is None:
            raise InputError("this needs a data set; give its folder with --data")
        return self.data


@dataclass(frozen=True)
class Asked:
    """What of a recipe is to be run.

    Attributes:
        setting: the machine.
        seeds: the seeds.
        epochs: passes over the data; ``None`` for as many as the paper's.
        jobs: runs at a time; ``None`` for as many as there is room for.
        baselines: whether every task is trained alone as well; ``None`` where the paper's authors did so.
        rows: published rows that are wanted; ``None`` for all.
        console: where progress is shown.
        start: how processes are started, as in a study: ``"auto"``, or a Ray cluster.
    """

    setting: Setting
    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int | None = None
    jobs: int | None = 1
    baselines: bool | None = None
    rows: tuple[str, ...] | None = None
    console: Console | None = None
    start: str | Ray = "auto"


@dataclass(frozen=True)
class RecipeRow:
    """A row of a published table and how it is made.

    Attributes:
        name: as in the table.
        method: as in a study, such as ``"cagrad:c=0.4"``.
        missing: why it cannot be made; empty if it can.
        of: the published row that this is another version of, made only if it is named; empty for a published row.
    """

    name: str
    method: str = ""
    missing: str = ""
    of: str = ""


class Part(ABC):
    """Rows of a table that are trained in the same way: one network, one set of hyper-parameters.

    Attributes:
        name: of its folder.
        table: key of the published table.
        rows: what is made.
        workload: how much there is to compute.
        network: in words.
        hyperparameters: name → value, in words, as the paper has them.
        open_choices: what the paper leaves open or where this departs from it, one sentence each.
        baselines: whether the paper trained the single-task row itself, in the same way.
        pretrained: whether the encoder starts from ImageNet weights.
        subfolder: of ``--data`` that holds this part's data set, where a recipe needs several; empty for none.
        package: the name of a package that has the data set, which can stand in the place of a folder; empty for none.
    """

    name: str
    table: str
    rows: tuple[RecipeRow, ...]
    workload: Workload
    network: str
    hyperparameters: Mapping[str, str]
    open_choices: tuple[str, ...]
    baselines: bool
    pretrained: bool = False
    subfolder: str
    package: str = ""

    def hours(self, row: RecipeRow, epochs: int | None = None) -> float:
        """Estimated hours of one run of a row on one modern GPU."""
        return hours(self.workload, None, epochs)

    def obstacle(self, row: RecipeRow) -> str:
        """Why a row cannot be made, in words; empty if it can."""
        return row.missing

    def made(self, rows: Sequence[str] | None = None) -> tuple[RecipeRow, ...]:
        """The published rows that can be made; or, of all that can, those that are named."""
        return tuple(row for row in self.possible() if (not row.of if rows is None else row.name in rows))

    def possible(self) -> tuple[RecipeRow, ...]:
        """Everything that can be made, further versions of published rows included."""
        return tuple(row for row in self.rows if not self.obstacle(row))

    @abstractmethod
    def execute(self, asked: Asked, folder: Path) -> None:
        """Trains what the folder lacks."""

    @abstractmethod
    def collect(self, folder: Path) -> FoundRows:
        """What the folder holds; nothing if there is none."""

    def departures(self, folder: Path) -> tuple[str, ...]:
        """How the runs in the folder differ from the paper's, one sentence each."""
        return ()

    @abstractmethod
    def smoke(self, sample: Path, rows: Sequence[str] | None = None, steps: int = 2) -> FoundRows:
        """A few steps of each row, or of those named, on a sample, with a narrow network, in this process."""

    @abstractmethod
    def write_sample(self, folder: Path) -> Path:
        """Writes a tiny data set of random content in the real layout and returns its folder."""


@dataclass(frozen=True)
class Recipe:
    """How a published table is made again.

    Attributes:
        name: on the command line, such as ``"cost-table1"``.
        source: paper and table.
        title: what it is about.
        data: what ``--data`` has to hold, in words.
        parts: the rows, by how they are trained.
        seeds: how many, in the paper.
        missing: what is not there yet, one sentence each; empty if the recipe is whole.
        family: of recipes that share their network and data.
    """

    name: str
    source: str
    title: str
    data: str
    parts: tuple[Part, ...]
    seeds: int = 3
    missing: tuple[str, ...] = ()
    family: str = ""

    def rows(self) -> tuple[RecipeRow, ...]:
        """All rows of all parts."""
        return tuple(row for part in self.parts for row in part.rows)

    def obstacles(self) -> tuple[str, ...]:
        """What is missing, of the recipe and of its rows, one sentence each."""
        of_rows: dict[str, list[str]] = {}
        for part in self.parts:
            for row in part.rows:
                if part.obstacle(row):
                    of_rows.setdefault(part.obstacle(row), []).append(row.name)
        return (*self.missing, *(f"{', '.join(dict.fromkeys(names))}: {why}" for why, names in of_rows.items()))

    def reading(self, data: Path) -> Recipe:
        """The recipe with the parts that can read this: all of them of a folder, of a package those whose data it has.

        Example:
            >>> from equipoise_papers.reproduce.registry import find_recipe
            >>> [part.name for part in find_recipe("cost-table3").reading(Path("qm9pack")).parts]
            ['qm9']
        """
        parts = self.packaged(data)
        return replace(self, parts=tuple(replace(part, subfolder="") for part in parts)) if parts else self  # type: ignore[type-var]

    def packaged(self, data: Path) -> tuple[Part, ...]:
        """The parts whose data is in the package of that name; none where it names a folder."""
        return tuple(part for part in self.parts if part.package and Path(part.package) == data and not data.exists())

    def check(self, rows: Sequence[str]) -> None:
        """Refuses names that are no rows.

        Raises:
            InputError: one of them is none.
        """
        names = list(dict.fromkeys(row.name for row in self.rows()))
        for name in rows:
            if name not in names:
                raise InputError(
                    f'{self.source} has no row "{name}" to make.{near_misses(name, names)} It has: {", ".join(names)}'
                )


def hyper(**values: Any) -> dict[str, str]:
    """Hyper-parameters in words: underscores of the names become spaces."""
    return {name.replace("_", " "): str(value) for name, value in values.items()}
