"""Convex shapes in their own frame: where a line enters and leaves them, and the normal of a point on their surface."""

from equipoise.data.scenes.shapes.box import Box
from equipoise.data.scenes.shapes.ellipsoid import Ellipsoid
from equipoise.data.scenes.shapes.frustum import Frustum
from equipoise.data.scenes.shapes.polytope import Polytope, prism
from equipoise.data.scenes.shapes.shape import Shape

__all__ = ["Box", "Ellipsoid", "Frustum", "Polytope", "Shape", "prism"]
