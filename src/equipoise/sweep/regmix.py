"""RegMix: random mixtures on small runs, a regression from mixture to validation loss, and the mixture that it likes best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from equipoise.errors import InputError, require

__all__ = ["MixtureRegression", "RegMix", "RegMixSampler", "random_mixtures"]

MixtureRegression = Literal["boosting", "linear"]
_LEAST = 2e-4  # smaller shares are raised to it; released code sets them to 0
_PREFIX = "weights."


def random_mixtures(
    prior: Sequence[float] | int, count: int, *, seed: int = 0, temperature: float = 0.5, most: float | None = None
) -> NDArray[np.float64]:
    """Mixtures to run (Liu et al., RegMix, ICLR 2025): Dirichlet draws around a prior, from concentrated to even.

    The parameters of a draw are s p^T/Σ p^T, the strength s one of 15 from 0.1 to 5, evenly spaced by their logarithms.

    Args:
        prior: p, such as the domains' numbers of tokens; or K, for an even one.
        count: how many.
        seed: of the draws.
        temperature: T; 0.5 in released code, which brings domains of unequal size closer together.
        most: how often a domain may be seen more than its prior share; 15 in released code. No bound if left out.

    Returns:
        ``[count, K]``, rows that sum to 1; shares below 2e-4 are raised to it before that.

    Raises:
        InputError: a prior that is none, or a bound that leaves hardly any mixture.
    """
    shares = np.full(prior, 1 / prior) if isinstance(prior, int) else np.asarray(prior, dtype=np.float64)
    if shares.ndim != 1 or len(shares) < 2 or not (np.isfinite(shares).all() and (shares > 0).all()) or count < 1:
        raise InputError(
            f"a prior holds a positive number for each of at least two domains, and count is at least 1; got {prior}"
        )
    shares = shares / shares.sum()
    smooth = shares**temperature / (shares**temperature).sum()
    rng, found = np.random.default_rng(seed), []
    for _ in range(1000 * count):
        drawn = rng.dirichlet(smooth * rng.choice(np.logspace(-1, math.log10(5), 15)))
        if most is None or (drawn <= np.minimum(most * shares, 1.0)).all():
            found.append(np.maximum(drawn, _LEAST) / np.maximum(drawn, _LEAST).sum())
        if len(found) == count:
            return np.stack(found)
    raise InputError(f"hardly any mixture keeps every domain below {most} times its prior share; give a larger bound")


@dataclass(frozen=True)
class RegMix:
    """A regression from mixtures to one validation loss, fitted with scikit-learn (Liu et al., RegMix, ICLR 2025).

    The paper's text could not be had; this follows its authors' released code, with scikit-learn's boosted trees in LightGBM's
    place, of the same step size, number and size.

    Attributes:
        model: scikit-learn's.
        correlation: Spearman's ρ between losses and predictions of runs left out: whether to believe it.

    Example:
        >>> mixtures = random_mixtures(3, 40, seed=0)
        >>> fitted = RegMix.fit(mixtures, (mixtures - [0.6, 0.3, 0.1]) @ [1.0, 2.0, 3.0], "linear")
        >>> bool(fitted.correlation > 0.99), int(fitted.best(3).argmax())
        (True, 0)
    """

    model: Any
    correlation: float

    @classmethod
    def fit(
        cls,
        mixtures: ArrayLike,
        losses: ArrayLike,
        regression: MixtureRegression = "boosting",
        *,
        folds: int = 5,
        seed: int = 0,
    ) -> RegMix:
        """Fits it to runs.

        Args:
            mixtures: ``[n, K]``, of at least five runs.
            losses: ``[n]``, of each on the target's validation data.
            regression: ``"boosting"``, or ``"linear"``, which needs fewer runs and knows no optimum but a corner.
            folds: of the runs, for the correlation, each of which takes a further fit; 0 to do without.
            seed: of the trees and the folds.

        Raises:
            InputError: other shapes, too few runs, or numbers that are not finite.
        """
        x, y = np.asarray(mixtures, dtype=np.float64), np.asarray(losses, dtype=np.float64)
        if x.ndim != 2 or y.shape != x.shape[:1] or len(y) < 5 or not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise InputError(
                f"mixtures [n, K] and losses [n] of at least 5 runs, all finite, are needed; got {x.shape} and {y.shape}"
            )
        if regression not in get_args(MixtureRegression):
            raise InputError(f'regression must be "boosting" or "linear"; got "{regression}"')
        if regression == "linear":
            model = require("sklearn.linear_model", "sweep").LinearRegression()
        else:
            leaf = max(1, min(20, len(y) // 10))
            model = require("sklearn.ensemble", "sweep").HistGradientBoostingRegressor(
                max_iter=1000, learning_rate=0.01, min_samples_leaf=leaf, early_stopping=False, random_state=seed
            )
        correlation = math.nan
        if folds:
            selection = require("sklearn.model_selection", "sweep")
            parts = selection.KFold(folds, shuffle=True, random_state=seed)
            left_out = selection.cross_val_predict(model, x, y, cv=parts)
            varied = np.ptp(y) > 0 and np.ptp(left_out) > 0
            correlation = float(require("scipy.stats", "sweep").spearmanr(left_out, y).statistic) if varied else 0.0
        return cls(model.fit(x, y), correlation)

    def predict(self, mixtures: ArrayLike) -> NDArray[np.float64]:
        """The losses ``[n]`` that mixtures ``[n, K]`` are expected to reach."""
        return np.asarray(self.model.predict(np.asarray(mixtures, dtype=np.float64)))

    def best(
        self, prior: Sequence[float] | int, *, candidates: int = 100_000, top: int = 128, seed: int = 0
    ) -> NDArray[np.float64]:
        """The mean ``[K]`` of the ``top`` candidates of lowest prediction, drawn from Dirichlet(p), as in released code."""
        shares = np.ones(prior) / prior if isinstance(prior, int) else np.asarray(prior, dtype=np.float64)
        drawn = np.random.default_rng(seed).dirichlet(shares / shares.sum(), candidates)
        return np.asarray(drawn[np.argsort(self.predict(drawn), kind="stable")[:top]].mean(0))


class RegMixSampler(BaseSampler):
    """Fixed weights of a sweep by RegMix: random mixtures first, then the one that a regression on all trials likes best.

    In expectation a mixture of batches and a weighted sum of the domains' losses have one gradient, so the weights that a
    sweep tries are mixtures. Regression is on the first objective.

    Args:
        distributions: of the sweep's parameters.
        seed: of this trial.
        explore: whether this trial is still a random one.
    """

    def __init__(self, distributions: Mapping[str, BaseDistribution], seed: int, explore: bool) -> None:
        self._own = {name: own for name, own in distributions.items() if name.startswith(_PREFIX)}
        self._seed, self._explore = seed, explore
        self._random = RandomSampler(seed=seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The weights."""
        return dict(self._own)

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        """Parameters that stand for a mixture."""
        count = len(self._own)
        if not count:
            return {}
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        done = [own for own in complete if self._own.keys() <= own.params.keys()]
        if self._explore or len(done) < 5:
            return self._parameters(random_mixtures(count, 1, seed=self._seed)[0])
        sign = -1.0 if study.directions[0] is StudyDirection.MAXIMIZE else 1.0
        mixtures, losses = [self._mixture(own.params) for own in done], [sign * own.values[0] for own in done]
        fitted = RegMix.fit(mixtures, losses, folds=0)
        return self._parameters(fitted.best(count, candidates=10_000, top=32, seed=self._seed))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """All else at random."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def _mixture(self, parameters: Mapping[str, Any]) -> NDArray[np.float64]:
        sizes = [self._size(own, parameters[name]) for name, own in self._own.items()]
        return np.array(sizes) / sum(sizes)

    def _size(self, own: BaseDistribution, value: float) -> float:
        return value if isinstance(own, FloatDistribution) and own.log else -math.log(value)

    def _parameters(self, mixture: NDArray[np.float64]) -> dict[str, Any]:
        found = {}
        for (name, own), share in zip(self._own.items(), mixture.tolist(), strict=True):
            assert isinstance(own, FloatDistribution)
            value = share / float(mixture.max()) * own.high if own.log else math.exp(-len(mixture) * share)
            found[name] = min(max(value, own.low), own.high)
        return found
