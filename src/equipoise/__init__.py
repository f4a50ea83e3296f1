"""equipoise: train one PyTorch model on many tasks and keep the tasks in balance.

    objective = eq.Objective(model, losses)
    mtl = eq.MultiTaskOptimizer(objective, torch.optim.Adam(model.parameters(), 1e-3), balancer=eq.FairGrad(alpha=1.0))
    for batch in loader:
        losses = mtl.step(batch)

and, for a loop of one's own, ``eq.backward(losses, balancer, shared=encoder)`` in place of ``sum(losses).backward()``.
"""

from equipoise import blackbox, solvers
from equipoise.balance import (
    DBMTL,
    FAMO,
    GLS,
    IMTL,
    IMTLG,
    IMTLL,
    LDCMTL,
    MGDA,
    STCH,
    AlignedMTL,
    Balancer,
    CAGrad,
    ConFIG,
    ConsMTL,
    DualProj,
    DynamicWeightAverage,
    ExcessMTL,
    FairGrad,
    GO4Align,
    GradDrop,
    GradientBalancer,
    GradNorm,
    GradVac,
    GramianBalancer,
    LinearScalarization,
    LossBalancer,
    MethodInfo,
    MoCo,
    NashMTL,
    Observation,
    PCGrad,
    RandomLossWeighting,
    ScaleInvariant,
    UncertaintyWeighting,
    UPGrad,
    balancer,
    methods,
    register,
)
from equipoise.dropin import backward
from equipoise.engine.gramian import gramian
from equipoise.errors import (
    EquipoiseError,
    InputError,
    MissingExtraError,
    NonFiniteError,
    UnknownMethodError,
    UnknownOptionError,
    UnknownTaskError,
)
from equipoise.objective import Objective
from equipoise.optimizer import MultiTaskOptimizer, Teleport
from equipoise.randomness import RandomState
from equipoise.step.report import StepReport
from equipoise.teleport import COST, OFT, Dense, LoHa, LowRank, TeleportReport
from equipoise.version import __version__

__all__ = [
    "COST",
    "DBMTL",
    "FAMO",
    "GLS",
    "IMTL",
    "IMTLG",
    "IMTLL",
    "LDCMTL",
    "MGDA",
    "OFT",
    "STCH",
    "AlignedMTL",
    "Balancer",
    "CAGrad",
    "ConFIG",
    "ConsMTL",
    "Dense",
    "DualProj",
    "DynamicWeightAverage",
    "EquipoiseError",
    "ExcessMTL",
    "FairGrad",
    "GO4Align",
    "GradDrop",
    "GradNorm",
    "GradVac",
    "GradientBalancer",
    "GramianBalancer",
    "InputError",
    "LinearScalarization",
    "LoHa",
    "LossBalancer",
    "LowRank",
    "MethodInfo",
    "MissingExtraError",
    "MoCo",
    "MultiTaskOptimizer",
    "NashMTL",
    "NonFiniteError",
    "Objective",
    "Observation",
    "PCGrad",
    "RandomLossWeighting",
    "RandomState",
    "ScaleInvariant",
    "StepReport",
    "Teleport",
    "TeleportReport",
    "UPGrad",
    "UncertaintyWeighting",
    "UnknownMethodError",
    "UnknownOptionError",
    "UnknownTaskError",
    "__version__",
    "backward",
    "balancer",
    "blackbox",
    "gramian",
    "methods",
    "register",
    "solvers",
]
