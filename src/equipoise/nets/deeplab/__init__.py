"""DeepLab: dilated features, and atrous spatial pyramid pooling for each task."""

from equipoise.nets.deeplab.aspp import ASPPHead
from equipoise.nets.deeplab.network import DeepLab

__all__ = ["ASPPHead", "DeepLab"]
