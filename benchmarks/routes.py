"""For each method the routes to its weights that are compared: equipoise's, TorchJD's and the reference's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import peers, references
from equipoise import solvers

__all__ = ["Method", "Route", "methods"]

Array = NDArray[np.float64]

C = 0.4
"""CAGrad's radius."""


@dataclass(frozen=True)
class Route:
    """A way to the weights.

    Attributes:
        solve: from the step's index to the answer; what is timed.
        finish: from the answer and the Gramian to the weights that the residual looks at.
    """

    solve: Callable[[int], Any]
    finish: Callable[[Any, Array], Array] = lambda answer, _gramian: np.asarray(answer, dtype=np.float64)


@dataclass(frozen=True)
class Method:
    """A method with its three routes and the measure of an answer."""

    name: str
    routes: Callable[[list[Array], list[Array]], dict[str, Route]]
    residual: Callable[[Array, Array], float]


def methods() -> list[Method]:
    """Those that come down to solving an equation."""
    return [
        Method("MGDA", _mgda, solvers.minimum_norm_residual),
        Method("CAGrad", _cagrad, lambda gramian, weights: solvers.conflict_averse_residual(gramian, C, weights)),
        Method("IMTL-G", _imtl_g, solvers.equal_projections_residual),
        Method("Nash-MTL", _nash, solvers.nash_residual),
        Method("Nash-MTL, compiled once", _nash_compiled, solvers.nash_residual),
        Method("FairGrad", _fair, lambda gramian, weights: solvers.fair_residual(gramian, 1.0, weights)),
        Method("FairGrad α=2", _fair_two, lambda gramian, weights: solvers.fair_residual(gramian, 2.0, weights)),
        Method("UPGrad", _upgrad, _unconflicting_difference),
        Method(
            "DualProj",
            _dualproj,
            lambda gramian, w: solvers.dual_cone_residual(gramian, np.full(len(gramian), 1 / len(gramian)), w),
        ),
        Method(
            "Aligned-MTL",
            _aligned,
            lambda gramian, w: solvers.aligned_residual(gramian, np.full(len(gramian), 1 / len(gramian)), w),
        ),
        Method(
            "ConFIG", _config, lambda gramian, weights: solvers.conflict_free_residual(gramian, np.ones(len(gramian)), weights)
        ),
        Method("GradVac", _gradvac, lambda _gramian, _weights: float("nan")),
    ]


def _tensors(matrices: list[Array]) -> list[torch.Tensor]:
    return [torch.from_numpy(matrix) for matrix in matrices]


def _torchjd(name: str, gramians: list[Array], **options: Any) -> Route:
    from torchjd import aggregation

    weighting = getattr(aggregation, name)(**options)
    tensors = _tensors(gramians)
    return Route(lambda turn: weighting(tensors[turn]))


def _mgda(_gradients: list[Array], gramians: list[Array]) -> dict[str, Route]:
    routes = {"ours": Route(lambda turn: solvers.minimum_norm_point(gramians[turn]))}
    if peers.torchjd():
        routes["TorchJD"] = _torchjd("MGDAWeighting", gramians)
    return routes | {"reference": Route(lambda turn: references.frank_wolfe(gramians[turn]))}


def _cagrad(_gradients: list[Array], gramians: list[Array]) -> dict[str, Route]:
    def dual(direction: Any, _gramian: Array) -> Array:
        extra = np.asarray(direction, dtype=np.float64) - 1.0 / len(direction)
        return np.asarray(extra / extra.sum(), dtype=np.float64)

    def direction(turn: int) -> Array:
        return solvers.conflict_averse_direction(gramians[turn], C)

    # A direction leaves no trace of the weights where they do not matter, so the residual is that of the weights.
    routes = {"ours": Route(direction, lambda _direction, gramian: solvers.conflict_averse_weights(gramian, C))}
    if peers.torchjd() and peers.has("cvxpy"):
        routes["TorchJD"] = Route(_torchjd("CAGradWeighting", gramians, c=C).solve, dual)
    if peers.has("scipy"):
        routes["reference"] = Route(lambda turn: references.slsqp_cagrad(gramians[turn], C))
    return routes


def _imtl_g(_gradients: list[Array], gramians: list[Array]) -> dict[str, Route]:
    routes = {"ours": Route(lambda turn: solvers.equal_projections(gramians[turn]))}
    if peers.torchjd():
        routes["TorchJD"] = _torchjd("IMTLGWeighting", gramians)
    return routes | {"reference": Route(lambda turn: references.closed_form_imtl_g(gramians[turn]))}


