"""Office-31 and Office-Home: the same classes of objects from several sources, each of which is a task."""

from equipoise.data.office.office import Office, SourceBatches, office_loaders
from equipoise.data.office.sources import ImageSource, read_office
from equipoise.data.office.split import SPLITS, split_indices

__all__ = ["SPLITS", "ImageSource", "Office", "SourceBatches", "office_loaders", "read_office", "split_indices"]
