"""MNIST and FashionMNIST: 28×28 pixels, ten classes, in the IDX format."""

from equipoise.data.mnist.idx import read_idx
from equipoise.data.mnist.mnist import MNIST, FashionMNIST, fashion_mnist_loaders, mnist_loaders

__all__ = ["MNIST", "FashionMNIST", "fashion_mnist_loaders", "mnist_loaders", "read_idx"]
