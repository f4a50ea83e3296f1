"""Features that hold one tensor twice or are made of each other, gradients that share memory, features that nothing reaches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.engine.features import Cut
from tests import problems


class Made(nn.Module):
    """An encoder of two stages whose output is made by a function of both stages, and heads that use some of it."""

    def __init__(self, give: Callable[[Tensor, Tensor], Any], take: Callable[[Any, int], Tensor], tasks: int = 3) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.second = nn.Linear(6, 6)
        self.give, self.take = give, take
        self.encoder = Encoder(self.first, self.second, give)
        self.heads = nn.ModuleList(nn.LazyLinear(2) for _ in range(tasks))

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        features = self.encoder(inputs)
        return {
            f"t{k}": (10.0**k * head(self.take(features, k).flatten(1))).square().mean() for k, head in enumerate(self.heads)
        }


class Encoder(nn.Module):
    def __init__(self, first: nn.Module, second: nn.Module, give: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.first, self.second, self.give = first, second, give

    def forward(self, inputs: Tensor) -> Any:
        low = torch.tanh(self.first(inputs))
        return self.give(low, torch.tanh(self.second(low)))


def either(features: Any, task: int) -> Tensor:
    """The first tensor, the second or both, by task."""
    first, second = features[0].flatten(1), features[1].flatten(1)
    return (first, second, torch.cat([first, second], 1))[task % 3]


OUTPUTS: dict[str, tuple[Callable[[Tensor, Tensor], Any], Callable[[Any, int], Tensor]]] = {
    "one tensor twice": (lambda _, high: (high, high), either),
    "last hidden state": (
        lambda low, high: {"last_hidden_state": high, "hidden_states": (low, high)},
        lambda features, _: features["last_hidden_state"],
    ),
    "maps of two stages": (lambda low, high: [low, high], either),
    "the later first": (lambda low, high: [high, low], either),
    "three in a row": (lambda low, high: [low.exp(), high, high.sin(), low], lambda f, k: f[k] * f[3]),
    "a view": (lambda _, high: (high, high[:, :3]), either),
    "a copy": (lambda _, high: (high.clone(), high), either),
    "parts of one": (lambda _, high: high.chunk(2, 1), either),
    "parts, one by way of the other": (lambda _, high: _parts(high), either),
    "an unused one": (lambda low, high: (high, low.square(), high * 2), lambda features, _: features[0]),
    "complex": (lambda low, high: (torch.complex(low, high), low), lambda f, k: f[k % 2].abs() + f[0].imag),
}


def _parts(high: Tensor) -> tuple[Tensor, Tensor]:
    one, other = high.chunk(2, 1)
    return one, one.sin() * other


def made(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = Made(*OUTPUTS[name]).double()
    inputs = torch.randn(5, 4, dtype=torch.float64)
    model(inputs)
    return model, inputs


def plain(model: nn.Module, inputs: Tensor, parameters: list[Tensor]) -> list[list[Tensor]]:
    """Gradients of every task."""
    return [
        list(torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True))
        for loss in model(inputs).values()
    ]


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("name", OUTPUTS)
def test_the_encoder_gets_the_weighted_sum_of_the_task_gradients(name: str, order: int) -> None:
    model, inputs = made(name)

    def losses(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        return dict(list(model(batch).items())[::order])

    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), optimizer, "mgda", features="encoder")
    encoder = list(model.encoder.parameters())
    for _ in range(2):
        mtl.step(inputs)
        assert mtl.last is not None
        assert mtl.last.weights is not None
        rows = plain(model, inputs, encoder)[::order]
        for place, parameter in enumerate(encoder):
            expected = sum(float(w) * row[place] for w, row in zip(mtl.last.weights, rows, strict=True))
            assert parameter.grad is not None
            assert torch.allclose(parameter.grad, expected, rtol=1e-9, atol=1e-12)
    for task, own in enumerate(model.heads):
        gradient = plain(model, inputs, [own.weight])[task][0]
        assert torch.allclose(own.weight.grad, gradient, rtol=1e-9)


@pytest.mark.parametrize("name", ["one tensor twice", "maps of two stages", "three in a row", "complex"])
def test_the_gramian_is_that_of_independent_inputs_of_the_heads(name: str) -> None:
    model, inputs = made(name)
    mtl = eq.MultiTaskOptimizer(
        eq.Objective(model, lambda model, batch: model(batch)),
        torch.optim.SGD(model.parameters(), lr=0.0),
        "mgda",
        features="encoder",
    )
    mtl.step(inputs)
    given: dict[int, Tensor] = {}  # each tensor once, cut off from the encoder

    def cut(tensor: Tensor) -> Tensor:
        return given.setdefault(id(tensor), tensor.detach().requires_grad_())

    features = [cut(tensor) for tensor in model.encoder(inputs)]
    losses = [(10.0**k * head(model.take(features, k).flatten(1))).square().mean() for k, head in enumerate(model.heads)]
    rows = torch.stack(
        [
            torch.cat(
                [
                    torch.view_as_real(g).flatten() if g.is_complex() else g.flatten()
                    for g in torch.autograd.grad(
                        loss, list(given.values()), retain_graph=True, allow_unused=True, materialize_grads=True
                    )
                ]
            )
            for loss in losses
        ]
    )
    assert mtl.last is not None
    assert mtl.last.gramian is not None
    assert torch.allclose(mtl.last.gramian, rows @ rows.T, rtol=1e-9)


def test_the_encoder_between_two_features_is_differentiated_once() -> None:
    calls: list[int] = []

    class Counting(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, tensor: Tensor) -> Tensor:
            ctx.set_materialize_grads(False)
            return tensor.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor | None) -> Tensor | None:
            calls.append(gradient is not None)
            return gradient

    torch.manual_seed(0)
    model = Made(lambda low, high: (low, Counting.apply(high)), either)
    inputs = torch.randn(5, 4)
    model(inputs)
    mtl = eq.MultiTaskOptimizer(
        eq.Objective(model, lambda model, batch: model(batch)),
        torch.optim.SGD(model.parameters(), lr=0.1),
        "mgda",
        features="encoder",
    )
    mtl.step(inputs)
    assert sum(calls) == 1


def hooked(place: str) -> tuple[nn.Module, Tensor, eq.MultiTaskOptimizer]:
    """A hook that doubles gradients, and two features made of each other or one alone."""

    def give(low: Tensor, high: Tensor) -> Any:
        middle = low.sin()
        later = middle.exp() * high
        {"between": middle, "at the first": low, "at the second": later, "alone": later}[place].register_hook(
            lambda gradient: 2 * gradient
        )
        return [later, later] if place == "alone" else [low, later]

    torch.manual_seed(0)
    model = Made(give, either).double()
    inputs = torch.randn(5, 4, dtype=torch.float64)
    model(inputs)
    objective = eq.Objective(model, lambda model, batch: model(batch))
    mtl = eq.MultiTaskOptimizer(objective, torch.optim.SGD(model.parameters(), lr=0.0), "mgda", features="encoder")
    return model, inputs, mtl


@pytest.mark.parametrize("place", ["between", "alone"])
def test_hooks_of_the_users_own_act_once(place: str) -> None:
    """Also below the cut, where the encoder is walked without gradients while the heads are differentiated."""
    model, inputs, mtl = hooked(place)
    mtl.step(inputs)
    assert mtl.last is not None
    assert mtl.last.weights is not None
    rows = plain(model, inputs, list(model.first.parameters()))
    for number, parameter in enumerate(model.first.parameters()):
        expected = sum(float(w) * row[number] for w, row in zip(mtl.last.weights, rows, strict=True))
        assert torch.allclose(parameter.grad, expected, rtol=1e-9)


@pytest.mark.parametrize("place", ["at the first", "at the second"])
def test_hooks_on_features_made_of_each_other_are_refused(place: str) -> None:
    _, inputs, mtl = hooked(place)
    with pytest.raises(eq.InputError, match="a tensor of the features has a hook"):
        mtl.step(inputs)


def test_an_output_beside_the_features_is_past_them() -> None:
    """Two parts of one tensor are outputs of one node of the graph; only one of them is recorded."""

    class Aside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 6)

        def forward(self, inputs: Tensor) -> Tensor:
            part, self.aside = self.linear(inputs).chunk(2, 1)
            return part

    torch.manual_seed(0)
    model = nn.ModuleDict({"encoder": Aside(), "head": nn.Linear(3, 1)})

    def losses(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        part = model["encoder"](batch)
        return {"a": model["head"](part).square().mean(), "b": (part + model["encoder"].aside).square().mean()}

    mtl = eq.MultiTaskOptimizer(
        eq.Objective(model, losses), torch.optim.SGD(model.parameters(), lr=0.1), "mgda", features="encoder"
    )
    with pytest.raises(eq.InputError, match="past the features"):
        mtl.step(torch.randn(5, 4))


def test_inputs_that_require_grad_may_lie_on_both_sides_of_the_features() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"encoder": nn.Linear(4, 4), "heads": nn.ModuleList(nn.Linear(4, 1) for _ in range(2))})

    def losses(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        features = model["encoder"](batch)
        first, second = model["heads"]
        return {"a": first(features + batch).square().mean(), "b": (5 * second(features)).square().mean()}

    mtl = eq.MultiTaskOptimizer(
        eq.Objective(model, losses), torch.optim.SGD(model.parameters(), lr=0.0), "mgda", features="encoder"
    )
    for _ in range(2):
        inputs = torch.randn(5, 4, requires_grad=True)
        mtl.step(inputs)
        assert mtl.last is not None
        for leaf in (inputs, *model["encoder"].parameters()):
            rows = [torch.autograd.grad(loss, leaf, retain_graph=True)[0] for loss in losses(model, inputs).values()]
            expected = sum(float(w) * row for w, row in zip(mtl.last.weights, rows, strict=True))
            assert torch.allclose(leaf.grad, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("order", [1, -1])
def test_what_is_added_to_the_heads_counts_each_feature_once(order: int) -> None:
    """ConsMTL's second derivatives, against the same heads on features given once, cut off from the encoder."""
    results = []
    for give in (lambda _, high: [high], lambda _, high: [high, high, high[:, :3]][::order]):
        torch.manual_seed(0)
        model = Made(give, lambda features, _: max(features, key=lambda tensor: tensor.shape[1]), 2).double()
        inputs = torch.randn(5, 4, dtype=torch.float64)
        model(inputs)
        balancer = eq.ConsMTL(features=model.encoder, mu=0.5)
        mtl = eq.MultiTaskOptimizer(
            eq.Objective(model, lambda model, batch: {k: v.tanh() for k, v in model(batch).items()}),
            torch.optim.SGD(model.parameters(), lr=0.1),
            balancer,
        )
        mtl.step(inputs)
        mtl.step(inputs)
        results.append([parameter.grad.clone() for parameter in model.heads.parameters()])
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, rtol=1e-9)


