"""The networks that are compared: the one of ``digits``, NORMAL in it, and the variants of Table 5.4."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from equipoise.nets import NORMAL, DigitsNet, FixedPositions, LearnedPositions, PositivePositions, Solver, TaskFlow

__all__ = ["NETWORKS", "build"]

NETWORKS = {
    "hps": "hard parameter sharing",
    "normal": "NORMAL",
    "equal": "constant and identical positions",
    "different": "constant but different positions",
    "positive": "positive positions, p = exp(v)",
    "first-order": "first-order flow",
    "shared-layers": "added task-shared layers",
    "task-layers": "added task-specific layers",
}
"""Short name → what it is."""

_SIZE = 50  # units of the encoder's output


def build(
    base: DigitsNet, network: str, *, positions: Sequence[float] | None, start: float, xi: float, step_size: float
) -> nn.Module:
    """Builds a variant of the network of ``digits``.

    All variants have as many parameters as NORMAL, to half a percent: u and g are 10,200 in two maps of 50 – 50 – 50 units;
    the first-order flow has one of 50 – 100 – 50; the last two have four more layers of 50 units, one after the other behind
    the encoder, or one in front of each head.

    Args:
        base: the network, whose encoder and heads become the variant's own.
        network: which variant.
        positions: for ``different``: where the tasks sit.
        start: where learned positions start, and where ``equal`` ones sit.
        xi: ξ.
        step_size: of Euler's method.
    """
    if network == "hps":
        return base
    if network == "shared-layers":
        more = [layer for _ in range(4) for layer in (nn.Linear(_SIZE, _SIZE), nn.LeakyReLU())]
        base.encoder = nn.Sequential(*base.encoder, *more)
        return base
    if network == "task-layers":
        for task, head in base.heads.items():
            assert isinstance(head, nn.Sequential)
            base.heads[task] = nn.Sequential(nn.Linear(_SIZE, _SIZE), nn.LeakyReLU(), *head)
        return base
    tasks = list(base.heads)
    made = {
        "equal": lambda: FixedPositions(tasks, start),
        "different": lambda: FixedPositions(tasks, positions or ()),
        "positive": lambda: PositivePositions(tasks, start),
    }.get(network, lambda: LearnedPositions(tasks, start))
    first_order = network == "first-order"
    flow = TaskFlow.for_vectors(
        tasks,
        _SIZE,
        hidden=2 * _SIZE if first_order else None,
        xi=0.0 if first_order else xi,
        first_order=first_order,
        positions=made(),
        solver=Solver(step_size=step_size),
    )
    # Numbers come as [N, 1] from a head, and as [N] from the network of digits.
    heads = {task: nn.Sequential(head, nn.Flatten(0)) if task in ("sum", "ink") else head for task, head in base.heads.items()}
    return NORMAL(base.encoder, flow, heads)
