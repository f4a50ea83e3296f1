"""Rendered rooms (or streets) as a problem to study: dense prediction with classes, depth and normals, without a download."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from equipoise.data.dense import Cityscapes, NYUv2
from equipoise.data.loading import TensorBatches
from equipoise.errors import InputError
from equipoise.metrics import DepthTally, Evaluation, NormalTally, SegmentationTally
from equipoise.nets import CITYSCAPES, NYUV2, SegNet, SegNetMTAN
from equipoise.study.problem import Built, Problem, Splits
from equipoise_papers.problems.dense_losses import depth_loss, normal_loss, semantic_loss
from equipoise_papers.scenes import ROOM_CLASSES, STREET_CLASSES, cached_scenes
from equipoise_papers.scenes.folder import VERSION

__all__ = ["scenes_mtan_problem", "scenes_problem", "scenes_streets_problem"]

_TARGETS = {"semantic": "label", "depth": "depth", "normal": "normal"}
_LOSSES = {"semantic": semantic_loss, "depth": depth_loss, "normal": normal_loss}
_NETWORKS = {"segnet": SegNet, "segnet-mtan": SegNetMTAN}


def scenes_problem(
    kind: Literal["rooms", "streets"] = "rooms",
    *,
    network: Literal["segnet", "segnet-mtan"] = "segnet",
    width: int = 8,
    size: tuple[int, int] = (64, 96),
    train: int = 320,
    val: int = 80,
    test: int = 160,
    batch_size: int = 4,
    epochs: int = 10,
    data_seed: int = 0,
) -> Problem:
    """Semantic classes, depth and, in rooms, surface normals of rendered scenes; the tasks and metrics of NYUv2 and Cityscapes.

    ``semantic`` is learned by cross-entropy (void left out) and judged by mIoU and pixel accuracy, ``depth`` by the absolute
    error and judged by absolute and relative error, ``normal`` by 1 − cosine and judged by angles. Adam 1e-3. The scenes are
    rendered on first use (half a minute for the default) and kept under ``$EQUIPOISE_CACHE``, or the user's cache folder.

    Args:
        kind: ``"rooms"``: 13 classes, depth in metres, normals. ``"streets"``: 7 classes and inverse depth.
        network: ``"segnet"``, shared but for one head per task, or ``"segnet-mtan"``, with attention.
        width: of the network; the published one has 64.
        size: height and width in pixels, multiples of 32.
        train: scenes to train on.
        val: scenes to validate on.
        test: scenes to test on.
        batch_size: scenes per batch.
        epochs: how long a run trains unless the study says otherwise.
        data_seed: of the scenes; all runs of a study see the same ones.

    Raises:
        InputError: an unknown network, or a size that the network cannot halve five times.

    Example:
        >>> problem = scenes_problem()
        >>> problem.tasks, len(problem.metrics)
        (('semantic', 'depth', 'normal'), 9)
    """
    if network not in _NETWORKS:
        raise InputError(f'there is no network "{network}" for scenes; expected one of {", ".join(_NETWORKS)}')
    if size[0] % 32 or size[1] % 32 or min(size) < 32:
        raise InputError(f"size is {size[0]}x{size[1]}; {network} needs height and width to be multiples of 32")
    tallies: dict[str, Any] = {
        "semantic": partial(SegmentationTally, len(ROOM_CLASSES if kind == "rooms" else STREET_CLASSES)),
        "depth": DepthTally,
    }
    if kind == "rooms":
        tallies["normal"] = NormalTally
    evaluation = Evaluation(tallies, _outputs)
    counts = {"train": train, "val": val, "test": test}
    name = "scenes" if kind == "rooms" else "scenes-streets"
    return Problem(
        name=name if network == "segnet" else f"{name}-mtan",
        tasks=tuple(tallies),
        metrics=evaluation.metrics,
        build=partial(_build, kind, network, width),
        data=partial(_data, kind, size, counts, batch_size, data_seed),
        evaluate=evaluation,
        optimizer=_optimizer,
        parts=_parts if network == "segnet" else None,
        epochs=epochs,
        options={
            "scenes": f"{kind} {size[0]}x{size[1]}, {train}/{val}/{test}, seed {data_seed}, version {VERSION}",
            "network": f"{network}, width {width}",
            "batch_size": batch_size,
            "optimizer": "Adam, 1e-3",
        },
    )


def scenes_mtan_problem() -> Problem:
    """Rooms with the attention network: ``scenes_problem(network="segnet-mtan")``."""
    return scenes_problem(network="segnet-mtan")


def scenes_streets_problem() -> Problem:
    """Streets at 64×128 pixels: ``scenes_problem("streets", size=(64, 128))``."""
    return scenes_problem("streets", size=(64, 128))


def _build(kind: str, network: str, width: int, seed: int) -> Built:
    return _NETWORKS[network](NYUV2 if kind == "rooms" else CITYSCAPES, width=width), _losses


def _losses(model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {task: _LOSSES[task](prediction, batch[_TARGETS[task]]) for task, prediction in model(batch["image"]).items()}


def _outputs(model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, ...]]:
    return {task: (prediction, batch[_TARGETS[task]]) for task, prediction in model(batch["image"]).items()}


def _optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)


def _parts(model: nn.Module) -> dict[str, Any]:
    assert isinstance(model, SegNet)
    return {"features": model.features, "heads": dict(model.heads)}


def _data(kind: str, size: tuple[int, int], counts: Mapping[str, int], batch_size: int, data_seed: int, seed: int) -> Splits:
    folder = cached_scenes(kind, size, train=counts["train"], val=counts["val"], test=counts["test"], seed=data_seed)
    reader = NYUv2 if kind == "rooms" else Cityscapes
    # At this size all scenes fit in memory, and a batch is one indexing operation.
    held = {split: reader(folder, split) for split in counts}  # type: ignore[arg-type]
    tensors = {split: scenes.batch(range(len(scenes)), 0) for split, scenes in held.items()}
    return Splits(
        TensorBatches(tensors["train"], batch_size, shuffle=True, seed=seed),
        TensorBatches(tensors["val"], 40),
        TensorBatches(tensors["test"], 40),
    )
