"""Every network has as many parameters as the published one, or as the code that published numbers come from."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from equipoise import nets
from equipoise.nets import CITYSCAPES, NYUV2, CelebANet, CleaningNet, DeepLab, DigitsNet, QM9Net, ResNet, SegNet, SegNetMTAN


def count(build: Callable[[], nn.Module]) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build().parameters())


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda: SegNetMTAN(CITYSCAPES), 41_206_984),
        (lambda: SegNetMTAN(NYUV2), 44_229_073),
        (lambda: SegNet(CITYSCAPES), 25_017_672),
        (lambda: SegNet(NYUV2), 25_055_185),
        (CelebANet, 5_197_160),
        (QM9Net, 617_675),
        (lambda: ResNet(18), 11_689_512),
        (lambda: ResNet(50), 25_557_032),
        (lambda: ResNet(50, output_stride=8), 25_557_032),
        (lambda: ResNet(50, classifier=False), 25_557_032 - 2048 * 1000 - 1000),
        (lambda: DeepLab(CITYSCAPES), 55_760_968),
        (lambda: DeepLab(NYUV2), 71_888_721),
        (CleaningNet, (784 * 512 + 512) + (512 * 256 + 256) + 2 * (256 * 10 + 10)),
        (lambda: CleaningNet(further=2), 538_388 + 2 * (512 * 512 + 512)),
    ],
    ids=lambda value: f"{value:,}" if isinstance(value, int) else "",
)
def test_published_counts(build: Callable[[], nn.Module], expected: int) -> None:
    assert count(build) == expected


def test_the_wide_split_network_counts_as_a_sum_over_its_convolutions() -> None:
    """Five filters of one's own: 1024 channels at the bottom, as the "wide" variant of the released code."""
    filters = [64, 128, 256, 512, 1024]

    def convolutions(inputs: int, outputs: int, further: int) -> int:
        # Weights and biases, and two numbers a channel for the batch normalisation.
        return sum(9 * start * outputs + 3 * outputs for start in (inputs, *[outputs] * further))

    down = sum(map(convolutions, [3, *filters[:-1]], filters, [1, 1, 2, 2, 2]))
    up = sum(map(convolutions, filters[::-1], [*filters[-2::-1], 64], [2, 2, 2, 1, 1]))
    head = 9 * 64 * 64 + 64 + 64 + 1
    assert count(lambda: SegNet({"depth": 1}, width=filters)) == down + up + head


def test_digits() -> None:
    heads = sum(50 * 50 + 50 + 51 * outputs for outputs in (10, 10, 1, 1))
    assert count(DigitsNet) == (9 * 10 + 10) + (9 * 10 * 20 + 20) + (180 * 50 + 50) + heads


def test_the_guides_table_has_these_counts() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "networks.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)\((\w*)\)` \|.* ([\d,]+) \|$", guide, re.MULTILINE)
    assert len(rows) == 13
    for network, argument, parameters in rows:
        arguments = [int(argument) if argument.isdigit() else getattr(nets, argument)] if argument else []
        assert f"{count(lambda: getattr(nets, network)(*arguments)):,}" == parameters, network  # noqa: B023
