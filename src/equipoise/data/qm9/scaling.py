"""Targets brought to mean 0 and deviation 1, and errors brought back to the units that are reported."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from equipoise.data.qm9.targets import TARGETS
from equipoise.errors import DataSetError

__all__ = ["TargetScaling"]


@dataclass(frozen=True)
class TargetScaling:
    """What turns the targets of QM9, y, into what is trained on, (y − mean) / std, for each of the eleven.

    Attributes:
        mean: [11], in torch_geometric's units.
        std: [11], with n − 1 in the denominator, as ``torch.std`` has it.

    Example:
        >>> y = torch.randn(100, 11) * 3 + 5
        >>> scaling = TargetScaling.of(y)
        >>> bool(torch.allclose(scaling.unscaled(scaling.scaled(y)), y, atol=1e-5))
        True
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, targets: Tensor) -> TargetScaling:
        """The scaling of the training split's targets ``[N, 11]``.

        Raises:
            DataSetError: fewer than two molecules, or a target that is the same for all of them.
        """
        exact = targets.double()
        std = exact.std(dim=0) if len(exact) > 1 else torch.zeros(exact.shape[1])
        if not bool((std > 0).all()):
            constant = [target.name for target, own in zip(TARGETS, std.tolist(), strict=True) if not own > 0]
            raise DataSetError(
                f"the targets {', '.join(constant)} are the same for all of {len(exact)} training molecules "
                "and cannot be scaled"
            )
        return cls(exact.mean(dim=0).float(), std.float())

    @classmethod
    def none(cls) -> TargetScaling:
        """The scaling that changes nothing."""
        return cls(torch.zeros(len(TARGETS)), torch.ones(len(TARGETS)))

    def scaled(self, targets: Tensor) -> Tensor:
        """From torch_geometric's units to what is trained on, ``[…, 11]``."""
        return (targets - self.mean.to(targets)) / self.std.to(targets)

    def unscaled(self, outputs: Tensor) -> Tensor:
        """From what is trained on to torch_geometric's units, ``[…, 11]``."""
        return outputs * self.std.to(outputs) + self.mean.to(outputs)

    def reported(self, errors: Tensor) -> dict[str, float]:
        """Mean absolute errors in the units that are reported, meV for energies.

        Args:
            errors: absolute errors of what is trained on, ``[N, 11]``, of any number of molecules.

        Returns:
            Name of the target → its mean absolute error in :attr:`Target.unit <equipoise.data.qm9.Target>`.
        """
        means = errors.double().mean(dim=0).cpu() * self.std.double()
        return {target.name: float(mean) * target.factor for target, mean in zip(TARGETS, means, strict=True)}
