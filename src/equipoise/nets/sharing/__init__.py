"""Ways to share: a whole encoder, columns with cross-stitch units, mixtures of experts."""

from equipoise.nets.sharing.cross_stitch import CrossStitch, CrossStitchUnit
from equipoise.nets.sharing.hard import HardSharing
from equipoise.nets.sharing.mmoe import MMoE

__all__ = ["CrossStitch", "CrossStitchUnit", "HardSharing", "MMoE"]
