"""Rendered rooms and streets with exact labels, depth and normals: dense prediction without a download.

A scene is a list of convex solids with procedural materials, lights and a camera, all drawn from a seed. Every pixel's ray is
cut with the solids' own equations, so class, depth and normal of what it hits are exact, and consistent with each other.
Images have soft shadows, highlights, dark corners, haze and sensor noise.

================  ==========================================================================
``scene.py``      one scene by its number: image, label, depth, normal
``folder.py``     many scenes on disk, in the layouts of NYUv2 and Cityscapes
``rooms/``        rooms with furniture; ``streets/`` streets with houses, cars, people
``rendering/``    rays, shadows, light; ``camera.py`` where from, and what a sensor makes of light
``solid.py``      shapes (``shapes.py``) with a place and a material (``textures/``)
================  ==========================================================================
"""

from typing import TYPE_CHECKING

from equipoise_papers.lazy import on_demand

if TYPE_CHECKING:
    from equipoise_papers.scenes.classes import ROOM_CLASSES, STREET_CLASSES, VOID
    from equipoise_papers.scenes.folder import cached_scenes, write_scenes
    from equipoise_papers.scenes.scene import KINDS, Scene, make_scene
else:  # the command line imports this package to list its commands
    __getattr__ = on_demand(
        __name__,
        {
            "KINDS": "scene",
            "ROOM_CLASSES": "classes",
            "STREET_CLASSES": "classes",
            "VOID": "classes",
            "Scene": "scene",
            "cached_scenes": "folder",
            "make_scene": "scene",
            "write_scenes": "folder",
        },
    )

__all__ = ["KINDS", "ROOM_CLASSES", "STREET_CLASSES", "VOID", "Scene", "cached_scenes", "make_scene", "write_scenes"]
