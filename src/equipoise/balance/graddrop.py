"""GradDrop: gradient sign dropout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from equipoise.balance.base import GradientBalancer, Observation, as_numbers, finite_direction, norm_bound
from equipoise.balance.mixins import FeaturesObservation, TakesFeatures
from equipoise.balance.registry import register
from equipoise.errors import InputError, near_misses
from equipoise.states import Anything

__all__ = ["GradDrop"]


@register(
    "graddrop",
    summary="at every entry draws one sign and drops the tasks' gradients of the other",
    paper="Chen et al., Just Pick a Sign: Optimizing Deep Multitask Models with Gradient Sign Dropout, NeurIPS 2020",
    price="K backward; with `features=` 1, and K of the heads",
    promise="the sum of the gradients in expectation, with noise where signs differ and none where they agree",
    serves="many tasks, as a regulariser: joint minima are the only points without noise",
    caveats="loud losses stay loud; noisy, so compare over seeds",
    adds_up_to="has no weights: at each entry between 0 and K of the gradients remain",
    checked="its distribution, equations, TorchJD",
)
class GradDrop(TakesFeatures, GradientBalancer):
    """Σ_k (l_k + (1 − l_k) M_k) ⊙ g_k with M_k = [P > U][g_k > 0] + [P < U][g_k < 0] (Chen et al., 2020, algorithm 1).

    P = ½ (1 + Σ_k g_k / Σ_k |g_k|) is the purity of the positive sign at each entry and U is uniform on [0, 1]. Without
    leaks the expectation is Σ_k g_k at every entry: a positive part S₊ stays with probability S₊/(S₊ + S₋).

    The paper puts this into a layer: it drops entries of the gradients with respect to *activations*. With
    ``MultiTaskOptimizer(features=module)`` so does this: in place of g_k, P and M_k are made of Σ_n sign(a_n) ⊙ ∂ℓ_k/∂a_n, the
    sum over the samples (the first axis of the activations ``[N, …]``), and M_k drops that feature's gradients of task k in
    every sample; one backward pass takes the rest through the encoder. Over several processes the sums are over the joint
    batch. Without it entries of the shared parameters' gradients are dropped, as TorchJD's aggregator does; LibMTL follows the
    paper and refuses parameters' gradients. The paper's function of P is the identity, its default.

    **Mind.** Loud losses stay loud. It is noisy, so compare over seeds. It works on the parameters' gradients; with
    ``features=`` it works on those of activations, as in the paper. All K gradients are kept.

    Args:
        leak: l, how much of each gradient passes untouched, from 0 (none, the paper's default) to 1 (the plain sum): one number
            for all tasks, or one per task in their order or by name.
        seed: of the balancer's own generator, on the CPU whatever the gradients' device. Under ``torch.distributed`` every
            process must use the same seed.
        max_norm: clip the direction to this norm; 1 in released code. Left out, no clipping.

    Raises:
        InputError: a leak is not between 0 and 1, or there is not one per task; or ``max_norm`` is not positive.

    Example:
        >>> GradDrop().direction(torch.tensor([[1.0, 2.0, -1.0], [3.0, 0.0, -2.0]]))
        tensor([ 4.,  2., -3.])
    """

    stateful: ClassVar = {"generator": Anything()}

    def __init__(
        self, leak: float | Sequence[float] | Mapping[str, float] = 0.0, seed: int = 0, max_norm: float | None = None
    ) -> None:
        self._by_name = {str(k): float(v) for k, v in leak.items()} if isinstance(leak, Mapping) else None
        self._in_order: list[float] | None = None
        self._common = 0.0
        if self._by_name is None:
            if isinstance(leak, Sequence) and not isinstance(leak, str):
                self._in_order = [float(value) for value in leak]
            else:
                self._common = float(leak)  # type: ignore[arg-type]
        values = [*(self._by_name or {}).values(), *(self._in_order or []), self._common]
        if any(not 0 <= value <= 1 for value in values):
            raise InputError(f"leak must be between 0 and 1; got {leak}")
        self.seed = seed
        self.max_norm = norm_bound(max_norm)
        self.generator = torch.Generator().manual_seed(seed)

    def decide(self, observation: Observation) -> Tensor:
        """A new direction; the leaks are those of the tasks present."""
        gradients, leaks = observation.needed("gradients"), self._leaks(observation.tasks, observation.present)
        if not isinstance(observation, FeaturesObservation):
            return self._drop(gradients, leaks)
        features = observation.features if observation.features.dim() > 1 else observation.features[None]
        by_sample = gradients.unflatten(1, features.shape)
        wide = torch.promote_types(gradients.dtype, torch.float32)
        signed = (by_sample.to(wide) * features.sign()).sum(1).flatten(1)
        signed = observation.processes.sum(signed, "GradDrop's sums over the batch")
        positive, negative = signed.clamp(min=0).sum(0), -signed.clamp(max=0).sum(0)
        total = positive + negative
        drawn = torch.rand(total.shape, generator=self.generator, dtype=wide, device="cpu").to(gradients.device)
        up = positive / torch.where(total > 0, total, 1) > drawn
        kept = torch.zeros_like(by_sample[0])
        for row, sums, leak in zip(by_sample, signed, leaks, strict=True):
            chosen = torch.where(up, sums > 0, sums < 0).to(gradients.dtype).view(features.shape[1:])
            kept += row * (leak + (1 - leak) * chosen)
        return self._clipped(kept.flatten())

    def direction(self, gradients: Tensor | ArrayLike) -> Tensor:
        """A new direction ``[P]`` from the gradients ``[K, P]`` of all tasks."""
        gradients = as_numbers(gradients, "task gradients", 2)
        if self._by_name is not None:
            raise InputError("leaks given by name need the tasks' names; use the balancer in a step")
        tasks = tuple(f"task{k}" for k in range(len(gradients)))
        return finite_direction(self._drop(gradients, self._leaks(tasks, tuple(range(len(tasks))))))

    def _leaks(self, tasks: tuple[str, ...], present: tuple[int, ...]) -> list[float]:
        if self._by_name is not None:
            for name in self._by_name:
                if name not in tasks:
                    raise InputError(f'a leak was given for task "{name}", which does not exist.{near_misses(name, tasks)}')
            return [self._by_name.get(tasks[position], 0.0) for position in present]
        if self._in_order is not None:
            if len(self._in_order) != len(tasks):
                raise InputError(f"{len(self._in_order)} leaks were given for {len(tasks)} tasks; give one for every task")
            return [self._in_order[position] for position in present]
        return [self._common] * len(present)

    def _drop(self, gradients: Tensor, leaks: Sequence[float]) -> Tensor:
        wide = torch.promote_types(gradients.dtype, torch.float32)
        positive = torch.zeros(gradients.shape[1:], dtype=wide, device=gradients.device)
        negative, leaked = torch.zeros_like(positive), torch.zeros_like(positive)
        # Shares of the largest entry, for their sums may leave the number range.
        largest = gradients.abs().amax(0).to(wide)
        scale = torch.where(largest > 0, largest, 1)
        for row, leak in zip(gradients, leaks, strict=True):
            shares = row.to(wide) / scale
            positive += shares.clamp(min=0)
            negative -= shares.clamp(max=0)
            leaked += leak * shares
        total = positive + negative
        purity = positive / torch.where(total > 0, total, 1)
        drawn = torch.rand(gradients.shape[1:], generator=self.generator, dtype=wide, device="cpu").to(gradients.device)
        if not any(leaks):
            kept = torch.where(purity > drawn, positive, -negative)
        else:
            kept = leaked
            for row, leak in zip(gradients, leaks, strict=True):
                shares = row.to(wide) / scale
                chosen = torch.where(purity > drawn, shares.clamp(min=0), shares.clamp(max=0))
                kept = kept + (1 - leak) * chosen
        return self._clipped(kept * scale).to(gradients.dtype)

    def _clipped(self, kept: Tensor) -> Tensor:
        norm = 0.0 if self.max_norm is None else float(torch.linalg.vector_norm(kept, dtype=torch.float64))
        return kept * min(1.0, self.max_norm / norm) if self.max_norm is not None and norm > 0 else kept

    def __repr__(self) -> str:
        given = self._by_name if self._by_name is not None else self._in_order
        clip = "" if self.max_norm is None else f", max_norm={self.max_norm}"
        return f"GradDrop(leak={self._common if given is None else given}, seed={self.seed}{clip})"
