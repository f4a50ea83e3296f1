"""Office-31 and Office-Home: the thesis' Tables 3.3, 5.1 and 5.4."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from equipoise.data import office_loaders
from equipoise.metrics import ClassTally, Evaluation
from equipoise.nets import HardSharing, ResNet, load_weights
from equipoise.study.problem import Built, Problem, Splits
from equipoise.study.reported import BestEpoch
from equipoise_papers.reproduce.batches import moved
from equipoise_papers.reproduce.cost import Workload
from equipoise_papers.reproduce.families.common import BILEVEL_OPEN, LIBMTL, adam, bilevel, highest_mean, positions, rows
from equipoise_papers.reproduce.recipe import Recipe, RecipeRow, Setting, hyper
from equipoise_papers.reproduce.study_part import StudyPart
from equipoise_papers.samples import write_office31_sample, write_office_home_sample

__all__ = ["DATA", "RECIPES", "SOURCES", "office_part"]

SOURCES = {"office31": ("amazon", "dslr", "webcam"), "officehome": ("Art", "Clipart", "Product", "Real World")}
CLASSES = {"office31": 31, "officehome": 65}
NAMES = {"office31": "Office-31", "officehome": "Office-Home"}
DATA = {
    "office31": "Office-31: a folder for each of amazon, dslr and webcam, in it (or in its images/) a folder a class",
    "officehome": "Office-Home: a folder for each of Art, Clipart, Product and Real World, in it a folder a class",
}
# The largest source decides how many steps an epoch has.
_WORK = {
    "office31": Workload(gigaflops=3.63, batch=192, steps=27, epochs=100, tasks=3, evaluated=1644, own_inputs=True),
    "officehome": Workload(gigaflops=3.63, batch=256, steps=42, epochs=100, tasks=4, evaluated=6236, own_inputs=True),
}
OPEN = (
    "ImageNet weights of ResNet-18 have to be given with --weights, a file of the usual published state dict.",
    "The split is 60/20/20 at random; the published lists of LibMTL are others.",
    "Which epoch is reported is not said; here it is the best one on the validation split, by mean accuracy, as in LibMTL.",
)
Network = Callable[[Setting, tuple[str, ...], int], nn.Module]


def losses(model: nn.Module, batch: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Cross-entropy on each source's own images."""
    batch = moved(batch, model)
    out = model({source: part["image"] for source, part in batch.items()})
    return {source: F.cross_entropy(logits, batch[source]["label"]) for source, logits in out.items()}


def _outputs(model: nn.Module, batch: Mapping[str, Mapping[str, Tensor]]) -> dict[str, tuple[Tensor, ...]]:
    batch = moved(batch, model)
    out = model({source: part["image"] for source, part in batch.items()})
    return {source: (logits, batch[source]["label"]) for source, logits in out.items()}


def encoder(setting: Setting) -> ResNet:
    """ResNet-18 with the user's ImageNet weights, ``[N, 512]``; narrow for a smoke test."""
    made = ResNet(18, classifier=False, pool=True, width=2 if setting.smoke else 64)
    if setting.weights is not None:
        load_weights(made, setting.weights)
    return made


def hard_sharing(setting: Setting, sources: tuple[str, ...], classes: int) -> nn.Module:
    """ResNet-18 that all sources share, and a linear head for each."""
    shared = encoder(setting)
    return HardSharing(shared, {source: nn.Linear(shared.channels, classes) for source in sources}, own_inputs=True)


def office_problem(name: str, kind: str, setting: Setting, network: Network, options: Mapping[str, Any]) -> Problem:
    """Adam 1e-4 with weight decay 1e-5, 64 images of each source; accuracies in the best epoch on validation."""
    sources, classes = SOURCES[kind], 2 if setting.smoke else CLASSES[kind]
    judged = Evaluation({source: lambda: ClassTally(classes) for source in sources}, _outputs)

    def build(seed: int) -> Built:
        return network(setting, sources, classes).to(setting.device), losses

    def data(seed: int) -> Splits:
        return Splits(
            *office_loaders(
                setting.folder(),
                2 if setting.smoke else 64,
                sources=sources,
                size=64 if setting.smoke else 224,
                cache=setting.cache,
                seed=seed,
                workers=setting.workers,
                pin_memory=setting.device != "cpu",
            )
        )

    return Problem(
        name=name,
        tasks=sources,
        metrics=judged.metrics,
        build=build,
        data=data,
        evaluate=judged,
        epochs=100,
        optimizer=adam(1e-4, weight_decay=1e-5),
        recorded=positions,
        reported=BestEpoch(),
        score=highest_mean,
        options={"smoke": setting.smoke, "weights": str(setting.weights is not None), **options},
    )


def write_sample(kind: str) -> Callable[[Path], Path]:
    """What writes a sample of the data set: two classes, five images of each in each source."""
    return write_office31_sample if kind == "office31" else write_office_home_sample


def office_part(
    kind: str,
    name: str,
    table: str,
    made: tuple[RecipeRow, ...],
    network: Network = hard_sharing,
    words: str = "ResNet-18 that all sources share, a linear head for each",
    *,
    further: tuple[str, ...] = (),
    baselines: bool = False,
    subfolder: str = "",
    flow: Mapping[str, str] | None = None,
) -> StudyPart:
    """A study of Office-31 or Office-Home; ``flow`` are the hyper-parameters of one."""
    return StudyPart(
        name=name,
        table=table,
        rows=made,
        workload=_WORK[kind],
        network=words,
        hyperparameters=hyper(
            optimizer="Adam, weight decay 1e-5",
            learning_rate="1e-4",
            batch="64 of each source",
            epochs=100,
            **(flow or {}),
            reported="best epoch on validation, by mean accuracy",
        ),
        problem=lambda setting: office_problem(name, kind, setting, network, {"network": words}),
        sample=write_sample(kind),
        open_choices=(*OPEN, *further),
        baselines=baselines,
        pretrained=True,
        subfolder=subfolder,
    )


RECIPES = (
    Recipe(
        "thesis-table3.3",
        "Thesis, Table 3.3",
        "Bilevel methods and 10 balancers on Office-31",
        DATA["office31"],
        (
            office_part(
                "office31",
                "office31",
                "thesis-table3.3",
                rows("thesis-table3.3", {**LIBMTL, **bilevel(0.1)}),
                baselines=True,
                further=BILEVEL_OPEN,
            ),
        ),
        family="office",
    ),
)
