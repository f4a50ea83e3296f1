"""From solids, lights and a camera to an image and what is exactly true about each of its pixels."""

from equipoise_papers.scenes.rendering.lights import Light, Surroundings
from equipoise_papers.scenes.rendering.render import Rendered, render
from equipoise_papers.scenes.rendering.visible import Visible, visible

__all__ = ["Light", "Rendered", "Surroundings", "Visible", "render", "visible"]
