"""From rows of a data set on disk to batches: splits, orders that can be resumed, workers."""

from equipoise.data.loading.dataset_batches import DatasetBatches
from equipoise.data.loading.epoch_dataset import EpochDataset
from equipoise.data.loading.held_out import held_out
from equipoise.data.loading.seeds import generator_of, mixed_seed

__all__ = ["DatasetBatches", "EpochDataset", "generator_of", "held_out", "mixed_seed"]
