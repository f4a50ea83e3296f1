"""QM9's targets: names, units, and their scaling."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from equipoise.errors import DataSetError

__all__ = ["TARGETS", "Target", "TargetScaling"]


@dataclass(frozen=True)
class Target:
    """One property of a molecule.

    Attributes:
        name: as a task.
        column: where torch_geometric's QM9 has it among its 19.
        unit: in which errors are reported.
        factor: from torch_geometric's unit to that one.
        meaning: in words.
    """

    name: str
    column: int
    unit: str
    factor: float
    meaning: str


# Navon et al. 2022 (Nash-MTL) and all that followed leave out the gap between HOMO and LUMO, and take the energies of
# atomisation in place of U0, U, H and G. torch_geometric has energies in eV; they are reported in meV.
TARGETS = (
    Target("mu", 0, "D", 1.0, "dipole moment"),
    Target("alpha", 1, "a0³", 1.0, "isotropic polarisability"),
    Target("homo", 2, "meV", 1000.0, "energy of the highest occupied molecular orbital"),
    Target("lumo", 3, "meV", 1000.0, "energy of the lowest unoccupied molecular orbital"),
    Target("r2", 5, "a0²", 1.0, "electronic spatial extent"),
    Target("zpve", 6, "meV", 1000.0, "zero point vibrational energy"),
    Target("U0", 12, "meV", 1000.0, "atomisation energy at 0 K"),
    Target("U", 13, "meV", 1000.0, "atomisation energy at 298.15 K"),
    Target("H", 14, "meV", 1000.0, "atomisation enthalpy at 298.15 K"),
    Target("G", 15, "meV", 1000.0, "atomisation free energy at 298.15 K"),
    Target("Cv", 11, "cal/(mol K)", 1.0, "heat capacity at 298.15 K"),
)


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
