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
    finish: Callable[[Any, Array], Array] = lambda answer, _gram: np.asarray(answer, dtype=np.float64)


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
        Method("CAGrad", _cagrad, lambda gram, weights: solvers.conflict_averse_residual(gram, C, weights)),
        Method("IMTL-G", _imtl_g, solvers.equal_projections_residual),
        Method("Nash-MTL", _nash, solvers.nash_residual),
        Method("Nash-MTL, compiled once", _nash_compiled, solvers.nash_residual),
        Method("FairGrad", _fair, lambda gram, weights: solvers.fair_residual(gram, 1.0, weights)),
        Method("FairGrad α=2", _fair_two, lambda gram, weights: solvers.fair_residual(gram, 2.0, weights)),
        Method("UPGrad", _upgrad, _unconflicting_difference),
        Method("DualProj", _dualproj, lambda gram, w: solvers.dual_cone_residual(gram, np.full(len(gram), 1 / len(gram)), w)),
        Method("Aligned-MTL", _aligned, lambda gram, w: solvers.aligned_residual(gram, np.full(len(gram), 1 / len(gram)), w)),
        Method("ConFIG", _config, lambda gram, weights: solvers.conflict_free_residual(gram, np.ones(len(gram)), weights)),
        Method("GradVac", _gradvac, lambda _gram, _weights: float("nan")),
    ]


def _tensors(matrices: list[Array]) -> list[torch.Tensor]:
    return [torch.from_numpy(matrix) for matrix in matrices]


def _torchjd(name: str, grams: list[Array], **options: Any) -> Route:
    from torchjd import aggregation

    weighting = getattr(aggregation, name)(**options)
    tensors = _tensors(grams)
    return Route(lambda turn: weighting(tensors[turn]))


def _mgda(_gradients: list[Array], grams: list[Array]) -> dict[str, Route]:
    routes = {"ours": Route(lambda turn: solvers.minimum_norm_point(grams[turn]))}
    if peers.torchjd():
        routes["TorchJD"] = _torchjd("MGDAWeighting", grams)
    return routes | {"reference": Route(lambda turn: references.frank_wolfe(grams[turn]))}


def _cagrad(_gradients: list[Array], grams: list[Array]) -> dict[str, Route]:
    def dual(direction: Any, _gram: Array) -> Array:
        extra = np.asarray(direction, dtype=np.float64) - 1.0 / len(direction)
        return np.asarray(extra / extra.sum(), dtype=np.float64)

    def direction(turn: int) -> Array:
        return solvers.conflict_averse_direction(grams[turn], C)

    # A direction leaves no trace of the weights where they do not matter, so the residual is that of the weights.
    routes = {"ours": Route(direction, lambda _direction, gram: solvers.conflict_averse_weights(gram, C))}
    if peers.torchjd() and peers.has("cvxpy"):
        routes["TorchJD"] = Route(_torchjd("CAGradWeighting", grams, c=C).solve, dual)
    if peers.has("scipy"):
        routes["reference"] = Route(lambda turn: references.slsqp_cagrad(grams[turn], C))
    return routes


def _imtl_g(_gradients: list[Array], grams: list[Array]) -> dict[str, Route]:
    routes = {"ours": Route(lambda turn: solvers.equal_projections(grams[turn]))}
    if peers.torchjd():
        routes["TorchJD"] = _torchjd("IMTLGWeighting", grams)
    return routes | {"reference": Route(lambda turn: references.closed_form_imtl_g(grams[turn]))}


def _nash(gradients: list[Array], grams: list[Array]) -> dict[str, Route]:
    tasks = len(grams[0])
    routes = {"ours": Route(lambda turn: solvers.nash_bargaining(grams[turn]))}
    if not (peers.has("cvxpy") and peers.has("ecos")):
        return routes
    if peers.torchjd():
        from torchjd.aggregation import NashMTL

        weighting = NashMTL(tasks, max_norm=0.0, update_weights_every=1, optim_niter=20).weighting
        matrices = _tensors(gradients)

        def rescaled(answer: Any, gram: Array) -> Array:
            # It fixes the length by another convention; only the direction is judged.
            weights: Array = np.asarray(answer, dtype=np.float64)
            weights = weights * np.sqrt(len(gram) / float(weights @ gram @ weights))
            return weights

        routes["TorchJD"] = Route(lambda turn: weighting(matrices[turn]), rescaled)
    reference = references.ConvexConcaveNash(tasks)
    return routes | {"reference": Route(lambda turn: reference(grams[turn]))}


