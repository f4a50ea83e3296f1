"""Names and order of the classes of both kinds of scene, and their colors in pictures."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["ROOM_CLASSES", "STREET_CLASSES", "VOID", "Room", "Street"]

VOID = -1
"""The label of pixels that no class is given for; losses and metrics leave them out."""


class Room(IntEnum):
    """The 13 classes of NYUv2, in its order. Curtains are ``WINDOW``, doors ``WALL``, rugs ``FLOOR``, lamps ``OBJECTS``."""

    BED = 0
    BOOKS = 1
    CEILING = 2
    CHAIR = 3
    FLOOR = 4
    FURNITURE = 5
    OBJECTS = 6
    PICTURE = 7
    SOFA = 8
    TABLE = 9
    TV = 10
    WALL = 11
    WINDOW = 12


class Street(IntEnum):
    """The 7 categories of Cityscapes, in its order: ``FLAT`` is road and pavement, ``CONSTRUCTION`` buildings and walls."""

    FLAT = 0
    CONSTRUCTION = 1
    OBJECT = 2
    NATURE = 3
    SKY = 4
    HUMAN = 5
    VEHICLE = 6


ROOM_CLASSES = tuple(member.name.lower() for member in Room)
STREET_CLASSES = tuple(member.name.lower() for member in Street)
