"""Data parallelism: what the processes average, how they share errors, and which other ways of spreading a model there are."""

from equipoise.distributed.processes import Processes, together
from equipoise.distributed.wrappers import Wrappers, refuse_sharded, refuse_unseen_wrapper

__all__ = ["Processes", "Wrappers", "refuse_sharded", "refuse_unseen_wrapper", "together"]
