"""The library finds which parameters of a network are shared, takes balanced steps on it, and uses its features and heads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.nets import (
    CGC,
    LTB,
    NYUV2,
    PLE,
    CelebANet,
    CleaningNet,
    CrossStitch,
    DeepLab,
    DSelectK,
    HardSharing,
    MMoE,
    QM9Net,
    ResNet,
    SegNet,
    SegNetMTAN,
)
from tests.nets.molecules import molecules

Case = tuple[Callable[[], nn.Module], Callable[[], Any], Callable[[str], bool]]


def vector_heads() -> dict[str, nn.Module]:
    return {"label": nn.Linear(6, 3), "size": nn.Linear(6, 1)}


def stages() -> list[nn.Module]:
    return [nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 6)]


@pytest.fixture(autouse=True)
def _double_precision() -> Iterator[None]:
    """A bias before batch normalisation has no gradient but rounding, which would swamp a comparison in float32."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


# Network, a batch, and whether a parameter of this name is shared.
CASES: dict[str, Case] = {
    "SegNet": (lambda: SegNet(NYUV2, width=2), lambda: torch.randn(2, 3, 32, 64), lambda name: name.startswith("features.")),
    "SegNetMTAN": (
        lambda: SegNetMTAN(NYUV2, width=2),
        lambda: torch.randn(2, 3, 32, 64),
        lambda name: name.startswith(("features.", "encoder_transfer.", "decoder_transfer.")),
    ),
    "DeepLab": (
        lambda: DeepLab(NYUV2, ResNet(18, classifier=False, output_stride=8, width=2), channels=4, rates=(1, 2)),
        lambda: torch.randn(2, 3, 32, 48),
        lambda name: name.startswith("features."),
    ),
    "CelebANet": (
        lambda: CelebANet(["Bald", "Young"], width=2),
        lambda: torch.randn(4, 3, 16, 16),
        lambda name: name.startswith("features."),
    ),
    "QM9Net": (
        lambda: QM9Net(["mu", "U0"], size=16, hidden=8),
        lambda: molecules((3, 4)),
        lambda name: name.startswith("features."),
    ),
    "CleaningNet": (
        CleaningNet,
        lambda: {"mnist": torch.randn(3, 784), "fashion": torch.randn(2, 784)},
        lambda name: name.startswith("encoder."),
    ),
    "HardSharing": (
        lambda: HardSharing(nn.Sequential(nn.Linear(4, 6), nn.Tanh()), vector_heads()),
        lambda: torch.randn(5, 4),
        lambda name: name.startswith("encoder."),
    ),
    "CrossStitch": (
        lambda: CrossStitch({"label": stages(), "size": stages()}, vector_heads()),
        lambda: torch.randn(5, 4),
        # The last stage of a column lies above all units.
        lambda name: name.startswith("units.") or (name.startswith("columns.") and ".2." not in name),
    ),
    "MMoE": (
        lambda: MMoE([nn.Linear(4, 6), nn.Linear(4, 6)], vector_heads(), input_size=4),
        lambda: torch.randn(5, 4),
        lambda name: name.startswith("features."),
    ),
    "CGC": (
        lambda: CGC([nn.Linear(4, 6)], {task: [nn.Linear(4, 6)] for task in vector_heads()}, vector_heads(), input_size=4),
        lambda: torch.randn(5, 4),
        lambda name: name.startswith("levels.0.shared."),
    ),
    "PLE": (
        lambda: PLE(
            [[nn.Linear(4, 6)], [nn.Linear(6, 6)]],
            {task: [[nn.Linear(4, 6)], [nn.Linear(6, 6)]] for task in vector_heads()},
            vector_heads(),
            input_sizes=[4, 6],
        ),
        lambda: torch.randn(5, 4),
        # The shared experts of the last level are given a mixture of all that lies below.
        lambda name: name.startswith(("levels.0.shared", "levels.0.own.", "levels.1.shared.")),
    ),
    "DSelectK": (
        lambda: DSelectK([nn.Linear(4, 6) for _ in range(3)], vector_heads(), k=2),
        lambda: torch.randn(5, 4),
        lambda name: name.startswith("features."),
    ),
    "LTB": (
        lambda: LTB([[nn.Linear(4, 6)], [nn.Linear(6, 6), nn.Linear(6, 6)]], vector_heads()),
        lambda: torch.randn(5, 4),
        # Heads may choose any node of the last row until they have settled.
        lambda name: name.startswith(("rows.", "logits.")),
    ),
}
EVERY = pytest.mark.parametrize("name", CASES)
# Networks whose tasks start from the output of one module that runs once.
WITH_FEATURES = ["SegNet", "SegNetMTAN", "DeepLab", "CelebANet", "QM9Net", "HardSharing", "MMoE", "CGC", "DSelectK"]
# Of these, the ones whose heads are given that output as it is.
WITH_PARTS = ["SegNet", "DeepLab", "CelebANet", "QM9Net", "HardSharing"]


def losses(model: nn.Module, batch: Any) -> dict[str, Tensor]:
    return {
        task: (out * torch.linspace(0.5, 1.5, out.numel()).reshape(out.shape) + place + 1).square().mean()
        for place, (task, out) in enumerate(model(batch).items())
    }


