"""Pictures of rendered scenes: what is true of each pixel and, after training, what a network says."""

from equipoise_papers.figures.scenes.make import make
from equipoise_papers.figures.scenes.settings import Settings

__all__ = ["Settings", "make"]
