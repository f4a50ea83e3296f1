"""QM9: small molecules and eleven of their properties, through torch_geometric."""

from equipoise.data.qm9.molecules import QM9Molecules, qm9_loaders
from equipoise.data.qm9.targets import TARGETS, Target, TargetScaling

__all__ = ["TARGETS", "QM9Molecules", "Target", "TargetScaling", "qm9_loaders"]
