"""Where methods with a preference end on a concave front: ``python -m benchmarks.concave_front`` draws the guide's picture.

The losses are those of two Gaussians, 1 − exp(−‖x ∓ 1/√n‖²). Their front is concave: a weighted sum reaches its ends alone.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

import equipoise as eq
from equipoise.balance import Observation, method

__all__ = ["DESCENTS", "PREFERENCES", "descend", "main"]

PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "preferences.png"
PREFERENCES = ((0.15, 0.85), (0.35, 0.65), (0.65, 0.35), (0.85, 0.15))
# Steps, learning rate and how it fades. What has a kink along its ray swings about it unless steps are small in the end.
DESCENTS = {
    "ls": (300, 0.1, 1.0),
    "upgrad": (300, 0.1, 1.0),
    "nash-mtl": (300, 0.1, 0.98),
    "cagrad": (300, 0.1, 1.0),
    "stch:mu=0.002": (300, 0.3, 0.985),
    "epo": (120, 0.2, 0.98),
    "pmgda": (120, 0.1, 0.98),
    "ferero": (80, 0.2, 1.0),
    "pmtl": (150, 0.1, 1.0),
    "pbi": (300, 0.1, 0.985),
    "cosmos:penalty=20": (200, 0.02, 1.0),
    "ferero:bounds=[inf,0.3]": (80, 0.2, 1.0),
    "ferero:bounds=[0.45,inf]": (80, 0.2, 1.0),
}
_SHOWN = tuple(text for text in DESCENTS if "bounds" not in text)


def descend(text: str, preference: tuple[float, ...] | None, start: tuple[float, ...] = (0.1, -0.2, 0.3)) -> Tensor:
    """The losses on the way ``[steps + 1, 2]`` with the weights of a method.

    Args:
        text: the method, one of :data:`DESCENTS`.
        preference: of the two losses; ``None`` for that of the text.
        start: the parameters before the first step.
    """
    balancer = eq.balancer(text) if preference is None else eq.balancer(text, preference=list(preference))
    point = torch.tensor(start, dtype=torch.float64)
    center = torch.full_like(point, len(start) ** -0.5)
    steps, lr, fade = DESCENTS[text]
    way = []
    for step in range(steps + 1):
        apart = torch.stack([point - center, point + center])
        near = (-apart.square().sum(1)).exp()
        losses, rows = 1 - near, 2 * apart * near[:, None]
        way.append(losses)
        observation = Observation(("one", "two"), (0, 1), losses, rows @ rows.T, step=step)
        point = point - lr * fade**step * (balancer.decide(observation) @ rows)
        balancer.update(observation)
    return torch.stack(way)


def main() -> None:
    """Draws the picture: a panel per method, with the front, the rays that were asked for, and where descent ended."""
    figure = Figure(figsize=(9.6, 7.4), layout="constrained")
    shares = torch.linspace(-1, 1, 200, dtype=torch.float64)
    front = torch.stack([1 - (-((shares - 1) ** 2)).exp(), 1 - (-((shares + 1) ** 2)).exp()])
    for axes, text in zip(figure.subplots(3, 4).flat, [*_SHOWN, None], strict=True):
        if text is None:
            axes.axis("off")
            axes.text(
                0,
                0.95,
                "line: the front\n\ndashed: the ray that the\npreference asks for\n\ndotted: the way down\n\n"
                "mark: where it ended\n\n"
                "A larger p₁ makes task one\ncount more, or (marked *)\nlets its loss be larger.",
                va="top",
                fontsize=9,
            )
            continue
        info = method(text.partition(":")[0])
        axes.plot(*front.tolist(), color="0.55", lw=1.5)
        for number, preference in enumerate(PREFERENCES):
            color = f"C{number}"
            ray = preference if info.ray else tuple(reversed(preference))
            if info.ray or info.name in ("epo", "stch"):
                length = 1.1 / math.hypot(*ray)
                axes.plot((0, length * ray[0]), (0, length * ray[1]), color=color, lw=0.7, ls="--")
            way = descend(text, preference)
            axes.plot(*way.T.tolist(), color=color, lw=0.9, ls=":")
            axes.plot(*way[-1].tolist(), "o", color=color, ms=6, label=f"p₁ = {preference[0]}")
        axes.set_title(text + (" *" if info.ray else ""), fontsize=10)
        axes.set_xlim(-0.03, 1.03)
        axes.set_ylim(-0.03, 1.03)
        axes.set_aspect("equal")
        axes.tick_params(labelsize=7)
        if text == "ls":
            axes.legend(fontsize=7, loc="lower left")
    figure.supxlabel("loss of task one", fontsize=9)
    figure.supylabel("loss of task two", fontsize=9)
    figure.savefig(PICTURE, dpi=130)


if __name__ == "__main__":
    main()
