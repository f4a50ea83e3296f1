"""Multi-task data hyper-cleaning (thesis, section 3.7.1): which training labels are wrong, learned on clean validation data."""

from equipoise_papers.figures.hyper_cleaning.make import make
from equipoise_papers.figures.hyper_cleaning.settings import DIGITS, MNIST, Settings

__all__ = ["DIGITS", "MNIST", "Settings", "make"]
