"""Depth, labels and normals of scenes: closed forms, and agreement with each other."""

from __future__ import annotations

import numpy as np
import pytest

from equipoise.errors import InputError
from equipoise_papers.scenes import KINDS, ROOM_CLASSES, STREET_CLASSES, VOID, make_scene
from equipoise_papers.scenes.camera import Camera
from equipoise_papers.scenes.rendering import visible
from equipoise_papers.scenes.solid import Material, ball, block, limb, rod
from equipoise_papers.scenes.textures import plain

GREY = Material(plain(np.full(3, 0.5)))
SIZE = (60, 80)


def settings(kind, count, seed=0):
    """What scenes are made of, without the images."""
    return [KINDS[kind](np.random.default_rng([seed, number])) for number in range(count)]


def test_depth_of_a_plane_is_its_equation():
    camera = Camera.looking(np.array([0.3, 1.7, -2.0]), np.array([0.0, 0.4, 3.0]), np.deg2rad(70), roll=0.1)
    seen = visible([block((-50, 50), (-1, 0), (-50, 50), 4, GREY)], camera, *SIZE)
    across, upwards, back = camera.axes
    for row, column in ((59, 0), (50, 40), (45, 79)):
        # The ray written out by hand: right, up and forward of the pixel's center, in units of the focal length.
        focal = 40 / np.tan(np.deg2rad(35))
        ray = across * (column + 0.5 - 40) / focal + upwards * (30 - row - 0.5) / focal - back
        assert seen.depth[row, column] == pytest.approx(-1.7 / ray[1], rel=1e-12)
    ground = seen.solid == 0
    np.testing.assert_allclose(seen.normals[:, ground.ravel()], np.array([[0.0], [1.0], [0.0]]) * np.ones(ground.sum()))
    assert not np.isfinite(seen.depth[0]).any()  # above the horizon there is nothing


def test_depth_and_normals_of_a_sphere_are_its_equation():
    radius, distance = 0.7, 4.0
    camera = Camera.looking(np.zeros(3), np.array([0.0, 0.0, 1.0]), np.deg2rad(40))
    seen = visible([ball((0, 0, distance), radius, 6, GREY)], camera, *SIZE)
    x, y, _ = camera.plane(*SIZE)
    square = 1 + x**2 + y**2
    # |t·ray − center|² = radius², ray of depth 1: a quadratic equation in the depth t.
    root = distance**2 - square * (distance**2 - radius**2)
    hit = seen.solid == 0
    assert (hit == (root > 0)).all()
    np.testing.assert_allclose(seen.depth[hit], ((distance - np.sqrt(np.maximum(root, 0))) / square)[hit], rtol=1e-12)
    outwards = (seen.points - np.array([[0.0], [0.0], [distance]])) / radius
    np.testing.assert_allclose(seen.normals[:, hit.ravel()], outwards[:, hit.ravel()], atol=1e-9)


def test_the_nearer_solid_is_seen():
    camera = Camera.looking(np.zeros(3), np.array([0.0, 0.0, 1.0]), np.deg2rad(60))
    solids = [block((-5, 5), (-5, 5), (5, 6), 11, GREY), rod(0, 3, (-1, 1), 0.2, 3, GREY), ball((0, 0, 2), 0.1, 6, GREY)]
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        seen = visible([solids[number] for number in order], camera, *SIZE)
        assert order[seen.solid[30, 40]] == 2
        assert order[seen.solid[20, 40]] == 1
        assert order[seen.solid[0, 0]] == 0
        assert seen.depth[0, 0] == pytest.approx(5)


