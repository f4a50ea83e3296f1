"""NYUv2: COST's Tables 2 and 6 and LDC-MTL's 1 and 7 with SegNet and attention, the thesis' 3.4 with DeepLab."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from torch import nn

from equipoise.nets import NYUV2, DeepLab, ResNet, load_weights
from equipoise_papers.reproduce.cost import Workload
from equipoise_papers.reproduce.families.cityscapes import COST_OPEN, LDC_OPEN, PRINTED, RELEASED, START
from equipoise_papers.reproduce.families.common import (
    BILEVEL_OPEN,
    CLIPPED_OPEN,
    LIBMTL,
    MTAN_LINE,
    bilevel,
    clipped,
    cost,
    ldc,
    rows,
)
from equipoise_papers.reproduce.families.dense import all_but_heads, dense_problem, mtan
from equipoise_papers.reproduce.recipe import Recipe, RecipeRow, Setting, hyper
from equipoise_papers.reproduce.study_part import StudyPart
from equipoise_papers.samples import write_nyuv2_sample

__all__ = ["RECIPES", "part"]

DATA = "NYUv2 as MTAN prepared it: train/ and val/, each with image/, label/, depth/ and normal/ of numbered .npy files"
MTAN_WORK = Workload(gigaflops=432, batch=2, steps=398, epochs=200, tasks=3, evaluated=654)
OPEN = (
    "Attention masks count as shared parameters, as in the released code.",
    "Depth and normal errors are averaged over batches, as in the released code: the median is a mean of medians.",
)
THESIS_OPEN = (
    "ImageNet weights have to be given with --weights, a file of the usual published state dict.",
    "The thesis does not say which epoch is reported; here it is the mean of the last ten. LibMTL prints the best one on test.",
    "No augmentation, and the last, smaller batch of an epoch is left out: LibMTL's defaults.",
)


NYUV2_LDC_OPEN = (
    *LDC_OPEN,
    "Table 5 prints τ = 1, which goes with losses as they are; the uploaded trainer has τ = σ(W), losses rescaled by the first "
    "ones over the smallest of them, and g divided by the sum of σ with the divisor differentiated. The row is the trainer's; "
    "«as printed» is the table's.",
    "Table 5 prints step size 8e-5, the text 1e-4; the released code has 8e-5.",
)


def ldc_rows(name: str) -> tuple[RecipeRow, ...]:
    """LDC-MTL as its uploaded trainer has it, and as it is printed."""
    return (
        RecipeRow(name, ldc(0.05, tau="weights", normalize="rescale", division="through", **RELEASED)),
        RecipeRow(f"{name} as printed", ldc(0.05, tau="ones", normalize="none", **PRINTED), of=name),
    )


def part(
    name: str, table: str, made: tuple[RecipeRow, ...], *, lr: float = 1e-4, joint: bool = False, further: tuple[str, ...] = ()
) -> StudyPart:
    """A study of NYUv2 with SegNet and attention."""
    return StudyPart(
        name=name,
        table=table,
        rows=(*made, *clipped(made, MTAN_WORK.tasks)),
        workload=MTAN_WORK,
        network="SegNet with MTAN's attention, 44.2 million parameters"
        + (", and a router on the tasks' maps" if joint else ""),
        hyperparameters=hyper(
            optimizer="Adam",
            learning_rate=f"{lr:g}, halved after 100 epochs",
            batch=2,
            epochs=200,
            reported="mean of the last 10 epochs",
        ),
        problem=lambda setting: dense_problem(
            f"nyuv2-{name}",
            "nyuv2",
            setting,
            partial(mtan, "nyuv2", joint=joint),
            lr=lr,
            batch=2,
            shared=all_but_heads,
            options={"network": "MTAN"},
        ),
        sample=lambda folder: write_nyuv2_sample(folder, images=4, test_images=2, size=(32, 64)),
        open_choices=(*OPEN, *([CLIPPED_OPEN] if clipped(made, MTAN_WORK.tasks) else []), *further),
    )


def encoder(setting: Setting, depth: int) -> ResNet:
    """A dilated residual network with the user's ImageNet weights; narrow for a smoke test."""
    made = ResNet(depth, classifier=False, output_stride=8, width=4 if setting.smoke else 64)
    if setting.weights is not None:
        load_weights(made, setting.weights)
    return made


