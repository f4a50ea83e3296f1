"""Low-rank, LoHa and OFT deltas against the layers of Hugging Face's PEFT: same factors, same ΔW; same start."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equipoise.teleport import OFT, Delta, LoHa, LowRank
from equipoise.teleport.deltas import Difference

peft: Any = None


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    """PEFT takes seconds to import, which only the process that runs these tests has to spend."""
    global peft
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft = pytest.importorskip("peft")


class Net(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(12, 8),
    "conv1d": lambda: nn.Conv1d(4, 8, 3),
    "conv2d": lambda: nn.Conv2d(4, 8, 3),
    "conv2d, 1×1": lambda: nn.Conv2d(6, 8, 1),
    "conv3d": lambda: nn.Conv3d(3, 6, 2),
    "embedding": lambda: nn.Embedding(20, 8),
}


def adapted(layer: nn.Module, config: Any) -> Any:
    """PEFT's layer around a layer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.inject_adapter_in_model(config, Net(layer)).layer


def merged(layer: Any, start: Tensor) -> Tensor:
    """What PEFT adds to the weight when its adapter is merged."""
    layer.merge()
    difference: Tensor = layer.get_base_layer().weight.detach() - start
    return difference


def difference_of(delta: Delta, weight: Tensor) -> Difference:
    found = delta.difference(weight, torch.Generator().manual_seed(0))
    assert found is not None
    return found


def filled(factors: tuple[Tensor, ...]) -> list[Tensor]:
    """Other values in all factors, so that Δ is not zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        return [factor.copy_(torch.randn(factor.shape, generator=generator)) for factor in factors]


@pytest.mark.parametrize(("rank", "alpha"), [(5, 8.0), (2, 3.0)])
@pytest.mark.parametrize("name", ["linear", "conv1d", "conv2d", "conv2d, 1×1", "conv3d"])
def test_lora(name: str, rank: int, alpha: float) -> None:
    layer = LAYERS[name]()
    start = layer.weight.detach().clone()
    ours = difference_of(LowRank(rank=rank, alpha=alpha), start)
    left, right = filled(ours.factors)
    theirs = adapted(layer, peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=["layer"]))
    with torch.no_grad():
        theirs.lora_A["default"].weight.copy_(right.view_as(theirs.lora_A["default"].weight))
        theirs.lora_B["default"].weight.copy_(left.view_as(theirs.lora_B["default"].weight))
    expected = theirs.get_delta_weight("default").detach()
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(ours.compute().detach(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(merged(theirs, start), expected, rtol=1e-4, atol=1e-4)


def test_lora_of_an_embedding() -> None:
    """PEFT keeps an embedding's factors transposed; Δ is the same product."""
    layer = LAYERS["embedding"]()
    ours = difference_of(LowRank(rank=5), layer.weight.detach())
    left, right = filled(ours.factors)
    theirs = adapted(layer, peft.LoraConfig(r=5, lora_alpha=8, target_modules=["layer"]))
    with torch.no_grad():
        theirs.lora_embedding_A["default"].copy_(left.T)
        theirs.lora_embedding_B["default"].copy_(right.T)
    torch.testing.assert_close(ours.compute().detach(), theirs.get_delta_weight("default").detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("rank", "alpha"), [(5, 8.0), (2, 3.0)])
