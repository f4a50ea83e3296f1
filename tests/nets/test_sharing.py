"""Hard sharing, cross-stitch units and mixtures of experts, against what their equations say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import equipoise as eq
from equipoise.nets import CleaningNet, CrossStitch, CrossStitchUnit, HardSharing, MMoE


def column() -> list[nn.Module]:
    return [nn.Linear(4, 6), nn.Sequential(nn.Tanh(), nn.Linear(6, 6)), nn.Linear(6, 5)]


def heads() -> dict[str, nn.Module]:
    return {"label": nn.Linear(5, 3), "size": nn.Linear(5, 1)}


def test_hard_sharing_is_head_after_encoder() -> None:
    network = HardSharing(nn.Linear(4, 5), heads())
    x = torch.randn(7, 4)
    out = network(x)
    assert list(out) == ["label", "size"]
    assert all(torch.equal(out[task], network.heads[task](network.encoder(x))) for task in out)
    assert network.features is network.encoder
    again = HardSharing(network.encoder, network.heads)
    assert all(torch.equal(out[task], other) for task, other in again(x).items())


def test_tasks_with_inputs_of_their_own() -> None:
    network = HardSharing(nn.Linear(4, 5), heads(), own_inputs=True)
    x, y = torch.randn(7, 4), torch.randn(2, 4)
    out = network({"size": y, "label": x})
    assert torch.equal(out["label"], network.heads["label"](network.encoder(x)))
    assert torch.equal(out["size"], network.heads["size"](network.encoder(y)))
    assert list(network({"size": y})) == ["size"]
    with pytest.raises(eq.InputError, match=r'no head for task "sise"\. Did you mean "size"'):
        network({"sise": y})
    with pytest.raises(eq.InputError, match="needs a mapping"):
        network(x)


@pytest.mark.parametrize("bad", [{}, {"a": 3}, {"a.b": nn.Linear(5, 1)}, {"train": nn.Linear(5, 1)}, [nn.Linear(5, 1)]])
def test_bad_heads_are_refused(bad: Any) -> None:
    with pytest.raises(eq.InputError, match="heads"):
        HardSharing(nn.Linear(4, 5), bad)
    with pytest.raises(eq.InputError, match="encoder"):
        HardSharing(torch.sigmoid, heads())  # type: ignore[arg-type]


def test_the_cleaning_network_is_the_thesis_s() -> None:
    network = CleaningNet(["a", "b", "c"], classes=7, further=1)
    linear = [layer for layer in network.encoder if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(784, 512), (512, 512), (512, 256)]
    out = network({"b": torch.rand(2, 28, 28)})
    assert {task: tuple(logits.shape) for task, logits in out.items()} == {"b": (2, 7)}
    with pytest.raises(eq.InputError, match="further"):
        CleaningNet(further=-1)


@pytest.mark.parametrize("channels", [None, 3])
@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4, 5)])
def test_a_cross_stitch_unit_combines(channels: int | None, shape: tuple[int, ...]) -> None:
    unit = CrossStitchUnit(3, channels, own=0.8)
    start = unit.alpha[..., 0] if channels else unit.alpha
    assert torch.allclose(start, torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]]))
    with torch.no_grad():
        unit.alpha.copy_(torch.randn_like(unit.alpha))
    x = [torch.randn(shape) for _ in range(3)]
    for k, mixed in enumerate(unit(x)):
        expected = torch.zeros(shape)
        for j in range(3):
            alpha = unit.alpha[k, j]
            expected = expected + (alpha.reshape(3, *[1] * (len(shape) - 2)) if channels else alpha) * x[j]
        assert torch.allclose(mixed, expected, atol=1e-6)


def test_units_of_the_identity_leave_columns_alone() -> None:
    columns = {task: column() for task in heads()}
    network = CrossStitch(columns, heads(), own=1.0)
    x = torch.randn(7, 4)
    for task, out in network(x).items():
        alone = nn.Sequential(*columns[task], network.heads[task])(x)
        assert torch.allclose(out, alone, atol=1e-6)
    assert len(network.units) == 2


def test_cross_stitching_follows_its_equation() -> None:
    columns = {task: column() for task in heads()}
    network = CrossStitch(columns, heads(), channels=[6, 6], own=0.7)
    x = torch.randn(7, 4)
    a, b = columns["label"], columns["size"]
    one, two = a[0](x), b[0](x)
    one, two = a[1](0.7 * one + 0.3 * two), b[1](0.3 * one + 0.7 * two)
    one, two = a[2](0.7 * one + 0.3 * two), b[2](0.3 * one + 0.7 * two)
    out = network(x)
    assert torch.allclose(out["label"], network.heads["label"](one), atol=1e-5)
    assert torch.allclose(out["size"], network.heads["size"](two), atol=1e-5)


@pytest.mark.parametrize(
    ("columns", "arguments", "message"),
    [
        ({"label": column(), "size": column()[:2]}, {}, "equally many stages"),
        ({"label": [], "size": []}, {}, "equally many stages"),
        ({}, {}, "equally many stages"),
        ({"size": column(), "weight": column()}, {}, "the columns' tasks"),
        ({"label": column(), "size": column()}, {"channels": [6]}, "2 numbers"),
    ],
)
def test_bad_columns_are_refused(columns: Any, arguments: Any, message: str) -> None:
    with pytest.raises(eq.InputError, match=message):
        CrossStitch(columns, heads(), **arguments)


def test_activations_that_cannot_be_combined_are_refused() -> None:
    with pytest.raises(eq.InputError, match="of one shape"):
        CrossStitchUnit(2)([torch.zeros(1, 2), torch.zeros(1, 3)])
    with pytest.raises(eq.InputError, match="of 2 tasks"):
        CrossStitchUnit(2)([torch.zeros(1, 2)])
    with pytest.raises(eq.InputError, match="4 channels"):
        CrossStitchUnit(1, 4)([torch.zeros(1, 2)])
    with pytest.raises(eq.InputError, match="from 1 on"):
        CrossStitchUnit(0)


def test_a_mixture_is_weighted_by_each_tasks_gate() -> None:
    experts = [nn.Linear(4, 5) for _ in range(3)]
    network = MMoE(experts, heads(), input_size=4)
    x = torch.randn(7, 4)
    out = network(x)
    for task in out:
        gate = torch.softmax(x @ network.gates[task][1].weight.T, 1)
        mixture = torch.stack([gate[:, i : i + 1] * expert(x) for i, expert in enumerate(experts)]).sum(0)
        assert torch.allclose(out[task], network.heads[task](mixture), atol=1e-6)


def test_experts_may_give_maps_and_one_expert_is_hard_sharing() -> None:
    encoder = nn.Conv2d(3, 2, 3)
    convolution = {"label": nn.Conv2d(2, 4, 1)}
    x = torch.randn(2, 3, 8, 8)
    mixed = MMoE([encoder], convolution, input_size=3 * 64)(x)["label"]
    assert torch.allclose(mixed, HardSharing(encoder, convolution)(x)["label"], atol=1e-6)


def test_bad_mixtures_are_refused() -> None:
    experts = [nn.Linear(4, 5)]
    with pytest.raises(eq.InputError, match="at least one expert"):
        MMoE([], heads(), input_size=4)
    with pytest.raises(eq.InputError, match="input_size"):
        MMoE(experts, heads())
    with pytest.raises(eq.InputError, match="the heads' tasks"):
        MMoE(experts, heads(), gates={"label": nn.Linear(4, 1)})
    wrong = MMoE(experts, heads(), gates={task: nn.Linear(4, 2) for task in heads()})
    with pytest.raises(eq.InputError, match=r"\[N, E\] = \[7, 1\]; got \[7, 2\]"):
        wrong(torch.zeros(7, 4))
