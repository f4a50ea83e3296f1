"""Streets: a road between pavements, houses, trees, cars, people, under a sky."""

from equipoise.data.scenes.streets.street import street

__all__ = ["street"]
