"""Small problems over K tasks, solved exactly: pure NumPy in float64, without models or autograd.

All functions take a Gramian Q = G Gᵀ [K, K] of task gradients and return K numbers. Each has a companion that
measures, without units, how well an answer meets its defining equation; the tolerance that the solver guarantees is in
its docstring. Zero, equal and opposed gradients, any rank and any scale have a defined, finite answer.
"""

from equipoise.solvers.aligned import aligned_residual, aligned_weights
from equipoise.solvers.conflict_averse import conflict_averse_direction, conflict_averse_residual, conflict_averse_weights
from equipoise.solvers.conflict_free import conflict_free_residual, conflict_free_weights
from equipoise.solvers.constrained_descent import (
    constrained_descent,
    constrained_descent_residual,
    constraint_multiplier,
    printed_constrained_descent,
)
from equipoise.solvers.dual_cone import dual_cone_projection, dual_cone_residual, unconflicting_weights
from equipoise.solvers.equal_projections import equal_projections, equal_projections_residual
from equipoise.solvers.fair import fair_residual, fair_weights
from equipoise.solvers.gramian import ScaledGramian, read_array, scale_gramian
from equipoise.solvers.group_values import group_values, grouping_cost
from equipoise.solvers.grouping import affinity_propagation, color_greedily, conflicts_within, net_similarity
from equipoise.solvers.hypervolume import hypervolume_residual, hypervolume_weights, ranks
from equipoise.solvers.minimum_norm import minimum_norm_point, minimum_norm_residual, pareto_distance
from equipoise.solvers.nash import nash_bargaining, nash_residual
from equipoise.solvers.nonnegative import nonnegative_quadratic_program, nonnegative_residual
from equipoise.solvers.priority import priority_residual, priority_weights
from equipoise.solvers.project_conflicts import project_conflicts, random_orders
from equipoise.solvers.project_on_simplex import project_on_simplex
from equipoise.solvers.simplex import simplex_quadratic_program, simplex_residual
from equipoise.solvers.vaccine import vaccinate

__all__ = [
    "ScaledGramian",
    "affinity_propagation",
    "aligned_residual",
    "aligned_weights",
    "color_greedily",
    "conflict_averse_direction",
    "conflict_averse_residual",
    "conflict_averse_weights",
    "conflict_free_residual",
    "conflict_free_weights",
    "conflicts_within",
    "constrained_descent",
    "constrained_descent_residual",
    "constraint_multiplier",
    "dual_cone_projection",
    "dual_cone_residual",
    "equal_projections",
    "equal_projections_residual",
    "fair_residual",
    "fair_weights",
    "group_values",
    "grouping_cost",
    "hypervolume_residual",
    "hypervolume_weights",
    "minimum_norm_point",
    "minimum_norm_residual",
    "nash_bargaining",
    "nash_residual",
    "net_similarity",
    "nonnegative_quadratic_program",
    "nonnegative_residual",
    "pareto_distance",
    "printed_constrained_descent",
    "priority_residual",
    "priority_weights",
    "project_conflicts",
    "project_on_simplex",
    "random_orders",
    "ranks",
    "read_array",
    "scale_gramian",
    "simplex_quadratic_program",
    "simplex_residual",
    "unconflicting_weights",
    "vaccinate",
]
