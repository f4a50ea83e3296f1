"""A comparison of fronts, in a folder."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console

from equipoise import terminal
from equipoise.errors import EquipoiseError, InputError, require
from equipoise.fronts.outcome import FrontsOutcome
from equipoise.fronts.running import SWEEP, front_run, narrowed, sweep_times
from equipoise.method import MethodSpec
from equipoise.pareto.sets import check_family
from equipoise.pareto.training import preferring_of
from equipoise.progress import duration
from equipoise.store import RunStore
from equipoise.study.plan import key_of, parse_seeds
from equipoise.study.problem import Problem
from equipoise.study.problems import find_problem
from equipoise.study.processes.calls import calls
from equipoise.study.processes.launchers import at_a_time
from equipoise.terminal import printable

__all__ = ["Fronts"]


class Fronts:
    """Compares Pareto sets with a tuned sweep of fixed weights, at equal cost.

    Every method may spend as many passes over the data as ``models`` trainings of one model take. A set takes all of them for
    itself, and ``members`` of it are evaluated. The sweep trains ``models`` models, one after the other: equal weights, the two
    ends, then in the middle of the widest gap on the validation split (for more than two tasks, a lattice of weights). Which
    members count is decided on the validation split, what they are worth on the test split. Losses are divided by those before
    training.

    Killed at any moment, it continues where it stopped; methods and seeds may be added.

    Args:
        problem: a :class:`~equipoise.study.Problem`, or the name of a built-in one, with a validation split.
        methods: families of :class:`~equipoise.pareto.ParetoSet` with options, ``"phn,palora:rank=8"``. The sweep is always
            added; ``sweep:times=5`` is one whose models are trained five times as long, at five times the cost.
        seeds: see :func:`equipoise.study.plan.parse_seeds`.
        tasks: which two (or more) of the problem's tasks; the first two if left out.
        epochs: of one model; the problem's own if left out.
        models: how many trainings of one model each method may spend.
        members: of a set, about.
        balancer: what trains sets, a method that takes a preference; left out, as each family's paper has it.
        folder: ``results/<problem>-front`` if left out.
        jobs: runs at a time; as many as there are processors if left out.
        console: where progress is shown; standard error if left out.

    Raises:
        InputError: an argument that cannot be used.
        MissingExtraError: moocore is not installed.

    Example::

        outcome = Fronts("digits-pair", "phn,cosmos,palora", seeds=3).run()
        print(outcome.hypervolumes("phn"))
    """

    def __init__(
        self,
        problem: Problem | str,
        methods: str | Iterable[str] = "phn,cosmos,palora",
        seeds: int | str | Iterable[int] = 3,
        *,
        tasks: str | Iterable[str] | None = None,
        epochs: int | None = None,
        models: int = 5,
        members: int = 11,
        balancer: str | None = None,
        folder: str | os.PathLike[str] | None = None,
        jobs: int | None = None,
        console: Console | None = None,
    ) -> None:
        require("moocore", "pareto")
        whole = find_problem(problem) if isinstance(problem, str) else problem
        named = whole.tasks[:2] if tasks is None else tasks.split(",") if isinstance(tasks, str) else list(tasks)
        self.problem = narrowed(whole, [task.strip() for task in named])
        texts = [
            str(one) for text in ([methods] if isinstance(methods, str) else methods) for one in MethodSpec.parse_all(text)
        ]
        for text in texts:
            if not sweep_times(text):
                check_family(text)
        if balancer is not None:
            preferring_of(balancer)
        self.methods = tuple(dict.fromkeys([*texts, SWEEP]))
        self.seeds = parse_seeds(seeds)
        self.epochs = self.problem.epochs if epochs is None else epochs
        self.models, self.members, self.balancer = models, members, "" if balancer is None else str(MethodSpec.parse(balancer))
        for what, value, least in (
            ("epochs", self.epochs, 1),
            ("models", models, 1),
            ("members", members, 2),
            ("jobs", jobs or 1, 1),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(f"{what} is {value}; it must be a whole number, at least {least}")
        self.jobs = jobs
        place = Path("results") / f"{self.problem.name}-front" if folder is None else Path(folder)
        self.store = RunStore(place, "fronts.json", what="comparison of fronts", schema=1)
        self.console = console or terminal.console(stderr=True)

    def missing(self) -> list[tuple[str, int]]:
        """Method and seed of each run that the folder does not hold yet."""
        return [(text, seed) for seed in self.seeds for text in self.methods if self.store.find(key_of(text, seed)) is None]

    def run(self) -> FrontsOutcome:
        """Carries out what is missing.

        Raises:
            InputError: the folder holds another comparison, or the problem has no validation split.
            EquipoiseError: a run failed; the others were carried out first.
        """
        began = time.monotonic()
        with self.store.locked():
            self.store.claim(self._asked(), growing=("methods", "seeds"))
            missing = self.missing()
            jobs = min(at_a_time("auto") if self.jobs is None else self.jobs, max(1, len(missing)))
            spent = self.epochs * self.models
            self._say(f"{self.problem.name}: {len(missing)} runs of {spent} epochs to do, {jobs} at a time")
            failed = {}
            arguments = [self._arguments(*one) for one in missing]
            for place, record in calls(front_run, arguments, jobs, preload=self.problem.preload):
                text, seed = missing[place]
                if "failed" in record:
                    failed[f"{text} seed {seed}"] = record
                    self._say(f"{text} seed {seed} failed: {record['failed']}")
                else:
                    self.store.keep(key_of(text, seed), record)
                    self._say(f"{text} seed {seed}: {duration(record['wall_seconds'])}")
        if failed:
            name, record = next(iter(failed.items()))
            raise EquipoiseError(f"{len(failed)} of {len(missing)} runs failed, such as {name}:\n{record['traceback']}")
        self._say(f"{len(missing)} runs finished in {duration(time.monotonic() - began)}")
        return FrontsOutcome(self.store.path)

    def _arguments(self, text: str, seed: int) -> tuple[Any, ...]:
        return self.problem, text, seed, self.epochs, self.models, self.members, self.balancer

    def _asked(self) -> dict[str, Any]:
        return {
            "problem": self.problem.identity(),
            "epochs": self.epochs,
            "models": self.models,
            "members": self.members,
            "balancer": self.balancer,
            "methods": {text: {} for text in self.methods},
            "seeds": list(self.seeds),
        }

    def _say(self, text: str) -> None:
        self.console.print(printable(text), markup=False, emoji=False, highlight=False, soft_wrap=True)
