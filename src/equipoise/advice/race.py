"""The race: successive halving over methods and learning rates on the validation split, judged on fresh seeds."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from equipoise import terminal
from equipoise.advice.advice import Advice, Entrant, judged
from equipoise.advice.candidates import PLAIN, WEIGHTS, Candidate, candidates
from equipoise.cluster import Ray
from equipoise.diagnosis import Diagnosis, diagnose_problem
from equipoise.diagnosis.costs import costs
from equipoise.diagnosis.diagnosing import found_device, stage
from equipoise.diagnosis.looks import endless
from equipoise.errors import EquipoiseError, InputError
from equipoise.metrics import delta_m
from equipoise.metrics.metric import mean
from equipoise.modules import moved
from equipoise.store import RunStore, write_json
from equipoise.study import Problem, Results, Study, find_problem
from equipoise.study.methods import Method, MethodLike, parse_methods
from equipoise.study.plan import parse_seeds
from equipoise.study.problem import Built
from equipoise.study.processes.launchers import connected
from equipoise.terminal import printable

__all__ = ["Race"]

_FINALISTS = 2  # beside plain training and fixed weights
_SAME_PRICE = 1.2  # steps that cost less than this, over plain training's, need no longer plain training beside them


@dataclass(frozen=True, eq=False)
class Arm:
    """A method with a learning rate: what a rung ranks."""

    candidate: str
    method: Method
    factor: float

    @property
    def key(self) -> str:
        """Tells it from the others of a race."""
        return f"{self.method.label} lr×{self.factor:g}"


@dataclass(frozen=True)
class _Scaled:
    """Builds the model of a problem with all learning rates multiplied."""

    build: Callable[[int], Built]
    optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    factor: float

    def __call__(self, seed: int) -> Built:
        model, losses, *rest = self.build(seed)
        optimizer = rest[0] if rest else self.optimizer(model)
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * self.factor  # a tensor, for some optimizers
        return model, losses, optimizer


class Race:
    r"""Says which method to use on a problem.

    1. A diagnosis, which says who can take part and gives fixed weights to try.
    2. Every candidate with every learning rate, for a quarter of the epochs, on one seed. Each keeps its best learning rate,
       and the better half goes on.
    3. Half of the epochs on two seeds; the best two go on.
    4. These, plain training and fixed weights, on the ``seeds`` that judge, which have chosen nothing, for all epochs; and
       plain training and fixed weights once more for the *time* that the best takes.

    Plain training (equal weights) and fixed weights take part to the end. All ranking is by the mean relative change of the
    metrics against plain training on the validation split; reported and tested is that on the test split. Every candidate
    has as many learning rates and epochs as any other, and runs of equal seed start alike and see the same batches.

    Killed at any moment, it goes on where it stopped; seeds that judge can be added later.

    Args:
        problem: a :class:`~equipoise.study.Problem`, or the name of a built-in one.
        methods: who takes part beside plain training and fixed weights; see :func:`~equipoise.advice.candidates`.
        seeds: that judge; see :func:`equipoise.study.plan.parse_seeds`.
        epochs: of the last rung; the problem's own if left out.
        rates: the learning rates that are tried, as multiples of the problem's own; 1 must be among them.
        folder: where everything goes; ``results/<problem>-advice`` if left out.
        jobs: runs at a time; as many as there are processors if left out.
        longer: whether plain training and fixed weights are trained once more for the time that the best takes.
        seed: of the rungs that choose, and the one after it; neither may be among ``seeds``.
        steps: of the diagnosis; ``looks`` likewise.
        device: of the diagnosis.
        console: where progress is shown; standard error if left out.
        start: as in a study: ``"auto"``, ``"fork"``, ``"spawn"`` or a :class:`~equipoise.cluster.Ray`.

    Raises:
        InputError: an argument that cannot be used.

    Example::

        advice = Race("digits", seeds=5).run()
        print("\n".join(advice.sentences()))
    """

    def __init__(
        self,
        problem: Problem | str,
        methods: str | Iterable[MethodLike] | Mapping[str, Any] | None = None,
        *,
        seeds: int | str | Iterable[int] = 5,
        epochs: int | None = None,
        rates: Sequence[float] = (0.3, 1.0, 3.0),
        folder: str | os.PathLike[str] | None = None,
        jobs: int | None = None,
        longer: bool = True,
        seed: int = 1000,
        steps: int = 300,
        looks: int = 20,
        device: str = "cpu",
        console: Console | None = None,
        start: str | Ray = "auto",
    ) -> None:
        self.problem = find_problem(problem) if isinstance(problem, str) else problem
        self.methods = methods
        self.seeds = parse_seeds(seeds)
        self.epochs = self.problem.epochs if epochs is None else epochs
        self.rates = tuple(float(rate) for rate in rates)
        if isinstance(self.epochs, bool) or not isinstance(self.epochs, int) or self.epochs < 1:
            raise InputError(f"epochs is {self.epochs}; it must be a whole number, at least 1")
        if (
            1.0 not in self.rates
            or any(not 0 < rate < math.inf for rate in self.rates)
            or len(set(self.rates)) < len(self.rates)
        ):
            raise InputError(f"rates is {self.rates}; give different positive multiples of the problem's own, 1 among them")
        if {seed, seed + 1} & set(self.seeds):
            raise InputError(
                f"seeds {seed} and {seed + 1} of the search are among the seeds {', '.join(map(str, self.seeds))} that judge; "
                "give others, because what is chosen on a seed looks better on it than it is"
            )
        self.seed, self.longer = seed, longer
        self.jobs, self.start = jobs, start
        self.steps, self.looks, self.device = steps, looks, found_device(device)
        self.store = RunStore(
            Path("results") / f"{self.problem.name}-advice" if folder is None else folder, "race.json", what="race", schema=1
        )
        self.console = console or terminal.console(stderr=True)

    @property
    def path(self) -> Path:
        """The folder."""
        return self.store.path

    def run(self) -> Advice:
        """Carries out what is missing, writes ``advice.json`` and gives the advice.

        Raises:
            InputError: the folder holds another race, or the problem has no validation split.
            EquipoiseError: plain training failed.
        """
        lr = self._own_lr()
        with self.store.locked(), connected(self.start):
            self.store.claim(self._asked(), kept=("found",), growing=("seeds",))
            found = self._diagnosis()
            taking_part, left_out = candidates(self.problem, found, self.methods)
            runs = sum(len(own.variants) for own in taking_part) * len(self.rates)
            first, second = max(1, self.epochs // 4), max(1, self.epochs // 2)
            self._say(
                f"race: {len(taking_part)} candidates, {runs} runs of {first} epochs, then the better half, then the best"
            )
            rungs = []
            arms = [Arm(own.name, method, rate) for own in taking_part for method in own.variants for rate in self.rates]
            scores = self._rung("1", arms, (self.seed,), first)
            rungs.append(_described(scores))
            arms = _better(scores, taking_part, math.ceil(len(taking_part) / 2))
            scores = self._rung("2", arms, (self.seed, self.seed + 1), second)
            rungs.append(_described(scores))
            arms = _better(scores, taking_part, _FINALISTS)
            entrants = self._final(arms, left_out)
            advice = judged(
                problem=self.problem.name,
                metrics=self.problem.metrics,
                seeds=self.seeds,
                epochs=self.epochs,
                lr=lr,
                entrants=entrants,
                rungs=rungs,
                left_out=left_out,
            )
            write_json(self.path / "advice.json", advice.as_json())
            return advice

    def _asked(self) -> dict[str, Any]:
        asked = "default" if self.methods is None else [method.label for method in parse_methods(self.methods)]
        return {
            "problem": self.problem.identity(),
            "methods": asked,
            "seeds": list(self.seeds),
            "epochs": self.epochs,
            "rates": list(self.rates),
            "seed": self.seed,
            "steps": self.steps,
            "looks": self.looks,
            "found": {},
        }

    def _diagnosis(self) -> Diagnosis:
        """Made once: what takes part must not change when the race is gone on with."""
        from equipoise.diagnosis.page import write_page

        place = self.path / "diagnosis"
        if not (place / "report.html").exists():
            self._say(f"diagnosis: {self.steps} steps of plain training")
            found = diagnose_problem(self.problem, seed=self.seed, steps=self.steps, looks=self.looks, device=str(self.device))
            write_page(found, place)
        # Read in either case: rounded numbers give the same weights.
        return Diagnosis.read(place / "diagnosis.json")

    def _rung(self, name: str, arms: Sequence[Arm], seeds: Sequence[int], epochs: int) -> dict[Arm, float]:
        """Arm → mean change against plain training on the validation split (%); not a number for one that failed on a seed."""
        values = self._trained(f"rung{name}", arms, seeds, epochs)["validation"]
        plain = sorted((arm for arm in arms if arm.candidate == PLAIN and values[arm]), key=lambda arm: arm.factor != 1.0)
        if not plain:
            raise EquipoiseError(f"plain training failed; look at {self.path / f'rung{name}'}")
        base = self._base(*(values[arm] for arm in plain))
        return {
            arm: mean(self._change(one, base) for one in own.values()) if len(own) == len(seeds) else math.nan
            for arm, own in values.items()
        }

    def _final(self, arms: Sequence[Arm], left_out: dict[str, str]) -> list[Entrant]:
        values = self._trained("final", arms, self.seeds, self.epochs)
        plain = next(arm for arm in arms if arm.candidate == PLAIN)
        if not values["test"][plain]:
            raise EquipoiseError(f"plain training failed; look at {self.path / 'final'}")
        for arm in arms:
            failed = len(self.seeds) - len(values["test"][arm])
            if failed and arm is not plain:
                left_out[arm.candidate] = f"it failed on {failed} of {len(self.seeds)} seeds that judge"
        arms = [arm for arm in arms if arm.candidate not in left_out]
        price = self._prices(arms)
        base = {split: self._base(own[plain]) for split, own in values.items()}

        def entrant(arm: Arm, own: Mapping[str, Mapping[int, dict[str, float]]], epochs: int) -> Entrant:
            changes = {
                split: {seed: self._change(one, base[split]) for seed, one in sorted(own[split].items())} for split in own
            }
            metrics = {metric.name: mean(one[metric.name] for one in own["test"].values()) for metric in self.problem.metrics}
            return Entrant(
                arm.candidate,
                arm.method.label,
                "" if arm.method.spec is None else str(arm.method.spec),
                arm.factor,
                epochs,
                price[arm.key],
                changes["validation"],
                changes["test"],
                metrics,
            )

        entrants = [entrant(arm, {split: own[arm] for split, own in values.items()}, self.epochs) for arm in arms]
        best = min(entrants, key=lambda one: one.score)
        longer = round(self.epochs * best.price)
        if self.longer and best.price >= _SAME_PRICE and longer > self.epochs:
            cheap = [arm for arm in arms if arm.candidate in (PLAIN, WEIGHTS)]
            self._say(f"plain training and fixed weights for the time of {best.label}: {longer} epochs")
            again = self._trained(f"longer{longer}", cheap, self.seeds, longer)
            entrants += [
                entrant(arm, {split: own[arm] for split, own in again.items()}, longer)
                for arm in cheap
                if len(again["test"][arm]) == len(self.seeds)
            ]
        return entrants

    def _prices(self, arms: Sequence[Arm]) -> dict[str, float]:
        """What a step costs over plain training, timed by itself and once: going on must not change how long runs are."""
        known: dict[str, float] = self.store.configuration()["found"].get("prices", {})
        missing = [arm for arm in arms if arm.key not in known]
        if missing:
            with stage(self.problem, self.seed, str(self.device)) as (objective, splits, optimizer):
                objective.model.train()
                batches = (moved(batch, self.device) for batch in endless(splits.train))
                kinds = [("", None), *((arm.key, arm.method.spec or arm.method.make(0)) for arm in missing)]
                shared = self.problem.shared(objective.model) if self.problem.shared else None
                found = costs(objective, optimizer, batches, kinds, shared=shared)
            for cost in found[1:]:
                known[cost.kind] = math.nan if cost.ratio is None else cost.ratio
            for arm in missing:
                if arm.candidate in (PLAIN, WEIGHTS):
                    known[arm.key] = 1.0
                elif arm.method.teleport is not None or math.isnan(known[arm.key]):
                    # Not every step costs the same, or a step cannot be taken outside of a run.
                    known[arm.key] = self._seconds(arm) / self._seconds(next(one for one in arms if one.candidate == PLAIN))
            self.store.remember(found={"prices": known})
        return {arm.key: float(known[arm.key]) for arm in arms}

    def _seconds(self, arm: Arm) -> float:
        """Mean seconds per step in the runs of the last rung."""
        records = Results(self.path / "final" / f"rate{arm.factor:g}").records(arm.method.label)
        return mean(float(record["seconds_a_step"]["mean"]) for record in records.values())

    def _trained(
        self, part: str, arms: Sequence[Arm], seeds: Sequence[int], epochs: int
    ) -> dict[str, dict[Arm, dict[int, dict[str, float]]]]:
        """Split → arm → seed → metric → value, as the problem reports it; what is there is not trained again."""
        values: dict[str, dict[Arm, dict[int, dict[str, float]]]] = {
            split: {arm: {} for arm in arms} for split in ("validation", "test")
        }
        for rate in self.rates:
            own = [arm for arm in arms if arm.factor == rate]
            if not own:
                continue
            problem = self.problem
            if rate != 1.0:
                build = _Scaled(problem.build, problem.optimizer, rate)
                problem = replace(problem, build=build, options={**problem.options, "rate": rate})
            study = Study(
                problem,
                [arm.method for arm in own],
                seeds,
                epochs=epochs,
                folder=self.path / part / f"rate{rate:g}",
                jobs=self.jobs,
                gramian_every=0,
                baselines=False,
                start=self.start,
                console=self.console,
            )
            results = study.run() if study.missing() else Results(study.folder)
            for arm in own:
                records = results.records(arm.method.label) if arm.method.label in results.methods else {}
                for seed, record in records.items():
                    if seed in seeds:
                        for split, found in values.items():
                            found[arm][seed] = self.problem.validated(record["final"][split])
        return values

    def _base(self, *values: Mapping[int, Mapping[str, float]]) -> dict[str, float]:
        """Means over seeds, of the first that has most; what is 0 or not finite, to which nothing is relative, is out."""
        bases = []
        for own in values:
            found = {metric.name: mean(one[metric.name] for one in own.values()) for metric in self.problem.metrics}
            bases.append({name: value for name, value in found.items() if math.isfinite(value) and value != 0})
        base = max(bases, key=len)
        if not base:
            raise InputError("plain training has no metric that is finite and not 0, so nothing can be compared with it")
        return base

    def _change(self, values: Mapping[str, float], base: Mapping[str, float]) -> float:
        return delta_m(values, base, [metric for metric in self.problem.metrics if metric.name in base])

    def _own_lr(self) -> float | None:
        with stage(self.problem, self.seed) as (_, splits, optimizer):
            self.problem.validated(None if splits.validation is None else {})
            rates = {float(group["lr"]) for group in optimizer.param_groups if "lr" in group}
        return rates.pop() if len(rates) == 1 else None

    def _say(self, text: str) -> None:
        self.console.print(printable(text), markup=False, emoji=False, highlight=False, soft_wrap=True)


def _better(scores: Mapping[Arm, float], taking_part: Sequence[Candidate], count: int) -> list[Arm]:
    """The best arm of each of the best candidates, of plain training, which nothing can put out, and of fixed weights."""
    best: dict[str, Arm] = {}
    for arm in sorted(scores, key=lambda arm: (not math.isfinite(scores[arm]), scores[arm])):
        if math.isfinite(scores[arm]) or arm.candidate == PLAIN:
            best.setdefault(arm.candidate, arm)
    order = sorted((name for name in best if name not in (PLAIN, WEIGHTS)), key=lambda name: scores[best[name]])
    names = {*order[:count], PLAIN, WEIGHTS}
    return [best[own.name] for own in taking_part if own.name in names and own.name in best]


def _described(scores: Mapping[Arm, float]) -> list[dict[str, Any]]:
    return [
        {"candidate": arm.candidate, "method": arm.method.label, "rate": arm.factor, "change": score}
        for arm, score in scores.items()
    ]
