"""Proxy Gramians against plain autograd: exact where no sketch is taken, and steps that deliver Σ w_k g_k."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.engine.heads import HeadCut
from equipoise.engine.layers import _sketch
from equipoise.engine.proxy import LastLayers, NamedWeights, ProxyRows

WIDE = 10**6


def plain_gramian(losses: dict[int, Tensor], leaves: list[Tensor]) -> Tensor:
    rows = []
    for loss in losses.values():
        found = torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True)
        rows.append(
            torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(leaves, found, strict=True)])
        )
    matrix = torch.stack(rows).double()
    return matrix @ matrix.T


def proxy_gramian(losses: dict[int, Tensor], source: LastLayers | NamedWeights, columns: int = WIDE) -> Tensor:
    cut = HeadCut(losses)
    places = source.places(cut, None)
    rows = ProxyRows(columns)
    wanted = [edge for edge, _, _ in ProxyRows.above(cut, places)]
    flows, _, caught = cut.differentiate(dict.fromkeys(losses), wanted)
    rows.add(cut, places, flows, caught, list(losses))
    return rows.gramian(list(losses), lambda tensor: tensor)


class Tokens(nn.Module):
    """A linear map of 3-d inputs without bias, and heads that each take another token."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 6)
        self.last = nn.Linear(6, 5, bias=False)
        self.heads = nn.ModuleList(nn.Linear(5, 1) for _ in range(3))

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        h = self.last(torch.tanh(self.first(x)))
        return {k: head(h[:, k % h.shape[1]]).square().mean() for k, head in enumerate(self.heads)}


class Images(nn.Module):
    def __init__(self, last: nn.Module, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 3, 3)
        self.last = last
        self.heads = nn.ModuleList(nn.Linear(channels, 1) for _ in range(3))

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        h = self.last(torch.tanh(self.first(x))).relu().mean((-2, -1))
        return {k: head(h).square().mean() for k, head in enumerate(self.heads)}


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.LSTM(3, 4, batch_first=True)
        self.heads = nn.ModuleList(nn.Linear(4, 1) for _ in range(3))

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        h = self.last(x)[0][:, -1]
        return {k: head(h).square().mean() for k, head in enumerate(self.heads)}


