"""Ways to share parameters between tasks."""

from equipoise.nets.sharing.branching import LTB, Branched
from equipoise.nets.sharing.columns import CrossStitch, CrossStitchUnit, HardSharing
from equipoise.nets.sharing.experts import CGC, PLE, DSelectK, MMoE

__all__ = ["CGC", "LTB", "PLE", "Branched", "CrossStitch", "CrossStitchUnit", "DSelectK", "HardSharing", "MMoE"]
