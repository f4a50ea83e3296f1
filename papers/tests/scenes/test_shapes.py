"""Lines through solids, against what being inside means, and normals, against what being on the surface means."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise_papers.scenes.shapes import Cuboid, Ellipsoid, Frustum, prism

ROOF, _ = prism([(-1, -0.5), (1, -0.5), (0.3, 0.7)], 0.8)


def inside_box(p):
    return (np.abs(p) <= [[0.5], [1.0], [2.0]]).all(0)


def inside_ellipsoid(p):
    return np.square(p / [[0.5], [1.0], [2.0]]).sum(0) <= 1


def inside_frustum(bottom, top, half):
    def inside(p):
        radius = bottom + (top - bottom) * (p[1] + half) / (2 * half)
        return (np.abs(p[1]) <= half) & (np.hypot(p[0], p[2]) <= radius)

    return inside


def inside_roof(p):
    # By the corners rather than by the faces: left of every edge of a triangle that runs counter-clockwise.
    corners = np.array([(-1, -0.5), (1, -0.5), (0.3, 0.7)]) - [0, 0.1]  # around the middle of their bounding box
    inside = np.abs(p[0]) <= 0.8
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        inside &= (end[0] - start[0]) * (p[1] - start[1]) - (end[1] - start[1]) * (p[2] - start[0]) >= 0
    return inside


SHAPES = {
    "box": (Cuboid(np.array([0.5, 1.0, 2.0])), inside_box),
    "ellipsoid": (Ellipsoid(np.array([0.5, 1.0, 2.0])), inside_ellipsoid),
    "cylinder": (Frustum(0.7, 0.7, 0.9), inside_frustum(0.7, 0.7, 0.9)),
    "cone": (Frustum(1.0, 0.0, 0.9), inside_frustum(1.0, 0.0, 0.9)),
    "cup": (Frustum(0.3, 1.2, 0.4), inside_frustum(0.3, 1.2, 0.4)),
    "roof": (ROOF, inside_roof),
}


@pytest.mark.parametrize("name", SHAPES)
@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_line_is_inside_just_between_where_it_enters_and_leaves(name, seed):
    shape, inside = SHAPES[name]
    generator = np.random.default_rng(seed)
    origin = generator.uniform(-3, 3, (3, 40))
    direction = generator.uniform(-1.5, 1.5, (3, 40)) - origin  # most of them hit
    direction[:, :6] *= generator.integers(0, 2, (3, 6))  # some along an axis or a face
    direction[:, (direction == 0).all(0)] = 1.0
    enter, leave = shape.span(origin, direction)
    hit = enter < leave
    assert hit.any()
    for when in np.linspace(-4, 5, 181):
        point = origin + when * direction
        # Very close to the surface rounding decides.
        sure = np.abs(np.where(hit, np.minimum(np.abs(enter - when), np.abs(leave - when)), 1.0)) > 1e-9
        expected = hit & (enter < when) & (when < leave)
        surely_hit = sure & (leave - enter > 1e-6) | (sure & ~hit)
        assert (inside(point) == expected)[surely_hit].all()


@pytest.mark.parametrize("name", SHAPES)
def test_normals_point_outwards_from_the_surface(name):
    shape, inside = SHAPES[name]
    generator = np.random.default_rng(0)
    origin = generator.uniform(-3, 3, (3, 500))
    direction = generator.uniform(-0.4, 0.4, (3, 500)) - origin
    enter, leave = shape.span(origin, direction)
    hit = (enter < leave - 1e-3) & (enter > 0)
    for when, towards in ((enter, -1), (leave, 1)):
        point = (origin + when * direction)[:, hit]
        normal, face = shape.normal(point)
        np.testing.assert_allclose(np.linalg.norm(normal, axis=0), 1, atol=1e-9)
        assert (towards * (normal * direction[:, hit]).sum(0) > 0).all()  # a line enters against the normal, leaves along it
        assert not inside(point + 1e-5 * normal).any()
        # Moving at right angles to the normal stays on the surface up to second order.
        aside = np.cross(normal.T, generator.standard_normal(normal.T.shape)).T * 1e-4
        again = inside(point + aside - 1e-5 * normal)
        assert again.mean() > 0.97  # but for points at an edge
        assert face.shape == (hit.sum(),)


@pytest.mark.parametrize("name", SHAPES)
def test_bounds_hold_the_shape(name):
    shape, inside = SHAPES[name]
    points = np.random.default_rng(0).uniform(-3, 3, (3, 20_000))
    own = points[:, inside(points)]
    assert (np.abs(own) <= shape.extent[:, None] + 1e-12).all()
    assert np.linalg.norm(own, axis=0).max() <= shape.radius + 1e-12
    assert (np.abs(own).max(1) > 0.8 * shape.extent).all()  # and not by far
