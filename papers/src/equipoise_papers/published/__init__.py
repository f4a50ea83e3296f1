"""The tables of the papers whose methods are here, as facts to compare with: every number as it was printed.

``find_table("cost-table1")`` gives one; ``published_tables()`` all. A table knows the direction of each of its metrics and
its single-task row, so that Δm, Δ_p and MR can be computed from its rows again: ``check.py`` does that and says which printed
numbers do not follow from the printed rows.
"""

from equipoise_papers.published.check import Check, check
from equipoise_papers.published.table import PublishedTable
from equipoise_papers.published.tables import find_table, published_tables

__all__ = ["Check", "PublishedTable", "check", "find_table", "published_tables"]
