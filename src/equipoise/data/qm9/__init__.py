"""QM9: small molecules and eleven of their properties, from torch_geometric's files or the package qm9pack."""

from equipoise.data.qm9.molecules import TARGETS, QM9Molecules, Target, TargetScaling, qm9_loaders

__all__ = ["TARGETS", "QM9Molecules", "Target", "TargetScaling", "qm9_loaders"]
