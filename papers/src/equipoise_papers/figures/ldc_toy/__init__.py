"""Figure 1 of the LDC-MTL paper: equal weighting, MGDA, FAMO and LDC-MTL on the two-task toy problem."""

from equipoise_papers.figures.ldc_toy.make import make
from equipoise_papers.figures.ldc_toy.run import Outcome, Trajectories, outcomes, run
from equipoise_papers.figures.ldc_toy.settings import METHODS, Settings

__all__ = ["METHODS", "Outcome", "Settings", "Trajectories", "make", "outcomes", "run"]
