"""Puts together what is seen and how much light it gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from equipoise_papers.scenes.camera import Camera
from equipoise_papers.scenes.rendering.lights import Light, Surroundings
from equipoise_papers.scenes.rendering.shadows import ambient, block_mean, lit, pattern
from equipoise_papers.scenes.rendering.visible import Visible, tiled, visible
from equipoise_papers.scenes.shapes import Array, dot
from equipoise_papers.scenes.solid import Solid

__all__ = ["Rendered", "render"]

_OFF = 2e-3  # metres that a shadow ray starts off its surface


@dataclass(frozen=True)
class Rendered:
    """Light that falls into the camera, and what it comes from.

    Attributes:
        radiance: ``[3, H, W]`` float32, linear, not limited.
        seen: the first hits.
    """

    radiance: Array
    seen: Visible


def render(
    solids: Sequence[Solid], camera: Camera, lights: Sequence[Light], around: Surroundings, height: int, width: int
) -> Rendered:
    """Light from lamps with soft shadows and highlights, light from everywhere with dark corners, sky and haze."""
    seen = visible(solids, camera, height, width)
    albedo, gloss, sheen, glow = _surfaces(solids, seen, camera, width)
    hit = seen.solid.ravel() >= 0
    points, normals = seen.points.astype(np.float32), seen.normals.astype(np.float32)
    rays = seen.rays.astype(np.float32)
    rays /= np.sqrt(dot(rays, rays))
    raised = points + normals * np.float32(_OFF)
    surface = seen.solid * 64 + seen.face
    samples = pattern(height, width)
    tiles = tiled(seen.points, hit, height, width)

    def share(flags: Array) -> Array:
        return block_mean(flags.reshape(height, width), surface).ravel()

    upwards = normals[1] / 2 + np.float32(0.5)
    above, below = (np.asarray(color, np.float32)[:, None] for color in (around.above, around.below))
    openness = share(ambient(solids, raised, normals, hit, samples, tiles, around.reach))
    light = (below + (above - below) * upwards) * openness
    shine = np.zeros_like(light)
    for lamp in lights:
        towards, strength = _arriving(lamp, points)
        facing = np.maximum(dot(normals, towards), 0)
        strength *= facing > 0
        # Where the lamp is behind the surface no ray is sent, which is no shadow: the cosine alone makes it dark.
        strength *= share(lit(solids, lamp, raised, strength > 0, samples, tiles))
        arrives = strength * np.asarray(lamp.color, np.float32)[:, None]
        light += arrives * facing
        half = towards - rays
        half /= np.maximum(np.sqrt(dot(half, half)), 1e-6)
        shine += arrives * gloss * np.maximum(dot(half, normals), 0) ** sheen

    radiance = albedo * (light + glow) + shine
    if around.haze:
        clear = np.exp(-np.where(hit, seen.depth.ravel(), 0).astype(np.float32) / np.float32(around.haze))
        radiance = radiance * clear + np.asarray(around.haze_color, np.float32)[:, None] * (1 - clear)
    if around.sky is not None:
        radiance[:, ~hit] = around.sky(rays[:, ~hit])
    return Rendered(radiance.reshape(3, height, width), seen)


def _surfaces(solids: Sequence[Solid], seen: Visible, camera: Camera, width: int) -> tuple[Array, Array, Array, Array]:
    """Color ``[3, N]``, gloss, sheen and glow ``[N]`` of what every pixel sees."""
    albedo = np.zeros((3, seen.depth.size), np.float32)
    gloss, sheen, glow = (np.zeros(seen.depth.size, np.float32) for _ in range(3))
    edge = (seen.depth / camera.focal(width)).ravel()
    for number, own in seen.pixels.items():
        solid, material = solids[number], solids[number].material
        local = solid.local(seen.points[:, own])
        if solid.anchor is not None:
            local -= (solid.axes @ (solid.anchor - solid.center))[:, None]
        albedo[:, own] = material.texture(local, solid.axes @ seen.normals[:, own], edge[own])
        gloss[own], sheen[own], glow[own] = material.gloss, material.sheen, material.glow
    return albedo, gloss, sheen, glow


def _arriving(lamp: Light, points: Array) -> tuple[Array, Array]:
    """Directions ``[3, N]`` towards a lamp, and how much of its light arrives ``[N]``, without shadows."""
    towards = lamp.position.astype(np.float32)[:, None] - points
    square = dot(towards, towards)
    towards /= np.sqrt(square)
    strength = np.ones_like(square) if lamp.distant else 1 / np.maximum(square, np.float32(0.15))
    if lamp.facing is not None:
        strength *= np.maximum(-(lamp.facing.astype(np.float32) @ towards), 0)
    return towards, strength
