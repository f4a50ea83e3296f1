"""The papers' names of methods, and the words that recipes share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from equipoise.metrics import Metric, delta_m
from equipoise.nets import Positions, position_groups
from equipoise.study.reported import Score
from equipoise_papers.published import find_table
from equipoise_papers.reproduce.recipe import RecipeRow

__all__ = [
    "BILEVEL_OPEN",
    "CLIPPED_OPEN",
    "LDC_LAMBDA",
    "LIBMTL",
    "MTAN_LINE",
    "POSITION_LR",
    "adam",
    "bilevel",
    "clipped",
    "cost",
    "highest_mean",
    "ldc",
    "positions",
    "relative_to",
    "rows",
]

MTAN_LINE: Mapping[str, str] = {
    "LS": "ls",
    "SI": "si",
    "RLW": "rlw",
    "DWA": "dwa",
    "UW": "uw:lr=0.025",
    "MGDA": "mgda",
    "GradDrop": "graddrop",
    "PCGrad": "pcgrad",
    "CAGrad": "cagrad:c=0.4",
    "IMTL": "imtl-g",
    "IMTL-G": "imtl-g",
    "MoCo": "moco",
    "Nash-MTL": "nash-mtl",
    "Nash-R": "nash-mtl",
    "FAMO": "famo",
    "FairGrad": "fairgrad",
    "FairGrad-R": "fairgrad",
    "GO4Align": "go4align",
    "STCH": "stch",
    "ConsMTL": "consmtl",
}
"""What COST and LDC-MTL compare with, as in the released code that descends from MTAN by way of CAGrad, Nash-MTL and FAMO: UW
learns its weights with step size 0.025, CAGrad has c = 0.4, IMTL is its gradient half, FairGrad has α = 1 as COST says."""

LIBMTL: Mapping[str, str] = {
    "EW": "ls",
    "UW": "uw",
    "GradNorm": "gradnorm",
    "MGDA": "mgda",
    "PCGrad": "pcgrad",
    "GradDrop": "graddrop",
    "GradVac": "gradvac",
    "CAGrad": "cagrad",
    "IMTL": "imtl",
    "Nash-MTL": "nash-mtl",
    "RLW": "rlw",
}
"""What the thesis compares with, all of it from LibMTL: IMTL is both of its halves."""


def bilevel(lower_lr: float) -> dict[str, str]:
    """The thesis' bilevel methods, the task weights being the upper level's variables (section 3.7.2).

    Args:
        lower_lr: η, 0.01 for QM9 and 0.1 for other data sets.
    """
    unrolled = f"lower_steps=1,lower_lr={lower_lr}"
    iterated = f"lower_steps=5,lower_lr={lower_lr}"
    return {
        "BVFIM": f"bvfim:{iterated}",
        "BOME": f"bome:{iterated}",
        "MOML": f"moml:{unrolled}",
        "MoCo": f"moco-bilevel:{unrolled}",
        "FORUM": f"forum:{iterated},rho=0.1,formulation=printed",
    }


BILEVEL_OPEN = (
    "The upper level's data are a fifth of the training data, put aside; the thesis does not say how they were divided.",
    "The options of BVFIM, BOME, MOML and MoCo were searched over grids in the thesis, and what was chosen is not printed; η "
    "is FORUM's, the others are the library's.",
    "FORUM's ν is that of eq. 3.27 and 3.29 as printed, with 2φ; the conditions of eq. 3.20 give φ.",
    "A lower step that makes the training loss larger is taken back (careful=True); in the thesis every step counts.",
)

POSITION_LR = 0.01
"""η of Algorithm 4, which the thesis does not print; with the model's 1e-4, positions hardly leave where they start."""


def adam(lr: float, weight_decay: float = 0.0) -> Callable[[nn.Module], torch.optim.Optimizer]:
    """Makes Adam for a model; task positions have a learning rate of their own and no weight decay."""

    def made(model: nn.Module) -> torch.optim.Optimizer:
        flowing = any(isinstance(module, Positions) for module in model.modules())
        groups: Any = position_groups(model, POSITION_LR) if flowing else model.parameters()
        return torch.optim.Adam(groups, lr=lr, weight_decay=weight_decay)

    return made


def positions(model: nn.Module) -> dict[str, float]:
    """Where the tasks sit, for every epoch's record (Figure 5.2)."""
    return {
        task: place for module in model.modules() if isinstance(module, Positions) for task, place in module.values().items()
    }


def cost(balancer: str = "fairgrad", **options: object) -> str:
    """COST to the letter of the paper, on top of a balancer: eq. 7 to 13, one teleport per epoch."""
    merged = {"preset": "paper", **options}
    return f"cost({','.join(f'{name}={value}' for name, value in merged.items())})+{balancer}"


def ldc(penalty: float, **options: object) -> str:
    """LDC-MTL with λ as in the paper's tables, which is that of its released code, and one learning rate for both levels."""
    merged = {"penalty": penalty, "formulation": "released", "lr": "model", **options}
    return f"ldc-mtl:{','.join(f'{name}={value}' for name, value in merged.items())}"


LDC_LAMBDA = (
    "λ is that of the released formulation, λ f + g, whose values the paper's tables have; the paper's text has f + λ g. The "
    "router has the model's learning rate at every step, as in the released code (one Adam for both)."
)
_CLIPPED = {
    "FairGrad": "fairgrad:max_norm={of_mean}",
    "CAGrad": "cagrad:c=0.4,rescale=True,max_norm={of_mean}",
    "PCGrad": "pcgrad:max_norm=1",
    "GradDrop": "graddrop:max_norm=1",
}

CLIPPED_OPEN = (
    "The released codes of FairGrad, CAGrad, PCGrad and GradDrop clip the gradient of the shared parameters (scaled as a sum "
    "over tasks) to norm 1; the papers do not. The rows here are not clipped; «NAME clipped» with --rows is. For FairGrad with "
    "α = 1, whose direction has a constant norm, that is a factor, which Adam does not see. Nash-MTL in these codes is "
    "clipped before it is differentiated, which clips nothing."
)


def clipped(made: Sequence[RecipeRow], tasks: int) -> tuple[RecipeRow, ...]:
    """Further versions of those rows whose released code clips: K·d to 1, which for Adam is d to 1/K."""
    named = ((row, _CLIPPED.get(row.name.removesuffix("-R"), "")) for row in made)
    return tuple(
        RecipeRow(f"{row.name} clipped", method.format(of_mean=round(1 / tasks, 6)), of=row.name)
        for row, method in named
        if method
    )


def rows(table: str, line: Mapping[str, str], **own: str) -> tuple[RecipeRow, ...]:
    """The rows of a table, in its order: those that a line of methods has, and the paper's own.

    Args:
        table: key of the table.
        line: name → method.
        own: further names, with underscores in place of hyphens and spaces, → method.
    """
    methods = {**line, **{name.replace("_", "-"): method for name, method in own.items()}}
    return tuple(RecipeRow(name, methods[name]) for name in find_table(table).printed if name in methods)


def relative_to(table: str, metrics: Sequence[Metric]) -> Score:
    """Δm against a table's baseline row over those metrics that are there; what a best epoch is chosen by."""
    base = find_table(table).baseline_row()

    def score(values: Mapping[str, float]) -> float:
        return delta_m(values, base, [metric for metric in metrics if metric.name in values])

    return score


def highest_mean(values: Mapping[str, float]) -> float:
    """Minus the mean, so that the highest is the best; for accuracies and F1 scores."""
    return -sum(values.values()) / len(values)
