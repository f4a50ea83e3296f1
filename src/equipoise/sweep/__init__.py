"""Sweeps: fixed weights, or any method's own options, tried many times on one problem and compared with other methods.

The sharpest objection to clever balancers is that a plain sum with *tuned* weights does as well. A :class:`Sweep` puts it to
the test, with Optuna: trials are chosen by the validation split on one seed, the best of them are trained again on the seeds
of the other methods, and only those runs, on the test split, are compared.

A sweep lives inside a study's folder and shares its single-task baselines and its runs of methods.

==================  ====================================================================================
``dimensions.py``   one option: a range, a logarithmic range, whole numbers, choices
``weights.py``      the weights of the tasks, on the simplex
``space.py``        all dimensions of a method, and the method that a point of the space stands for
``objectives.py``   what a trial is judged by, on the validation split
``samplers.py``     Optuna's samplers and pruners, by name
``storage.py``      the trials' journal; which process owns which trial; who is alive
``folder.py``       what lies in a sweep's folder
``trials.py``       asks for trials, runs them, tells what came out
``front.py``        domination, Pareto fronts, hypervolume; which trials are confirmed
``sweep.py``        all of it together
``outcome.py``      what a folder holds, as numbers over seeds
``verdicts.py``     which methods the sweep dominates
``report.py``       terminal, Markdown, HTML; ``picture.py``: the picture of the front
==================  ====================================================================================
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
