"""Optuna's samplers and pruners by name."""

from __future__ import annotations

import warnings

import numpy as np
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler

from equipoise.errors import InputError, near_misses

__all__ = ["PRUNERS", "SAMPLERS", "make_pruner", "make_sampler"]

SAMPLERS = ("tpe", "random", "qmc", "nsga2", "gp")
PRUNERS = ("none", "median", "hyperband")
_STARTUP = 10  # trials at random before a model of them is worth anything


def make_sampler(name: str, *, seed: int, asked: int, budget: int) -> BaseSampler:
    """A fresh sampler for the next trial.

    Optuna's samplers keep nothing but their random generator; all else they read from the trials. So the generator is made
    from the sweep's seed and the number of trials so far: a sweep that was killed asks for what it would have asked for.
    A third of the budget, at most 10 trials, is drawn at random before a model is used.

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
