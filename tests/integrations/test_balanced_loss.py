"""The balanced loss as an object: what it remembers, and what it refuses."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

import equipoise as eq
from equipoise.integrations import BalancedLoss, accelerate_loss
from tests import problems

METHOD = "nash-mtl@last(memory=0.5,audit=0)"


def losses(model: problems.Heads, seed: int, *names: str) -> dict[str, Tensor]:
    found = problems.losses(model, problems.batch(8, seed=seed))
    return {name: found[name] for name in names} if names else found


def gradients(model: problems.Heads, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters()), allow_unused=True, materialize_grads=True))


def test_it_goes_on_from_its_state_even_with_a_batch_that_lacks_tasks() -> None:
    model = problems.Heads()
    first, second = BalancedLoss(METHOD), BalancedLoss(METHOD)
    for seed in range(3):
        first(losses(model, seed))
    second.load_state_dict(first.state_dict())
    for names in (("t0", "t2"), ()):
        a, b = (gradients(model, loss(losses(model, 5, *names))) for loss in (first, second))
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert second.last is not None
    assert second.last.step == 4  # a logger goes on, too
    assert copy.deepcopy(second).state_dict()["tasks"] == ["t0", "t1", "t2"]
    fresh = BalancedLoss(METHOD)
    fresh(losses(model, 0))
    anew = gradients(model, fresh(losses(model, 5)))
    assert not all(torch.equal(x, y) for x, y in zip(a, anew, strict=True))  # the memory counts


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    model = problems.Heads()
    loss = BalancedLoss(METHOD)
    loss(losses(model, 0))
    before = loss.state_dict()
    other = BalancedLoss(METHOD)
    other(losses(model, 0, "t0", "t1"))
    with pytest.raises(eq.InputError, match="the state is of the tasks t0, t1; the tasks here are t0, t1, t2"):
        loss.load_state_dict(other.state_dict())
    with pytest.raises(eq.InputError, match="a proxy"):
        loss.load_state_dict({**before, "proxy": {}})
    with pytest.raises(eq.InputError, match="a balanced loss"):
        loss.load_state_dict(before["balancer"])
    after = loss.state_dict()
    assert all(torch.equal(after["proxy"][name], before["proxy"][name]) for name in ("correlations", "norms", "seen"))
    assert after["tasks"] == before["tasks"]


def test_without_gradients_it_is_the_plain_sum_and_learns_nothing() -> None:
    model = problems.Heads()
    loss = BalancedLoss(METHOD, fixed={"t2": 0.25})
    loss(losses(model, 0))
    steps = loss.proxy.steps
    with torch.no_grad():
        found = losses(model, 1)
        assert loss(found) == pytest.approx(float(found["t0"] + found["t1"] + 0.25 * found["t2"]))
        assert loss({}) == 0  # a batch without labels
    assert loss.proxy.steps == steps == 1
    assert set(loss.values(found)) == {"t0", "t1", "t2"}


@pytest.mark.parametrize("method", ["graddrop", "famo", "modo", "rotograd", "cost+fairgrad", "ldc-mtl:double_loop=true"])
def test_what_one_backward_pass_cannot_serve_is_refused_at_once(method: str) -> None:
    with pytest.raises(eq.InputError, match="use MultiTaskOptimizer"):
        BalancedLoss(method)


def test_what_is_given_is_looked_at_at_once() -> None:
    for options, said in (
        ({"proxy": "features"}, "names a proxy"),
        ({"tasks": "depth"}, 'got the single string "depth"'),
        ({"shared": "encoder"}, "shared must hold parameters; it holds str"),
    ):
        with pytest.raises(eq.InputError, match=said):
            BalancedLoss(METHOD, **options)
    with pytest.raises(eq.InputError, match="proxy must be a name, a module or a list"):
        BalancedLoss("fairgrad", [])  # and not "last"
    bias = problems.Heads().encoder[0].bias
    assert BalancedLoss("fairgrad", shared=bias)._shared == [bias]


def test_only_an_accelerator_saves_it() -> None:
    with pytest.raises(eq.InputError, match=r"must be an accelerate\.Accelerator; got Heads"):
        accelerate_loss(problems.Heads(), METHOD)
