"""Adapters for other people's tools, thin; each imports its framework only when it is used."""

from equipoise.integrations.loggers import CSVLogger, MLflowLogger, TensorBoardLogger, WandbLogger
from equipoise.integrations.logging import StepLogger

__all__ = ["CSVLogger", "MLflowLogger", "StepLogger", "TensorBoardLogger", "WandbLogger"]
