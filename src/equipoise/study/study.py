"""A study: problem × methods × seeds, in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from equipoise import terminal
from equipoise.cluster import Ray
from equipoise.errors import InputError
from equipoise.progress import duration, progress
from equipoise.study.computing import computing
from equipoise.study.folder import Folder
from equipoise.study.methods import Method, MethodLike, alike, parse_methods, serves
from equipoise.study.plan import Run, dealt, parse_part, parse_seeds, plan
from equipoise.study.problem import Problem
from equipoise.study.problems import find_problem
from equipoise.study.processes.launchers import at_a_time, connected
from equipoise.study.processes.pool import execute
from equipoise.study.results import Results
from equipoise.study.tuning import TUNED, TUNING_SEED, Tuning, equal_cost, parse_rates, tuned_method
from equipoise.terminal import printable

__all__ = ["Study"]


class Study:
    """Compares methods over seeds on one problem, and remembers everything in a folder.

    Every method is trained once per seed, and every task alone once per seed as the baseline; each run is a process of its
    own with one thread. What is complete in the folder is not run again, so a study that was killed continues where it
    stopped, and methods or seeds can be added later.

    Args:
        problem: a :class:`~equipoise.study.Problem`, or the name of a built-in one.
        methods: see :func:`~equipoise.study.parse_methods`.
        seeds: see :func:`equipoise.study.plan.parse_seeds`.
        epochs: passes over the training data; the problem's own number if left out.
        folder: where everything goes; ``results/<problem>`` if left out.
        jobs: runs at a time; as many as there are processors to use, or as the cluster has room for, if left out.
        gramian_every: methods that form no Gramian get one for the conflict statistics every so many steps, outside of
            the timing; 0 for never; left out, what the folder has, or six times per epoch.
        baselines: whether every task is trained alone as well; without that there is no Δm, and methods are ordered by mean
            rank. They can be added later.
        lr: learning rates, such as ``"3e-4,1e-3,3e-3"``. Of several each method, and each task alone, gets the one that is best
            on the validation split with a seed of its own (:data:`~equipoise.study.tuning.TUNING_SEED`); one is for all.
        tuned_weights: so many trials of fixed weights; the best on the validation split are a method of the study,
            ``tuned-weights``. 0 for none; ``None`` for :func:`~equipoise.study.tuning.equal_cost` if there is a validation
            split and more than one task, and no ``part``.
        start: how processes are started: ``"auto"``, ``"fork"`` or ``"spawn"``; or a :class:`~equipoise.cluster.Ray`, on whose
            machines they are.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:0,1"``, with one run per GPU at a time; the problem's if left out.
        compile: whether models are compiled; or the backend of ``torch.compile``.
        amp: whether losses are computed under autocast, in bfloat16. The folder remembers all three.
        part: ``"2/4"`` for the second of four parts of the runs; the others may be carried out elsewhere at the same time.
        console: where progress is shown; standard error if left out.

    Raises:
        InputError: an argument that cannot be used, an unknown problem, or see :func:`~equipoise.study.parse_methods`.

    Example::

        study = Study(problem, ["ls", "fairgrad:alpha=2", ("mine", MyBalancer)], seeds=3, folder="results/mine")
        results = study.run()
        study.report()
    """

    def __init__(
        self,
        problem: Problem | str,
        methods: str | Iterable[MethodLike] | Mapping[str, Any],
        seeds: int | str | Iterable[int] = 3,
        *,
        epochs: int | None = None,
        folder: str | os.PathLike[str] | None = None,
        jobs: int | None = None,
        gramian_every: int | None = None,
        baselines: bool = True,
        lr: str | float | Iterable[float] | None = None,
        tuned_weights: int | None = 0,
        start: str | Ray = "auto",
        device: str | None = None,
        compile: bool | str = False,
        amp: bool = False,
        part: str | None = None,
        console: Console | None = None,
    ) -> None:
        self.computing = computing(device, compile=compile, amp=amp, start=start)
        self.problem = self.computing.applied(find_problem(problem) if isinstance(problem, str) else problem)
        self.methods = parse_methods(methods)
        for method in self.methods:
            if reason := serves(self.problem, method):
                raise InputError(reason)
        self.seeds = parse_seeds(seeds)
        self.epochs = self.problem.epochs if epochs is None else epochs
        self.jobs = jobs
        for name, value, least in (
            ("epochs", self.epochs, 1),
            ("jobs", 1 if jobs is None else jobs, 1),
            ("gramian_every", gramian_every or 0, 0),
        ):
            if value < least:
                raise InputError(f"{name} is {value}; it must be at least {least}")
        self.gramian_every = gramian_every
        self.part = None if part is None else parse_part(part)
        self.folder = Folder(Path("results") / self.problem.name if folder is None else folder, self.part)
        self.computing.at_a_time(jobs, lambda: 1)  # refuses more than there are GPUs
        self.baselines = baselines
        by_default = tuned_weights is None
        if tuned_weights is None:
            usual = baselines and len(self.problem.tasks) > 1 and self.part is None
            tuned_weights = equal_cost(len(self.problem.tasks), len(self.seeds)) if usual else 0
        self.tuning = Tuning(self.problem, self.folder, parse_rates(lr), tuned_weights, self.seeds, self.epochs, by_default)
        if not baselines and (tuned_weights or len(self.tuning.rates) > 1):
            raise InputError("without baselines there is no Δm, by which learning rates and weights are chosen; leave one out")
        if self.part is not None and self.tuning.chooses:
            raise InputError(
                f"part is {part}, and learning rates and weights are chosen from runs of all parts; give one learning rate at "
                "most and no tuned weights, or leave part out"
            )
        self._tuned = self.tuning.trials > 0
        if any(method.label == TUNED for method in self.methods):
            raise InputError(f'the label "{TUNED}" is that of weights that the study tunes itself; give another')
        self.start = start
        self.console = console or terminal.console(stderr=True)

    def missing(self) -> tuple[Run, ...]:
        """The runs that the folder does not hold yet; of its part, if the study is one."""
        runs = self._runs()
        return self._lacking(runs if self.part is None else dealt(runs, self.part))

    def left_to_others(self) -> tuple[Run, ...]:
        """The runs of other parts that the folder does not hold yet."""
        own = {run.key for run in self.missing()}
        return tuple(run for run in self._lacking(self._runs()) if run.key not in own)

    def _runs(self) -> tuple[Run, ...]:
        planned = plan(self.problem.tasks, self._methods(), self.seeds, baselines=self.baselines)
        return tuple(map(self.tuning.at_rate, planned))

    def _lacking(self, runs: Iterable[Run]) -> tuple[Run, ...]:
        return tuple(run for run in runs if not self.folder.finished(run, self.epochs))

    def _methods(self) -> tuple[Method, ...]:
        """The methods, tuned weights last."""
        if not self._tuned:
            return self.methods
        return (*self.methods, tuned_method(self.tuning.chosen.get("weights")))

    def run(self) -> Results:
        """Carries out what is missing.

        A run that fails is reported and listed in the results' ``failures``; the others go on. Interrupted (Ctrl-C), the
        study ends its processes and raises ``KeyboardInterrupt``; what was complete stays.

        Returns:
            The results of everything in the folder.

        Raises:
            InputError: the folder holds a study of another configuration, or one that is running.
        """
        with self.folder.locked():
            self.tuning.refuse()
            own = {"epochs": self.epochs, "gramian_every": self.gramian_every, "lr": self.tuning.rates}
            settings = {**own, **self.computing.settings()}
            with self.folder.turn():
                claimed = self.folder.claim_for(self.problem, self.methods, self.seeds, settings)
            self.gramian_every = claimed["gramian_every"]
            missing = self.missing()
            with connected(self.start) if missing or self.tuning.chooses else nullcontext():
                idle = not missing and not self.tuning.chooses  # then no cluster is asked
                jobs = 1 if idle else self.computing.at_a_time(self.jobs, lambda: at_a_time(self.start))
                self._say(f"{self._overview()}; {len(missing) or 'nothing'} to do, {jobs} at a time")
                if self.part is not None and self.tuning.by_default and self.baselines:
                    self._say(
                        "no tuned weights: they are chosen from runs of all parts; the same command without part adds them"
                    )
                if self.tuning.chooses:
                    choosing = partial(self._choosing, jobs)
                    self.tuning.choose_baselines(choosing)
                    baselines = tuple(run for run in self._tuned_only(self.missing()) if run.task is not None)
                    if baselines:
                        self._execute(jobs, baselines)
                    if without := self.tuning.choose(self.methods, choosing):
                        self._say(f"no tuned weights: {without}")
                        self._tuned = False
                    self.folder.claim_for(self.problem, self._methods(), self.seeds, settings)
                    missing = tuple(run for run in self._tuned_only(self.missing()) if run not in baselines)
                    if failed := sorted({run.label for run in self.missing()} - {run.label for run in (*missing, *baselines)}):
                        self._say(f"left out, because no learning rate could be tried: {', '.join(failed)}")
                described = {method.label: {"name": method.name, "options": method.options} for method in self.methods}
                for said in alike(described):
                    self._say(said)
                if missing:
                    self._execute(jobs, missing)
        return Results(self.folder)

    def report(self) -> tuple[Path, Path]:
        """Writes ``report.md``, ``report.html`` and the pictures from what the folder holds, and returns both paths."""
        from equipoise.study.report import write_report

        return write_report(Results(self.folder))

    def _tuned_only(self, runs: Iterable[Run]) -> tuple[Run, ...]:
        """Those whose learning rate is chosen, where there is a choice."""
        return tuple(run for run in runs if len(self.tuning.rates) < 2 or run.lr is not None)

    def _choosing(self, jobs: int, runs: Sequence[Run], folder: Folder) -> None:
        self._say(f"choosing on the validation split, with seed {TUNING_SEED}: {len(runs)} runs")
        self._execute(jobs, runs, folder)

    def _execute(self, jobs: int, missing: Sequence[Run], folder: Folder | None = None) -> None:
        folder = self.folder if folder is None else folder
        with progress(len(missing), self.epochs, self.console) as shown:
            failed = execute(
                self.problem,
                missing,
                folder,
                shown,
                epochs=self.epochs,
                gramian_every=self.gramian_every if folder is self.folder else 0,
                jobs=jobs,
                start=self.start,
                gpus=self.computing.gpus,
            )
        self._say(f"{len(missing) - len(failed)} runs finished in {duration(shown.elapsed)}")
        for run in failed:
            self._say(f"{run} failed; look at {folder.failure(run)}")

    def _overview(self) -> str:
        methods, seeds, tasks = len(self._methods()), len(self.seeds), len(self.problem.tasks) if self.baselines else 0
        return (
            f"{self.problem.name}: {methods} method{'s' * (methods > 1)} × {seeds} seed{'s' * (seeds > 1)} "
            + (f"+ {tasks} single-task baselines per seed " if tasks else "")
            + f"= {(methods + tasks) * seeds} runs of {self.epochs} epochs"
            + (f", part {self.part[0]} of {self.part[1]}" if self.part else "")
            + (f", after {self.tuning.cost(len(self.methods))} that choose" if self.tuning.chooses else "")
        )

    def _say(self, text: str) -> None:
        self.console.print(printable(text), markup=False, emoji=False, highlight=False, soft_wrap=True)
