"""Adapters for other people's tools, thin; each imports its framework only when it is used."""

import importlib
from typing import TYPE_CHECKING, Any

from equipoise.integrations.accelerate import accelerate_loss
from equipoise.integrations.balanced import BalancedLoss
from equipoise.integrations.base import StepLogger
from equipoise.integrations.loggers import CSVLogger, MLflowLogger, TensorBoardLogger, WandbLogger

if TYPE_CHECKING:
    from equipoise.integrations.hugging_face import BalancedTrainer
    from equipoise.integrations.lightning import BalancedModule, BalancingCallback

__all__ = [
    "BalancedLoss",
    "BalancedModule",
    "BalancedTrainer",
    "BalancingCallback",
    "CSVLogger",
    "MLflowLogger",
    "StepLogger",
    "TensorBoardLogger",
    "WandbLogger",
    "accelerate_loss",
]

# These derive from classes of their frameworks.
_LATER = {"BalancedModule": "lightning", "BalancingCallback": "lightning", "BalancedTrainer": "hugging_face"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
