"""Parameter deltas: the shapes that Δθ may take while a teleport is looked for."""

from equipoise.teleport.deltas.base import Adaptation, Delta, Difference
from equipoise.teleport.deltas.dense import Dense
from equipoise.teleport.deltas.loha import LoHa
from equipoise.teleport.deltas.low_rank import LowRank
from equipoise.teleport.deltas.oft import OFT

__all__ = ["OFT", "Adaptation", "Delta", "Dense", "Difference", "LoHa", "LowRank"]
