"""What a study chooses on the validation split before the runs that judge: a learning rate per method, and fixed weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from equipoise.cluster import Ray
from equipoise.errors import InputError
from equipoise.metrics import Metric, delta_m
from equipoise.metrics.metric import mean
from equipoise.study.folder import Folder
from equipoise.study.methods import Method, parse_method
from equipoise.study.plan import Run
from equipoise.study.problem import Problem, Splits
from equipoise.study.processes.calls import calls
from equipoise.study.records import Record, seed_process

__all__ = ["TUNED", "TUNING_SEED", "Tuning", "equal_cost", "parse_rates", "refuse_unvalidated", "trial_weights", "tuned_method"]

TUNING_SEED = 1000
"""The seed of all runs that choose; none of those that judge."""
TUNED = "tuned-weights"
"""What fixed weights that were tuned are called."""
_DECADE = 1.0  # weights are tried so far to either side of the centre, in powers of ten

CarryOut = Callable[[Sequence[Run], Folder], object]


def parse_rates(given: str | float | Iterable[float] | None) -> tuple[float, ...]:
    """Reads learning rates: ``"3e-4,1e-3,3e-3"``, one number, or several.

    Raises:
        InputError: none of these, or one that is not positive and finite.

    Example:
        >>> parse_rates("3e-3, 1e-3"), parse_rates(0.1), parse_rates(None)
        ((0.001, 0.003), (0.1,), ())
    """
    if given is None:
        return ()
    try:
        texts = (
            given.split(",") if isinstance(given, str) else [given] if isinstance(given, bool | int | float) else list(given)
        )
        rates = [] if isinstance(given, bool) else sorted({float(text) for text in texts})
    except (TypeError, ValueError):
        rates = []
    if not rates or not all(0 < rate < math.inf for rate in rates):
        raise InputError(f"lr is {given!r}; give positive learning rates, such as 3e-4,1e-3,3e-3")
    return tuple(rates)


def equal_cost(tasks: int, seeds: int) -> int:
    """How many trials of fixed weights cost, with their runs that judge, what a method with K backward passes per step does.

    Of S seeds such a method takes S·K backward passes per step, fixed weights one per trial and seed: N + S.

    Example:
        >>> equal_cost(tasks=4, seeds=3)
        9
    """
    return max(2, seeds * (tasks - 1))


def trial_weights(number: int, scales: Sequence[float]) -> list[float]:
    """The weights of a trial, which sum to K: equal ones, then those that make losses of these sizes equal, then around these.

    From the third on, ``w_k ∝ 10^(2u_k − 1) / scale_k`` with u from a scrambled Sobol sequence: a decade to either side.

    Example:
        >>> trial_weights(0, [1.0, 9.0]), trial_weights(1, [1.0, 9.0])
        ([1.0, 1.0], [1.8, 0.2])
    """
    import torch

    if number == 0:
        return [1.0] * len(scales)
    exponents = [0.0] * len(scales)
    if number > 1:
        drawn = torch.quasirandom.SobolEngine(len(scales), scramble=True, seed=TUNING_SEED).draw(number - 1)[-1]
        exponents = [_DECADE * (2 * value - 1) for value in drawn.double().tolist()]
    sizes = [10**exponent / scale for exponent, scale in zip(exponents, scales, strict=True)]
    return [float(f"{len(sizes) * size / math.fsum(sizes):.4g}") for size in sizes]


def tuned_method(weights: Sequence[float] | None) -> Method:
    """Plain weighting with the chosen weights; before they are chosen a place in the plan."""
    return replace(parse_method("ls") if weights is None else _weighted(weights), label=TUNED)


def _weighted(weights: Sequence[float]) -> Method:
    return parse_method(f"ls:weights={list(weights)}")


def refuse_unvalidated(problem: Problem, seed: int, start: str | Ray) -> None:
    """Looks at a problem's splits where its runs are made, so that nothing is trained from which nothing can be chosen.

    Raises:
        InputError: see :meth:`equipoise.study.Problem.validated`.
        EquipoiseError: the problem's data cannot be had.
    """
    # By one that could have company, for a call that is alone is made here, and reads the data into this process.
    for _ in calls(_validated, [(problem, seed)], jobs=2, preload=problem.preload, start=start):
        pass


def _validated(problem: Problem, seed: int) -> None:
    seed_process(seed)
    problem.validated(None if Splits(*problem.data(seed)).validation is None else {})


@dataclass(frozen=True)
class Tuning:
    """Chooses, and remembers the choice in the study's folder, so that it is made once.

    Args:
        problem: what is trained.
        folder: the study's.
        rates: learning rates to choose from, for each method and each task alone; none for the problem's own.
        trials: of fixed weights; 0 for none.
        seeds: those that judge.
        epochs: passes over the data, those of the runs that judge.
        by_default: whether nobody asked for the trials, so that there may be none, or as many as the folder has had.
    """

    problem: Problem
    folder: Folder
    rates: tuple[float, ...]
    trials: int
    seeds: tuple[int, ...]
    epochs: int
    by_default: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.trials, bool) or not isinstance(self.trials, int) or self.trials < 0:
            raise InputError(f"tuned_weights is {self.trials!r}; it is a number of trials, 0 for none")
        if self.trials == 1:
            raise InputError("tuned_weights is 1, which leaves nothing to choose; give at least 2 trials")
        if (self.trials or len(self.rates) > 1) and TUNING_SEED in self.seeds:
            raise InputError(
                f"seed {TUNING_SEED} is that of the runs that choose, and what is chosen on a seed looks better on it than it "
                "is; give other seeds"
            )

    @property
    def chooses(self) -> bool:
        """Whether there is anything to choose."""
        return len(self.rates) > 1 or self.trials > 0

    @property
    def asked_for(self) -> bool:
        """Whether somebody asked for a choice, which is then refused where it cannot be made."""
        return len(self.rates) > 1 or (self.trials > 0 and not self.by_default)

    def cost(self, methods: int) -> int:
        """How many runs choosing takes."""
        return self.trials + (len(self.rates) * (methods + len(self.problem.tasks)) if len(self.rates) > 1 else 0)

    @property
    def runs(self) -> Folder:
        """Where the runs that choose are kept."""
        return Folder(self.folder.path / "tuning")

    @property
    def chosen(self) -> dict[str, Any]:
        """What was chosen so far: ``lr``, label → rate; ``weights`` of so many ``trials``; ``baseline``, against which."""
        if not self.folder.about.exists():
            return {}
        return dict(self.folder.configuration().get("tuned") or {})

    def rate(self, label: str) -> float | None:
        """The learning rate of a method or of ``stl:task``; ``None`` for the problem's own, or while it is not chosen."""
        if len(self.rates) < 2:
            return self.rates[0] if self.rates else None
        rate = self.chosen.get("lr", {}).get(label)
        return None if rate is None else float(rate)

    def at_rate(self, run: Run) -> Run:
        """A run with the rate that was chosen for it."""
        return replace(run, lr=self.rate(run.label)) if self.rates else run

    def choose_baselines(self, carry_out: CarryOut) -> None:
        """Chooses the rate of each task alone: the mean over its metrics of the relative difference to the first rate."""
        if len(self.rates) < 2:
            return
        open_ = [task for task in self.problem.tasks if self.rate(f"stl:{task}") is None]
        self._carry_out([Run(TUNING_SEED, task=task, lr=rate) for task in open_ for rate in self.rates], carry_out)
        for task in open_:
            found = {rate: self.runs.find(Run(TUNING_SEED, task=task, lr=rate).key) for rate in self.rates}
            metrics = self.problem.metrics_of(task)
            usable = [own for record in found.values() if record and _usable(own := self._validation(record), metrics)]
            self._remember_rate(f"stl:{task}", found, self._scores(found, usable[0], metrics) if usable else {})

    def choose(self, methods: Sequence[Method], carry_out: CarryOut) -> str:
        """Chooses the rate of each method, and the weights, by Δm on the validation split; after the baselines have been run.

        Returns:
            Why weights cannot be tuned; nothing if they can.
        """
        rated = [method for method in methods if len(self.rates) > 1 and self.rate(method.label) is None]
        if not rated and not self._weights_open:
            return ""
        try:
            baseline = self._baseline()
        except InputError as error:
            if not self.by_default or rated:
                raise
            return str(error)
        runs = [Run(TUNING_SEED, method=method, lr=rate) for method in rated for rate in self.rates]
        trials = self._trials() if self._weights_open else []
        self._carry_out([*runs, *trials], carry_out)
        for method in rated:
            found = {rate: self.runs.find(Run(TUNING_SEED, method=method, lr=rate).key) for rate in self.rates}
            self._remember_rate(method.label, found, self._scores(found, baseline, self.problem.metrics))
        if trials:
            found = {place: self.runs.find(run.key) for place, run in enumerate(trials)}
            scores = self._scores(found, baseline, self.problem.metrics)
            if not any(map(math.isfinite, scores.values())):
                return "none of the trials has a finite Δm on the validation split"
            best = trials[min(scores, key=lambda place: (math.isnan(scores[place]), scores[place]))]
            assert best.method is not None
            weights = best.method.options["weights"] or [1.0] * len(self.problem.tasks)
            rates = {**self.chosen.get("lr", {}), **({} if best.lr is None else {TUNED: best.lr})}
            self._remember(weights=weights, trials=self.trials, lr=rates)  # at once: a study may be killed in between
        return ""

    def refuse(self) -> None:
        """Raises InputError: the folder's weights are the best of another number of trials."""
        known = self.chosen.get("trials")
        if self.trials and not self.by_default and known not in (None, self.trials):
            raise InputError(
                f'the weights in "{self.folder.path}" were chosen from {known} trials, and now {self.trials} are asked for; '
                "give another folder"
            )

    @property
    def _weights_open(self) -> bool:
        return bool(self.trials) and "trials" not in self.chosen

    def _trials(self) -> list[Run]:
        """Equal weights first; with several rates each trial has one of them, in turn."""
        scales = []
        for task in self.problem.tasks:
            records = [self.folder.find(self.at_rate(Run(seed, task=task)).key) for seed in self.seeds]
            first = [abs(float(record["history"][0]["losses"].get(task) or 0.0)) for record in records if record is not None]
            scales.append((mean(first) if first else 0.0) or 1.0)
        made: dict[str, Run] = {}
        for number in range(self.trials):
            rate = self.rates[number % len(self.rates)] if self.rates else None
            run = Run(TUNING_SEED, method=_weighted(trial_weights(number, scales)), lr=rate)
            made.setdefault(run.key, run)
        return list(made.values())

    def _baseline(self) -> dict[str, float]:
        """Metric → validation value of single-task training, mean over seeds; written down once, so that scores stay."""
        known = self.chosen.get("baseline")
        if known is None:
            known = {}
            for metric in self.problem.metrics:
                records = [self.folder.find(self.at_rate(Run(seed, task=metric.task)).key) for seed in self.seeds]
                values = [self._validation(record)[metric.name] for record in records if record is not None]
                if not values:
                    raise InputError(f'no training of task "{metric.task}" alone has finished, and nothing can be chosen')
                known[metric.name] = mean(values)
                if not known[metric.name] or not math.isfinite(known[metric.name]):
                    raise InputError(
                        f'the single-task baseline of metric "{metric.name}" is {known[metric.name]:g} on the validation '
                        "split, and nothing can be chosen relative to that; leave --lr and --tuned-weights out, or the metric"
                    )
            self._remember(baseline=known)
        return {name: float(value) for name, value in known.items()}

    def _validation(self, record: Record) -> dict[str, float]:
        return self.problem.validated(record["final"]["validation"])

    def _scores(
        self, found: Mapping[Any, Record | None], baseline: Mapping[str, float], metrics: Iterable[Metric]
    ) -> dict[Any, float]:
        return {
            key: math.nan if record is None else delta_m(self._validation(record), baseline, metrics)
            for key, record in found.items()
        }

    def _remember_rate(self, label: str, found: Mapping[float, Record | None], scores: Mapping[float, float]) -> None:
        """The best of the runs that finished; nothing where none did, so that the next start tries again."""
        finished = [rate for rate, record in found.items() if record is not None]
        if finished:
            best = min(finished, key=lambda rate: (math.isnan(scores.get(rate, math.nan)), scores.get(rate, math.nan)))
            self._remember(lr={**self.chosen.get("lr", {}), label: best})

    def _remember(self, **found: Any) -> None:
        self.folder.remember(tuned={**self.chosen, **found})

    def _carry_out(self, runs: Sequence[Run], carry_out: CarryOut) -> None:
        missing = [run for run in {run.key: run for run in runs}.values() if not self.runs.finished(run, self.epochs)]
        if missing:
            self.runs.make()
            with self.runs.locked():
                carry_out(missing, self.runs)


def _usable(own: Mapping[str, float], metrics: Sequence[Metric]) -> bool:
    """Whether others can be judged relative to these values."""
    return bool(metrics) and all(own[metric.name] and math.isfinite(own[metric.name]) for metric in metrics)
