"""Toy problems of the papers: losses that depend on a few parameters only, for pictures and quick trials."""

from typing import TYPE_CHECKING

from equipoise_papers.lazy import on_demand
from equipoise_papers.toys.starts import STARTS, Sign

if TYPE_CHECKING:
    from equipoise_papers.toys.pareto import TOLERANCE, ParetoCurve
    from equipoise_papers.toys.two_tasks import TwoTasks
else:  # settings of figures name a sign and starts, and must not wait for torch
    __getattr__ = on_demand(__name__, {"TOLERANCE": "pareto", "ParetoCurve": "pareto", "TwoTasks": "two_tasks"})

__all__ = ["STARTS", "TOLERANCE", "ParetoCurve", "Sign", "TwoTasks"]
