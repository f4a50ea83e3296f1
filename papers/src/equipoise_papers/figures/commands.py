"""``equipoise figure NAME``."""

from equipoise_papers.figures import FIGURES

__all__ = ["app"]

app = FIGURES.app()
