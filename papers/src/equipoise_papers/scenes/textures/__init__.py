"""Procedural colors of surfaces."""

from equipoise_papers.scenes.textures.colors import hue, mixed, pick, shade
from equipoise_papers.scenes.textures.images import facade, painting, screen, view
from equipoise_papers.scenes.textures.patterns import (
    checks,
    clouds,
    grain,
    leaves,
    noise,
    noise3,
    plain,
    planks,
    spines,
    stripes,
    tiles,
    weave,
)

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
