"""Fronts compared: Pareto sets and a tuned sweep of fixed weights, at equal cost, on one problem.

``running.py`` has one run, of a set or a sweep; :class:`Fronts` carries out the runs of all methods and seeds in a folder,
``outcome.py`` turns them into points and hypervolumes, and ``report.py`` into a page with the picture of the front.
"""

from equipoise.fronts.fronts import Fronts
from equipoise.fronts.outcome import FrontsOutcome
from equipoise.fronts.running import narrowed

__all__ = ["Fronts", "FrontsOutcome", "narrowed"]
