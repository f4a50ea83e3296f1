"""Compiled models and compiled loss functions take the steps of the same code run eagerly; so do checkpointed ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import equipoise as eq
from equipoise.bilevel import FORUM, MOML, BilevelProblem
from tests import problems

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:torch.*")

METHODS = ["ls", "si", "famo", "pcgrad", "fairgrad", "modo"]


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    with torch._functorch.config.patch(donated_buffer=True):  # it is turned off for good where that proves necessary
        yield
    torch._dynamo.reset()


def eager() -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    return problems.Heads(), problems.losses


def compiled_model(backend: str = "aot_eager") -> tuple[nn.Module, Any]:
    model, losses = eager()
    return torch.compile(model, backend=backend), losses  # type: ignore[return-value]


def compiled_encoder() -> tuple[nn.Module, Any]:
    model, losses = eager()
    assert isinstance(model, problems.Heads)
    model.encoder = torch.compile(model.encoder, backend="aot_eager")  # type: ignore[assignment]
    return model, losses


def compiled_in_place() -> tuple[nn.Module, Any]:
    model, losses = eager()
    model.compile(backend="aot_eager")
    return model, losses


def compiled_losses() -> tuple[nn.Module, Any]:
    model, losses = eager()
    return model, torch.compile(losses, backend="aot_eager")


WAYS = {"model": compiled_model, "encoder": compiled_encoder, "in place": compiled_in_place, "losses": compiled_losses}


def train(made: tuple[nn.Module, Any], method: str, micro_batches: int = 1, **options: Any) -> list[Tensor]:
    model, losses = made
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    objective = eq.Objective(model, losses, batches=problems.further_batches(model))
    mtl = eq.MultiTaskOptimizer(objective, optimizer, eq.balancer(method), **options)
    for step in range(4):
        mtl.step(*(problems.batch(seed=10 * step + part) for part in range(micro_batches)))
    return [parameter.detach() for parameter in model.parameters()]


def agree(first: list[Tensor], second: list[Tensor]) -> None:
    for a, b in zip(first, second, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(  # what is differentiated once, once per task, and on further batches goes every way
    ("method", "way"),
    [(method, way) for method in METHODS for way in (WAYS if method in ("ls", "fairgrad", "modo") else ["model"])],
)
def test_compiled_is_as_eager(method: str, way: str) -> None:
    agree(train(WAYS[way](), method), train(eager(), method))


@pytest.mark.parametrize("method", ["si", "mgda"])
def test_compiled_with_micro_batches(method: str) -> None:
    agree(train(compiled_model(), method, 3), train(eager(), method, 3))


def some_losses(model: nn.Module, batch: tuple[problems.Batch, tuple[str, ...]]) -> dict[str, Tensor]:
    everything = problems.losses(model, batch[0])
    return {name: everything[name] for name in batch[1]}


def test_a_first_step_with_one_backward_pass() -> None:
    """The compiler lets a graph that is differentiated once overwrite what it saved; later steps differentiate it K times."""

    def trained(made: tuple[nn.Module, Any]) -> list[Tensor]:
        model = made[0]
        objective = eq.Objective(model, some_losses, tasks=["t0", "t1", "t2"])
        mtl = eq.MultiTaskOptimizer(objective, torch.optim.SGD(model.parameters(), lr=0.02), "fairgrad")
        for step, present in enumerate([("t0",), ("t0", "t1", "t2"), ("t1", "t2")]):
            mtl.step((problems.batch(seed=step), present))
        return [parameter.detach() for parameter in model.parameters()]

    agree(trained(compiled_encoder()), trained(eager()))


@pytest.mark.parametrize("way", WAYS)
def test_a_look_at_conflicts_after_steps_of_one_backward_pass(way: str) -> None:
    model, losses = WAYS[way]()
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), torch.optim.SGD(model.parameters(), lr=0.02), "ls")
    plain = problems.optimizer_of("ls", eager()[0], lr=0.02)
    for step in range(2):
        mtl.step(problems.batch(seed=step))
        plain.step(problems.batch(seed=step))
        assert torch.allclose(mtl.gramian(problems.batch()), plain.gramian(problems.batch()), rtol=1e-3)


@pytest.mark.parametrize("method", ["fairgrad", "modo"])
def test_a_model_that_was_differentiated_once_before(method: str) -> None:
    """Its backward pass was compiled to overwrite what further ones need; it is compiled anew."""
    made = compiled_model()
    sum(made[1](made[0], problems.batch()).values()).backward()  # type: ignore[union-attr]
    made[0].zero_grad()
    agree(train(made, method), train(eager(), method))


def test_compiled_with_shared_parameters_given() -> None:
    model, losses = compiled_model()
    agree(train((model, losses), "mgda", shared=model.encoder), train(eager(), "mgda"))  # type: ignore[arg-type]


def test_partly_labelled_micro_batches_of_a_compiled_model() -> None:
    def trained(made: tuple[nn.Module, Any]) -> list[Tensor]:
        model = made[0]
        objective = eq.Objective(model, some_losses, tasks=["t0", "t1", "t2"])
        mtl = eq.MultiTaskOptimizer(objective, torch.optim.SGD(model.parameters(), lr=0.02), "mgda")
        for step in range(4):
            mtl.step((problems.batch(seed=step), ("t0", "t1")), (problems.batch(seed=9 + step), ("t1", "t2")))
        return [parameter.detach() for parameter in model.parameters()]

    agree(trained(compiled_model()), trained(eager()))


def test_the_drop_in_on_a_compiled_model() -> None:
    def trained(made: tuple[nn.Module, Any], shared: Any) -> list[Tensor]:
        model, losses = made
        optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
        balancer = eq.MGDA()
        for step in range(4):
            optimizer.zero_grad()
            eq.backward(losses(model, problems.batch(seed=step)), balancer, shared=shared)
            optimizer.step()
        return [parameter.detach() for parameter in model.parameters()]

    plain = eager()
    made = compiled_model()
    agree(trained(made, made[0].encoder), trained(plain, plain[0].encoder))  # type: ignore[arg-type]


@pytest.mark.parametrize("way", ["model", "in place", "losses"])
def test_evaluation_elsewhere_on_a_compiled_model(way: str) -> None:
    model, losses = WAYS[way]()
    objective = eq.Objective(model, losses)
    plain_model, plain_losses = eager()
    plain = eq.Objective(plain_model, plain_losses)
    names = [name for name, _ in model.named_parameters()]
    elsewhere = [torch.randn_like(parameter) for parameter in model.parameters()]
    # Twice, for the second time meets what the first has compiled.
    for _ in range(2):
        given = [tensor.clone().requires_grad_() for tensor in elsewhere]
        found = objective.at(dict(zip(names, given, strict=True)), problems.batch())
        gradients = torch.autograd.grad(sum(found.values()), given)
        wanted = [tensor.clone().requires_grad_() for tensor in elsewhere]
        plain_names = [name for name, _ in plain_model.named_parameters()]
        expected = plain.at(dict(zip(plain_names, wanted, strict=True)), problems.batch())
        agree([*found.values()], [*expected.values()])
        agree(list(gradients), list(torch.autograd.grad(sum(expected.values()), wanted)))


def test_the_gramian_of_a_compiled_model() -> None:
    (model, losses), (plain, _) = compiled_model(), eager()
    first = eq.MultiTaskOptimizer(eq.Objective(model, losses), torch.optim.SGD(model.parameters(), lr=0.02), "ls")
    second = problems.optimizer_of("ls", plain)
    assert torch.allclose(first.gramian(problems.batch()), second.gramian(problems.batch()), rtol=1e-4)


class Checkpointed(problems.Heads):
    """Recomputes the encoder in every backward pass."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__(dropout=0.3)
        self.reentrant = reentrant

    def forward(self, inputs: Tensor) -> list[Tensor]:
        if self.reentrant:
            inputs = inputs.requires_grad_()
        features = checkpoint(self.encoder, inputs, use_reentrant=self.reentrant)
        return [head(features).squeeze(-1) for head in self.heads]


