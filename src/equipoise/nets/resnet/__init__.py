"""Residual networks whose state dicts have the usual names, so that published ImageNet weights fit."""

from equipoise.nets.resnet.network import ResNet

__all__ = ["ResNet"]