def _nash_compiled(_gradients: list[Array], grams: list[Array]) -> dict[str, Route]:
    routes = {"ours": Route(lambda turn: solvers.nash_bargaining(grams[turn]))}
    if not (peers.has("cvxpy") and peers.has("ecos")):
        return routes
    reference = references.ConvexConcaveNash(len(grams[0]), compiled=True)
    return routes | {"reference": Route(lambda turn: reference(grams[turn]))}


def _fair(_gradients: list[Array], grams: list[Array], alpha: float = 1.0) -> dict[str, Route]:
    routes = {"ours": Route(lambda turn: solvers.fair_weights(grams[turn], alpha))}
    if not peers.has("scipy"):
        return routes
    if peers.torchjd():
        routes["TorchJD"] = _torchjd("FairGradWeighting", grams, alpha=alpha)
    return routes | {"reference": Route(lambda turn: references.least_squares_fair(grams[turn], alpha))}


def _fair_two(gradients: list[Array], grams: list[Array]) -> dict[str, Route]:
    return _fair(gradients, grams, alpha=2.0)


def _mean(gram: Array) -> Array:
    return np.full(len(gram), 1.0 / len(gram))


def _unconflicting_difference(gram: Array, weights: Array) -> float:
    """The sum of projections has no equation of its own: the distance from the sum of K programmes solved one by one, in ‖·‖_Q.

    Relative to the sum of the lengths that the direction is made of.
    """
    tasks = len(gram)
    exact = _mean(gram)
    for task in range(tasks):
        exact = exact + solvers.nonnegative_quadratic_program(gram, -gram[task]) / tasks
    norms = np.sqrt(gram.diagonal())
    change = (weights - exact) * norms
    cosines = gram / norms[:, None] / norms
    return float(np.sqrt(max(float(change @ cosines @ change), 0.0)) / (np.abs(exact) @ norms))


def _upgrad(_gradients: list[Array], grams: list[Array]) -> dict[str, Route]:
    routes = {"ours": Route(lambda turn: solvers.unconflicting_weights(grams[turn], _mean(grams[turn])))}
    return routes | ({"TorchJD": _torchjd("UPGradWeighting", grams)} if peers.torchjd() and peers.has("quadprog") else {})


def _dualproj(_gradients: list[Array], grams: list[Array]) -> dict[str, Route]:
    routes = {"ours": Route(lambda turn: solvers.dual_cone_projection(grams[turn], _mean(grams[turn])))}
    return routes | ({"TorchJD": _torchjd("DualProjWeighting", grams)} if peers.torchjd() and peers.has("quadprog") else {})


def _aligned(_gradients: list[Array], grams: list[Array]) -> dict[str, Route]:
    routes = {"ours": Route(lambda turn: solvers.aligned_weights(grams[turn], _mean(grams[turn])))}
    return routes | ({"TorchJD": _torchjd("AlignedMTLWeighting", grams)} if peers.torchjd() else {})


def _config(gradients: list[Array], grams: list[Array]) -> dict[str, Route]:
    routes = {"ours": Route(lambda turn: solvers.conflict_free_weights(grams[turn], np.ones(len(grams[turn]))))}
    if peers.torchjd():
        from torchjd.aggregation import ConFIG

        aggregator, matrices = ConFIG(), _tensors(gradients)

        def weights(direction: Any, _gram: Array) -> Array:
            # It answers with a direction, in the span of as many gradients as there are tasks.
            turn = next(place for place, gram in enumerate(grams) if gram is _gram)
            found: Array = np.linalg.lstsq(gradients[turn].T, np.asarray(direction), rcond=None)[0]
            return found

        routes["TorchJD"] = Route(lambda turn: aggregator(matrices[turn]), weights)
    return routes


def _gradvac(_gradients: list[Array], grams: list[Array]) -> dict[str, Route]:
    generator, tasks = np.random.default_rng(0), len(grams[0])
    targets = np.zeros((tasks, tasks))
    routes = {
        "ours": Route(
            lambda turn: solvers.vaccinate(grams[turn], solvers.random_orders(tasks, generator), targets)[0],
        )
    }
    return routes | ({"TorchJD": _torchjd("GradVacWeighting", grams)} if peers.torchjd() else {})
