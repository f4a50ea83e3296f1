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
