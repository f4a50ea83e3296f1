"""What happened in one attempt to teleport."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["TeleportReport"]


@dataclass(frozen=True)
class TeleportReport:
    """One attempt. Vectors have one entry per task, in the order of ``tasks``.

    What is called *before* and *after* was measured at θ and at θ + Δθ on the held-out batches (on the search's own where
    none are held out).

    Attributes:
        step: index of the step after which it was made.
        epoch: counted from 0.
        trigger: name of the condition that asked for it.
        tasks: names of the tasks that the batches hold.
        accepted: whether the parameters were moved.
        reason: why, in words.
        sigma: cos(Δθ, g') of eq. 12.
        distance: ‖Δθ‖.
        cosines_before: cosine of each task gradient with the mean gradient.
        cosines_after: the same at θ + Δθ; empty if the search failed.
        norms_before: norm of each task gradient.
        norms_after: the same at θ + Δθ.
        losses_before: each task's loss.
        losses_after: the same at θ + Δθ.
        measure_before: the trigger's measure of conflict; above zero is conflict.
        measure_after: the same at θ + Δθ.
        invariance: L_t before each inner step.
        reward: L_g (or the agreement that was sought) before each inner step.
        seconds: wall time of the attempt.
    """

    step: int
    epoch: int
    trigger: str
    tasks: tuple[str, ...]
    accepted: bool
    reason: str
    sigma: float
    distance: float
    cosines_before: tuple[float, ...]
    cosines_after: tuple[float, ...]
    norms_before: tuple[float, ...]
    norms_after: tuple[float, ...]
    losses_before: tuple[float, ...]
    losses_after: tuple[float, ...]
    measure_before: float
    measure_after: float
    invariance: tuple[float, ...]
    reward: tuple[float, ...]
    seconds: float

    @property
    def changes(self) -> tuple[float, ...]:
        """Relative change of each loss, (after - before) / |before|; empty if the search failed."""
        return tuple(
            (after - before) / max(abs(before), 1e-30)
            for before, after in zip(self.losses_before, self.losses_after, strict=False)
        )

    def as_dict(self) -> dict[str, Any]:
        """As plain lists and numbers, for a record or a saved state."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, entries: dict[str, Any]) -> TeleportReport:
        """The report that :meth:`as_dict` came from."""
        plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in entries.items()}
        return cls(**plain)
