"""Procedural colours of surfaces."""

from equipoise.data.scenes.textures.colours import hue, mixed, pick, shade
from equipoise.data.scenes.textures.images import facade, painting, screen, view
from equipoise.data.scenes.textures.noise import clouds, noise, noise3
from equipoise.data.scenes.textures.patterns import checks, grain, leaves, plain, planks, spines, stripes, tiles, weave

__all__ = [
    "checks",
    "clouds",
    "facade",
    "grain",
    "hue",
    "leaves",
    "mixed",
    "noise",
    "noise3",
    "painting",
    "pick",
    "plain",
    "planks",
    "screen",
    "shade",
    "spines",
    "stripes",
    "tiles",
    "view",
    "weave",
]
