"""Bad input gives one clear line, and leaves everything as it was."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from tests.problems import METHODS, Heads, batch, losses, optimizer_of, parameters_of
from tests.states import assert_same_state, kept


class _Explode(torch.autograd.Function):
    """A loss that is fine and whose gradient is not."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return grad * float("nan")


def _spoilt(spoil: Callable[[Tensor], Tensor], when: int) -> Callable[[nn.Module, object], dict[str, Tensor]]:
    """Losses of which t1 is spoilt from the given step on."""
    calls = [0]

    def function(model: nn.Module, data: object) -> dict[str, Tensor]:
        values = losses(model, data)
        if calls[0] >= when:
            values["t1"] = spoil(values["t1"])
        return values

    function.calls = calls  # type: ignore[attr-defined]
    return function


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("what", "spoil"),
    [("loss", lambda loss: loss * float("nan")), ("loss", lambda loss: loss + float("inf")), ("gradient", _Explode.apply)],
)
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_nothing_changes_when_something_is_not_finite(
    name: str, what: str, spoil: Callable[[Tensor], Tensor], micro_batches: int
) -> None:
    function = _spoilt(spoil, 1)
    torch.manual_seed(0)
    model = Heads()
    adam = torch.optim.Adam(model.parameters(), lr=0.01)
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, function), adam, name)
    mtl.step(batch(seed=0))
    function.calls[0] = 1  # type: ignore[attr-defined]
    before = kept((parameters_of(model), mtl.state_dict()))
    with pytest.raises(eq.NonFiniteError, match=rf'{what} of task "t1" is not finite in step 1') as caught:
        mtl.step(*[batch(seed=1)] * micro_batches)
    assert (caught.value.tasks, caught.value.step, caught.value.what) == (("t1",), 1, what)
    assert_same_state((parameters_of(model), mtl.state_dict()), before)
    assert all(parameter.grad is None for parameter in model.parameters())
    function.calls[0] = 0  # type: ignore[attr-defined]
    mtl.step(batch(seed=2))


def test_a_task_specific_gradient_that_is_not_finite_names_its_task() -> None:
    class Sick(Heads):
        def forward(self, inputs: Tensor) -> list[Tensor]:
            features = self.encoder(inputs)
            outs = [head(features).squeeze(-1) for head in self.heads]
            outs[2] = features.sum(1) + 0 * _Explode.apply(self.heads[2].bias)
            return outs

    for name in ("ls", "mgda"):
        with pytest.raises(eq.NonFiniteError, match='gradient of task "t2"'):
            optimizer_of(name, Sick()).step(batch())


def test_features_that_are_not_finite() -> None:
    model = Heads()
    mtl = eq.MultiTaskOptimizer(
        eq.Objective(model, _spoilt(lambda loss: loss * float("inf"), 0)),
        torch.optim.SGD(model.parameters(), lr=0.1), "mgda", features=model.encoder,
    )  # fmt: skip
    with pytest.raises(eq.NonFiniteError, match='loss of task "t1"'):
        mtl.step(batch())


@pytest.mark.parametrize("name", ["si", "famo"])
def test_logarithms_of_negative_losses_are_named(name: str) -> None:
    mtl = optimizer_of(name)
    mtl.objective.losses = _spoilt(lambda loss: -loss, 0)
    with pytest.raises(eq.NonFiniteError, match=r'weight of task .*"t1".*losses: t0'):
        mtl.step(batch())


def test_checks_can_be_turned_off() -> None:
    mtl = optimizer_of("ls", check_finite=False)
    mtl.objective.losses = _spoilt(lambda loss: loss * float("nan"), 0)
    mtl.step(batch())
    assert torch.isnan(mtl.objective.model.encoder[0].weight).any()


@pytest.mark.parametrize("name", ["ls", "fairgrad"])
@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda out: out, r'task "b" must be a scalar; it has the shape \[16\]'),
        (lambda out: out.mean().detach(), 'task "b" does not require grad'),
        (lambda out: 1.5, 'task "b" must be a scalar tensor or a callable'),
    ],
)
def test_losses_that_cannot_be_differentiated(name: str, loss: Callable[[Tensor], object], message: str) -> None:
    mtl = optimizer_of(name)
    mtl.objective.losses = lambda m, d: {"a": m(d[0])[0].mean(), "b": loss(m(d[0])[1])}  # type: ignore[dict-item]
    with pytest.raises(eq.InputError, match=message):
        mtl.step(batch())


def test_shared_parameters_that_no_loss_reaches() -> None:
    with pytest.raises(eq.InputError, match="no loss reaches any of the 2 shared parameters"):
        optimizer_of("mgda", shared=nn.Linear(2, 2)).step(batch())


def test_tasks_that_share_nothing() -> None:
    model = nn.ModuleList([nn.Linear(2, 1), nn.Linear(2, 1)])
    objective = eq.Objective(model, lambda m, x: {"a": m[0](x).mean(), "b": m[1](x).mean()})
    mtl = eq.MultiTaskOptimizer(objective, torch.optim.SGD(model.parameters(), lr=0.1), "mgda")
    with pytest.raises(eq.InputError, match="share nothing that could be balanced"):
        mtl.step(torch.ones(3, 2))


