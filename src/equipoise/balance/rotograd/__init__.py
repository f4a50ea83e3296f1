"""RotoGrad: a rotation of the shared features before each head, and the balancer that learns them."""

from equipoise.balance.rotograd.rotations import Rotations
from equipoise.balance.rotograd.rotograd import RotoGrad

__all__ = ["Rotations", "RotoGrad"]
