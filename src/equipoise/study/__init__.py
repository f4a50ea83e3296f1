"""Studies: compare balancing methods over seeds on one problem, with single-task training as the baseline.

A :class:`Problem` says how to build the model and its losses, where the batches come from and how the result is judged.
A :class:`Study` trains it with every method and every seed, each run in a process of its own, and keeps one JSON file per run
in its folder. Killed at any moment, it continues where it stopped; :meth:`Study.report` turns the folder into tables and
pictures.

A study passes through ``problem.py`` and ``methods.py`` (what is trained, with what), ``plan.py`` (the runs), ``processes/``
and ``training.py`` (one run, from seed to record), ``folder.py`` and ``records.py`` (what is kept), ``results.py`` (numbers
over seeds), ``report/`` and ``pictures/``; ``study.py`` is all of it together.
"""

from equipoise.errors import require

for _module in ("cloudpickle", "jinja2", "matplotlib", "rich"):
    require(_module, "study")

from equipoise.study.methods import Method, parse_method, parse_methods  # noqa: E402
from equipoise.study.problem import Problem, Splits  # noqa: E402
from equipoise.study.problems import find_problem, problems  # noqa: E402
from equipoise.study.reported import BestEpoch, LastEpochs  # noqa: E402
from equipoise.study.results import Results  # noqa: E402
from equipoise.study.study import Study  # noqa: E402

__all__ = [
    "BestEpoch",
    "LastEpochs",
    "Method",
    "Problem",
    "Results",
    "Splits",
    "Study",
    "find_problem",
    "parse_method",
    "parse_methods",
    "problems",
]
