"""Studies: compare balancing methods over seeds on one problem, with single-task training as the baseline.

A :class:`Problem` says how to build the model and its losses, where the batches come from and how the result is judged.
A :class:`Study` trains it with every method and every seed, each run in a process of its own, and keeps one JSON file per run
in its folder. Killed at any moment, it continues where it stopped; :meth:`Study.report` turns the folder into tables and
pictures.

Rooms, in the order in which a study passes through them:

=================  =====================================================================================
``problem.py``     what is trained and how it is judged; ``reported.py``: by which of its epochs
``problems.py``    the embedded problem; finding one by name or in a user's file
``methods.py``     "cost(gamma=0.2)+cagrad:c=0.2" → a method to compare; and which problem serves it
``registry.py``    every method that is known by name; ``task_weights.py`` those that learn weights on validation data
``trainers.py``    what a method makes for a run: what takes the steps, and on which batches
``names.py``       labels where there is little room for them
``plan.py``        problem × methods × seeds → the runs, single-task baselines first
``folder.py``      what lies in a study's folder, and that it is only ever whole
``records.py``     the record of one run, written and validated
``training.py``    one run, from seed to record; ``points.py`` keeps where it was in loss and conflict
``processes/``     runs as independent processes, several at a time
``progress.py``    one bar over all runs, or plain lines
``study.py``       all of it together
``results.py``     the records of a folder, as numbers over seeds
``report/``        terminal table, Markdown, HTML
``pictures/``      the pictures of a report
=================  =====================================================================================
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
