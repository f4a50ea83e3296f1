"""Sweeps: fixed weights, or any method's own options, tried many times on one problem and compared with other methods.

The sharpest objection to clever balancers is that a plain sum with *tuned* weights does as well. A :class:`Sweep` puts it to
the test, with Optuna: trials are chosen by the validation split on one seed, the best of them are trained again on the seeds
of the other methods, and only those runs, on the test split, are compared.

A sweep lives inside a study's folder and shares its single-task baselines and its runs of methods.

A sweep passes through ``dimensions.py`` and ``space.py`` (what is tried), ``objectives.py`` (what a trial is judged by),
``trials.py`` (asking and running), ``folder.py`` (what is kept), ``front.py`` (domination), ``outcome.py``
(numbers over seeds), ``report.py`` and ``picture.py``; ``sweep.py`` is all of it together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from equipoise.sweep.outcome import Outcome
    from equipoise.sweep.space import Space
    from equipoise.sweep.sweep import Sweep

__all__ = ["Outcome", "Space", "Sweep"]


def __getattr__(name: str) -> Any:
    # Only when it is used: the command line lists this command also where the extra is missing.
    if name not in __all__:
        raise AttributeError(f'module "{__name__}" has no attribute "{name}"')
    from importlib import import_module

    from equipoise.errors import require

    for module in ("optuna", "pymoo"):
        require(module, "sweep")
    return getattr(import_module(f"{__name__}.{name.lower()}"), name)
