"""The report of a study: on the terminal, as Markdown, and as one HTML file that holds its pictures."""

from equipoise.study.report.paper import study_paper
from equipoise.study.report.terminal import facts, print_method, print_methods, print_results
from equipoise.study.report.write import write_report

__all__ = ["facts", "print_method", "print_methods", "print_results", "study_paper", "write_report"]
