"""Photographs on disk as arrays of bytes, decoded each time or once and for all."""

from equipoise.data.images.cache import cached_images
from equipoise.data.images.decode import channels_first, decode
from equipoise.data.images.images import Images

__all__ = ["Images", "cached_images", "channels_first", "decode"]
