"""COST: teleport the shared parameters to a loss-equivalent point with less conflict, on top of any balancer.

``COST`` is the policy; a trigger says when, a delta says along which directions, a formulation says what is sought, a guard
says whether to land, and the history room says what becomes of the optimizer's memory.
"""

from equipoise.teleport.cost import COST
from equipoise.teleport.deltas import OFT, Delta, Dense, LoHa, LowRank
from equipoise.teleport.formulation import Formulation, PaperFormulation, ParetoFormulation, ReleasedFormulation
from equipoise.teleport.report import TeleportReport
from equipoise.teleport.triggers import Dominated, Majority, Released, Trigger, Weak

__all__ = [
    "COST",
    "OFT",
    "Delta",
    "Dense",
    "Dominated",
    "Formulation",
    "LoHa",
    "LowRank",
    "Majority",
    "PaperFormulation",
    "ParetoFormulation",
    "Released",
    "ReleasedFormulation",
    "TeleportReport",
    "Trigger",
    "Weak",
]
