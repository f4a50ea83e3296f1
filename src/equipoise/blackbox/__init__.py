"""Black-box multi-objective optimisation: for a function with several outputs and no gradient.

Ask/tell optimizers that leave the loop to the user,

    optimizer = ASMG(mean, std=1.0, samples=50, lr=0.1)
    for _ in range(1000):
        X = optimizer.ask()          # [N, d]
        optimizer.tell(evaluate(X))  # [N, m]

and :func:`minimize`, which has the loop: workers, limits, failures, checkpoints.
"""

from equipoise.blackbox.archive import undominated
from equipoise.blackbox.minimizing import IterationReport, Result, minimize
from equipoise.blackbox.optimizers import ASMG, BES, CMAES, ES, MMES, OPTIMIZERS, Optimizer, make_optimizer
from equipoise.blackbox.several import FrontResult, front, preferences, restarted

__all__ = [
    "ASMG",
    "BES",
    "CMAES",
    "ES",
    "MMES",
    "OPTIMIZERS",
    "FrontResult",
    "IterationReport",
    "Optimizer",
    "Result",
    "front",
    "make_optimizer",
    "minimize",
    "preferences",
    "restarted",
    "undominated",
]
