"""Adapters for other people's tools, thin; each imports its framework only when it is used."""

from equipoise.integrations.base import StepLogger
from equipoise.integrations.loggers import CSVLogger, MLflowLogger, TensorBoardLogger, WandbLogger

__all__ = ["CSVLogger", "MLflowLogger", "StepLogger", "TensorBoardLogger", "WandbLogger"]