def trained_with_checkpoints(method: str, reentrant: bool | None, **options: Any) -> list[Tensor]:
    torch.manual_seed(0)
    model = problems.Heads(dropout=0.3) if reentrant is None else Checkpointed(reentrant)
    torch.manual_seed(1)
    if "shared" in options:
        options["shared"] = model.encoder
    if "features" in options:
        options["features"] = model.encoder
    return train((model, problems.losses), method, **options)


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_gradient_checkpointing(method: str, micro_batches: int) -> None:
    agree(
        trained_with_checkpoints(method, False, micro_batches=micro_batches),
        trained_with_checkpoints(method, None, micro_batches=micro_batches),
    )


def test_reentrant_checkpoints_where_losses_are_enough() -> None:
    agree(trained_with_checkpoints("uw", True), trained_with_checkpoints("uw", None))


def test_reentrant_checkpoints_hide_what_is_shared() -> None:
    with pytest.raises(eq.InputError, match="use_reentrant=False"):
        trained_with_checkpoints("mgda", True)


def test_reentrant_checkpoints_with_shared_parameters_given() -> None:
    agree(trained_with_checkpoints("mgda", True, shared=True), trained_with_checkpoints("mgda", None, shared=True))


@pytest.mark.parametrize("kind", [FORUM, MOML])
def test_bilevel_problems_need_no_flags(kind: Any) -> None:
    """FORUM differentiates a graph several times that was compiled for once; MOML, which differentiates twice, runs eagerly."""
    ends = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model: Any = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
        weights, logits, inputs = list(model.parameters()), torch.zeros(8), torch.randn(8, 4)
        model = torch.compile(model, backend="aot_eager") if compiled else model
        problem = BilevelProblem(
            lambda logits, model, _, x=inputs: (logits.sigmoid() * model(x).square().mean(1)).mean(),
            lambda logits, model, _, x=inputs: (model(x.flip(0)) - 1).square().mean(0),
            (logits, model),
        )
        held = [logits, *weights] if kind is FORUM else [logits]
        solver = kind(problem, torch.optim.SGD(held, 0.5), lower_steps=2, lower_lr=0.1)
        for _ in range(3):
            solver.step()
        ends.append([logits.detach(), *(weight.detach() for weight in weights)])
    agree(*ends)
