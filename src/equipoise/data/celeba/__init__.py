"""CelebA: faces with forty attributes, each a task."""

from equipoise.data.celeba.faces import CelebA, celeba_loaders
from equipoise.data.celeba.lists import ATTRIBUTES

__all__ = ["ATTRIBUTES", "CelebA", "celeba_loaders"]
