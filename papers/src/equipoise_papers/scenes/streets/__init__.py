"""Streets: a road between pavements, houses, trees, cars, people, under a sky."""

from equipoise_papers.scenes.streets.street import street

__all__ = ["street"]
