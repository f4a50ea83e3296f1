"""Projected gradient descent (PGD): the perturbation within a small cube around an image that raises the loss most."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from equipoise.errors import InputError

__all__ = ["PGD"]


@dataclass(frozen=True)
class PGD:
    """x ← clip(x + s·sign(∇_x cross-entropy)), kept within ``radius`` of the image in every pixel (Madry et al., 2018).

    Nothing random: it starts at the image itself, so one step with ``step_size = radius`` is the fast gradient sign method
    (FGSM). Networks with batch statistics or dropout have to be in evaluation mode.

    Args:
        radius: ε, of the cube (ℓ∞ ball), in units of pixel values.
        steps: of the ascent; 0 for no attack.
        step_size: s; left out, 2.5 ε / steps, with which the far side of the cube can be reached.
        low: the smallest value of a pixel.
        high: the largest.

    Raises:
        InputError: a radius below 0, steps below 0, a step size that is not positive, or ``low`` not below ``high``.

    Example:
        >>> attack = PGD(radius=0.1, steps=4)
        >>> images, labels = torch.tensor([[0.5, 0.02]]), torch.tensor([0])
        >>> attack(lambda images: images @ torch.eye(2), images, labels)
        tensor([[0.4000, 0.1200]])
    """

    radius: float
    steps: int = 5
    step_size: float | None = None
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.radius < float("inf"):
            raise InputError(f"radius must be finite and at least 0; got {self.radius}")
        if self.steps < 0:
            raise InputError(f"steps must be a whole number of at least 0; got {self.steps}")
        if self.step_size is not None and not 0 < self.step_size < float("inf"):
            raise InputError(f"step_size must be positive and finite; got {self.step_size}")
        if not self.low < self.high:
            raise InputError(f"low must be below high; got {self.low} and {self.high}")

    def __call__(self, classify: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> Tensor:
        """Perturbed images, without a graph.

        Args:
            classify: images → logits ``[N, classes]``; a sample's logits must depend on its own image only.
            images: ``[N, …]`` with pixels in ``[low, high]``.
            labels: ``[N]``, the true classes.

        Raises:
            InputError: the logits do not depend on the images.
        """
        clean = images.detach()
        found = clean
        step_size = self.step_size if self.step_size is not None else 2.5 * self.radius / max(1, self.steps)
        lowest, highest = (clean - self.radius).clamp(min=self.low), (clean + self.radius).clamp(max=self.high)
        for _ in range(self.steps):
            with torch.enable_grad():
                moving = found.clone().requires_grad_()
                loss = F.cross_entropy(classify(moving), labels, reduction="sum")
                if not loss.requires_grad:
                    raise InputError("the logits do not depend on the images; classify(images) must not run under no_grad()")
                (gradient,) = torch.autograd.grad(loss, moving)
            found = torch.minimum(torch.maximum(found + step_size * gradient.sign(), lowest), highest)
        return found