@pytest.mark.parametrize("kind", KINDS)
def test_looking_only_where_a_solid_can_be_changes_nothing(kind, monkeypatch):
    """The window of a solid's bounding box against the whole image for every solid."""
    (setting,) = settings(kind, 1, seed=4)
    quick = visible(setting.solids, setting.camera, 24, 32)
    whole = (slice(0, 24), slice(0, 32))
    monkeypatch.setattr(Camera, "windows", lambda self, corners, height, width: [whole] * len(corners))
    slow = visible(setting.solids, setting.camera, 24, 32)
    np.testing.assert_array_equal(quick.solid, slow.solid)
    np.testing.assert_allclose(quick.depth, slow.depth, rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_normals_are_those_of_the_depths(kind):
    """Within one face, differences of back-projected depths are at right angles to the normal: to first order, and on flat
    faces exactly.
    """
    compared, rounded = 0, []
    for setting in settings(kind, 4):
        seen = visible(setting.solids, setting.camera, 48, 64)
        points = setting.camera.points(np.where(np.isfinite(seen.depth), seen.depth, np.nan))
        normals = (setting.camera.axes @ seen.normals).reshape(3, 48, 64)
        surface = np.where(seen.solid >= 0, seen.solid * 64 + seen.face, -1)
        right = points[:, :-1, 1:] - points[:, :-1, :-1]
        down = points[:, 1:, :-1] - points[:, :-1, :-1]
        here = surface[:-1, :-1]
        same = (here >= 0) & (here == surface[:-1, 1:]) & (here == surface[1:, :-1])
        own = normals[:, :-1, :-1]
        flat = same & (own == normals[:, :-1, 1:]).all(0) & (own == normals[:, 1:, :-1]).all(0)
        found = np.cross(down, right, axis=0)
        found /= np.linalg.norm(found, axis=0)
        agreement = (found * own).sum(0)
        assert agreement[flat].min() > 1 - 1e-9
        rounded.append(agreement[same & ~flat])
        compared += flat.sum()
    # On what is round, the chord is turned against the tangent, most where a thin thing spans few pixels.
    assert np.median(np.concatenate(rounded)) > 0.9
    assert compared > 4 * 800


@pytest.mark.parametrize("kind", KINDS)
def test_every_scene_is_consistent(kind):
    classes = len(ROOM_CLASSES if kind == "rooms" else STREET_CLASSES)
    for number in range(3):
        scene = make_scene(kind, (32, 48), seed=1, number=number)
        assert scene.image.dtype == scene.depth.dtype == scene.normal.dtype == np.float32
        assert 0 <= scene.image.min() < scene.image.max() <= 1
        assert scene.image.std() > 0.05  # something is to be seen
        assert scene.label.min() >= VOID
        assert scene.label.max() < classes
        hit = scene.depth > 0
        assert hit.all() if kind == "rooms" else ((scene.label == STREET_CLASSES.index("sky")) == ~hit).all()
        np.testing.assert_allclose(np.linalg.norm(scene.normal, axis=-1), hit, atol=1e-6)
        # What is seen faces the camera.
        rays = scene.camera.plane(32, 48).transpose(1, 2, 0)
        assert ((rays * scene.normal).sum(-1)[hit] < 1e-6).all()
        np.testing.assert_allclose((scene.inverse_depth * scene.depth)[hit], 1, rtol=1e-6)
        assert (scene.inverse_depth[~hit] == 0).all()


def test_the_floor_is_below_and_the_ceiling_above():
    looked = set()
    for number in range(5):
        scene = make_scene("rooms", (32, 48), number=number)
        up = scene.camera.axes[:, 1]  # the vertical in the camera's frame
        for name, upwards in (("floor", 1.0), ("ceiling", -1.0)):
            own = scene.label == ROOM_CLASSES.index(name)
            if own.sum() > 20:
                looked.add(name)
                assert np.median(scene.normal[own] @ up) == pytest.approx(upwards, abs=1e-5)
    assert looked == {"floor", "ceiling"}


def test_rooms_show_all_classes_and_void():
    seen = np.zeros(len(ROOM_CLASSES) + 1, dtype=int)
    for setting in settings("rooms", 50):
        index = visible(setting.solids, setting.camera, 24, 32).solid
        labels = np.array([solid.label for solid in setting.solids])[index]
        present, counts = np.unique(labels, return_counts=True)
        seen[present[counts > 3]] += 1  # void is the last
    assert dict(zip((*ROOM_CLASSES, "void"), seen >= 3, strict=True)) == dict.fromkeys((*ROOM_CLASSES, "void"), True)


def test_streets_show_all_classes():
    shown, sky = set(), False
    for setting in settings("streets", 4):
        index = visible(setting.solids, setting.camera, 32, 64).solid
        shown |= {int(setting.solids[number].label) for number in np.unique(index[index >= 0])}
        sky |= (index < 0).sum() > 20
    assert sky
    assert shown | {STREET_CLASSES.index("sky")} >= set(range(len(STREET_CLASSES)))


def test_the_size_changes_the_pixels_and_not_the_scene():
    small, large = (make_scene("rooms", size, number=2) for size in ((16, 24), (48, 72)))
    # The centers of the small image's pixels are those of every third pixel of the large one.
    np.testing.assert_allclose(large.depth[1::3, 1::3], small.depth, rtol=1e-5)
    np.testing.assert_array_equal(large.label[1::3, 1::3], small.label)
    np.testing.assert_allclose(large.normal[1::3, 1::3], small.normal, atol=1e-5)


def test_a_scene_is_a_function_of_its_numbers():
    first, again = (make_scene("streets", (16, 32), seed=3, split="val", number=5) for _ in range(2))
    for name in ("image", "label", "depth", "normal"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    for other in ({"seed": 4}, {"split": "train"}, {"number": 6}):
        different = make_scene("streets", (16, 32), **({"seed": 3, "split": "val", "number": 5} | other))
        assert (different.depth != first.depth).mean() > 0.5


def test_the_camera_puts_points_where_it_sees_them():
    camera = Camera.looking(np.array([1.0, 2.0, 3.0]), np.array([-1.0, 0.5, 9.0]), np.deg2rad(65), roll=0.2)
    np.testing.assert_allclose(camera.axes @ camera.axes.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(camera.axes) == pytest.approx(1)  # right-handed
    depth = np.random.default_rng(0).uniform(1, 9, (6, 8))
    points = camera.points(depth)
    np.testing.assert_allclose(-points[2], depth)
    world = (camera.axes.T @ points.reshape(3, -1)) + camera.position[:, None]
    np.testing.assert_allclose(world, camera.position[:, None] + camera.rays(6, 8).reshape(3, -1) * depth.ravel(), atol=1e-12)
    # The line of sight goes through the target, and the edges of the image are the field of view apart.
    ahead = camera.axes @ (np.array([-1.0, 0.5, 9.0]) - camera.position)
    np.testing.assert_allclose(ahead[:2], 0, atol=1e-12)
    plane = camera.plane(1, 2)
    assert 2 * np.arctan(2 * plane[0, 0, 1]) == pytest.approx(np.deg2rad(65))


def test_limbs_reach_from_end_to_end():
    start, end = np.array([0.3, 0.2, -0.4]), np.array([-0.5, 1.1, 0.6])
    solid = limb(start, end, 0.1, 5, GREY)
    along = (end - start) / np.linalg.norm(end - start)
    enter, leave = solid.span((start - along)[:, None], along[:, None])
    np.testing.assert_allclose([enter[0], leave[0]], [1, 1 + np.linalg.norm(end - start)])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"kind": "room"}, 'no kind of scene "room". Did you mean "rooms"?'),
        ({"split": "validation"}, "expected one of train, val, test"),
        ({"size": (4, 40)}, "size is 4x40; height and width must be at least 8"),
        ({"seed": -1}, "seed is -1 and number 0; neither may be negative"),
        ({"number": -2}, "number -2"),
    ],
)
def test_bad_input_is_refused(arguments, said):
    with pytest.raises(InputError) as error:
        make_scene(**arguments)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
