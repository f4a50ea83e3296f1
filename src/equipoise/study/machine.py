"""What a run can say of the machine it runs on: versions, memory, and its seeds."""

from __future__ import annotations

import platform
import random
import sys

import numpy as np
import torch

from equipoise.version import __version__

__all__ = ["peak_memory_mb", "seed_process", "versions"]


def versions() -> dict[str, str]:
    """Versions of everything that the numbers of a run depend on."""
    return {
        "equipoise": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "machine": platform.machine(),
    }


def peak_memory_mb() -> float | None:
    """The most memory this process ever had resident, in MB of 10⁶ bytes; ``None`` where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6, 1)


def seed_process(seed: int) -> None:
    """Seeds every global generator of this process. Only for a process that belongs to a run, never in a user's own."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (a user's code may draw from the global generator)
    torch.manual_seed(seed)
