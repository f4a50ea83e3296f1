"""Losses that are means over points: what such a loss tells of its points, and trainable weights for each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from equipoise.engine.batched import gradients_at_once
from equipoise.engine.sparse import stored
from equipoise.errors import InputError

__all__ = ["Residuals", "SelfAdaptivePoints", "kernel_trace", "mean_square", "residuals_of", "squares"]

_KEY = "equipoise residuals"
_CHUNK = 64


class Residuals(NamedTuple):
    """What a loss is the mean square of.

    Attributes:
        values: r, of any shape, on the graph.
        weights: w, of a shape that fits r's; ``None`` where all are 1.
    """

    values: Tensor
    weights: Tensor | None


def mean_square(residuals: Tensor, weights: Tensor | None = None) -> Tensor:
    """The mean of w_i r_i² over points, a loss that remembers its residuals for methods that look at them (``ntk``).

    Args:
        residuals: r, real numbers of any shape, such as one per point.
        weights: w, of a shape that fits.

    Returns:
        A scalar, the same number as ``(weights * residuals.square()).mean()``. A compiled loss function gives that
        number as well, but what it remembers is lost.

    Raises:
        InputError: there are no residuals, or they are complex.

    Example:
        >>> mean_square(torch.tensor([1.0, 3.0]))
        tensor(5.)
    """
    if residuals.numel() == 0:
        raise InputError("the mean square of no residuals is not a number; give at least one point")
    if residuals.is_complex():
        raise InputError("residuals must be real numbers; give torch.view_as_real(residuals)")
    loss = (residuals.square() if weights is None else weights * residuals.square()).mean()
    # On the node of the graph, not on the tensor: so it is found behind casts, sums and factors, and dies with the graph.
    if loss.grad_fn is not None and not torch.compiler.is_compiling():
        _notes(loss.grad_fn)[_KEY] = Residuals(residuals, weights)
    return loss


def residuals_of(loss: Tensor | torch.autograd.graph.Node) -> list[Residuals]:
    """The residuals of every :func:`mean_square` that a loss is made of; none where it is made of none."""
    found: list[Residuals] = []
    todo = [loss.grad_fn if isinstance(loss, Tensor) else loss]
    seen = set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if _KEY in _notes(node):
            found.append(_notes(node)[_KEY])
        else:
            todo += [earlier for earlier, _ in node.next_functions]
    return found


def _notes(node: torch.autograd.graph.Node) -> dict[str, Residuals]:
    notes: Any = node.metadata  # a dictionary, whatever torch's stubs say
    return cast("dict[str, Residuals]", notes)


def kernel_trace(
    residuals: Residuals, parameters: Sequence[Tensor], probes: int = 0, generator: torch.Generator | None = None
) -> Tensor:
    """The trace Σ_i w_i ‖∂r_i/∂θ‖² of the neural tangent kernel J W Jᵀ of some residuals, J = ∂r/∂θ.

    Exactly, by one row of J per point, 64 at once where the graph admits it. With ``probes``, Hutchinson's estimate from that
    many backward passes: the mean of ‖Jᵀ W^½ v‖² over vectors v of random signs. It is right on average, with the standard
    deviation √(2 Σ_{i≠j} K_ij² / probes), which is at most √(2/probes) times the trace.

    Args:
        residuals: r and w.
        parameters: θ.
        probes: how many random vectors; 0 for the exact trace.
        generator: of the signs, on the CPU.

    Returns:
        A scalar in float64.

    Example:
        >>> weight = torch.tensor([2.0, 1.0], requires_grad=True)
        >>> points = torch.tensor([[1.0, 0.0], [3.0, 4.0]])
        >>> float(kernel_trace(Residuals(points @ weight, None), [weight]))
        26.0
    """
    values = residuals.values
    if not values.requires_grad:
        return torch.zeros((), dtype=torch.float64, device=values.device)
    count = values.numel()
    roots = torch.ones_like(values) if residuals.weights is None else residuals.weights.detach().sqrt().expand_as(values)
    total = torch.zeros((), dtype=torch.float64, device=values.device)
    for start in range(0, probes or count, _CHUNK):
        size = min(_CHUNK, (probes or count) - start)
        if probes:
            signs = torch.randint(2, (size, count), generator=generator, device="cpu") * 2 - 1
        else:
            signs = torch.zeros(size, count, dtype=torch.int64, device="cpu")
            places = torch.arange(size, device="cpu")
            signs[places, start + places] = 1
        total = total + squares(values, parameters, roots * signs.to(values).reshape(size, *values.shape))
    return total / probes if probes else total


def squares(values: Tensor, parameters: Sequence[Tensor], seeds: Tensor) -> Tensor:
    """The sum of the squares of all gradients Jᵀs over the seeds s, which are stacked, in float64; the graph is kept."""
    at_once = gradients_at_once([values], parameters, [seeds])
    if isinstance(at_once, Exception):
        one_by_one = [
            torch.autograd.grad(values, parameters, seed, retain_graph=True, allow_unused=True) for seed in seeds.unbind()
        ]
        gradients: Any = [gradient for row in one_by_one for gradient in row]
    else:
        gradients = at_once
    parts = [stored(gradient).abs().double().square().sum() for gradient in gradients if gradient is not None]
    return torch.stack(parts).sum() if parts else torch.zeros((), dtype=torch.float64, device=values.device)


class SelfAdaptivePoints(nn.Module):
    """Self-adaptive weights: one trainable weight λ_i per point, which grows where the residual stays large.

    The loss is the mean of m(λ_i) r_i², which the network descends and λ ascends:
    min_θ max_λ mean_i m(λ_i) r_i(θ)² (McClenny and Braga-Neto, Self-Adaptive Physics-Informed Neural Networks, J. Comput. Phys.
    2023, arXiv 2009.04544). m is λ², as in the released code (github.com/levimcclenny/SA-PINNs), unless said otherwise; the
    paper's text beyond its abstract could not be had.

    Make it a part of the model, so that λ is saved with it, and give the optimizer :meth:`ascent` as a group of its own;
    torch's optimizers then go up. With a balancer, λ counts as the task's own parameters. The points have to stay the same
    throughout training; a batch of them is named by its positions.

    Args:
        points: N, how many points there are.
        start: λ at the beginning, a number or ``[N]``, at least 0.
        mask: m, increasing and not negative, such as ``torch.sigmoid``; λ² if left out.

    Raises:
        InputError: there are no points, or a start that is negative, not finite or not theirs.

    Example:
        >>> network = nn.Linear(1, 1)
        >>> points = SelfAdaptivePoints(3)
        >>> adam = torch.optim.Adam([{"params": network.parameters()}, points.ascent(lr=0.1)], lr=1e-3)
        >>> points(network(torch.tensor([[0.0], [1.0], [5.0]]))).backward()
        >>> adam.step()
        >>> points.scales
        Parameter containing:
        tensor([1.1000, 1.1000, 1.1000], requires_grad=True)
    """

    def __init__(
        self, points: int, start: float | Sequence[float] | Tensor = 1.0, mask: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__()
        if points < 1:
            raise InputError(f"points must be at least 1; got {points}")
        # A module: its weights go where torch's own modules put theirs.
        given = torch.as_tensor(start, dtype=torch.get_default_dtype(), device=None).detach()
        if given.dim() > 1 or (given.dim() == 1 and len(given) != points):
            raise InputError(f"start must be a number or one for each of {points} points; got the shape {list(given.shape)}")
        if not bool((given.isfinite() & (given >= 0)).all()):
            raise InputError("start must be finite and at least 0")
        self.scales = nn.Parameter(given.expand(points).clone())
        self.mask = torch.square if mask is None else mask

    def forward(self, residuals: Tensor, points: Tensor | None = None) -> Tensor:
        """The weighted mean square.

        Args:
            residuals: r ``[n, …]``, one row per point.
            points: positions ``[n]`` of these points among all; left out, they are all of them.

        Raises:
            InputError: not one row per point.
        """
        scales = self.scales if points is None else self.scales[points]
        if residuals.dim() == 0 or len(residuals) != len(scales):
            raise InputError(
                f"residuals of {len(scales)} points have the shape [{len(scales)}, …]; got {list(residuals.shape)}"
                + (", and no positions of the points" if points is None else "")
            )
        return mean_square(residuals, self.mask(scales).reshape(-1, *[1] * (residuals.dim() - 1)))

    def ascent(self, lr: float, **options: Any) -> dict[str, Any]:
        """The group of parameters that an optimizer is to be given, with its step size; ``options`` are the optimizer's."""
        return {"params": [self.scales], "lr": lr, "maximize": True, **options}