def deeplab(setting: Setting) -> nn.Module:
    """DeepLab on ResNet-50, as in section 3.7.2."""
    return DeepLab(NYUV2, encoder(setting, 50), channels=8 if setting.smoke else 256)


def deeplab_18(setting: Setting) -> nn.Module:
    """DeepLab on ResNet-18, as in section 5.5.1."""
    return DeepLab(NYUV2, encoder(setting, 18), channels=8 if setting.smoke else 256)


def deeplab_part(
    name: str,
    table: str,
    made: tuple[RecipeRow, ...],
    network: str,
    build: Callable[[Setting], nn.Module],
    gigaflops: float,
    *further: str,
    baselines: bool = False,
    flow: Mapping[str, str] | None = None,
) -> StudyPart:
    """A study of NYUv2 with DeepLab, by the settings of section 3.7.2."""
    return StudyPart(
        name=name,
        table=table,
        rows=made,
        workload=Workload(gigaflops=gigaflops, batch=8, steps=99, epochs=200, tasks=3, evaluated=654),
        network=network,
        hyperparameters=hyper(
            optimizer="Adam, weight decay 1e-5",
            learning_rate="1e-4, halved after 100 epochs",
            batch=8,
            epochs=200,
            **(flow or {}),
            reported="mean of the last 10 epochs",
        ),
        problem=lambda setting: dense_problem(
            f"nyuv2-{name}",
            "nyuv2",
            setting,
            build,
            lr=1e-4,
            batch=8,
            average="weighted batches",
            weight_decay=1e-5,
            augmentation=False,
            drop_last=True,
            options={"network": network, "weights": str(setting.weights is not None)},
        ),
        # Ten scenes, so that a fifth of them still is a batch of two.
        sample=lambda folder: write_nyuv2_sample(folder, images=10, test_images=2, size=(32, 64)),
        open_choices=(*THESIS_OPEN, *further),
        baselines=baselines,
        pretrained=True,
    )


RECIPES = (
    Recipe(
        "cost-table2",
        "COST, Table 2",
        "COST and 12 balancers on NYUv2",
        DATA,
        (part("mtan", "cost-table2", rows("cost-table2", MTAN_LINE, COST=cost(start=START)), further=COST_OPEN),),
        family="nyuv2",
    ),
    Recipe(
        "cost-table6",
        "COST, Table 6",
        "COST on top of two balancers, on NYUv2",
        DATA,
        (
            part(
                "plug-and-play",
                "cost-table6",
                (
                    RecipeRow("CAGrad", MTAN_LINE["CAGrad"]),
                    RecipeRow("CAGrad + COST", cost(MTAN_LINE["CAGrad"], start=START)),
                    RecipeRow("FairGrad", "fairgrad"),
                    RecipeRow("FairGrad + COST", cost(start=START)),
                ),
                further=COST_OPEN,
            ),
        ),
        family="nyuv2",
    ),
    Recipe(
        "ldc-table7",
        "LDC-MTL, Table 7 (and Table 1, NYU-v2)",
        "LDC-MTL and 18 balancers on NYUv2",
        DATA,
        (
            part("mtan", "ldc-table7", rows("ldc-table7", MTAN_LINE)),
            part("ldc-mtl", "ldc-table7", ldc_rows("LDC-MTL"), lr=8e-5, joint=True, further=NYUV2_LDC_OPEN),
        ),
        family="nyuv2",
    ),
    Recipe(
        "thesis-table3.4",
        "Thesis, Table 3.4",
        "Bilevel methods and 10 balancers on NYUv2",
        DATA,
        (
            deeplab_part(
                "deeplab",
                "thesis-table3.4",
                rows("thesis-table3.4", {**LIBMTL, **bilevel(0.1)}),
                "DeepLab on a dilated ResNet-50, 71.9 million parameters",
                deeplab,
                246,
                *BILEVEL_OPEN,
                baselines=True,
            ),
        ),
        family="nyuv2",
    ),
)
