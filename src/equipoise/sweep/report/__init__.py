"""The report of a sweep: on the terminal, as Markdown, as one HTML file, and the picture of the front."""

from equipoise.sweep.report.content import content
from equipoise.sweep.report.terminal import print_outcome
from equipoise.sweep.report.write import write_report

__all__ = ["content", "print_outcome", "write_report"]