def test_gradients_of_heads_do_not_share_memory() -> None:
    """Autograd gives two biases of one sum the same tensor; clipping in place would scale it twice."""
    torch.manual_seed(0)

    def model_of() -> nn.Module:
        model = nn.ModuleDict({"encoder": nn.Linear(3, 4), "head": nn.Linear(4, 1)})
        model.biases = nn.ParameterList(torch.ones(5, 4) for _ in range(2))
        return model

    def losses(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        features = model["encoder"](batch)
        return {
            "a": 100 * (features.detach() + features + model.biases[0] + model.biases[1]).sum(),
            "b": model["head"](features).square().mean(),
        }

    clipped = []
    for features in ("encoder", None):
        torch.manual_seed(0)
        model = model_of()
        mtl = eq.MultiTaskOptimizer(
            eq.Objective(model, losses), torch.optim.SGD(model.parameters(), lr=0.1), "mgda", features=features, clip=1.0
        )
        mtl.step(torch.randn(5, 3))
        one, other = (bias.grad for bias in model.biases)
        assert one.data_ptr() != other.data_ptr()
        clipped.append(float(torch.cat([p.grad.flatten() for p in model.parameters()]).norm()))
    assert clipped == pytest.approx([1.0, 1.0], rel=1e-5)


def test_features_that_no_loss_reaches_are_refused() -> None:
    torch.manual_seed(0)
    model = problems.Heads()
    before = problems.parameters_of(model)

    def losses(model: nn.Module, batch: problems.Batch) -> dict[str, Tensor]:
        features = model.encoder(batch[0]).detach()
        return {f"t{k}": head(features).square().mean() for k, head in enumerate(model.heads)}

    mtl = eq.MultiTaskOptimizer(
        eq.Objective(model, losses), torch.optim.SGD(model.parameters(), lr=0.1), "mgda", features="encoder"
    )
    with pytest.raises(eq.InputError, match="no loss reaches the output of the features module"):
        mtl.step(problems.batch())
    assert problems.same(problems.parameters_of(model), before)


def test_features_within_a_compiled_graph_are_refused() -> None:
    torch.manual_seed(0)
    model = problems.Heads()
    compiled = torch.compile(model, backend="aot_eager")
    mtl = eq.MultiTaskOptimizer(
        eq.Objective(model, lambda _, batch: problems.losses(compiled, batch)),
        torch.optim.SGD(model.parameters(), lr=0.1),
        "mgda",
        features="encoder",
    )
    for _ in range(2):
        with pytest.raises(eq.InputError, match=r"no loss reaches the output .* compiled|can be seen .* compiled"):
            mtl.step(problems.batch())
    torch._dynamo.reset()


def test_a_compiled_encoder_with_heads_apart_is_served() -> None:
    torch.manual_seed(0)
    model = problems.Heads()
    plain = problems.Heads()
    plain.load_state_dict(model.state_dict())
    model.encoder = torch.compile(model.encoder, backend="aot_eager")  # type: ignore[assignment]
    grads = []
    for served in (model, plain):
        mtl = problems.optimizer_of("mgda", served, features=served.encoder)
        mtl.step(problems.batch())
        grads.append([parameter.grad.clone() for parameter in served.parameters()])
    for one, other in zip(*grads, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-8)
    torch._dynamo.reset()


def _vanishing(model: nn.Module, batch: problems.Batch) -> dict[str, Tensor]:
    return {f"t{k}": (0 * out).sum() + 1 for k, out in enumerate(model(batch[0]))}


@pytest.mark.parametrize(("method", "features"), [("mgda", None), ("mgda", "encoder"), ("graddrop", None), ("modo", None)])
def test_gradients_that_all_vanish_are_said_once(method: str, features: str | None) -> None:
    torch.manual_seed(0)
    model = problems.Heads()
    objective = eq.Objective(model, _vanishing, batches=problems.further_batches(model))
    mtl = eq.MultiTaskOptimizer(objective, torch.optim.SGD(model.parameters(), lr=0.1), method, features=features)
    with pytest.warns(UserWarning, match="all task gradients of the shared parameters are exactly zero") as said:
        mtl.step(problems.batch())
    mtl.step(problems.batch())  # says nothing, or it would raise here
    assert len(said) == 1
    assert said[0].filename == __file__


def test_a_look_at_vanishing_gradients_says_so() -> None:
    model = problems.Heads()
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, _vanishing), torch.optim.SGD(model.parameters(), lr=0.1), "ls")
    with pytest.warns(UserWarning, match="exactly zero"):
        assert not mtl.gramian(problems.batch()).any()


def test_a_cut_leaves_no_hook_behind() -> None:
    leaf = torch.ones(2, requires_grad=True)
    low = leaf.exp()
    high = low.sin()
    loss = (low * high).sum()
    cut = Cut([low, high, low], [loss])
    cut.close()
    found = cut.grad([loss], cut.tensors, [torch.ones(())])
    assert [torch.equal(g, t) for g, t in zip(found, (high, low), strict=True)] == [True, True]
    total = torch.autograd.grad(loss, low)[0]
    assert torch.allclose(total, high + low * low.cos())