class Separate(nn.Module):
    """Every task runs the encoder on an input of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 6), nn.Linear(6, 5)
        self.heads = nn.ModuleList(nn.Linear(5, 1) for _ in range(3))

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        return {
            k: head(torch.tanh(self.last(torch.tanh(self.first(x[k]))))).square().mean() for k, head in enumerate(self.heads)
        }


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], Callable[[nn.Module], list[Tensor]]]] = {
    "tokens": (Tokens, (4, 3, 3), lambda m: [m.last.weight]),
    "convolution": (lambda: Images(nn.Conv2d(3, 4, 3, stride=2, padding=1), 4), (2, 2, 9, 9), lambda m: [m.last.weight]),
    "convolution 1x1": (lambda: Images(nn.Conv2d(3, 4, 1, bias=False), 4), (2, 2, 6, 6), lambda m: [m.last.weight]),
    "dilated": (lambda: Images(nn.Conv2d(3, 4, (2, 3), dilation=2), 4), (2, 2, 9, 9), lambda m: [m.last.weight]),
    "grouped": (lambda: Images(nn.Conv2d(3, 3, 3, groups=3), 3), (2, 2, 9, 9), lambda m: [m.last.weight]),
    "transposed": (lambda: Images(nn.ConvTranspose2d(3, 4, 3), 4), (2, 2, 5, 5), lambda m: [m.last.weight]),
    "recurrent": (Recurrent, (2, 5, 3), lambda m: [m.last.weight_ih_l0]),
    "separate evaluations": (Separate, (3, 4, 3), lambda m: [m.last.weight]),
}


@pytest.mark.parametrize("case", CASES)
def test_the_last_layer_without_a_sketch_is_the_gramian_of_its_weight(case: str) -> None:
    torch.manual_seed(0)
    make, shape, weights = CASES[case]
    model = make().double()
    losses = model(torch.randn(*shape, dtype=torch.float64))
    expected = plain_gramian(losses, weights(model))
    assert expected.diagonal().min() > 0
    if case != "recurrent":  # of a cell that runs at every time, the last layer is its last run
        torch.testing.assert_close(proxy_gramian(losses, LastLayers()), expected, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(proxy_gramian(losses, NamedWeights(weights(model))), expected, rtol=1e-10, atol=1e-14)


def test_named_weights_with_biases_norms_and_embeddings_are_differentiated_plainly() -> None:
    torch.manual_seed(0)
    table, norm, last = nn.Embedding(7, 4), nn.LayerNorm(4), nn.Linear(4, 4)
    heads = [nn.Linear(4, 1) for _ in range(3)]
    h = torch.tanh(last(norm(table(torch.randint(7, (5, 3))))))
    losses = {k: head(h).square().mean() for k, head in enumerate(heads)}
    leaves = [*table.parameters(), *norm.parameters(), *last.parameters()]
    torch.testing.assert_close(proxy_gramian(losses, NamedWeights(leaves)), plain_gramian(losses, leaves), rtol=1e-4, atol=1e-9)


def _towers(table: nn.Embedding, tokens: Tensor) -> dict[int, Tensor]:
    """What tasks of recommenders share may be embeddings alone; the table runs twice here."""
    torch.manual_seed(1)
    heads = [nn.Linear(3 * table.embedding_dim, 1) for _ in range(3)]
    h = torch.cat([table(tokens).flatten(1), table(tokens[:, 0].flip(0))], 1)
    return {k: (head(h).sigmoid() - 0.3 * k).square().mean() for k, head in enumerate(heads)}


def test_an_embedding_without_a_sketch_is_the_gramian_of_its_table() -> None:
    torch.manual_seed(0)
    table, tokens = nn.Embedding(9, 4, padding_idx=2), torch.randint(9, (30, 2))
    assert (tokens == 2).any()
    losses = _towers(table, tokens)
    expected = plain_gramian(losses, [table.weight])
    torch.testing.assert_close(proxy_gramian(losses, NamedWeights([table.weight])), expected, rtol=1e-4, atol=1e-12)


def test_the_sketch_of_a_large_embedding_is_near_and_holds_no_table_per_task() -> None:
    torch.manual_seed(0)
    table, tokens = nn.Embedding(20_000, 4), torch.randint(20_000, (300, 2))
    losses = _towers(table, tokens)
    expected = plain_gramian(losses, [table.weight])
    for columns, near in ((64, 0.4), (1024, 0.1)):
        found = proxy_gramian(losses, NamedWeights([table.weight]), columns)
        assert (found - expected).norm() < near * expected.norm()
    cut = HeadCut(losses)
    later, earlier = NamedWeights([table.weight]).places(cut, None).layers
    assert earlier.row(torch.ones(3, 300, 2, 4), 64).shape == (3, 64, 4)
    assert later.row(torch.ones(300, 4), 64).shape == (64, 4)


def test_weights_that_one_task_alone_reaches_count_for_it() -> None:
    torch.manual_seed(0)
    last, own = nn.Linear(3, 4), nn.Linear(4, 4)
    h = torch.tanh(last(torch.randn(6, 3)))
    losses = {0: h.square().mean(), 1: own(h).square().mean()}
    leaves = [*last.parameters(), *own.parameters()]
    torch.testing.assert_close(proxy_gramian(losses, NamedWeights(leaves)), plain_gramian(losses, leaves), rtol=1e-4, atol=1e-9)


def test_a_layer_that_is_used_twice_counts_with_both_calls() -> None:
    torch.manual_seed(0)
    again = nn.Linear(4, 4)
    heads = [nn.Linear(4, 1) for _ in range(3)]
    h = again(torch.tanh(again(torch.randn(6, 4))))
    losses = {k: head(h).square().mean() for k, head in enumerate(heads)}
    torch.testing.assert_close(
        proxy_gramian(losses, NamedWeights([again.weight])), plain_gramian(losses, [again.weight]), rtol=1e-4, atol=1e-9
    )


def test_sketches_are_unbiased() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(64, 300, dtype=torch.float64)
    last = nn.Linear(300, 8).double()
    heads = [nn.Linear(8, 1).double() for _ in range(4)]
    h = last(inputs)
    losses = {k: head(torch.tanh(h)).square().mean() for k, head in enumerate(heads)}
    exact = plain_gramian(losses, [last.weight])
    lengths = exact.diagonal().sqrt()
    scale = torch.outer(lengths, lengths)
    errors = [((proxy_gramian(losses, LastLayers(), columns) - exact) / scale).abs().max() for columns in (16, 64, 256, 300)]
    # The relative error of r columns is about the root of 2/r, or less.
    assert errors[0] < 1
    assert errors[1] < 0.5
    assert errors[2] < 0.25
    assert errors[3] < 1e-10


def test_the_residual_stream_is_all_layers_that_write_to_it() -> None:
    torch.manual_seed(0)
    writers = [nn.Linear(5, 4) for _ in range(3)]
    readers = [nn.Linear(4, 5) for _ in range(3)]
    heads = [nn.Linear(4, 1) for _ in range(3)]
    stream, inputs = torch.randn(6, 2, 4), []
    for reader, writer in zip(readers, writers, strict=True):
        inputs.append(torch.tanh(reader(stream)))
        stream = stream + writer(inputs[-1])
    losses = {k: head(torch.tanh(stream)).square().mean() for k, head in enumerate(heads)}
    deltas = [torch.autograd.grad(loss, stream, retain_graph=True)[0].flatten(0, 1) for loss in losses.values()]
    rows = torch.stack([torch.cat([(d.T @ a.flatten(0, 1)).flatten() for a in inputs]) for d in deltas]).double()
    # With as many columns as inputs the sketch is a rotation of them all together, and cross terms between layers remain in
    # single entries only; its mean over many numbers of columns is what has been claimed.
    found = torch.stack([proxy_gramian(losses, LastLayers(), columns) for columns in range(2, 15)]).mean(0)
    assert torch.nn.functional.cosine_similarity(found.flatten(), (rows @ rows.T).flatten(), dim=0) > 0.98


def _hooked(block: nn.Module) -> nn.Module:
    block.register_full_backward_hook(lambda *_: None)
    return block


def _sharded(*tensors: Tensor) -> tuple[Tensor, ...]:
    """What ``fully_shard`` puts in front of a module that takes these."""
    from torch.distributed.fsdp._fully_shard._fsdp_param_group import RegisterPostBackwardFunction

    return RegisterPostBackwardFunction.apply(None, *tensors)  # type: ignore[no-any-return,no-untyped-call]


SUMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "copied": lambda x, y: x.clone() + y.clone(),
    "with an axis more": lambda x, y: (x.unsqueeze(1) + y.unsqueeze(1)).squeeze(1),
    "dropout": lambda x, y: x + nn.functional.dropout(y, 0.1),
    "stochastic depth": lambda x, y: x + y * (torch.tensor([0.0, 1, 1, 1, 1, 1]) / 0.9)[:, None, None],
    "backward hooks": lambda x, y: _hooked(nn.Identity())(x + _hooked(nn.Identity())(y)),
    "a sharded block": lambda x, y: _sharded(x)[0] + y,
    "a sharded module on the branch": lambda x, y: x + _sharded(y)[0],
    "a sharded module that adds": lambda x, y: torch.add(*_sharded(x, y)),
    "a sharded module that adds the other way round": lambda x, y: torch.add(*_sharded(x, y)[::-1]),
}


@pytest.mark.parametrize("added", SUMS.values(), ids=SUMS)
def test_what_hands_gradients_on_hides_no_stream(added: Callable[[Tensor, Tensor], Tensor]) -> None:
    """On the way down to earlier sums, and on the way up from the layer to its own."""
    torch.manual_seed(0)
    reader, position = nn.Linear(4, 5), nn.Linear(3, 4)
    writers, heads = [nn.Linear(5, 4) for _ in range(3)], [nn.Linear(4, 1) for _ in range(3)]
    stream = torch.randn(6, 2, 4) + position(torch.randn(2, 3))  # broadcast, so it has another gradient
    for writer in writers:
        stream = added(stream, writer(torch.tanh(reader(stream))))
    losses = {k: head(torch.tanh(stream)).sum() for k, head in enumerate(heads)}
    (found,) = LastLayers().places(HeadCut(losses), None).layers
    assert found.node.name() == "AddBackward0"
    assert sorted(found.row.leaves) == sorted(id(writer.weight) for writer in writers)  # type: ignore[attr-defined]
    assert proxy_gramian(losses, LastLayers()).diagonal().min() > 0


def test_a_branch_that_goes_elsewhere_too_is_in_no_stream() -> None:
    torch.manual_seed(0)
    writers, heads = [nn.Linear(4, 4) for _ in range(2)], [nn.Linear(4, 1) for _ in range(2)]
    stream = torch.randn(6, 4)
    for writer in writers:
        x, y = _sharded(stream, writer(torch.tanh(stream)))
        stream = x + y + torch.tanh(y)
    places = LastLayers().places(HeadCut({k: head(torch.tanh(stream)).sum() for k, head in enumerate(heads)}), None)
    assert all(layer.node.name() == "AddmmBackward0" for layer in places.layers)


class Adapter(nn.Module):
    """A frozen linear map and a low-rank one beside it, as PEFT's LoRA writes it: with a factor, and in float32."""

    def __init__(self, inputs: int, outputs: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.base = nn.Linear(inputs, outputs, bias=False, dtype=dtype).requires_grad_(False)
        self.down, self.up = nn.Linear(inputs, 2, bias=False), nn.Linear(2, outputs, bias=False)
        self.factor = 1.5
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(self.down(x.float()))
        return (self.base(x) + self.up(self.seen[-1]) * self.factor).to(x.dtype)


def adapted(dtype: torch.dtype, apart: bool) -> tuple[dict[int, Tensor], list[Adapter], Tensor]:
    """Losses of three domains, of one forward pass or of one each; what was adapted; and the exact Gramian of its stream."""
    torch.manual_seed(0)
    embed = nn.Linear(3, 4, dtype=dtype).requires_grad_(False)
    readers = [nn.Linear(4, 5, dtype=dtype) for _ in range(3)]
    layers = [Adapter(5, 4, dtype) for _ in range(3)]
    head = nn.Linear(4, 1, dtype=dtype).requires_grad_(False)
    batch, streams = torch.randn(3, 6, 2, 3, dtype=dtype), []

    def forward(x: Tensor) -> Tensor:
        stream = embed(x)
        for layer, reader in zip(layers, readers, strict=True):
            layer.factor = 1.5 + (layer is layers[0])
            stream = stream + nn.functional.dropout(layer(torch.tanh(reader(stream))), 0.0, True)
        streams.append(stream)
        return head(torch.tanh(stream))

    outputs = [forward(part) for part in batch] if apart else list(forward(batch.flatten(0, 1)).unflatten(0, (3, 6)))
    losses = {k: (10.0**k * output).square().mean().float() for k, output in enumerate(outputs)}
    rows = []
    for k, loss in losses.items():
        delta = torch.autograd.grad(loss, streams[k if apart else 0], retain_graph=True)[0].float().flatten(0, 1)
        inputs = [(layer.seen[k if apart else 0] * layer.factor).flatten(0, 1) for layer in reversed(layers)]
        rows.append(torch.cat([(delta.T @ a).flatten() for a in inputs]))
    matrix = torch.stack(rows).double()
    return losses, layers, matrix @ matrix.T


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_stream_of_low_rank_adapters_is_taken_with_their_factors(dtype: torch.dtype, apart: bool) -> None:
    losses, layers, _ = adapted(dtype, apart)
    places = LastLayers().places(HeadCut(losses), None)
    assert len(places.layers) == (3 if apart else 1)
    for layer in places.layers:
        assert layer.node.name() == "AddBackward0"
        factors = [factor for _, factor in layer.row._inputs]  # type: ignore[attr-defined]
        assert factors == [1.5, 1.5, 2.5]
    assert {id(weight) for weight in places.weights} == {id(layers[-1].up.weight)}
    # Cross terms between layers remain in single sketches; their mean over many is what is claimed.
    found = torch.stack([proxy_gramian(losses, LastLayers(), columns) for columns in range(2, 7)]).mean(0)
    exact = adapted(dtype, apart)[2]
    assert nn.functional.cosine_similarity(found.flatten(), exact.flatten(), dim=0) > 0.98


def test_domains_apart_have_the_gramian_of_one_forward_pass() -> None:
    """Sketches are the same in every call, so it makes no difference whether a batch was cut into its domains before."""
    together, apart = (proxy_gramian(adapted(torch.float32, each)[0], LastLayers(), 4) for each in (False, True))
    torch.testing.assert_close(apart, together, rtol=1e-4, atol=1e-12)


def test_a_sketch_with_room_for_all_inputs_has_the_size_of_what_it_sketches() -> None:
    sketch = _sketch(5, 64, torch.float64, torch.device("cpu"))
    torch.testing.assert_close(sketch @ sketch.T, torch.eye(5, dtype=torch.float64))


def test_a_balanced_loss_goes_no_further_down_than_its_proxy() -> None:
    """Domains with a forward pass each meet at the parameters; the pass for the Gramian ends at the last shared layer."""
    torch.manual_seed(0)
    first, last = nn.Linear(3, 4), nn.Linear(4, 4)
    passed: list[int] = []
    losses = {}
    for k in range(2):
        h = first(torch.randn(5, 3))
        h.register_hook(lambda _, k=k: passed.append(k))
        losses[f"t{k}"] = last(torch.tanh(h)).square().mean()
    loss = eq.balanced_loss(losses, eq.FairGrad(), eq.Proxy("last", audit=0))
    assert passed == []
    exact = plain_gramian(dict(enumerate(losses.values())), [last.weight])
    torch.testing.assert_close(loss.report.gramian, exact, rtol=1e-4, atol=1e-9)  # type: ignore[attr-defined]
    passed.clear()
    loss.backward()
    assert sorted(passed) == [0, 1]


class Twin(nn.Module):
    """Heads, an encoder with a skip connection past its last layer, and a weight that one head ties to the encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 4)
        self.heads = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.first(x))
        return h + torch.tanh(self.second(h))


def twin_losses(model: Twin, batch: Tensor) -> dict[str, Tensor]:
    h = model(batch)
    outputs = {f"t{k}": head(h) for k, head in enumerate(model.heads)}
    outputs["t0"] = nn.functional.linear(outputs["t0"], model.second.weight)
    return {name: (10.0**k) * output.square().mean() for k, (name, output) in enumerate(outputs.items())}


@pytest.mark.parametrize("proxy", ["last", "last 2", "features", "auto", "second", "exact"])
@pytest.mark.parametrize("micro_batches", [1, 3])
def test_a_step_delivers_the_weighted_gradients_and_the_heads_their_own(proxy: str, micro_batches: int) -> None:
    torch.manual_seed(0)
    model = Twin()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, twin_losses), optimizer, "fairgrad", proxy=proxy)
    batches = list(torch.randn(micro_batches, 5, 3))
    shared = [*model.first.parameters(), *model.second.parameters()]
    before = [parameter.detach().clone() for parameter in model.parameters()]
    expected: dict[int, Tensor] = {}
    totals = [sum(twin_losses(model, batch)[f"t{k}"] for batch in batches) / micro_batches for k in range(3)]
    grads = [torch.autograd.grad(total, list(model.parameters()), retain_graph=True, allow_unused=True) for total in totals]
    mtl.step(*batches)
    assert mtl.last is not None
    assert mtl.last.weights is not None
    weights = mtl.last.weights
    for place, parameter in enumerate(model.parameters()):
        factors = weights if any(parameter is leaf for leaf in shared) else torch.ones(3)
        parts = [g[place] * f for g, f in zip(grads, factors.to(torch.float32), strict=True) if g[place] is not None]
        expected[place] = sum(parts[1:], parts[0])
    for place, (parameter, old) in enumerate(zip(model.parameters(), before, strict=True)):
        torch.testing.assert_close(old - parameter.detach(), expected[place], rtol=1e-4, atol=1e-5)


def test_balanced_loss_is_the_weighted_sum_and_touches_nothing() -> None:
    torch.manual_seed(0)
    model = Twin()
    losses = twin_losses(model, torch.randn(5, 3))
    fired: list[int] = []
    for parameter in model.parameters():
        parameter.register_hook(lambda gradient: fired.append(1))
        parameter.register_post_accumulate_grad_hook(lambda parameter: fired.append(2))
    loss = eq.balanced_loss(losses, eq.FairGrad(), eq.Proxy("last", audit=0))
    assert not fired
    assert all(parameter.grad is None for parameter in model.parameters())
    weights = loss.report.weights
    total = sum(w * g for w, g in zip(weights.float(), losses.values(), strict=True))
    expected = torch.autograd.grad(total, list(model.parameters()), retain_graph=True)
    loss.backward()
    torch.testing.assert_close(loss.detach(), total.detach())
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_heads_keep_their_own_gradients_where_asked(scale: float) -> None:
    torch.manual_seed(0)
    model = Twin()
    losses = twin_losses(model, torch.randn(5, 3))
    loss = eq.balanced_loss(
        losses,
        eq.FairGrad(),
        eq.Proxy("last", audit=0),
        heads="own",
        shared=[*model.first.parameters(), *model.second.parameters()],
    )
    grads = [
        torch.autograd.grad(value, list(model.parameters()), retain_graph=True, allow_unused=True) for value in losses.values()
    ]
    (loss * scale).backward()
    shared = {id(leaf) for leaf in [*model.first.parameters(), *model.second.parameters()]}
    for place, parameter in enumerate(model.parameters()):
        factors = loss.report.weights.float() if id(parameter) in shared else torch.ones(3)
        parts = [g[place] * f for g, f in zip(grads, factors, strict=True) if g[place] is not None]
        torch.testing.assert_close(parameter.grad / scale, sum(parts[1:], parts[0]), rtol=1e-4, atol=1e-5)
