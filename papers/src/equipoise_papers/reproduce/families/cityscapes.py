"""Cityscapes, 2 tasks, SegNet with attention: COST's Tables 1, 4, 5, 7 and 8, LDC-MTL's Tables 2, 8 and 9."""

from __future__ import annotations

from functools import partial

from equipoise_papers.reproduce.cost import Workload
from equipoise_papers.reproduce.families.common import CLIPPED_OPEN, LDC_LAMBDA, MTAN_LINE, clipped, cost, ldc, rows
from equipoise_papers.reproduce.families.dense import all_but_heads, dense_problem, mtan
from equipoise_papers.reproduce.recipe import Recipe, RecipeRow, hyper
from equipoise_papers.reproduce.study_part import StudyPart
from equipoise_papers.samples import write_cityscapes_sample

__all__ = ["RECIPES", "part", "recipe"]

DATA = (
    "Cityscapes as MTAN prepared it: train/ and val/, each with image/, label_7/ (or label/) and depth/ of numbered .npy files"
)
WORK = Workload(gigaflops=96.4, batch=8, steps=372, epochs=200, tasks=2, evaluated=500)
NETWORK = "SegNet with MTAN's attention, 41.2 million parameters"
HYPER = hyper(
    optimizer="Adam", learning_rate="1e-4, halved after 100 epochs", batch=8, epochs=200, reported="mean of the last 10 epochs"
)
OPEN = (
    "Attention masks count as shared parameters, as in the released code.",
    "Zooming divides the inverse depth by the scale, as in the released code.",
    "Depth errors are averaged over batches, as in the released code.",
)
COST_OPEN = (
    "COST is taken by the letter of the paper: algorithm 1, eq. 7 to 13, one teleport per epoch, unguarded; inner step size, "
    "inner steps and perturbations are not printed and are the library's: 20 steps of Adam at 0.003, which on digits keep the "
    "losses and the norms of the task gradients (docs/cost-judged.md). Eq. 6 seeks larger norms; a warning says where they "
    "become smaller.",
    "Teleporting starts after 50 epochs, as in the released scripts; the paper names no number.",
    "FairGrad has α = 1, as the paper says; the released scripts have α = 2.",
)
LDC_OPEN = (
    LDC_LAMBDA,
    "The router is the released code's: one linear layer on the tasks' own maps, a softmax cut off at 0.2 and 0.8, and the "
    "model gets gradients through it. The paper prints a three-layer network and nothing of a cut; «… as printed» with --rows "
    "is that network, a plain softmax, and σ constant for the model.",
)
RELEASED = {"router": "linear", "features": "joint"}
PRINTED = {"router": "mlp", "features": "joint", "activation": "softmax", "through_features": False}
START = 50


def part(
    name: str, table: str, made: tuple[RecipeRow, ...], *, lr: float = 1e-4, joint: bool = False, further: tuple[str, ...] = ()
) -> StudyPart:
    """A study of Cityscapes."""
    return StudyPart(
        name=name,
        table=table,
        rows=(*made, *clipped(made, WORK.tasks)),
        workload=WORK,
        network=NETWORK + (", and a router on the tasks' maps" if joint else ""),
        hyperparameters=HYPER | hyper(learning_rate=f"{lr:g}, halved after 100 epochs"),
        problem=lambda setting: dense_problem(
            f"cityscapes-{name}",
            "cityscapes",
            setting,
            partial(mtan, "cityscapes", joint=joint),
            lr=lr,
            batch=8,
            shared=all_but_heads,
            options={"network": "MTAN"},
        ),
        sample=lambda folder: write_cityscapes_sample(folder, images=4, test_images=2),
        open_choices=(*OPEN, *([CLIPPED_OPEN] if clipped(made, WORK.tasks) else []), *further),
    )


def recipe(name: str, source: str, title: str, *parts: StudyPart) -> Recipe:
    """A recipe of this family."""
    return Recipe(name, source, title, DATA, parts, family="cityscapes")


def ldc_rows(*named: tuple[str, float]) -> tuple[RecipeRow, ...]:
    """LDC-MTL with τ = 1 for several λ."""
    made = [RecipeRow(name, ldc(penalty, tau="ones", normalize="none", **RELEASED)) for name, penalty in named]
    printed = [
        RecipeRow(f"{name} as printed", ldc(penalty, tau="ones", normalize="none", **PRINTED), of=name)
        for name, penalty in named
    ]
    return (*made, *printed)


