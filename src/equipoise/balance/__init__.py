"""Balancers: how the tasks combine. One file per method.

A method is a file of this folder (or of a part of it) that registers its class with :func:`register`; nothing else names it.
All are imported when a method is first looked for by its name, or a class as an attribute of this package.
"""

from typing import TYPE_CHECKING

from equipoise.balance.base import Balancer, GradientBalancer, GramianBalancer, LossBalancer, Observation
from equipoise.balance.coerce import as_balancer
from equipoise.balance.registry import REGISTRY, MethodInfo, balancer, classes, method, methods, register

# methods: classes
if TYPE_CHECKING:
    from equipoise.balance.aim import AIM as AIM
    from equipoise.balance.aligned_mtl import AlignedMTL as AlignedMTL
    from equipoise.balance.bayesagg.bayesagg_mtl import BayesAggMTL as BayesAggMTL
    from equipoise.balance.cagrad import CAGrad as CAGrad
    from equipoise.balance.coba import CoBa as CoBa
    from equipoise.balance.config import ConFIG as ConFIG
    from equipoise.balance.conicgrad import ConicGrad as ConicGrad
    from equipoise.balance.consmtl import ConsMTL as ConsMTL
    from equipoise.balance.cosmos import COSMOS as COSMOS
    from equipoise.balance.cr_mogm import CRMOGM as CRMOGM
    from equipoise.balance.db_mtl import DBMTL as DBMTL
    from equipoise.balance.doge import DoGE as DoGE
    from equipoise.balance.doremi import DoReMi as DoReMi
    from equipoise.balance.dualproj import DualProj as DualProj
    from equipoise.balance.dwa import DWA as DWA
    from equipoise.balance.epo import EPO as EPO
    from equipoise.balance.excess_mtl import ExcessMTL as ExcessMTL
    from equipoise.balance.fairgrad import FairGrad as FairGrad
    from equipoise.balance.famo import FAMO as FAMO
    from equipoise.balance.ferero import FERERO as FERERO
    from equipoise.balance.gls import GLS as GLS
    from equipoise.balance.go4align import GO4Align as GO4Align
    from equipoise.balance.graddrop import GradDrop as GradDrop
    from equipoise.balance.gradnorm import GradNorm as GradNorm
    from equipoise.balance.gradops import GradOPS as GradOPS
    from equipoise.balance.gradvac import GradVac as GradVac
    from equipoise.balance.igb import IGB as IGB
    from equipoise.balance.imgrad import IMGrad as IMGrad
    from equipoise.balance.imtl import IMTL as IMTL
    from equipoise.balance.imtl_g import IMTLG as IMTLG
    from equipoise.balance.imtl_l import IMTLL as IMTLL
    from equipoise.balance.krum import Krum as Krum
    from equipoise.balance.ldc.ldc_mtl import LDCMTL as LDCMTL
    from equipoise.balance.lr_annealing import LRAnnealing as LRAnnealing
    from equipoise.balance.ls import LS as LS
    from equipoise.balance.madam import MAdam as MAdam
    from equipoise.balance.mgda import MGDA as MGDA
    from equipoise.balance.moco import MoCo as MoCo
    from equipoise.balance.modo import MoDo as MoDo
    from equipoise.balance.nash_mtl import NashMTL as NashMTL
    from equipoise.balance.ntk import NTK as NTK
    from equipoise.balance.pbi import PBI as PBI
    from equipoise.balance.pcd import PCD as PCD
    from equipoise.balance.pcgrad import PCGrad as PCGrad
    from equipoise.balance.pmgda import PMGDA as PMGDA
    from equipoise.balance.pmtl import PMTL as PMTL
    from equipoise.balance.psmgd import PSMGD as PSMGD
    from equipoise.balance.relobralo import ReLoBRaLo as ReLoBRaLo
    from equipoise.balance.rlw import RLW as RLW
    from equipoise.balance.rotograd.rotograd import RotoGrad as RotoGrad
    from equipoise.balance.sam_gs import SAMGS as SAMGS
    from equipoise.balance.samo import SAMO as SAMO
    from equipoise.balance.sdmgrad import SDMGrad as SDMGrad
    from equipoise.balance.si import SI as SI
    from equipoise.balance.softadapt import SoftAdapt as SoftAdapt
    from equipoise.balance.stch import STCH as STCH
    from equipoise.balance.trimmed_mean import TrimmedMean as TrimmedMean
    from equipoise.balance.upgrad import UPGrad as UPGrad
    from equipoise.balance.uw import UW as UW
# end of methods

# fmt: off
__all__ = [
    "REGISTRY", "Balancer", "GradientBalancer", "GramianBalancer", "LossBalancer", "MethodInfo", "Observation",
    "as_balancer", "balancer", "method", "methods", "register",
]
# fmt: on

# methods: names
# fmt: off
__all__ += [
    "AIM", "COSMOS", "CRMOGM", "DBMTL", "DWA", "EPO", "FAMO", "FERERO", "GLS", "IGB", "IMTL", "IMTLG", "IMTLL", "LDCMTL", "LS",
    "MGDA", "NTK", "PBI", "PCD", "PMGDA", "PMTL", "PSMGD", "RLW", "SAMGS", "SAMO", "SI", "STCH", "UW", "AlignedMTL",
    "BayesAggMTL", "CAGrad", "CoBa", "ConFIG", "ConicGrad", "ConsMTL", "DoGE", "DoReMi", "DualProj", "ExcessMTL", "FairGrad",
    "GO4Align", "GradDrop", "GradNorm", "GradOPS", "GradVac", "IMGrad", "Krum", "LRAnnealing", "MAdam", "MoCo", "MoDo",
    "NashMTL", "PCGrad", "ReLoBRaLo", "RotoGrad", "SDMGrad", "SoftAdapt", "TrimmedMean", "UPGrad"
]
# fmt: on
# end of methods

if not TYPE_CHECKING:  # for a type checker these are the imports above, and nothing else exists

    def __getattr__(name: str) -> object:
        if not name.startswith("_") and name in (found := classes()):
            globals().update(found)
            return found[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *classes()})
