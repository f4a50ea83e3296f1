"""Shadows, corners and exposure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from equipoise_papers.scenes import KINDS, make_scene
from equipoise_papers.scenes.camera import Camera, photograph
from equipoise_papers.scenes.rendering import Light, Surroundings, render, visible
from equipoise_papers.scenes.rendering.shadows import ambient, block_mean, lit, pattern
from equipoise_papers.scenes.rendering.visible import tiled
from equipoise_papers.scenes.solid import Material, Solid, ball, block
from equipoise_papers.scenes.textures import plain

GREY = Material(plain(np.full(3, 0.5)))
HEIGHT, WIDTH = 24, 32


def looked_at(setting):
    """What the shadow functions are given of a scene."""
    seen = visible(setting.solids, setting.camera, HEIGHT, WIDTH)
    hit = seen.solid.ravel() >= 0
    raised = (seen.points + 2e-3 * seen.normals).astype(np.float32)
    return seen, hit, raised, pattern(HEIGHT, WIDTH), tiled(seen.points, hit, HEIGHT, WIDTH)


@pytest.mark.parametrize("kind", KINDS)
def test_leaving_out_solids_that_cannot_matter_changes_nothing(kind):
    """Every light and the surroundings, against trying every solid that casts for every pixel."""
    setting = KINDS[kind](np.random.default_rng(11))
    seen, hit, raised, samples, tiles = looked_at(setting)
    normals = seen.normals.astype(np.float32)
    tried = []

    class Counted(Solid):
        def span(self, origin, direction):
            tried.append(direction.shape[1])
            return super().span(origin, direction)

    solids = [Counted(**vars(solid)) for solid in setting.solids]

    def answers(tiles):
        tried.clear()
        found = [lit(solids, light, raised, hit, samples, tiles) for light in setting.lights]
        return [*found, ambient(solids, raised, normals, hit, samples, tiles, setting.around.reach)], sum(tried)

    quick, few = answers(tiles)
    # To blocks of pixels as large as this, everything is near.
    slow, many = answers(replace(tiles, radius=np.full_like(tiles.radius, 1e6)))
    assert few < many / 2
    for found, expected in zip(quick, slow, strict=True):
        assert 0 < expected.sum() < expected.size
        np.testing.assert_array_equal(found, expected)


def test_the_shadow_of_a_sphere_is_its_cone():
    camera = Camera.looking(np.array([0.0, 4.0, -3.0]), np.zeros(3), np.deg2rad(70))
    light = Light(np.array([0.0, 3.0, 0.0]), np.ones(3))
    solids = [block((-9, 9), (-1, 0), (-9, 9), 4, GREY), ball((0, 1.5, 0), 0.5, 6, GREY)]
    seen = visible(solids, camera, HEIGHT, WIDTH)
    hit = seen.solid.ravel() >= 0
    tiles = tiled(seen.points, hit, HEIGHT, WIDTH)
    raised = (seen.points + 2e-3 * seen.normals).astype(np.float32)
    free = lit(solids, light, raised, hit, pattern(HEIGHT, WIDTH), tiles)
    ground = seen.solid.ravel() == 0
    # The cone from the lamp around the sphere: half angle asin(0.5/1.5), three metres high.
    radius = 3 * np.tan(np.arcsin(0.5 / 1.5))
    distance = np.hypot(seen.points[0], seen.points[2])
    sure = ground & (np.abs(distance - radius) > 0.01)
    assert (free[sure] == (distance > radius)[sure]).all()
    assert (~free & sure).sum() > 20


def test_light_falls_off_with_the_square_of_the_distance_and_with_the_cosine():
    camera = Camera.looking(np.array([0.0, 1.0, -2.0]), np.array([0.0, 0.0, 1.0]), np.deg2rad(70))
    lamp = Light(np.array([0.5, 2.0, 0.5]), np.array([3.0, 2.0, 1.0]))
    dark = Surroundings(np.zeros(3), np.zeros(3))
    rendered = render([block((-9, 9), (-1, 0), (-9, 9), 4, GREY)], camera, [lamp], dark, HEIGHT, WIDTH)
    ground = rendered.seen.solid == 0
    away = lamp.position[:, None] - rendered.seen.points[:, ground.ravel()]
    expected = 0.5 * lamp.color[:, None] * away[1] / np.linalg.norm(away, axis=0) ** 3
    np.testing.assert_allclose(rendered.radiance[:, ground], expected, rtol=1e-4)
    assert (rendered.radiance[:, ~ground] == 0).all()


def test_an_open_plain_is_bright_and_the_foot_of_a_wall_is_not():
    camera = Camera.looking(np.array([0.0, 1.0, -1.2]), np.array([0.0, 0.0, 0.0]), np.deg2rad(70))
    around = Surroundings(np.full(3, 0.8), np.full(3, 0.8), reach=0.5)
    plain_ground = block((-9, 9), (-1, 0), (-9, 9), 4, GREY)
    free = render([plain_ground], camera, [], around, 48, 64)
    np.testing.assert_allclose(free.radiance[:, free.seen.solid == 0], 0.4, rtol=1e-5)
    walled = render([plain_ground, block((-9, 9), (0, 3), (0, 1), 11, GREY)], camera, [], around, 48, 64)
    ground = walled.seen.solid == 0
    before = -walled.seen.points.reshape(3, 48, 64)[2]
    # Half of the directions at the foot of a wall hit it; half a metre away none does.
    assert walled.radiance[0][ground & (before < 0.05)].mean() == pytest.approx(0.2, abs=0.04)
    np.testing.assert_allclose(walled.radiance[0][ground & (before > 0.6)], 0.4, rtol=1e-5)


def test_block_means_stay_within_a_surface():
    generator = np.random.default_rng(0)
    values, surface = generator.random((9, 11)), generator.integers(0, 3, (9, 11))
    found = block_mean(values, surface)
    for row, column in ((0, 0), (4, 5), (8, 10), (3, 0)):
        rows, columns = range(max(0, row - 1), min(9, row + 3)), range(max(0, column - 1), min(11, column + 3))
        own = [values[r, c] for r in rows for c in columns if surface[r, c] == surface[row, column]]
        assert found[row, column] == pytest.approx(np.mean(own), rel=1e-5)


def test_a_photograph_keeps_order_and_range():
    ramp = np.broadcast_to(np.linspace(0, 3, 64, dtype=np.float32), (3, 32, 64))
    image = photograph(ramp, np.random.default_rng(0), 32, 64)
    assert image.shape == (32, 64, 3)
    assert image.min() >= 0
    assert image.max() <= 1
    means = image.mean((0, 2))
    assert (np.diff(means.reshape(16, 4).mean(1)) > 0).all()


def test_no_texture_leaves_the_range_of_colors():
    for kind in KINDS:
        for number in range(2):
            setting = KINDS[kind](np.random.default_rng([5, number]))
            points = np.random.default_rng(0).uniform(-1, 1, (3, 40))
            for normal in np.eye(3):
                normals = np.broadcast_to(normal[:, None], (3, 40))
                for material in {solid.material for solid in setting.solids}:
                    colors = material.texture(points, normals, np.full(40, 0.01))
                    assert colors.shape == (3, 40)
                    assert np.isfinite(colors).all()
                    assert colors.min() >= 0
                    assert colors.max() < 1.6


def test_noise_of_the_sensor_does_not_touch_the_truth():
    """The same scene at another size has other noise; the image still shows the same."""
    small, large = (make_scene("rooms", size, number=1) for size in ((24, 32), (72, 96)))
    shrunk = large.image.reshape(24, 3, 32, 3, 3).mean((1, 3))
    assert np.abs(shrunk - small.image).mean() < 0.06