@pytest.mark.parametrize("name", ["linear", "conv1d", "conv2d", "conv2d, 1×1"])
def test_loha(name: str, rank: int, alpha: float) -> None:
    layer = LAYERS[name]()
    start = layer.weight.detach().clone()
    ours = difference_of(LoHa(rank=rank, alpha=alpha), start)
    theirs = adapted(layer, peft.LoHaConfig(r=rank, alpha=alpha, target_modules=["layer"]))
    names = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
    with torch.no_grad():
        for name_of, factor in zip(names, filled(ours.factors), strict=True):
            getattr(theirs, name_of)["default"].copy_(factor)
    expected = theirs.get_delta_weight("default").detach()
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(ours.compute().detach(), expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(merged(theirs, start), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("blocks", [1, 2, 4])
@pytest.mark.parametrize("name", ["linear", "conv2d"])
def test_oft(name: str, blocks: int) -> None:
    layer = LAYERS[name]()
    start = layer.weight.detach().clone()
    ours = difference_of(OFT(blocks=blocks), start)
    (angles,) = filled(ours.factors)
    config = peft.OFTConfig(r=blocks, oft_block_size=0, use_cayley_neumann=False, target_modules=["layer"])
    theirs = adapted(layer, config)
    rotation = theirs.oft_R["default"]
    assert rotation.weight.shape == angles.shape
    with torch.no_grad():
        rotation.weight.copy_(angles)
    computed = ours.compute().detach()
    assert computed.abs().max() > 0.1
    torch.testing.assert_close(computed, merged(theirs, start), rtol=1e-4, atol=1e-4)


def test_oft_rotates_the_inputs_as_peft_does() -> None:
    """Without merging: PEFT rotates the inputs, here the weight is rotated; the outputs are the same."""
    layer = nn.Linear(12, 8)
    ours = difference_of(OFT(blocks=3), layer.weight.detach())
    (angles,) = filled(ours.factors)
    theirs = adapted(layer, peft.OFTConfig(r=3, oft_block_size=0, use_cayley_neumann=False, target_modules=["layer"]))
    with torch.no_grad():
        theirs.oft_R["default"].weight.copy_(angles)
    inputs = torch.randn(7, 12)
    rotated = nn.functional.linear(inputs, theirs.get_base_layer().weight + ours.compute(), theirs.get_base_layer().bias)
    torch.testing.assert_close(theirs(inputs), rotated, rtol=1e-4, atol=1e-5)


def test_the_scale_is_pefts_at_its_defaults() -> None:
    """Appendix B.2 of the paper: rank 5, the rest at PEFT's defaults."""
    lora = adapted(nn.Linear(12, 8), peft.LoraConfig(r=5, target_modules=["layer"]))
    loha = adapted(nn.Linear(12, 8), peft.LoHaConfig(r=5, target_modules=["layer"]))
    assert LowRank().rank == LoHa().rank == 5
    assert LowRank().scale == lora.scaling["default"]
    assert LoHa().scale == loha.scaling["default"]


def spread(samples: list[Tensor]) -> tuple[float, float]:
    together = torch.cat([sample.flatten() for sample in samples])
    return float(together.abs().max()), float(together.std())


@pytest.mark.parametrize("kind", ["lora", "loha"])
@pytest.mark.parametrize("name", ["linear", "conv1d", "conv2d"])
def test_factors_start_in_the_same_distribution(name: str, kind: str) -> None:
    """Uniform within the same bounds, and the factor that makes Δ vanish is zero in both."""
    torch.manual_seed(0)
    delta = LowRank(rank=5) if kind == "lora" else LoHa(rank=5)
    ours: list[list[Tensor]] = []
    theirs: list[list[Tensor]] = []
    for trial in range(40):
        layer = LAYERS[name]()
        found = delta.difference(layer.weight.detach(), torch.Generator().manual_seed(trial))
        assert found is not None
        ours.append([factor.detach() for factor in found.factors])
        if kind == "lora":
            peer = adapted(layer, peft.LoraConfig(r=5, target_modules=["layer"]))
            theirs.append([peer.lora_B["default"].weight.detach(), peer.lora_A["default"].weight.detach()])
        else:
            peer = adapted(layer, peft.LoHaConfig(r=5, target_modules=["layer"]))
            names = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
            theirs.append([getattr(peer, part)["default"].detach() for part in names])
    for own, peers in zip(zip(*ours, strict=True), zip(*theirs, strict=True), strict=True):
        (bound, width), (peer_bound, peer_width) = spread(list(own)), spread(list(peers))
        assert bound == pytest.approx(peer_bound, rel=0.03)
        assert width == pytest.approx(peer_width, rel=0.08)
        if bound:
            assert width == pytest.approx(bound / math.sqrt(3), rel=0.08)  # that of a uniform distribution


def test_oft_starts_at_the_identity_in_both() -> None:
    layer = nn.Linear(12, 8)
    theirs = adapted(layer, peft.OFTConfig(r=3, oft_block_size=0, use_cayley_neumann=False, target_modules=["layer"]))
    (angles,) = difference_of(OFT(blocks=3), layer.weight.detach()).factors
    assert torch.equal(angles.detach(), theirs.oft_R["default"].weight.detach())
    assert not angles.any()
