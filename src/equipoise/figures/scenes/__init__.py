"""Pictures of rendered scenes: what is true of each pixel and, after training, what a network says."""

from equipoise.figures.scenes.make import make
from equipoise.figures.scenes.settings import Settings

__all__ = ["Settings", "make"]
