"""The search: asks Optuna for trials, runs each as a run of a study, tells Optuna what came out.

Several processes may search in one folder. Asking is done in turns, so that no more trials are asked for than the budget
allows, and whoever has the turn first looks for trials whose process is gone: such a trial counts as failed, and one with
the same parameters takes its place.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState
from rich.console import Console

from equipoise.cluster import Ray
from equipoise.errors import EquipoiseError, InputError, near_misses
from equipoise.progress import Progress, progress
from equipoise.reading import one_line
from equipoise.store import locked, writing
from equipoise.study.plan import Run
from equipoise.study.problem import Problem
from equipoise.study.processes.pool import Event, Pool
from equipoise.sweep.folder import Owners, SweepFolder, TrialFolder, open_journal
from equipoise.sweep.objectives import SweepObjective
from equipoise.sweep.regmix import RegMixSampler
from equipoise.sweep.space import Space

__all__ = ["PRUNERS", "SAMPLERS", "TrialSearch", "counted", "load_trials", "make_pruner", "make_sampler"]

_OWNER, _LABEL, _AGAIN, _WHY = "owner", "label", "again", "why"
_PATIENCE = 0.3  # seconds between two looks at what other processes do


@dataclass(frozen=True)
class TrialSearch:
    """Carries a budget of trials out: those that are there already and those of other processes count.

    Arguments are those of :class:`~equipoise.sweep.Sweep`.
    """

    problem: Problem
    space: Space
    objectives: tuple[SweepObjective, ...]
    folder: SweepFolder
    _: KW_ONLY
    epochs: int
    seed: int
    budget: int
    sampler: str
    pruner: str
    jobs: int
    start: str | Ray
    gpus: tuple[str, ...]
    console: Console

    def run(self, baseline: Mapping[str, float]) -> None:
        """Searches until the budget is used up, by this process or others."""
        with _quiet(), Owners(self.folder.owners) as owners:
            runs = TrialFolder(self.folder.trials, owners.own)
            with writing(runs.work):
                runs.work.mkdir(parents=True)
            try:
                with locked(self.folder.turn):
                    if not owners.others():
                        self.folder.tidy()
                    with _readable(self.folder):
                        study = self._study()
                    self._reap(study, owners, runs)
                    waiting = len(study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))
                    left = self.budget - counted(study.get_trials(deepcopy=False)) + waiting  # asked for, and not yet run
                if left > 0 or self._unfinished(study):
                    with progress(max(left, 1), self.epochs, self.console) as shown:
                        self._search(study, owners, runs, baseline, shown)
            finally:
                runs.clear(owners.own)

    def _study(self) -> optuna.Study:
        study = optuna.create_study(
            storage=open_journal(self.folder.journal),
            study_name="sweep",
            directions=[own.direction for own in self.objectives],
            pruner=make_pruner(self.pruner, epochs=self.epochs),
            load_if_exists=True,
        )
        default = self.space.default()
        if default is not None and not study.get_trials(deepcopy=False):
            study.enqueue_trial(default)  # no sweep should end below what it costs nothing to try
        return study

    def _search(
        self, study: optuna.Study, owners: Owners, runs: TrialFolder, baseline: Mapping[str, float], shown: Progress
    ) -> None:
        watch = [metric.name for metric in self.problem.metrics] if self.pruner != "none" else []
        active: dict[str, list[Trial]] = {}  # two trials with equal parameters share one run
        pruned: set[str] = set()
        with Pool(
            self.problem, runs, epochs=self.epochs, gramian_every=0, start=self.start, watch=watch, gpus=self.gpus
        ) as pool:
            while True:
                while len(pool.running) < self.jobs and (asked := self._ask(study, owners, runs)):
                    trial, run = asked
                    if run.key in active:
                        active[run.key].append(trial)
                        shown.shared()
                    elif runs.finished(run, self.epochs):
                        self._tell(study, [trial], run, runs, baseline)
                        shown.ended(run, "")
                    else:
                        active[run.key] = [trial]
                        pool.start(run)
                        shown.started(run)
                if not pool.running:
                    if not self._unfinished(study):
                        return
                    time.sleep(_PATIENCE)  # others are at work; should they die, their trials are ours
                    continue
                event = pool.wait()
                if event is None:
                    shown.show()
                elif event.epoch:
                    shown.epoch(event.run, event.epoch)
                    if watch and event.run.key not in pruned and self._hopeless(active[event.run.key], event, baseline):
                        pruned.add(event.run.key)
                        pool.stop(event.run)
                else:
                    trials = active.pop(event.run.key)
                    if event.failure and event.run.key in pruned:
                        runs.failure(event.run).unlink(missing_ok=True)
                        for trial in trials:
                            study.tell(trial, state=TrialState.PRUNED)
                        shown.ended(event.run, "")
                    else:
                        self._tell(study, trials, event.run, runs, baseline, event.failure)
                        shown.ended(event.run, event.failure)
                    pruned.discard(event.run.key)

    def _ask(self, study: optuna.Study, owners: Owners, runs: TrialFolder) -> tuple[Trial, Run] | None:
        """The next trial and its run; none if the budget is used up."""
        with locked(self.folder.turn):
            self._reap(study, owners, runs)
            trials = study.get_trials(deepcopy=False)
            waiting = sum(trial.state is TrialState.WAITING for trial in trials)
            if not waiting and counted(trials) >= self.budget:
                return None
            # Without those that were done again, so that an interruption changes nothing of what is drawn next.
            asked = counted(trials) - waiting
            own = self.space.distributions()
            study.sampler = make_sampler(self.sampler, seed=self.seed, asked=asked, budget=self.budget, distributions=own)
            trial = study.ask(own)
            trial.set_user_attr(_OWNER, owners.own)
            method = self.space.method(trial.params)
            trial.set_user_attr(_LABEL, method.label)
        return trial, Run(self.seed, method=method)

    def _reap(self, study: optuna.Study, owners: Owners, runs: TrialFolder) -> None:
        """Fails the trials of processes that are gone, and puts trials of the same parameters in their place."""
        trials = study.get_trials(deepcopy=False)
        again = {trial.user_attrs.get(_AGAIN) for trial in trials}
        for trial in trials:
            owner = trial.user_attrs.get(_OWNER, "")
            if trial.state is not TrialState.RUNNING or owners.alive(owner):
                continue
            if trial.params and trial.number not in again:
                study.enqueue_trial(trial.params, user_attrs={_AGAIN: trial.number})
            study.tell(trial.number, state=TrialState.FAIL)
            if owner:
                runs.clear(owner)

    def _unfinished(self, study: optuna.Study) -> bool:
        return bool(study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING)))

    def _hopeless(self, trials: Sequence[Trial], event: Event, baseline: Mapping[str, float]) -> bool:
        """Tells Optuna how a trial does so far; whether its pruner wants it ended."""
        names = (metric.name for metric in self.problem.metrics)
        value = self.objectives[0].value(dict(zip(names, event.watched, strict=True)), baseline)
        for trial in trials:
            # What is not finite is as bad as can be.
            trial.report(value if math.isfinite(value) else math.inf * self._worse, event.epoch)
        return event.epoch < self.epochs and all(trial.should_prune() for trial in trials)

    @property
    def _worse(self) -> float:
        return 1.0 if self.objectives[0].direction == "minimize" else -1.0

    def _tell(
        self,
        study: optuna.Study,
        trials: Sequence[Trial],
        run: Run,
        runs: TrialFolder,
        baseline: Mapping[str, float],
        failure: str = "",
    ) -> None:
        record = None if failure else runs.find(run.key)
        values = [math.nan]
        if record is not None:
            values = [own.value(record["final"]["validation"], baseline) for own in self.objectives]
        for trial in trials:
            if all(map(math.isfinite, values)):
                study.tell(trial, values)
            else:
                trial.set_user_attr(_WHY, failure or "an objective is no finite number")
                study.tell(trial, state=TrialState.FAIL)


def counted(trials: Sequence[FrozenTrial]) -> int:
    """How much of the budget trials use up: all but those that another one was put in place of."""
    again = {trial.user_attrs[_AGAIN] for trial in trials if _AGAIN in trial.user_attrs}
    replaced = {trial.number for trial in trials if trial.number in again}
    # A process can die between asking and writing down what it asked for; such a trial was none.
    empty = {trial.number for trial in trials if trial.state is TrialState.FAIL and not trial.params}
    return len(trials) - len(replaced | empty)


def load_trials(folder: SweepFolder) -> list[FrozenTrial]:
    """All trials of a sweep, in their order, without those that another one was put in place of; none if it has not begun."""
    if not folder.journal.exists():
        return []
    with _quiet(), _readable(folder):
        try:
            study = optuna.load_study(study_name="sweep", storage=open_journal(folder.journal))
        except KeyError:
            return []  # another process has made the journal and not yet written the study's name into it
        trials: list[FrozenTrial] = study.get_trials(deepcopy=False)
    again: set[Any] = {trial.user_attrs.get(_AGAIN) for trial in trials}
    return [trial for trial in trials if trial.number not in again and trial.params]


@contextlib.contextmanager
def _readable(folder: SweepFolder) -> Iterator[None]:
    """Says in one line that a journal is none: Optuna believes whatever it reads."""
    try:
        yield
    except (EquipoiseError, MemoryError):
        raise
    except Exception as error:
        why = f"{type(error).__name__}: {one_line(error)}"
        raise InputError(f'"{folder.journal}" cannot be read as a journal of trials ({why}); give another folder') from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Optuna speaks up only when something is wrong, and is left as it was found."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


SAMPLERS = ("tpe", "random", "qmc", "nsga2", "gp", "regmix")
PRUNERS = ("none", "median", "hyperband")
_STARTUP = 10  # trials at random before a model of them is worth anything


def make_sampler(
    name: str, *, seed: int, asked: int, budget: int, distributions: Mapping[str, BaseDistribution] | None = None
) -> BaseSampler:
    """A fresh sampler for the next trial.

    Optuna's samplers keep nothing but their random generator; all else they read from the trials. So the generator is made
    from the sweep's seed and the number of trials so far: a sweep that was killed asks for what it would have asked for.
    A third of the budget, at most 10 trials, is drawn at random before a model is used; with ``"regmix"`` four fifths are.

    Raises:
        InputError: there is no such sampler.
    """
    own = int(np.random.SeedSequence([seed, asked]).generate_state(1)[0])
    startup = max(4, min(_STARTUP, budget // 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if name == "tpe":
            # Running trials count as bad ones, so that processes side by side do not all try the same.
            return TPESampler(seed=own, n_startup_trials=startup, constant_liar=True)
        if name == "random":
            return RandomSampler(seed=own)
        if name == "qmc":
            # One sequence for all processes: it needs one seed, and counts its own place in the journal.
            return QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)
        if name == "nsga2":
            return NSGAIISampler(seed=own, population_size=max(4, min(50, budget // 4)))
        if name == "gp":
            return GPSampler(seed=own, n_startup_trials=startup)
        if name == "regmix":
            return RegMixSampler(distributions or {}, own, explore=asked < max(5, budget - max(1, budget // 5)))
    raise InputError(f'there is no sampler "{name}".{near_misses(name, SAMPLERS)} Known: {", ".join(SAMPLERS)}')


def make_pruner(name: str, *, epochs: int) -> BasePruner:
    """A pruner: ends a trial early that does worse than others did after as many epochs.

    Raises:
        InputError: there is no such pruner.
    """
    if name == "none":
        return NopPruner()
    if name == "median":
        return MedianPruner(n_startup_trials=4, n_warmup_steps=max(1, epochs // 4))
    if name == "hyperband":
        return HyperbandPruner(min_resource=1, max_resource=epochs, reduction_factor=3)
    raise InputError(f'there is no pruner "{name}".{near_misses(name, PRUNERS)} Known: {", ".join(PRUNERS)}')
