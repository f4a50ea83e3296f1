"""Tiny data sets of random content in the layouts of the real ones, to try code on without a download.

Each function writes into a folder, which is made if need be, and returns it. The same seed writes the same content.
"""

from equipoise_papers.samples.celeba import write_celeba_sample
from equipoise_papers.samples.mnist import write_fashion_mnist_sample, write_mnist_sample
from equipoise_papers.samples.office import write_office31_sample, write_office_home_sample
from equipoise_papers.samples.qm9 import write_qm9_sample
from equipoise_papers.samples.scenes import write_cityscapes_sample, write_nyuv2_sample

__all__ = [
    "write_celeba_sample",
    "write_cityscapes_sample",
    "write_fashion_mnist_sample",
    "write_mnist_sample",
    "write_nyuv2_sample",
    "write_office31_sample",
    "write_office_home_sample",
    "write_qm9_sample",
]