def _nash(gradients: list[Array], gramians: list[Array]) -> dict[str, Route]:
    tasks = len(gramians[0])
    routes = {"ours": Route(lambda turn: solvers.nash_bargaining(gramians[turn]))}
    if not (peers.has("cvxpy") and peers.has("ecos")):
        return routes
    if peers.torchjd():
        from torchjd.aggregation import NashMTL

        weighting = NashMTL(tasks, max_norm=0.0, update_weights_every=1, optim_niter=20).weighting
        matrices = _tensors(gradients)

        def rescaled(answer: Any, gramian: Array) -> Array:
            # It fixes the length by another convention; only the direction is judged.
            weights: Array = np.asarray(answer, dtype=np.float64)
            weights = weights * np.sqrt(len(gramian) / float(weights @ gramian @ weights))
            return weights

        routes["TorchJD"] = Route(lambda turn: weighting(matrices[turn]), rescaled)
    reference = references.ConvexConcaveNash(tasks)
    return routes | {"reference": Route(lambda turn: reference(gramians[turn]))}


def _nash_compiled(_gradients: list[Array], gramians: list[Array]) -> dict[str, Route]:
    routes = {"ours": Route(lambda turn: solvers.nash_bargaining(gramians[turn]))}
    if not (peers.has("cvxpy") and peers.has("ecos")):
        return routes
    reference = references.ConvexConcaveNash(len(gramians[0]), compiled=True)
    return routes | {"reference": Route(lambda turn: reference(gramians[turn]))}


def _fair(_gradients: list[Array], gramians: list[Array], alpha: float = 1.0) -> dict[str, Route]:
    routes = {"ours": Route(lambda turn: solvers.fair_weights(gramians[turn], alpha))}
    if not peers.has("scipy"):
        return routes
    if peers.torchjd():
        routes["TorchJD"] = _torchjd("FairGradWeighting", gramians, alpha=alpha)
    return routes | {"reference": Route(lambda turn: references.least_squares_fair(gramians[turn], alpha))}


def _fair_two(gradients: list[Array], gramians: list[Array]) -> dict[str, Route]:
    return _fair(gradients, gramians, alpha=2.0)


def _mean(gramian: Array) -> Array:
    return np.full(len(gramian), 1.0 / len(gramian))


def _unconflicting_difference(gramian: Array, weights: Array) -> float:
    """The sum of projections has no equation of its own: the distance from the sum of K programmes solved one by one, in ‖·‖_Q.

    Relative to the sum of the lengths that the direction is made of.
    """
    tasks = len(gramian)
    exact = _mean(gramian)
    for task in range(tasks):
        exact = exact + solvers.nonnegative_quadratic_program(gramian, -gramian[task]) / tasks
    norms = np.sqrt(gramian.diagonal())
    change = (weights - exact) * norms
    cosines = gramian / norms[:, None] / norms
    return float(np.sqrt(max(float(change @ cosines @ change), 0.0)) / (np.abs(exact) @ norms))


def _upgrad(_gradients: list[Array], gramians: list[Array]) -> dict[str, Route]:
    routes = {"ours": Route(lambda turn: solvers.unconflicting_weights(gramians[turn], _mean(gramians[turn])))}
    return routes | ({"TorchJD": _torchjd("UPGradWeighting", gramians)} if peers.torchjd() and peers.has("quadprog") else {})


def _dualproj(_gradients: list[Array], gramians: list[Array]) -> dict[str, Route]:
    routes = {"ours": Route(lambda turn: solvers.dual_cone_projection(gramians[turn], _mean(gramians[turn])))}
    return routes | ({"TorchJD": _torchjd("DualProjWeighting", gramians)} if peers.torchjd() and peers.has("quadprog") else {})


def _aligned(_gradients: list[Array], gramians: list[Array]) -> dict[str, Route]:
    routes = {"ours": Route(lambda turn: solvers.aligned_weights(gramians[turn], _mean(gramians[turn])))}
    return routes | ({"TorchJD": _torchjd("AlignedMTLWeighting", gramians)} if peers.torchjd() else {})


def _config(gradients: list[Array], gramians: list[Array]) -> dict[str, Route]:
    routes = {"ours": Route(lambda turn: solvers.conflict_free_weights(gramians[turn], np.ones(len(gramians[turn]))))}
    if peers.torchjd():
        from torchjd.aggregation import ConFIG

        aggregator, matrices = ConFIG(), _tensors(gradients)

        def weights(direction: Any, _gramian: Array) -> Array:
            # It answers with a direction, in the span of as many gradients as there are tasks.
            turn = next(place for place, gramian in enumerate(gramians) if gramian is _gramian)
            found: Array = np.linalg.lstsq(gradients[turn].T, np.asarray(direction), rcond=None)[0]
            return found

        routes["TorchJD"] = Route(lambda turn: aggregator(matrices[turn]), weights)
    return routes


def _gradvac(_gradients: list[Array], gramians: list[Array]) -> dict[str, Route]:
    generator, tasks = np.random.default_rng(0), len(gramians[0])
    targets = np.zeros((tasks, tasks))
    routes = {
        "ours": Route(lambda turn: solvers.vaccinate(gramians[turn], solvers.random_orders(tasks, generator), targets)[0])
    }
    return routes | ({"TorchJD": _torchjd("GradVacWeighting", gramians)} if peers.torchjd() else {})
