"""Puts together what is seen and how much light it gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from equipoise.data.scenes.arrays import Array, dot
from equipoise.data.scenes.camera import Camera
from equipoise.data.scenes.rendering.lights import Light, Surroundings
from equipoise.data.scenes.rendering.shadows import ambient, block_mean, lit, pattern
from equipoise.data.scenes.rendering.visible import Visible, visible
from equipoise.data.scenes.solid import Solid

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
    albedo = np.zeros((3, height * width), np.float32)
    gloss, sheen, glow = (np.zeros(height * width, np.float32) for _ in range(3))
    pixel_edge = seen.depth.ravel() / camera.focal(width)
    for number, own in seen.pixels.items():
        solid = solids[number]
        local = solid.local(seen.points[:, own])
        if solid.anchor is not None:
            local = local - (solid.axes @ (solid.anchor - solid.centre))[:, None]
        normals = solid.axes @ seen.normals[:, own]
        albedo[:, own] = solid.material.texture(local, normals, pixel_edge[own])
        gloss[own], sheen[own], glow[own] = solid.material.gloss, solid.material.sheen, solid.material.glow

    hit = np.flatnonzero(seen.solid.ravel() >= 0)
    points, normals = seen.points[:, hit].astype(np.float32), seen.normals[:, hit].astype(np.float32)
    rays = seen.rays[:, hit].astype(np.float32)
    rays /= np.sqrt(dot(rays, rays))
    surface = seen.solid * 64 + seen.face
    samples = pattern(height, width)[hit]
    raised = points + normals * np.float32(_OFF)

    def share(flags: Array) -> Array:
        whole = np.zeros(height * width, np.float32)
        whole[hit] = flags
        mean: Array = block_mean(whole.reshape(height, width), surface).ravel()[hit]
        return mean

    upwards = normals[1] / 2 + np.float32(0.5)
    above, below = (np.asarray(colour, np.float32)[:, None] for colour in (around.above, around.below))
    openness = share(ambient(solids, raised, normals, samples, around.reach))
    light = (below + (above - below) * upwards) * openness
    shine = np.zeros_like(light)
    for lamp in lights:
        towards, strength = _arriving(lamp, points)
        facing = np.maximum(dot(normals, towards), 0)
        strength = strength * (facing > 0)
        reaches = np.flatnonzero(strength > 0)
        flags = np.zeros(len(hit), bool)
        flags[reaches] = lit(solids, lamp, raised[:, reaches], samples[reaches])
        # Where the lamp is behind the surface no ray was sent, which is no shadow: the cosine alone makes it dark.
        arrives = share(flags) * strength * np.asarray(lamp.colour, np.float32)[:, None]
        light += arrives * facing
        half = towards - rays
        half /= np.maximum(np.sqrt(dot(half, half)), 1e-6)
        shine += arrives * gloss[hit] * np.maximum(dot(half, normals), 0) ** sheen[hit]

    radiance = np.zeros((3, height * width), np.float32)
    radiance[:, hit] = albedo[:, hit] * (light + glow[hit]) + shine
    if around.haze:
        clear = np.exp(-seen.depth.ravel()[hit].astype(np.float32) / np.float32(around.haze))
        radiance[:, hit] = radiance[:, hit] * clear + np.asarray(around.haze_colour, np.float32)[:, None] * (1 - clear)
    sky = np.flatnonzero(seen.solid.ravel() < 0)
    if sky.size and around.sky is not None:
        directions = seen.rays[:, sky] / np.sqrt(dot(seen.rays[:, sky], seen.rays[:, sky]))
        radiance[:, sky] = around.sky(directions)
    return Rendered(radiance.reshape(3, height, width), seen)


def _arriving(lamp: Light, points: Array) -> tuple[Array, Array]:
    """Directions ``[3, N]`` towards a lamp, and how much of its light arrives, without shadows."""
    towards = lamp.position.astype(np.float32)[:, None] - points
    square = dot(towards, towards)
    towards /= np.sqrt(square)
    strength = np.ones_like(square) if lamp.distant else 1 / np.maximum(square, np.float32(0.15))
    if lamp.facing is not None:
        strength = strength * np.maximum(-(lamp.facing.astype(np.float32) @ towards), 0)
    return towards, strength
