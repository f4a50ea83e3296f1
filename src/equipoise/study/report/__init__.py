"""The report of a study: on the terminal, as Markdown, and as one HTML file that holds its pictures.

``words.py``    numbers and verdicts as a reader should see them
``content.py``  everything the report says, once, for all its forms
``teleports.py`` the table of teleports, where there are any
``terminal.py`` tables on the terminal
``write.py``    ``report.md``, ``report.html``, ``pictures/``
"""

from equipoise.study.report.terminal import print_methods, print_results
from equipoise.study.report.write import write_report

__all__ = ["print_methods", "print_results", "write_report"]
