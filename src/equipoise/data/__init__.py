"""Data sets: the embedded one, readers for the public ones as they lie on disk, and the loaders that make batches."""

from equipoise.data.celeba import CelebA, celeba_loaders
from equipoise.data.dense import Cityscapes, NYUv2, ZoomAndFlip, cityscapes_loaders, nyuv2_loaders
from equipoise.data.digits import Digits, digits, digits_pair
from equipoise.data.images import Images, cached_images
from equipoise.data.loading import DatasetBatches, EpochDataset, TensorBatches
from equipoise.data.mixing import MixedLoaders, alternate, zip_loaders
from equipoise.data.mnist import MNIST, FashionMNIST, fashion_mnist_loaders, mnist_loaders, read_idx
from equipoise.data.office import ImageSource, Office, SourceBatches, office_loaders, read_office
from equipoise.data.qm9 import QM9Molecules, TargetScaling, qm9_loaders

__all__ = [
    "MNIST",
    "CelebA",
    "Cityscapes",
    "DatasetBatches",
    "Digits",
    "EpochDataset",
    "FashionMNIST",
    "ImageSource",
    "Images",
    "MixedLoaders",
    "NYUv2",
    "Office",
    "QM9Molecules",
    "SourceBatches",
    "TargetScaling",
    "TensorBatches",
    "ZoomAndFlip",
    "alternate",
    "cached_images",
    "celeba_loaders",
    "cityscapes_loaders",
    "digits",
    "digits_pair",
    "fashion_mnist_loaders",
    "mnist_loaders",
    "nyuv2_loaders",
    "office_loaders",
    "qm9_loaders",
    "read_idx",
    "read_office",
    "zip_loaders",
]