def set_up(
    name: str, balancer: Any, *, features: bool = False, **arguments: Any
) -> tuple[nn.Module, Any, eq.MultiTaskOptimizer]:
    build, batch, _ = CASES[name]
    network = build()
    optimizer = torch.optim.SGD(network.parameters(), 1e-2)
    if features:
        arguments["features"] = network.features
    return network, batch(), eq.MultiTaskOptimizer(eq.Objective(network, losses), optimizer, balancer, **arguments)


@EVERY
def test_shared_parameters_are_found(name: str) -> None:
    network, batch, mtl = set_up(name, eq.FairGrad())
    before = {key: parameter.detach().clone() for key, parameter in network.named_parameters()}
    mtl.step(batch)
    found = {id(parameter) for parameter in mtl.shared}
    names = {key for key, parameter in network.named_parameters() if id(parameter) in found}
    shared = CASES[name][2]
    assert names == {key for key in before if shared(key)}
    assert 0 < len(names) < len(before)
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert bool(parameter.isfinite().all()), key
    moved = {key for key, parameter in network.named_parameters() if not torch.equal(before[key], parameter)}
    for group in ("", *(f"heads.{task}." for task in network.heads)):
        assert any(key.startswith(group) and (bool(group) or shared(key)) for key in moved), group


@EVERY
def test_a_loss_balancer_takes_steps(name: str) -> None:
    network, batch, mtl = set_up(name, eq.FAMO())
    before = {key: parameter.detach().clone() for key, parameter in network.named_parameters()}
    for _ in range(3):
        mtl.step(batch)
    assert mtl.last.weights.numel() == len(network.heads)
    assert bool(mtl.last.weights.isfinite().all())
    for task in network.heads:
        assert any(
            not torch.equal(before[key], network.get_parameter(key)) for key in before if key.startswith(f"heads.{task}.")
        )


@EVERY
def test_the_losses_can_be_evaluated_at_other_parameters(name: str) -> None:
    """What teleporting and bilevel methods build on: as if the parameters had been moved there."""
    build, batch, _ = CASES[name]
    network, inputs = build().eval(), batch()
    objective = eq.Objective(network, losses)
    here = objective(inputs)
    substituted = {key: parameter.detach() + 0.1 for key, parameter in network.named_parameters()}
    there = objective.at(substituted, inputs)
    assert all(torch.equal(value, here[task]) for task, value in objective.at({}, inputs).items())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1
    moved = objective(inputs)
    for task in network.heads:
        assert there[task].item() == pytest.approx(moved[task].item(), rel=1e-12)
        assert there[task].item() != pytest.approx(here[task].item(), rel=1e-6)


@pytest.mark.parametrize("name", WITH_FEATURES)
def test_with_equal_weights_the_features_route_gives_the_same_gradients(name: str) -> None:
    gradients = []
    for features in (False, True):
        torch.manual_seed(3)
        network, batch, mtl = set_up(name, Equal(), features=features)
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        mtl.step(batch)
        gradients.append([parameter.grad for parameter in network.parameters()])
    for direct, through_features in zip(*gradients, strict=True):
        assert torch.allclose(direct, through_features, rtol=1e-8, atol=1e-10)


class Equal(eq.balance.GramianBalancer):
    """Sums the tasks, by way of the Gramian."""

    def solve(self, gramian: Any) -> Any:
        """All ones."""
        return np.ones(len(gramian))


@pytest.mark.parametrize("name", WITH_PARTS)
def test_methods_between_features_and_heads_find_both(name: str) -> None:
    build, batch, _ = CASES[name]
    network = build()
    balancer = eq.RotoGrad(features=network.features, heads=dict(network.heads.items()))
    optimizer = torch.optim.SGD(network.parameters(), 1e-2)
    mtl = eq.MultiTaskOptimizer(eq.Objective(network, losses), optimizer, balancer)
    x = batch()
    with torch.no_grad():
        channels = network.features(x).shape[1]
    mtl.step(x)
    assert tuple(balancer.rotations.matrices.shape) == (len(network.heads), channels, channels)


def test_attention_can_be_declared_shared_as_released_code_does() -> None:
    """Then each task's weight scales the gradient of its masks."""
    gradients = []
    for declared in (False, True):
        torch.manual_seed(3)
        network = CASES["SegNetMTAN"][0]()
        shared = [p for name, p in network.named_parameters() if not name.startswith("heads.")] if declared else None
        optimizer = torch.optim.SGD(network.parameters(), 1e-2)
        mtl = eq.MultiTaskOptimizer(eq.Objective(network, losses), optimizer, eq.FairGrad(), shared=shared)
        mtl.step(CASES["SegNetMTAN"][1]())
        gradients.append([[p.grad.clone() for p in network.attention[task].parameters()] for task in NYUV2])
    for own, scaled, weight in zip(*gradients, mtl.last.weights, strict=True):
        assert float(weight) != pytest.approx(1.0)
        for one, other in zip(own, scaled, strict=True):
            assert torch.allclose(one * weight, other, rtol=1e-6, atol=1e-10)
