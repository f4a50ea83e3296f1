"""The ``digits`` benchmark as a problem to study: two digits on a canvas, four tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equipoise.data.digits import digits
from equipoise.metrics import Metric
from equipoise.nets import DigitsNet
from equipoise.study.problem import Built, Problem, Splits

__all__ = ["digits_problem"]


def digits_problem() -> Problem:
    """Two digits on one canvas: which (twice), their sum, and the ratio of their ink.

    Classes are learned by cross-entropy and judged by accuracy, numbers by squared error and judged by mean absolute
    error; Adam 1e-3, batches of 128, 20 epochs.

    Example:
        >>> [metric.heading for metric in digits_problem().metrics]
        ['left accuracy (%) ↑', 'right accuracy (%) ↑', 'sum error ↓', 'ink error ↓']
    """
    return Problem(
        name="digits",
        tasks=("left", "right", "sum", "ink"),
        metrics=(
            Metric("left", "left", higher_is_better=True, unit="%", label="left accuracy"),
            Metric("right", "right", higher_is_better=True, unit="%", label="right accuracy"),
            Metric("sum", "sum", higher_is_better=False, label="sum error"),
            Metric("ink", "ink", higher_is_better=False, label="ink error"),
        ),
        build=_build,
        data=_data,
        evaluate=_evaluate,
        optimizer=_optimizer,
        parts=_parts,
        epochs=20,
        options={"batch_size": 128, "optimizer": "Adam, 1e-3"},
        preload=("sklearn.datasets",),
    )


def _build(seed: int) -> Built:
    return DigitsNet(), _losses


def _losses(model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    out = model(batch["image"])
    return {
        "left": F.cross_entropy(out["left"], batch["left"]),
        "right": F.cross_entropy(out["right"], batch["right"]),
        "sum": F.mse_loss(out["sum"], batch["sum"]),
        "ink": F.mse_loss(out["ink"], batch["ink"]),
    }


def _optimizer(model: nn.Module) -> torch.optim.Optimizer:
    # One fused kernel: for a network this small the plain loop over tensors is a sixth of the whole step.
    return torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)


def _parts(model: nn.Module) -> dict[str, Any]:
    return {"features": model.encoder, "heads": dict(cast(nn.ModuleDict, model.heads))}


def _data(seed: int) -> Splits:
    return Splits(*digits().loaders(seed))


def _evaluate(model: nn.Module, loader: Iterable[Any]) -> dict[str, float]:
    totals = dict.fromkeys(("left", "right", "sum", "ink"), 0.0)
    rows = 0
    for batch in loader:
        out = model(batch["image"])
        rows += len(batch["image"])
        for task in ("left", "right"):
            totals[task] += float((out[task].argmax(1) == batch[task]).sum()) * 100
        for task in ("sum", "ink"):
            totals[task] += float((out[task] - batch[task]).abs().double().sum())
    return {task: total / rows for task, total in totals.items()}
