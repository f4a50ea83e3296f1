"""Rooms: walls, furniture that stands where furniture stands, things on it, and lamps."""

from equipoise_papers.scenes.rooms.room import room

__all__ = ["room"]
