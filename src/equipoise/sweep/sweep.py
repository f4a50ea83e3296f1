"""A sweep: search on the validation split, confirm on fresh seeds, compare on the test split."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.trial import TrialState
from rich.console import Console

from equipoise import terminal
from equipoise.cluster import Ray
from equipoise.errors import EquipoiseError, InputError
from equipoise.metrics import Metric, spread
from equipoise.progress import duration, progress
from equipoise.store import locked
from equipoise.study.computing import computing
from equipoise.study.folder import Folder
from equipoise.study.methods import Method, MethodLike, parse_methods
from equipoise.study.plan import Run, key_of, parse_seeds, plan
from equipoise.study.problem import Problem
from equipoise.study.problems import find_problem
from equipoise.study.processes.launchers import at_a_time, connected
from equipoise.study.processes.pool import execute
from equipoise.study.tuning import refuse_unvalidated
from equipoise.sweep.folder import SweepFolder
from equipoise.sweep.front import select
from equipoise.sweep.objectives import drop, find_metric, parse_objectives
from equipoise.sweep.outcome import Outcome
from equipoise.sweep.space import Space
from equipoise.sweep.trials import TrialSearch, load_trials, make_pruner, make_sampler
from equipoise.terminal import printable

__all__ = ["Sweep"]


class Sweep:
    """Tries many weights, or many values of a method's options, and compares the best with other methods.

    1. Single-task baselines, once per seed, as in any study.
    2. The search: ``budget`` trials of one seed of their own, judged on the *validation* split.
    3. The best trials (``confirm`` of them: the best by the first objective, then those that span the validation Pareto front
       of the two ``front`` metrics) and the compared methods are trained on the same ``seeds``, none of which the search saw.
    4. The report looks at the *test* split of step 3 only.

    Killed at any moment it continues where it stopped, and several processes may work in one folder.

    Args:
        problem: a :class:`~equipoise.study.Problem`, or the name of a built-in one.
        method: what to sweep, see :class:`~equipoise.sweep.Space`.
        budget: trials.
        objectives: ``"delta_m"``, a metric, or several, which makes the search a multi-objective one.
        sweep: what is swept over, see :class:`~equipoise.sweep.Space`.
        compare: methods to compare the sweep with, see :func:`~equipoise.study.parse_methods`.
        seeds: on which confirmed trials and compared methods are trained.
        front: the two metrics of the Pareto front; the two objectives where they are metrics, else the problem's first and
            last metric.
        confirm: how many trials are confirmed.
        epochs: passes over the training data; the problem's own number if left out.
        jobs: runs at a time in this process; as many as there are processors, or as the cluster has room for, if left
            out.
        sampler: ``"tpe"``, ``"random"``, ``"qmc"``, ``"nsga2"``, ``"gp"``, or for weights ``"regmix"``
            (:class:`~equipoise.sweep.regmix.RegMixSampler`).
        pruner: ``"none"``, ``"median"`` or ``"hyperband"``; only with one objective.
        folder: the folder of the *study*; the sweep's own is ``sweeps/<name>`` in it. ``results/<problem>`` if left out.
        name: of the sweep; the method's if left out.
        seed: of the search: its trials and its sampler. Must not be one of ``seeds``.
        gramian_every: as in a study, which the folder may hold already.
        start: how processes are started: ``"auto"``, ``"fork"`` or ``"spawn"``; or a :class:`~equipoise.cluster.Ray`, on whose
            machines they are.
        device: as in a study, like the two following.
        compile: see there.
        amp: see there.
        console: where progress is shown; standard error if left out.

    Raises:
        InputError: an argument that cannot be used; see also :class:`~equipoise.sweep.Space`.

    Example::

        sweep = Sweep(problem, "ls", budget=30, compare="ls,famo,fairgrad", seeds=3, folder="results/mine")
        outcome = sweep.run()
        sweep.report()
    """

    def __init__(
        self,
        problem: Problem | str,
        method: str | tuple[str, Callable[..., Any]] = "ls",
        *,
        budget: int = 30,
        objectives: str | Sequence[str] = "delta_m",
        sweep: str | Sequence[str] | Mapping[str, Any] | None = None,
        compare: str | Iterable[MethodLike] | Mapping[str, Any] = "ls",
        seeds: int | str | Iterable[int] = 3,
        front: str | Sequence[str] | None = None,
        confirm: int = 5,
        epochs: int | None = None,
        jobs: int | None = None,
        sampler: str = "tpe",
        pruner: str = "none",
        folder: str | os.PathLike[str] | None = None,
        name: str | None = None,
        seed: int = 1000,
        gramian_every: int | None = None,
        start: str | Ray = "auto",
        device: str | None = None,
        compile: bool | str = False,
        amp: bool = False,
        console: Console | None = None,
    ) -> None:
        self.computing = computing(device, compile=compile, amp=amp, start=start)
        self.problem = self.computing.applied(find_problem(problem) if isinstance(problem, str) else problem)
        self.space = Space(method, self.problem.tasks, sweep)
        self.objectives = parse_objectives(objectives, self.problem.metrics)
        self.front = self._two_metrics(front)
        self.compare = parse_methods(compare)
        self.seeds = parse_seeds(seeds)
        self.epochs = self.problem.epochs if epochs is None else epochs
        self.jobs = jobs
        self.budget, self.confirm, self.seed, self.gramian_every = budget, confirm, seed, gramian_every
        for what, value, least in (
            ("budget", budget, 1),
            ("confirm", confirm, 1),
            ("epochs", self.epochs, 1),
            ("jobs", 1 if jobs is None else jobs, 1),
            ("seed", seed, 0),
            ("gramian_every", gramian_every or 0, 0),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(f"{what} is {value}; it must be a whole number, at least {least}")
        if seed in self.seeds:
            raise InputError(
                f"seed {seed} of the search is among the seeds {', '.join(map(str, self.seeds))} that judge; give another "
                "one, because what is chosen on a seed looks better on it than it is"
            )
        self.computing.at_a_time(jobs, lambda: 1)  # refuses more than there are GPUs
        make_sampler(sampler, seed=seed, asked=0, budget=budget)
        if sampler == "regmix" and self.space.weights is None:
            raise InputError(f'sampler "regmix" is for weights, and "{self.space.label}" sweeps none; give another sampler')
        make_pruner(pruner, epochs=self.epochs)
        if pruner != "none" and len(self.objectives) > 1:
            raise InputError(
                f'pruner "{pruner}" with {len(self.objectives)} objectives: Optuna cannot prune trials that have several; '
                "leave the pruner out, or give one objective"
            )
        self.sampler, self.pruner, self.start = sampler, pruner, start
        self.study = Folder(Path("results") / self.problem.name if folder is None else folder)
        self.name = name or key_of(self.space.label, 0).removesuffix("-seed0")
        if Path(self.name).name != self.name:
            raise InputError(f'the name of the sweep is "{self.name}"; it must be the name of a folder, not a path')
        self.folder = SweepFolder(self.study.path / "sweeps" / self.name)
        self.console = console or terminal.console(stderr=True)

    def run(self) -> Outcome:
        """Carries out what is missing.

        Interrupted (Ctrl-C), it ends its processes and raises ``KeyboardInterrupt``; what was complete stays.

        Returns:
            What the folder holds.

        Raises:
            InputError: the folder holds another sweep or study, or the problem has no validation split.
            EquipoiseError: a baseline failed, or no trial succeeded.
        """
        with connected(self.start):
            return self._run(self.computing.at_a_time(self.jobs, lambda: at_a_time(self.start)))

    def _run(self, jobs: int) -> Outcome:
        began = time.monotonic()
        self._study_runs((), jobs, claim_sweep=True)
        baseline = self._baseline()
        self._say(f"search: {self.budget} trials of {self.epochs} epochs with seed {self.seed}, {jobs} at a time")
        TrialSearch(
            self.problem,
            self.space,
            self.objectives,
            self.folder,
            epochs=self.epochs,
            seed=self.seed,
            budget=self.budget,
            sampler=self.sampler,
            pruner=self.pruner,
            jobs=jobs,
            start=self.start,
            gpus=self.computing.gpus,
            console=self.console,
        ).run(baseline)
        # Equal weights, say, may be compared and confirmed: one run per seed will do.
        methods = {method.label: method for method in (*self._confirmed(baseline), *self.compare)}
        self._study_runs(tuple(methods.values()), jobs)
        self._say(f"sweep finished in {duration(time.monotonic() - began)}")
        return Outcome(self.folder.path)

    def report(self) -> tuple[Path, Path]:
        """Writes ``report.md``, ``report.html`` and the picture from what the folder holds, and returns both paths."""
        from equipoise.sweep.report import write_report

        return write_report(Outcome(self.folder.path))

    def _study_runs(self, methods: tuple[Method, ...], jobs: int, *, claim_sweep: bool = False) -> None:
        """Baselines and methods on the seeds that judge; waits if another process is at it."""
        waited: list[None] = []

        def waiting() -> None:
            if not waited:
                self._say(f'another process is running in "{self.study.path}"; waiting for it')
            waited.append(None)
            time.sleep(0.3)

        with self.study.locked(waiting):
            asked = {"epochs": self.epochs, "gramian_every": self.gramian_every, **self.computing.settings()}
            settings = self.study.claim_for(self.problem, methods, self.seeds, asked)
            if claim_sweep:
                self.folder.make()
                with locked(self.folder.turn):
                    self.folder.claim_for(self._asked())
            runs = plan(self.problem.tasks, methods, self.seeds)
            missing = [run for run in runs if not self.study.finished(run, self.epochs)]
            if not missing:
                return
            if claim_sweep:
                refuse_unvalidated(self.problem, self.seed, self.start)
            what = "confirmed trials and compared methods" if methods else "single-task baselines"
            self._say(f"{what}: {len(missing)} runs of {self.epochs} epochs, {jobs} at a time")
            with progress(len(missing), self.epochs, self.console) as shown:
                failed = execute(
                    self.problem,
                    missing,
                    self.study,
                    shown,
                    epochs=self.epochs,
                    gramian_every=settings["gramian_every"],
                    jobs=jobs,
                    start=self.start,
                    gpus=self.computing.gpus,
                )
        for run in failed:
            if run.task is not None:
                raise EquipoiseError(f"the single-task baseline {run} failed; look at {self.study.failure(run)}")
            self._say(f"{run} failed; look at {self.study.failure(run)}")

    def _asked(self) -> dict[str, Any]:
        return {
            "problem": self.problem.identity(),
            **self.space.describe(),
            "objectives": [own.name for own in self.objectives],
            "seed": self.seed,
            "epochs": self.epochs,
            "sampler": self.sampler,
            "pruner": self.pruner,
            "budget": self.budget,
            "confirm": self.confirm,
            "front": [metric.name for metric in self.front],
            "compare": [method.label for method in self.compare],
            "seeds": list(self.seeds),
        }

    def _baseline(self) -> dict[str, float]:
        """Metric → validation value of single-task training, mean over seeds.

        Written down once: values of trials must mean the same when seeds are added later.
        """
        with locked(self.folder.turn):
            known = self.folder.configuration()["baseline"]
            if known is None:
                known = {metric.name: self._validation(metric) for metric in self.problem.metrics}
                self.folder.remember(baseline=known)
        return {name: float(value) for name, value in known.items()}

    def _validation(self, metric: Metric) -> float:
        values = []
        for seed in self.seeds:
            record = self.study.find(Run(seed, task=metric.task).key)
            if record is None:
                raise InputError(
                    f'task "{metric.task}" alone did not finish with seed {seed}; look at {self.study.path}/failed'
                )
            values.append(self.problem.validated(record["final"]["validation"])[metric.name])
        mean = spread(values).mean
        if mean == 0 or not math.isfinite(mean):
            raise InputError(
                f'the single-task baseline of metric "{metric.name}" is {mean:g} on the validation split, and nothing is '
                "relative to that; leave this metric out of the problem or measure it differently"
            )
        return mean

    def _confirmed(self, baseline: Mapping[str, float]) -> tuple[Method, ...]:
        """The trials that are worth another look, those of earlier starts included."""
        complete = [trial for trial in load_trials(self.folder) if trial.state is TrialState.COMPLETE]
        if not complete:
            raise EquipoiseError(f"no trial of the sweep succeeded; look at {self.folder.trials / 'failed'}")
        methods = {trial.number: self.space.method(trial.params) for trial in complete}
        points = {}
        for trial in complete:
            record = Folder(self.folder.trials).find(Run(self.seed, method=methods[trial.number]).key)
            final = record["final"]["validation"] if record else {}
            points[trial.number] = [
                drop(math.nan if final.get(own.name) is None else final[own.name], baseline[own.name], own)
                for own in self.front
            ]
        sign = 1.0 if self.objectives[0].direction == "minimize" else -1.0
        best = {trial.number: sign * trial.values[0] for trial in complete}
        with locked(self.folder.turn):
            chosen = select(best, points, self.confirm, {number: methods[number].label for number in methods})
            known = [number for number in self.folder.configuration()["confirmed"] if number in methods]
            self.folder.remember(confirmed=sorted({*known, *chosen}))
            return tuple(methods[number] for number in sorted({*known, *chosen}))

    def _two_metrics(self, front: str | Sequence[str] | None) -> tuple[Metric, ...]:
        metrics = self.problem.metrics
        if front is None:
            named = [own.metrics[0] for own in self.objectives if len(own.metrics) == 1 and own.name != "delta_m"]
            if len(named) == 2:
                return tuple(named)
            if len(metrics) < 2:
                raise InputError(f'problem "{self.problem.name}" has one metric only; a Pareto front needs two')
            return metrics[0], metrics[-1]
        chosen = tuple(find_metric(name, metrics) for name in (front.split(",") if isinstance(front, str) else front))
        if len(chosen) != 2 or chosen[0] == chosen[1]:
            raise InputError(f"front names {len(set(chosen))} metric(s); give two different ones")
        return chosen

    def _say(self, text: str) -> None:
        self.console.print(printable(text), markup=False, emoji=False, highlight=False, soft_wrap=True)
