"""NYUv2 and Cityscapes as MTAN prepared them: folders of numbered ``.npy`` files, one folder per modality."""

from equipoise.data.dense.cityscapes import Cityscapes, cityscapes_loaders
from equipoise.data.dense.nyuv2 import NYUv2, nyuv2_loaders
from equipoise.data.dense.scenes import ZoomAndFlip

__all__ = ["Cityscapes", "NYUv2", "ZoomAndFlip", "cityscapes_loaders", "nyuv2_loaders"]
