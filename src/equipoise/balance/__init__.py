"""Balancers: how the tasks combine. One file a method.

Importing this package registers every method, in the order of the shelf: those that look at losses only, then those that
look at the Gramian of the task gradients, then those that work on the gradients themselves.
"""

from equipoise.balance.aligned_mtl import AlignedMTL
from equipoise.balance.base import Balancer, GradientBalancer, GramianBalancer, LossBalancer, Observation
from equipoise.balance.bayesagg import BayesAggMTL
from equipoise.balance.cagrad import CAGrad
from equipoise.balance.coerce import as_balancer
from equipoise.balance.config import ConFIG
from equipoise.balance.consmtl import ConsMTL
from equipoise.balance.db_mtl import DBMTL
from equipoise.balance.dualproj import DualProj
from equipoise.balance.dwa import DWA
from equipoise.balance.excess_mtl import ExcessMTL
from equipoise.balance.fairgrad import FairGrad
from equipoise.balance.famo import FAMO
from equipoise.balance.gls import GLS
from equipoise.balance.go4align import GO4Align
from equipoise.balance.graddrop import GradDrop
from equipoise.balance.gradnorm import GradNorm
from equipoise.balance.gradvac import GradVac
from equipoise.balance.imtl import IMTL
from equipoise.balance.imtl_g import IMTLG
from equipoise.balance.imtl_l import IMTLL
from equipoise.balance.ldc import LDCMTL
from equipoise.balance.ls import LS
from equipoise.balance.mgda import MGDA
from equipoise.balance.moco import MoCo
from equipoise.balance.modo import MoDo
from equipoise.balance.nash_mtl import NashMTL
from equipoise.balance.pcgrad import PCGrad
from equipoise.balance.registry import MethodInfo, balancer, method, methods, register
from equipoise.balance.rlw import RLW
from equipoise.balance.rotograd import Rotations, RotoGrad
from equipoise.balance.sdmgrad import SDMGrad
from equipoise.balance.si import SI
from equipoise.balance.stch import STCH
from equipoise.balance.upgrad import UPGrad
from equipoise.balance.uw import UW

__all__ = [
    "DBMTL",
    "DWA",
    "FAMO",
    "GLS",
    "IMTL",
    "IMTLG",
    "IMTLL",
    "LDCMTL",
    "LS",
    "MGDA",
    "RLW",
    "SI",
    "STCH",
    "UW",
    "AlignedMTL",
    "Balancer",
    "BayesAggMTL",
    "CAGrad",
    "ConFIG",
    "ConsMTL",
    "DualProj",
    "ExcessMTL",
    "FairGrad",
    "GO4Align",
    "GradDrop",
    "GradNorm",
    "GradVac",
    "GradientBalancer",
    "GramianBalancer",
    "LossBalancer",
    "MethodInfo",
    "MoCo",
    "MoDo",
    "NashMTL",
    "Observation",
    "PCGrad",
    "Rotations",
    "RotoGrad",
    "SDMGrad",
    "UPGrad",
    "as_balancer",
    "balancer",
    "method",
    "methods",
    "register",
]
