"""Fronts instead of points: sets of solutions, and what measures them.

``preferences.py`` says where on the front a solution is wanted, ``indicators.py`` how good a set of points is (moocore's).
"""

from equipoise.pareto.indicators import epsilon, hypervolume, igd_plus, nondominated
from equipoise.pareto.preferences import Preferences, grid

__all__ = ["Preferences", "epsilon", "grid", "hypervolume", "igd_plus", "nondominated"]
