r"""Diagnosis: what a problem's tasks do to each other, measured within minutes on the user's own model and batches.

:func:`diagnose` trains plainly for some steps, looks at the task gradients now and then, times a step of each class of method
and puts everything back. The :class:`Diagnosis` has the numbers, says in sentences what they mean, and writes a page::

    found = eq.diagnose(objective, loader)
    print("\n".join(found.sentences()))
    found.write("results/diagnosis")        # report.html, report.md, diagnosis.json

``looks.py`` forms Gramians of a batch, of its halves and of proxies; ``costs.py`` times steps; ``summary.py`` makes numbers of
the looks and ``sentences.py`` words of the numbers; ``page.py`` writes them. The page needs the extra ``study``, nothing else
does.
"""

from equipoise.diagnosis.diagnosing import diagnose, diagnose_problem
from equipoise.diagnosis.summary import Diagnosis

__all__ = ["Diagnosis", "diagnose", "diagnose_problem"]
