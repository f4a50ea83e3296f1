"""Outputs of the reference implementations on weights and inputs that a formula gives.

``outputs.json`` holds what they returned in float64 (mean, Euclidean norm and five entries of each output, in training and
in evaluation mode): SegNet, SegNet-MTAN and the CelebA network of FAMO's repository with channels 4, 8, 16, 32, 32 (and 4 to
32), LibMTL's residual networks and pyramid heads, the QM9 network of Nash-MTL's repository with states of 8 numbers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from equipoise.nets import CITYSCAPES, NYUV2, ASPPHead, CelebANet, QM9Net, ResNet, SegNet, SegNetMTAN
from tests.nets.filled import filled, wave
from tests.nets.molecules import molecules

ORACLE = json.loads((Path(__file__).parent / "outputs.json").read_text(encoding="utf-8"))
PLACES = (0.0, 0.13, 0.37, 0.62, 0.99)


def pyramid() -> nn.Module:
    return ASPPHead(16, 13, dropout=0.0)


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], object]]] = {
    "SegNetMTAN Cityscapes": (lambda: SegNetMTAN(CITYSCAPES, width=4), lambda: wave(2, 3, 64, 96)),
    "SegNetMTAN NYUv2": (lambda: SegNetMTAN(NYUV2, width=4), lambda: wave(2, 3, 64, 96)),
    "SegNet Cityscapes": (lambda: SegNet(CITYSCAPES, width=4), lambda: wave(2, 3, 64, 96)),
    "SegNet NYUv2": (lambda: SegNet(NYUV2, width=4), lambda: wave(2, 3, 64, 96)),
    "CelebANet": (lambda: CelebANet(width=4), lambda: wave(3, 3, 64, 64)),
    "ResNet-18 output stride 32": (lambda: ResNet(18, classifier=False), lambda: wave(2, 3, 32, 48)),
    "ResNet-50 output stride 8": (lambda: ResNet(50, classifier=False, output_stride=8), lambda: wave(2, 3, 32, 48)),
    "ASPPHead": (pyramid, lambda: wave(2, 16, 8, 12)),
    "QM9Net": (lambda: QM9Net(size=8), molecules),
}


@pytest.mark.parametrize("name", CASES)
def test_outputs_are_the_references(name: str) -> None:
    build, inputs = CASES[name]
    # On the meta device torch draws no initial weights, which are overwritten anyway.
    with torch.device("meta"):
        network = build()
    network = filled(network.to_empty(device="cpu"))
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.reset_running_stats()
    for mode in ("train", "eval"):
        output = getattr(network, mode)()(inputs())
        outputs = [output] if isinstance(output, Tensor) else list(output.values())
        expected = ORACLE[f"{name} {mode}"]
        for mine, fact in zip(outputs, expected, strict=name not in ("CelebANet", "QM9Net")):
            mine = mine.detach().flatten()
            some = [float(mine[int(mine.numel() * place)]) for place in PLACES]
            assert [float(mine.mean()), float(mine.norm()), *some] == pytest.approx(
                [fact["mean"], fact["norm"], *fact["some"]], rel=1e-9, abs=1e-9
            )
