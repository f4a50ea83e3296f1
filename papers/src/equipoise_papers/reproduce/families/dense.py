"""What Cityscapes and NYUv2 share: losses, evaluation, SegNet with attention, the problem."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equipoise.data import cityscapes_loaders, nyuv2_loaders
from equipoise.metrics import DepthTally, Evaluation, NormalTally, SegmentationTally, Tally
from equipoise.nets import CITYSCAPES, NYUV2, Output, SegNetMTAN
from equipoise.study.problem import Built, Problem, Splits
from equipoise.study.reported import LastEpochs
from equipoise_papers.reproduce.batches import moved
from equipoise_papers.reproduce.families.common import adam, positions
from equipoise_papers.reproduce.recipe import Setting

__all__ = ["JointMTAN", "dense_problem", "losses", "mtan"]

_OUTPUTS: Mapping[str, Mapping[str, Output]] = {"cityscapes": CITYSCAPES, "nyuv2": NYUV2}
_CLASSES = {"cityscapes": 7, "nyuv2": 13}


class JointMTAN(SegNetMTAN):
    """SegNet with attention whose tasks' maps, side by side, pass through a module ``joint`` that a router can look at.

    The released code of LDC-MTL feeds its router with them: 64 channels a task, 128 on Cityscapes and 192 on NYUv2.
    """

    def __init__(self, tasks: Mapping[str, Output | int], width: int = 64) -> None:
        super().__init__(tasks, width)
        self.joint = nn.Identity()

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Computes every task's output."""
        maps = self.features(image)
        own = {task: self._attended(maps, masks) for task, masks in self.attention.items()}
        self.joint(torch.cat(list(own.values()), 1))
        return {task: self.outputs[task].finish(head(own[task])) for task, head in self.heads.items()}


def mtan(kind: str, setting: Setting, joint: bool = False) -> SegNetMTAN:
    """SegNet with attention for a data set; narrow for a smoke test."""
    network = JointMTAN if joint else SegNetMTAN
    return network(_OUTPUTS[kind], 4 if setting.smoke else 64)


def losses(model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """Cross-entropy of classes, L1 of depth, 1 − cosine of normals; means over the valid pixels of the batch."""
    batch = moved(batch, model)
    out = model(batch["image"])
    found = {"semantic": F.cross_entropy(out["semantic"], batch["label"], ignore_index=-1)}
    there = batch["depth"] > 0
    # A batch without any measurement has loss 0, not nan.
    found["depth"] = (out["depth"] - batch["depth"]).abs()[there].sum() / there.sum().clamp(min=1)
    if "normal" in out:
        there = (batch["normal"] != 0).any(1)
        cosines = (out["normal"] * batch["normal"]).sum(1)[there]
        found["normal"] = (1 - cosines).sum() / there.sum().clamp(min=1)
    return found


def _outputs(model: nn.Module, batch: Mapping[str, Any]) -> dict[str, tuple[Tensor, ...]]:
    batch = moved(batch, model)
    out = model(batch["image"])
    targets = {"semantic": "label", "depth": "depth", "normal": "normal"}
    return {task: (prediction, batch[targets[task]]) for task, prediction in out.items()}


def evaluation(kind: str, average: str) -> Evaluation:
    """The metrics; the average is that of depth and normals, see :data:`~equipoise.metrics.tallies.base.AVERAGES`."""
    tallies: dict[str, Callable[[], Tally]] = {
        "semantic": lambda: SegmentationTally(_CLASSES[kind]),
        "depth": lambda: DepthTally(average),
    }
    if kind == "nyuv2":
        tallies["normal"] = lambda: NormalTally(average=average)
    return Evaluation(tallies, _outputs)


def dense_problem(
    name: str,
    kind: str,
    setting: Setting,
    network: Callable[[Setting], nn.Module],
    *,
    lr: float,
    batch: int,
    average: str = "batches",
    weight_decay: float = 0.0,
    augmentation: bool = True,
    drop_last: bool = False,
    shared: Callable[[nn.Module], Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Problem:
    """Adam, the learning rate halved after 100 of 200 epochs, the mean over the last ten epochs reported."""
    judged = evaluation(kind, average)

    def build(seed: int) -> Built:
        return network(setting).to(setting.device), losses

    def data(seed: int) -> Splits:
        loaders = cityscapes_loaders if kind == "cityscapes" else nyuv2_loaders
        further: dict[str, Any] = {} if augmentation else {"augmentation": None}
        return Splits(
            *loaders(
                setting.folder(),
                2 if setting.smoke else batch,
                seed=seed,
                workers=setting.workers,
                pin_memory=setting.device != "cpu",
                drop_last=drop_last,
                **further,
            )
        )

    return Problem(
        name=name,
        tasks=tuple(_OUTPUTS[kind]),
        metrics=judged.metrics,
        build=build,
        data=data,
        evaluate=judged,
        epochs=200,
        optimizer=adam(lr, weight_decay),
        recorded=positions,
        schedule=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 100, 0.5),
        shared=shared,
        reported=LastEpochs(10),
        options={"lr": lr, "batch": batch, "weight decay": weight_decay, "smoke": setting.smoke, **(options or {})},
    )


def all_but_heads(model: nn.Module) -> list[nn.Parameter]:
    """The shared parameters as the released code divides them: attention masks count as shared."""
    return [parameter for name, parameter in model.named_parameters() if not name.startswith("heads.")]
