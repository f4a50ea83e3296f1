"""Fronts instead of points: one model for all preferences, sets of solutions, and what measures them.

:class:`ParetoSet` wraps a model so that it has a member per preference, by one of the ``families.py``;
:class:`ParetoTraining` trains all of them at once, one preference per step. ``preferences.py`` says where on the front a
solution is wanted, ``indicators.py`` how good a set of points is (moocore's).
"""

from equipoise.pareto.families import (
    FAMILIES,
    ConditionedInput,
    ConditionedLayers,
    Family,
    Hypernetwork,
    LinearSubspace,
    LowRankUpdates,
)
from equipoise.pareto.indicators import epsilon, hypervolume, igd_plus, nondominated
from equipoise.pareto.populations import MOOSVGD, HVGrad, Population
from equipoise.pareto.preferences import Preferences, grid
from equipoise.pareto.sets import Front, ParetoSet
from equipoise.pareto.training import ParetoTraining

__all__ = [
    "FAMILIES",
    "MOOSVGD",
    "ConditionedInput",
    "ConditionedLayers",
    "Family",
    "Front",
    "HVGrad",
    "Hypernetwork",
    "LinearSubspace",
    "LowRankUpdates",
    "ParetoSet",
    "ParetoTraining",
    "Population",
    "Preferences",
    "epsilon",
    "grid",
    "hypervolume",
    "igd_plus",
    "nondominated",
]
