"""The pictures of a report, each a function from results to a figure; ``gallery.py`` has them in their order.

Figures are made without pyplot, so nothing here touches the state of a user's own plots.
"""

from equipoise.study.pictures.gallery import PICTURES, RECORDED, TELEPORT_PICTURES, Picture

__all__ = ["PICTURES", "RECORDED", "TELEPORT_PICTURES", "Picture"]
