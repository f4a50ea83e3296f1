"""equipoise: train one PyTorch model on many tasks and keep the tasks in balance.

    objective = eq.Objective(model, losses)
    mtl = eq.MultiTaskOptimizer(objective, torch.optim.Adam(model.parameters(), 1e-3), balancer=eq.FairGrad(alpha=1.0))
    for batch in loader:
        losses = mtl.step(batch)

In a trainer that is not to change, ``loss = eq.balanced_loss(losses, balancer)`` takes the place of ``loss = sum(losses)``; for
a loop of one's own there is ``eq.backward(losses, balancer, shared=encoder)`` in place of ``sum(losses).backward()``.

Everything else is in a room: ``eq.balance`` (what a balancer is, and how to register one), ``eq.teleport``, ``eq.bilevel``,
``eq.blackbox``, ``eq.pareto``, ``eq.solvers``, ``eq.nets``, ``eq.data``, ``eq.metrics``, ``eq.errors`` and the others of
``dir(eq)``. Names and rooms are imported when they are first asked for, torch with them.
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING

from equipoise.version import __version__

if TYPE_CHECKING:
    from equipoise import advice as advice
    from equipoise import balance as balance
    from equipoise import bilevel as bilevel
    from equipoise import blackbox as blackbox
    from equipoise import data as data
    from equipoise import diagnosis as diagnosis
    from equipoise import distributed as distributed
    from equipoise import engine as engine
    from equipoise import errors as errors
    from equipoise import fronts as fronts
    from equipoise import further as further
    from equipoise import integrations as integrations
    from equipoise import metrics as metrics
    from equipoise import nets as nets
    from equipoise import objective as objective
    from equipoise import optimizer as optimizer
    from equipoise import pareto as pareto
    from equipoise import points as points
    from equipoise import randomness as randomness
    from equipoise import rewards as rewards
    from equipoise import solvers as solvers
    from equipoise import step as step
    from equipoise import study as study
    from equipoise import sweep as sweep
    from equipoise import tasks as tasks
    from equipoise import teleport as teleport
    from equipoise.balance import balancer as balancer
    from equipoise.balance import methods as methods
    from equipoise.diagnosis import diagnose as diagnose
    from equipoise.dropin import Accumulator as Accumulator
    from equipoise.dropin import backward as backward
    from equipoise.engine.gramian import gramian as gramian
    from equipoise.errors import EquipoiseError as EquipoiseError
    from equipoise.errors import InputError as InputError
    from equipoise.errors import NonFiniteError as NonFiniteError
    from equipoise.loss import balanced_loss as balanced_loss
    from equipoise.method import MethodSpec as MethodSpec
    from equipoise.objective import Objective as Objective
    from equipoise.optimizer import MultiTaskOptimizer as MultiTaskOptimizer
    from equipoise.proxy import Proxy as Proxy
    from equipoise.teleport import COST as COST

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
    "COST", "Accumulator", "EquipoiseError", "InputError", "MethodSpec", "MultiTaskOptimizer", "NonFiniteError",
    "Objective", "Proxy", "__version__", "backward", "balanced_loss", "balancer", "diagnose", "gramian", "methods",
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

# fmt: off
_HOMES = {
    "Accumulator": "dropin", "COST": "teleport", "EquipoiseError": "errors", "InputError": "errors", "MethodSpec": "method",
    "MultiTaskOptimizer": "optimizer", "NonFiniteError": "errors", "Objective": "objective", "Proxy": "proxy",
    "backward": "dropin", "balanced_loss": "loss", "balancer": "balance", "diagnose": "diagnosis",
    "gramian": "engine.gramian", "methods": "balance",
}
# fmt: on

if not TYPE_CHECKING:  # for a type checker these are the imports above, and nothing else exists

    def __getattr__(name: str) -> object:
        if name in _HOMES:
            value = getattr(importlib.import_module(f"equipoise.{_HOMES[name]}"), name)
        elif name.startswith("_"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        elif importlib.util.find_spec(f"equipoise.{name}") is not None:
            return importlib.import_module(f"equipoise.{name}")
        else:
            try:
                value = getattr(importlib.import_module("equipoise.balance"), name)
            except AttributeError:
                raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        import pkgutil

        return sorted({*globals(), *__all__, *(room.name for room in pkgutil.iter_modules(__path__))})
