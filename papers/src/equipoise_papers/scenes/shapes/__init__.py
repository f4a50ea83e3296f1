"""Convex shapes in their own frame: where a line enters and leaves them, and the normal of a point on their surface."""

from equipoise_papers.scenes.shapes.box import Box
from equipoise_papers.scenes.shapes.ellipsoid import Ellipsoid
from equipoise_papers.scenes.shapes.frustum import Frustum
from equipoise_papers.scenes.shapes.polytope import Polytope, prism
from equipoise_papers.scenes.shapes.shape import Shape

__all__ = ["Box", "Ellipsoid", "Frustum", "Polytope", "Shape", "prism"]
