"""SegNet: encoder and decoder that hands on the places of the maxima; with split heads, and with attention."""

from equipoise.nets.segnet.mtan import SegNetMTAN
from equipoise.nets.segnet.split import SegNet
from equipoise.nets.segnet.trunk import SegNetTrunk

__all__ = ["SegNet", "SegNetMTAN", "SegNetTrunk"]
