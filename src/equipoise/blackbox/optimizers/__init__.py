"""The ask/tell optimizers."""

from equipoise.blackbox.optimizers.asmg import ASMG
from equipoise.blackbox.optimizers.base import Optimizer
from equipoise.blackbox.optimizers.by_name import OPTIMIZERS, make_optimizer
from equipoise.blackbox.optimizers.cmaes import CMAES
from equipoise.blackbox.optimizers.es import BES, ES
from equipoise.blackbox.optimizers.mmes import MMES

__all__ = ["ASMG", "BES", "CMAES", "ES", "MMES", "OPTIMIZERS", "Optimizer", "make_optimizer"]
