"""Balancers: how the tasks combine. One file a method.

Importing this package registers every method, in the order of the shelf: those that look at losses only, then those that
look at the Gramian of the task gradients.
"""

from equipoise.balance.aligned_mtl import AlignedMTL
from equipoise.balance.base import Balancer, GradientBalancer, GramianBalancer, LossBalancer, Observation
from equipoise.balance.cagrad import CAGrad
from equipoise.balance.coerce import as_balancer
from equipoise.balance.config import ConFIG
from equipoise.balance.dualproj import DualProj
from equipoise.balance.dynamic_weight_average import DynamicWeightAverage
from equipoise.balance.fairgrad import FairGrad
from equipoise.balance.famo import FAMO
from equipoise.balance.graddrop import GradDrop
from equipoise.balance.gradvac import GradVac
from equipoise.balance.imtl import IMTL
from equipoise.balance.imtl_g import IMTLG
from equipoise.balance.linear_scalarization import LinearScalarization
from equipoise.balance.mgda import MGDA
from equipoise.balance.nash_mtl import NashMTL
from equipoise.balance.pcgrad import PCGrad
from equipoise.balance.random_loss_weighting import RandomLossWeighting
from equipoise.balance.registry import MethodInfo, balancer, method, methods, register
from equipoise.balance.scale_invariant import ScaleInvariant
from equipoise.balance.uncertainty_weighting import UncertaintyWeighting
from equipoise.balance.upgrad import UPGrad

__all__ = [
    "FAMO",
    "IMTL",
    "IMTLG",
    "MGDA",
    "AlignedMTL",
    "Balancer",
    "CAGrad",
    "ConFIG",
    "DualProj",
    "DynamicWeightAverage",
    "FairGrad",
    "GradDrop",
    "GradVac",
    "GradientBalancer",
    "GramianBalancer",
    "LinearScalarization",
    "LossBalancer",
    "MethodInfo",
    "NashMTL",
    "Observation",
    "PCGrad",
    "RandomLossWeighting",
    "ScaleInvariant",
    "UPGrad",
    "UncertaintyWeighting",
    "as_balancer",
    "balancer",
    "method",
    "methods",
    "register",
]
