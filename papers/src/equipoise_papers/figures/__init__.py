"""The papers' figures: a folder for each, ``equipoise figure NAME`` for all.

``settings.py`` of a folder declares what can be chosen, and with :data:`figure` the command; ``make.py`` has
``make(settings, folder, told)``, which writes everything into a folder and returns a table. Nothing lists the figures by hand.
"""

from equipoise_papers.commands import Commands

__all__ = ["FIGURES", "figure"]

FIGURES = Commands(
    "figure",
    __name__,
    "Make a figure of one of the papers again, with the numbers behind it.",
    work="make:make",
    output="results/{}",
)
figure = FIGURES.add
