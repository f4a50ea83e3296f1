"""Toy problems of the papers: losses that depend on a few parameters only, for pictures and quick trials."""

from equipoise_papers.toys.pareto import TOLERANCE, ParetoSet
from equipoise_papers.toys.two_tasks import STARTS, Sign, TwoTasks

__all__ = ["STARTS", "TOLERANCE", "ParetoSet", "Sign", "TwoTasks"]
