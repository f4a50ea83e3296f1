"""A part that is a study: a problem, and a method a row."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from equipoise.errors import UnknownMethodError
from equipoise.method import MethodSpec
from equipoise.metrics import delta_m
from equipoise.study.methods import Method, parse_method
from equipoise.study.plan import Run
from equipoise.study.problem import Problem, Splits
from equipoise.study.results import Results
from equipoise.study.study import Study
from equipoise.study.training import train
from equipoise_papers.published import find_table
from equipoise_papers.reproduce.batches import First
from equipoise_papers.reproduce.cost import Workload, hours
from equipoise_papers.reproduce.recipe import Asked, FoundRows, Part, RecipeRow, Setting

__all__ = ["StudyPart"]


@dataclass(frozen=True)
class StudyPart(Part):
    """Trained by :class:`equipoise.study.Study`, which goes on where it was when it is started again.

    Attributes:
        problem: makes the problem on a machine.
        sample: writes a data set of random content in the real layout.
        against: key of the table whose baseline row Δm is taken against; that of ``table`` if empty.
        further: columns of the table beside metrics and summaries, from a study's results and a method's label.
        alone: metric → published value of single-task training, which Δm is taken against where no table prints that row.
    """

    name: str
    table: str
    rows: tuple[RecipeRow, ...]
    workload: Workload
    network: str
    hyperparameters: Mapping[str, str]
    problem: Callable[[Setting], Problem]
    sample: Callable[[Path], Path]
    open_choices: tuple[str, ...] = ()
    baselines: bool = False
    pretrained: bool = False
    subfolder: str = ""
    package: str = ""
    against: str = ""
    further: Callable[[Results, str], Mapping[str, Sequence[float]]] | None = None
    alone: Mapping[str, float] | None = None

    def methods(self, rows: Sequence[RecipeRow]) -> dict[str, Method]:
        """RecipeRow → method, each labelled by what it is, so that a study can be gone on with from the command line."""
        return {row.name: parse_method(row.method) for row in rows}

    def hours(self, row: RecipeRow, epochs: int | None = None) -> float:
        return hours(self.workload, parse_method(row.method), epochs)

    def single_hours(self, epochs: int | None = None) -> float:
        """Estimated hours of training one task alone."""
        return hours(self.workload, None, epochs)

    def obstacle(self, row: RecipeRow) -> str:
        if row.missing:
            return row.missing
        try:
            parse_method(row.method)
        except UnknownMethodError:
            return f'this version has no method "{row.method}" for studies'
        return ""

    def study(self, asked: Asked, folder: Path) -> Study:
        """The study of the rows that were asked for."""
        methods = {method.label: method for method in self.methods(self.made(asked.rows)).values()}
        return Study(
            self.problem(asked.setting.within(self.subfolder)),
            list(methods.values()),
            asked.seeds,
            epochs=asked.epochs,
            folder=folder,
            jobs=asked.jobs,
            gramian_every=0,
            baselines=self.baselines if asked.baselines is None else asked.baselines,
            console=asked.console,
            start=asked.start,
        )

    def execute(self, asked: Asked, folder: Path) -> None:
        """Runs the study and writes its report."""
        study = self.study(asked, folder)
        study.run()
        study.report()

    def collect(self, folder: Path) -> FoundRows:
        """Metrics and summaries of every row, one value per seed; Δ against the table's own baseline row."""
        if not (folder / "study.json").exists():
            return {}
        results = Results(folder)
        table = find_table(self.against or self.table)
        summaries = set(table.summaries) & set(find_table(self.table).summaries)
        found: dict[str, dict[str, list[float]]] = {}
        if results.baseline() and table.baseline:
            columns = {metric.name: list(results.baseline_values(metric).values()) for metric in results.metrics}
            found[table.baseline] = {name: values for name, values in columns.items() if values}
        for row, method in self.methods(self.possible()).items():
            if method.label not in results.methods:
                continue
            own: dict[str, list[float]] = {}
            for record in results.records(method.label).values():
                values = {
                    name: float("nan") if value is None else float(value) for name, value in record["final"]["test"].items()
                }
                summed = {column: table.summed_up(values, column) for column in summaries if column != "MR"}
                if self.alone is not None:
                    summed["delta_m"] = delta_m(values, self.alone, results.metrics)
                for name, value in (*values.items(), *summed.items()):
                    if value is not None:
                        own.setdefault(name, []).append(value)
            if self.further is not None:
                own |= {name: list(values) for name, values in self.further(results, method.label).items()}
            drops = results.delta_m(method.label)
            if drops:
                own["Δm against our baselines"] = list(drops.values())
            found[row] = own
        return found

    def departures(self, folder: Path) -> tuple[str, ...]:
        if not (folder / "study.json").exists():
            return ()
        results = Results(folder)
        options = results.configuration["problem"]["options"]
        said = []
        if results.epochs != self.workload.epochs:
            said.append(f"{self.name}: {results.epochs} epochs instead of {self.workload.epochs}.")
        if options.get("smoke"):
            said.append(f"{self.name}: a narrow network on small batches.")
        if self.pretrained and options.get("weights") == "False":
            said.append(f"{self.name}: without ImageNet weights.")
        return tuple(said)

    def smoke(self, sample: Path, rows: Sequence[str] | None = None, steps: int = 2) -> FoundRows:
        """Trains one epoch of a few steps and evaluates on as few batches, through the study's own loop."""
        setting = Setting(data=sample, smoke=True)
        problem = _shortened(self.problem(setting), steps)
        found = {}
        for row in self.made(rows):
            record = train(problem, Run(0, method=parse_method(_at_once(row.method))), epochs=1, gramian_every=0)
            found[row.name] = {name: [float(value)] for name, value in record["final"]["test"].items()}
        return found

    def write_sample(self, folder: Path) -> Path:
        return self.sample(folder)


def _at_once(method: str) -> MethodSpec:
    """A method whose teleporting starts in the first epoch, or a few steps would never come to it."""
    spec = MethodSpec.parse(method)
    if spec.teleport is None or "start" not in spec.teleport.options:
        return spec
    return replace(spec, teleport=replace(spec.teleport, options={**spec.teleport.options, "start": 0}))


def _shortened(problem: Problem, steps: int) -> Problem:
    def data(seed: int) -> Splits:
        splits = Splits(*problem.data(seed))
        validation = None if splits.validation is None else First(splits.validation, steps)
        # Methods that put a part of the training data aside divide the loader itself; a sample has few batches anyway.
        return Splits(splits.train, validation, First(splits.test, steps))

    changes: dict[str, Any] = {"data": data, "epochs": 1}
    return dataclasses.replace(problem, **changes)
