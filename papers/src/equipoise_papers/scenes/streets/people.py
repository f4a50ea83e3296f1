"""People who stand or walk, around the point between their feet; they look along +z."""

from __future__ import annotations

import numpy as np

from equipoise_papers.scenes.classes import Street
from equipoise_papers.scenes.material import Material
from equipoise_papers.scenes.parts import ball, limb
from equipoise_papers.scenes.solid import Solid
from equipoise_papers.scenes.textures import hue, mixed, plain

__all__ = ["person"]


def person(generator: np.random.Generator) -> list[Solid]:
    """Head, hair, trunk, arms and legs, in mid step or standing."""
    size = generator.uniform(1.5, 1.9) / 1.75
    label = Street.HUMAN
    tone = mixed(np.array([0.62, 0.4, 0.28]), np.array([0.12, 0.06, 0.04]), generator.random(1))[:, 0]
    skin = Material(plain(tone))
    hair = Material(plain(np.array([0.05, 0.03, 0.02]) * generator.uniform(0.4, 5.0)))
    coat = Material(plain(hue(generator, saturations=(0.1, 0.8), values=(0.1, 0.85))))
    trousers = Material(plain(hue(generator, (0.55, 0.7), (0.0, 0.5), (0.08, 0.5))))
    shoes = Material(plain(np.full(3, 0.02)))
    stride, swing = generator.uniform(0.0, 0.35) * size, generator.uniform(0.0, 0.3) * size
    waist, shoulder, top = 0.88 * size, 1.42 * size, 1.75 * size
    solids = [
        limb((0, waist - 0.06 * size, 0), (0, shoulder, 0), 0.16 * size, label, coat, thin=1.15),
        ball((0, shoulder, 0), (0.2 * size, 0.08 * size, 0.12 * size), label, coat),
        limb((0, shoulder, 0), (0, shoulder + 0.12 * size, 0), 0.055 * size, label, skin),
        ball((0, top - 0.12 * size, 0.01), (0.085 * size, 0.115 * size, 0.1 * size), label, skin),
        ball((0, top - 0.085 * size, -0.02 * size), (0.09 * size, 0.095 * size, 0.1 * size), label, hair),
    ]
    for side in (-1, 1):
        foot = np.array([side * 0.09 * size, 0.06, side * stride])
        solids.append(limb((side * 0.085 * size, waist, 0), foot, 0.09 * size, label, trousers, thin=0.65))
        solids.append(ball(np.add(foot, (0, -0.015, 0.05)), (0.05 * size, 0.045, 0.12 * size), label, shoes))
        hand = (side * 0.27 * size, 0.82 * size, -side * swing + 0.05)
        solids.append(limb((side * 0.2 * size, shoulder - 0.02, 0), hand, 0.06 * size, label, coat, thin=0.7))
        solids.append(ball(hand, 0.045 * size, label, skin))
    if generator.random() < 0.3:
        bag = Material(plain(hue(generator, saturations=(0.2, 0.8), values=(0.1, 0.6))))
        solids.append(ball((0, 1.18 * size, -0.2 * size), (0.15 * size, 0.22 * size, 0.1 * size), label, bag))
    return solids
