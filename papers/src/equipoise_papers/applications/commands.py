"""``equipoise example NAME``."""

from equipoise_papers.applications import EXAMPLES

__all__ = ["app"]

app = EXAMPLES.app()
