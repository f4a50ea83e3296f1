"""Data sets, and the small loader that turns tensors in memory into batches."""

from equipoise.data.batches import TensorBatches
from equipoise.data.digits import Digits, digits

__all__ = ["Digits", "TensorBatches", "digits"]
