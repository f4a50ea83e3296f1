"""COST: teleport the shared parameters to a loss-equivalent point with less conflict, on top of any balancer.

:class:`COST` is the policy. A trigger says when, a delta says along which directions, a search says what is sought there
(its formulation) and how, a guard says whether to land, a schedule and probes say how often and on which batches, and a
history policy says what becomes of the optimizer's memory. For a delta, a trigger, a formulation or a history policy of your
own, derive from :class:`Delta` and :class:`Difference`, :class:`Trigger`, :class:`Formulation` or :class:`History`.
"""

from equipoise.teleport.attempt import TeleportReport
from equipoise.teleport.cost import COST
from equipoise.teleport.deltas import (
    DELTAS,
    OFT,
    Delta,
    Dense,
    DenseDifference,
    Difference,
    LoHa,
    LowRank,
    RankedDelta,
    matrix_shape,
    uniform_factor,
    zero_factor,
)
from equipoise.teleport.formulations import (
    FORMULATIONS,
    Formulation,
    PaperFormulation,
    ParetoFormulation,
    ReleasedFormulation,
    Terms,
)
from equipoise.teleport.guard import Guard
from equipoise.teleport.history import (
    HISTORIES,
    History,
    KeepHistory,
    ReleasedHistory,
    ResetHistory,
    ReuseHistory,
    blend,
    reset,
)
from equipoise.teleport.probes import Probes
from equipoise.teleport.schedule import Schedule
from equipoise.teleport.search import Search
from equipoise.teleport.triggers import (
    TRIGGERS,
    Dominated,
    Majority,
    Released,
    Trigger,
    Weak,
    mean_cosines,
    norms,
    pairwise_cosines,
)

__all__ = [
    "COST",
    "DELTAS",
    "FORMULATIONS",
    "HISTORIES",
    "OFT",
    "TRIGGERS",
    "Delta",
    "Dense",
    "DenseDifference",
    "Difference",
    "Dominated",
    "Formulation",
    "Guard",
    "History",
    "KeepHistory",
    "LoHa",
    "LowRank",
    "Majority",
    "PaperFormulation",
    "ParetoFormulation",
    "Probes",
    "RankedDelta",
    "Released",
    "ReleasedFormulation",
    "ReleasedHistory",
    "ResetHistory",
    "ReuseHistory",
    "Schedule",
    "Search",
    "TeleportReport",
    "Terms",
    "Trigger",
    "Weak",
    "blend",
    "matrix_shape",
    "mean_cosines",
    "norms",
    "pairwise_cosines",
    "reset",
    "uniform_factor",
    "zero_factor",
]
