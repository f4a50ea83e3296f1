"""Hard sharing, cross-stitch units and mixtures of experts, against what their equations say."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

import equipoise as eq
from equipoise.nets import CGC, LTB, PLE, Branched, CleaningNet, CrossStitch, CrossStitchUnit, DSelectK, HardSharing, MMoE


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


# -- experts of each task's own, sparse gates


def expert(size: int = 4) -> nn.Module:
    return nn.Sequential(nn.Linear(size, 5), nn.Tanh())


def own_experts(*counts: int, size: int = 4) -> dict[str, list[nn.Module]]:
    return {task: [expert(size) for _ in range(count)] for task, count in zip(heads(), counts, strict=True)}


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_customized_gates_mix_own_and_shared_experts() -> None:
    shared, own = [expert(), expert()], own_experts(1, 3)
    network = CGC(shared, own, heads(), input_size=4)
    x = torch.randn(7, 4)
    for task, out in network(x).items():
        gate = torch.softmax(x @ network.levels[0].gates[task][1].weight.T, 1)
        mixture = sum(gate[:, i : i + 1] * one(x) for i, one in enumerate([*own[task], *shared]))
        assert torch.allclose(out, network.heads[task](mixture), atol=1e-6)
    # Six experts of 4·5 + 5 numbers, gates of 4 numbers per expert that they see, and the heads.
    assert count(network) == 6 * 25 + 4 * (3 + 5) + count(nn.ModuleList(heads().values()))


def test_layered_extraction_follows_its_equations() -> None:
    shared, own = [[expert()], [expert(5)]], {task: [[expert()], [expert(5)]] for task in heads()}
    network = PLE(shared, own, heads(), input_sizes=[4, 5])
    x = torch.randn(7, 4)

    def mixed(gate: nn.Module, selector: torch.Tensor, outputs: list[torch.Tensor]) -> torch.Tensor:
        weights = torch.softmax(selector @ gate[1].weight.T, 1)
        return torch.stack([weights[:, i : i + 1] * out for i, out in enumerate(outputs)]).sum(0)

    first, last = network.levels
    known = shared[0][0](x)
    own_outputs = {task: own[task][0][0](x) for task in own}
    middle = {task: mixed(first.gates[task], x, [own_outputs[task], known]) for task in own}
    common = mixed(first.shared_gate, x, [*own_outputs.values(), known])
    for task, out in network(x).items():
        outputs = [own[task][1][0](middle[task]), shared[1][0](common)]
        expected = network.heads[task](mixed(last.gates[task], middle[task], outputs))
        assert torch.allclose(out, expected, atol=1e-6)
    gates = 2 * 4 * 2 + 4 * 3 + 2 * 5 * 2
    assert count(network) == 3 * 25 + 3 * 30 + gates + count(nn.ModuleList(heads().values()))


@pytest.mark.parametrize("per_example", [False, True])
@pytest.mark.parametrize("experts", [4, 5])
def test_selectors_take_one_expert_each_in_the_end(experts: int, per_example: bool) -> None:
    network = DSelectK([expert() for _ in range(experts)], heads(), k=2, input_size=4 if per_example else None, gamma=2.0)
    x = torch.randn(7, 4)
    digits = 2 if experts == 4 else 3
    for task, weights in network.weights(x).items():
        share, selection = network.gates[task](x)
        assert torch.allclose(weights, (share[..., None] * selection).sum(1))
        if experts == 4:
            assert torch.allclose(weights.sum(1), torch.ones(len(weights)), atol=1e-6)
        mixture = sum(weights[:, i : i + 1] * one(x) for i, one in enumerate(network.features.experts))
        assert torch.allclose(network(x)[task], network.heads[task](mixture), atol=1e-5)
    gates = 2 * (digits + 1) * (5 if per_example else 1)
    assert count(network) == 25 * experts + 2 * gates + count(nn.ModuleList(heads().values()))
    if not per_example:
        # Digits beyond ±γ/2 are binary: 3 is 11 (or 011), 0 is 00 (or 000).
        gate = network.gates["label"]
        with torch.no_grad():
            gate.share.copy_(torch.tensor([0.0, math.log(3.0)]))
            gate.digit.copy_(torch.tensor([[-1.0] * (digits - 2) + [1.0, 1.0], [-1.5] * digits]))
        expected = torch.zeros(experts)
        expected[3], expected[0] = 0.25, 0.75
        assert torch.allclose(network.weights(x)["label"][0], expected, atol=1e-6)
        # A quarter of the way through S is 0.5 - 1.5/4 + 2/64 = 0.15625.
        with torch.no_grad():
            gate.digit.fill_(-0.5)
        assert gate(x)[1][0, 0, 0].item() == pytest.approx((1 - 0.15625) ** digits, abs=1e-6)


def test_the_penalty_of_gates_makes_them_sparse_and_keeps_them_off_missing_experts() -> None:
    torch.manual_seed(0)
    x = torch.zeros(1, 4)
    network = DSelectK([expert() for _ in range(5)], heads(), k=2)
    uniform = 0.125 * -math.log(0.125 + 1e-6)
    with torch.no_grad():
        for gate in network.gates.values():
            gate.digit.zero_()
    assert network.penalty(x, entropy=2.0).item() == pytest.approx(2 * 2 * (2.0 * 5 * uniform + 8 / 5), rel=1e-5)
    with torch.no_grad():
        for gate in network.gates.values():
            gate.digit.copy_(torch.tensor([[0.1, 0.05, 0.1], [-0.1, 0.1, 0.05]]))
    optimizer = torch.optim.SGD(network.gates.parameters(), 0.05)
    for _ in range(300):
        optimizer.zero_grad()
        network.penalty(x, entropy=1.0).backward()
        optimizer.step()
    for gate in network.gates.values():
        _, selection = gate(x)
        assert torch.allclose(selection.sum(2), torch.ones(1, 2), atol=1e-3)
        assert torch.allclose(selection.max(2).values, torch.ones(1, 2), atol=1e-3)
    with pytest.raises(eq.InputError, match="entropy"):
        network.penalty(x, entropy=-1.0)


def test_bad_experts_are_refused() -> None:
    with pytest.raises(eq.InputError, match="the heads' tasks"):
        CGC([expert()], {"label": [expert()]}, heads(), input_size=4)
    with pytest.raises(eq.InputError, match="level 0 needs a shared expert"):
        CGC([expert()], own_experts(0, 1), heads(), input_size=4)
    with pytest.raises(eq.InputError, match="one entry per level"):
        PLE([[expert()]], {task: [[expert()]] for task in heads()}, heads(), input_sizes=[4, 5])
    for arguments in ({"k": 0}, {"k": 3}, {"k": 1, "gamma": 0.0}, {"k": 1, "input_size": 0}):
        with pytest.raises(eq.InputError, match="DSelectK needs"):
            DSelectK([expert(), expert()], heads(), **arguments)


# -- learning to branch


def searching(**arguments: Any) -> LTB:
    return LTB([[expert(), expert()], [expert(5), expert(5), expert(5)]], heads(), **arguments)


def test_a_search_draws_one_parent_with_its_probability() -> None:
    torch.manual_seed(0)
    network = searching()
    with torch.no_grad():
        network.logits[0].copy_(torch.tensor([[0.8, 0.2]]).log().expand(3, 2))
    drawn = torch.stack([network._drawn(network.logits[0][1]) for _ in range(2000)])
    assert bool((drawn.amax(1) == 1).all())
    assert torch.equal(drawn.sum(1), torch.ones(2000))
    assert drawn.mean(0)[0].item() == pytest.approx(0.8, abs=0.04)
    network.anneal(0, 200)
    assert torch.equal(network._drawn(network.logits[0][1]), torch.full((2,), 0.5))
    network.anneal(99, 100)
    assert float(network.temperature) == pytest.approx(0.5)
    again = searching()
    again.load_state_dict(network.state_dict())
    assert torch.equal(again.temperature, network.temperature)
    for wrong in (lambda: network.anneal(3, 3), lambda: searching(temperature=0.0), lambda: LTB([[]], heads())):
        with pytest.raises(eq.InputError):
            wrong()


def test_the_tree_that_was_found_is_the_search_in_eval_mode_without_idle_nodes() -> None:
    torch.manual_seed(0)
    network, x = searching(), torch.randn(7, 4)
    with torch.no_grad():
        network.logits[0][:, 1] = 1.0
        network.logits_of_heads[0][2] = 1.0
        network.logits_of_heads[1][0] = 1.0
    assert network.parents() == [[1, 1, 1], [2, 0]]
    found = network.branched(fresh=False)
    expected = network.eval()(x)
    assert all(torch.allclose(out, expected[task], atol=1e-6) for task, out in found(x).items())
    assert [len(row) for row in found.rows] == [1, 2]
    assert found.parents == [[0, 0], [1, 0]]
    of_heads = count(nn.ModuleList(heads().values()))
    assert count(network) == 2 * 25 + 3 * 30 + 6 + 6 + of_heads
    assert count(found) == 25 + 2 * 30 + of_heads
    fresh = network.branched()
    assert count(fresh) == count(found)
    assert not torch.equal(fresh.rows[0][0][0].weight, found.rows[0][0][0].weight)
    with pytest.raises(eq.InputError, match="place in the row before"):
        Branched([[expert()]], [[0, 1]], heads())


def test_a_search_finds_that_two_tasks_need_different_stages() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 2)
    rows = [[nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False)]]
    network = LTB(rows, {"label": nn.Identity(), "size": nn.Identity()})
    with torch.no_grad():
        rows[0][0].weight.copy_(torch.tensor([[1.0, 0.1]]))
        rows[0][1].weight.copy_(torch.tensor([[0.1, 1.0]]))

    def losses(model: nn.Module, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        out = model(batch)
        targets = {"label": batch[:, :1], "size": batch[:, 1:]}
        return {task: (out[task] - targets[task]).square().mean() for task in out}

    mtl = eq.MultiTaskOptimizer(eq.Objective(network, losses), torch.optim.Adam(network.parameters(), 0.05), "fairgrad")
    for epoch in range(60):
        network.anneal(epoch, 60)
        mtl.step(x)
    assert network.parents() == [[0, 1]]
    assert min(float(found.max(1).values.min()) for found in network.probabilities()) > 0.7