def test_shared_that_is_nonsense() -> None:
    model = Heads()
    with pytest.raises(eq.InputError, match=r"encoder\.parameters\(\), not encoder\.named_parameters\(\)"):
        optimizer_of("mgda", model, shared=model.encoder.named_parameters())
    with pytest.raises(eq.InputError, match="module or an iterable of parameters; got int"):
        optimizer_of("mgda", model, shared=3)
    with pytest.raises(eq.InputError, match="result of a computation"):
        optimizer_of("mgda", model, shared=[model.encoder[0].weight * 2])
    with pytest.raises(eq.InputError, match="shared is empty"):
        optimizer_of("mgda", model, shared=nn.Tanh())


def test_arguments_of_the_optimizer() -> None:
    model = Heads()
    objective, sgd = eq.Objective(model, losses), torch.optim.SGD(model.parameters(), lr=0.1)
    cases: list[tuple[tuple[object, ...], dict[str, object], str]] = [
        ((model, sgd, "ls"), {}, "equipoise.Objective; got Heads"),
        ((objective, model, "ls"), {}, "torch optimizer; got Heads"),
        ((objective, [], "ls"), {}, "the list is empty"),
        ((objective, [sgd, sgd], "ls"), {}, "held by two of the optimizers"),
        ((objective, sgd, eq.FairGrad), {}, r"got the class FairGrad, so write FairGrad\(\)"),
        ((objective, sgd, 3), {}, "balancer must be a balancer such as"),
        ((objective, sgd, "fairgard"), {}, 'Did you mean "fairgrad"'),
        ((objective, sgd, "ls"), {"features": 3}, "features must be a module of the model or its name; got int"),
        ((objective, sgd, "ls"), {"features": "encodr"}, r'^the model has no module "encodr"\. Did you mean "encoder"'),
        ((objective, sgd, "ls"), {"clip": 0.0}, "positive norm"),
        ((objective, sgd, "ls"), {"batched": -1}, "batched"),
    ]
    for arguments, options, message in cases:
        with pytest.raises(eq.InputError, match=message):
            eq.MultiTaskOptimizer(*arguments, **options)  # type: ignore[arg-type]
    with pytest.raises(eq.InputError, match="needs a batch"):
        optimizer_of("ls").step()


def test_an_optimizer_of_another_model() -> None:
    with pytest.raises(eq.InputError, match="holds none of the model's parameters"):
        eq.MultiTaskOptimizer(eq.Objective(Heads(), losses), torch.optim.SGD(Heads().parameters(), lr=0.1), "ls")


def test_a_batch_spread_over_several_arguments_is_explained() -> None:
    with pytest.raises(ValueError, match="unpack") as caught:
        optimizer_of("ls").step(*batch())
    assert any("a batch is one: step((x, y))" in note for note in caught.value.__notes__)


def test_states_of_something_else() -> None:
    mtl = optimizer_of("ls")
    with pytest.raises(eq.InputError, match="no state of a MultiTaskOptimizer: it lacks balancer, model"):
        mtl.load_state_dict(mtl.optimizer.state_dict())


def test_features_that_run_twice_or_not_at_all() -> None:
    model = Heads()
    mtl = optimizer_of("mgda", model, features=model.heads[0])
    mtl.objective.losses = lambda m, d: {"a": m(d[0])[0].mean(), "b": m(d[0])[0].square().mean()}
    with pytest.raises(eq.InputError, match="ran 2 times"):
        mtl.step(batch())
    mtl = optimizer_of("mgda", Heads(), features=nn.Linear(1, 1))
    with pytest.raises(eq.InputError, match="ran 0 times"):
        mtl.step(batch())
    with pytest.raises(eq.InputError, match="one batch per step"):
        optimizer_of("mgda", model, features=model.encoder).step(batch(), batch())


def test_features_by_name() -> None:
    model = Heads()
    mtl = optimizer_of("mgda", model, lr=0.0, features=model.encoder)
    named = optimizer_of("mgda", model, lr=0.0, features="encoder")
    mtl.step(batch())
    named.step(batch())
    assert torch.equal(mtl.last.gramian, named.last.gramian)


def test_answers_of_the_wrong_shape() -> None:
    class Wrong(eq.balance.LossBalancer):
        def weights(self, losses: Tensor) -> Tensor:
            return torch.ones(len(losses) + 1)

    with pytest.raises(eq.InputError, match="one weight for each of the 3 tasks"):
        optimizer_of(Wrong()).step(batch())


def test_an_error_in_the_users_loss_function_leaves_no_trace() -> None:
    for name in ("ls", "famo", "pcgrad"):
        mtl = optimizer_of(name)
        mtl.step(batch())
        memory = kept(mtl.balancer.state_dict())
        good = mtl.objective.losses

        def bad(model: nn.Module, data: object, good: object = good) -> dict[str, object]:
            values = good(model, data)  # type: ignore[operator]
            return values | {"t2": lambda: 1 / 0}

        mtl.objective.losses = bad
        with pytest.raises(ZeroDivisionError):
            mtl.step(batch())
        assert_same_state(mtl.balancer.state_dict(), memory)
        assert all(parameter.grad is None for parameter in mtl.objective.model.parameters())
        mtl.objective.losses = good
        mtl.step(batch())