_LDC = partial(part, "ldc-mtl", lr=3e-4, joint=True, further=LDC_OPEN)
_FAIR = RecipeRow("FairGrad", "fairgrad")

RECIPES = (
    recipe(
        "cost-table1",
        "COST, Table 1",
        "COST and 12 balancers on Cityscapes",
        part("mtan", "cost-table1", rows("cost-table1", MTAN_LINE, COST=cost(start=START)), further=COST_OPEN),
    ),
    recipe(
        "cost-table4",
        "COST, Table 4",
        "Parts of COST left out, on Cityscapes",
        part(
            "ablation",
            "cost-table4",
            (
                _FAIR,
                RecipeRow("COST: L_t alone", cost(start=START, gamma=0, pooled_reference=True, history="keep")),
                RecipeRow("COST: L_g alone", cost(start=START, invariance=0, history="keep")),
                RecipeRow("COST: L_t and L_g", cost(start=START, pooled_reference=True, history="keep")),
                RecipeRow("COST", cost(start=START, pooled_reference=True)),
            ),
            further=(
                *COST_OPEN,
                "Without reuse of the history Adam's moments stay as they are.",
                "L* is the mean over the search's batches, as in the released code, and not each batch's own loss: with that, "
                "L_t begins at its minimum, L_t alone moves nothing, and its row (7.90) would be FairGrad's (5.18).",
            ),
        ),
    ),
    recipe(
        "cost-table5",
        "COST, Table 5",
        "COST on top of three balancers, on Cityscapes",
        part(
            "plug-and-play",
            "cost-table5",
            (
                RecipeRow("CAGrad", MTAN_LINE["CAGrad"]),
                RecipeRow("CAGrad + COST", cost(MTAN_LINE["CAGrad"], start=START)),
                RecipeRow("Nash-R", "nash-mtl"),
                RecipeRow("Nash-R + COST", cost("nash-mtl", start=START)),
                _FAIR,
                RecipeRow("FairGrad + COST", cost(start=START)),
            ),
            further=COST_OPEN,
        ),
    ),
    recipe(
        "cost-table7",
        "COST, Table 7",
        "What triggers COST, on Cityscapes",
        part(
            "triggers",
            "cost-table7",
            (
                RecipeRow("COST dominated", cost(start=START, trigger="dominated")),
                RecipeRow("COST weak", cost(start=START, trigger="weak")),
            ),
            further=COST_OPEN,
        ),
    ),
    recipe(
        "cost-table8",
        "COST, Table 8",
        "What COST adapts with, on Cityscapes",
        part(
            "adapters",
            "cost-table8",
            (
                _FAIR,
                RecipeRow("COST LoRA", cost(start=START)),
                RecipeRow("COST LoHa", cost(start=START, delta="loha")),
                RecipeRow("COST OFT", cost(start=START, delta="oft")),
            ),
            further=COST_OPEN,
        ),
    ),
    recipe(
        "ldc-table2",
        "LDC-MTL, Table 2",
        "LDC-MTL and 16 balancers on Cityscapes",
        part("mtan", "ldc-table2", rows("ldc-table2", MTAN_LINE)),
        _LDC("ldc-table2", ldc_rows(("LDC-MTL", 0.1))),
    ),
    recipe(
        "ldc-table8",
        "LDC-MTL, Table 8",
        "LDC-MTL's λ, on Cityscapes",
        part("mtan", "ldc-table8", (_FAIR,)),
        _LDC(
            "ldc-table8",
            ldc_rows(*((f"LDC-MTL τ=1 λ={value:g}", value) for value in (0.02, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1))),
        ),
    ),
    recipe(
        "ldc-table9",
        "LDC-MTL, Table 9",
        "Fixed weights against LDC-MTL, on Cityscapes",
        part(
            "mtan",
            "ldc-table9",
            tuple(RecipeRow(f"LS {a:g}:{1 - a:g}", f"ls:weights=[{a:g},{1 - a:g}]") for a in (0.1, 0.2, 0.3, 0.4, 0.6, 0.8)),
        ),
        _LDC("ldc-table9", ldc_rows(("LDC-MTL τ=1 λ=0.1", 0.1))),
    ),
)
