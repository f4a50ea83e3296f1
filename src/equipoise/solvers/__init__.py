"""Small problems over K tasks, solved exactly: pure NumPy in float64, without models or autograd.

All functions take a Gramian Q = G Gᵀ [K, K] of task gradients and return K numbers. Each has a companion that
measures, without units, how well an answer meets its defining equation; the tolerance that the solver guarantees is in
its docstring. Zero, equal and opposed gradients, any rank and any scale have a defined, finite answer.
"""

from equipoise.solvers.aligned import aligned_residual, aligned_weights
from equipoise.solvers.conflict_averse import (
    conflict_averse_direction,
    conflict_averse_residual,
    conflict_averse_weights,
    imbalance_direction,
)
from equipoise.solvers.conflict_free import conflict_free_residual, conflict_free_weights
from equipoise.solvers.conic import conic_direction, conic_residual, conic_weights
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
from equipoise.solvers.intervention import intervened_weights, intervention_slope
from equipoise.solvers.krum import krum_residual, krum_scores, krum_weights
from equipoise.solvers.linear import linear_program, linear_program_residual
from equipoise.solvers.minimum_norm import minimum_norm_point, minimum_norm_residual, pareto_distance
from equipoise.solvers.nash import nash_bargaining, nash_residual
from equipoise.solvers.nonnegative import nonnegative_quadratic_program, nonnegative_residual
from equipoise.solvers.orthogonal_parts import orthogonal_parts, orthogonal_parts_residual
from equipoise.solvers.preferred import (
    bounded_descent,
    bounded_descent_residual,
    constant_distance_descent,
    constant_distance_residual,
    exact_pareto_program,
    exact_pareto_weights,
    least_slack_program,
    least_slack_weights,
    ray_descent,
    ray_descent_residual,
    ray_distance,
)
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
    "bounded_descent",
    "bounded_descent_residual",
    "color_greedily",
    "conflict_averse_direction",
    "conflict_averse_residual",
    "conflict_averse_weights",
    "conflict_free_residual",
    "conflict_free_weights",
    "conflicts_within",
    "conic_direction",
    "conic_residual",
    "conic_weights",
    "constant_distance_descent",
    "constant_distance_residual",
    "constrained_descent",
    "constrained_descent_residual",
    "constraint_multiplier",
    "dual_cone_projection",
    "dual_cone_residual",
    "equal_projections",
    "equal_projections_residual",
    "exact_pareto_program",
    "exact_pareto_weights",
    "fair_residual",
    "fair_weights",
    "group_values",
    "grouping_cost",
    "hypervolume_residual",
    "hypervolume_weights",
    "imbalance_direction",
    "intervened_weights",
    "intervention_slope",
    "krum_residual",
    "krum_scores",
    "krum_weights",
    "least_slack_program",
    "least_slack_weights",
    "linear_program",
    "linear_program_residual",
    "minimum_norm_point",
    "minimum_norm_residual",
    "nash_bargaining",
    "nash_residual",
    "net_similarity",
    "nonnegative_quadratic_program",
    "nonnegative_residual",
    "orthogonal_parts",
    "orthogonal_parts_residual",
    "pareto_distance",
    "printed_constrained_descent",
    "priority_residual",
    "priority_weights",
    "project_conflicts",
    "project_on_simplex",
    "random_orders",
    "ranks",
    "ray_descent",
    "ray_descent_residual",
    "ray_distance",
    "read_array",
    "scale_gramian",
    "simplex_quadratic_program",
    "simplex_residual",
    "unconflicting_weights",
    "vaccinate",
]
