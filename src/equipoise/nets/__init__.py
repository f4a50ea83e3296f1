"""Networks of the benchmarks."""

from equipoise.nets.digits import DigitsNet

__all__ = ["DigitsNet"]
