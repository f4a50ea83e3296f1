"""Multi-objective bilevel optimisation (thesis, chapter 3): min over α of F_1 … F_m, where ω answers to α.

:class:`BilevelProblem` says what the two levels want; the solvers share one interface,
``solver.step(lower_batches, upper_batch)``. :class:`MOML` and :class:`MoCoBilevel` differentiate through the lower level's
steps; :class:`FORUM`, :class:`BOME` and :class:`BVFIM` need first derivatives only.
:class:`TaskWeighting` learns the weights of a model's tasks on validation data with any of them.
"""

from equipoise.bilevel.base import BilevelReport, BilevelSolver
from equipoise.bilevel.bome import BOME
from equipoise.bilevel.bvfim import BVFIM
from equipoise.bilevel.forum import FORUM
from equipoise.bilevel.hypergradients import Hypergradients, Implicit, Unrolled, hypergradients
from equipoise.bilevel.lower import endless
from equipoise.bilevel.moco import MoCoBilevel
from equipoise.bilevel.moml import MOML
from equipoise.bilevel.outer_optimizers import decaying
from equipoise.bilevel.problem import BilevelProblem, Point
from equipoise.bilevel.projections import Box, Simplex
from equipoise.bilevel.weighting import TaskWeighting, hold_out, weighting, weightings

__all__ = [
    "BOME",
    "BVFIM",
    "FORUM",
    "MOML",
    "BilevelProblem",
    "BilevelReport",
    "BilevelSolver",
    "Box",
    "Hypergradients",
    "Implicit",
    "MoCoBilevel",
    "Point",
    "Simplex",
    "TaskWeighting",
    "Unrolled",
    "decaying",
    "endless",
    "hold_out",
    "hypergradients",
    "weighting",
    "weightings",
]
