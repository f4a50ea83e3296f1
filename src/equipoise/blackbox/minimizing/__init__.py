"""``minimize`` and what belongs to it."""

from equipoise.blackbox.minimizing.minimize import minimize
from equipoise.blackbox.minimizing.result import Progress, Result

__all__ = ["Progress", "Result", "minimize"]
