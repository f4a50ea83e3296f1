"""The registry: names, options, suggestions; balancers of one's own; TorchJD's."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor
from torchjd import aggregation

import equipoise as eq
from equipoise.balance import registry
from equipoise.balance.coerce import TorchJDAggregator, TorchJDWeighting, from_torchjd
from tests.problems import Heads, batch, losses, optimizer_of


def test_the_methods_of_the_first_release() -> None:
    names = {info.name for info in eq.methods()}
    expected = "ls si rlw dwa uw famo mgda pcgrad cagrad imtl-g nash-mtl fairgrad"
    assert names >= set(expected.split())
    for info in eq.methods():
        assert info.summary
        assert info.paper
        assert info.cost in ("losses", "gramian", "gradients")
        assert isinstance(eq.balancer(info.name), info.cls)
        for alias in info.aliases:
            assert registry.method(alias) is info


def test_a_class_is_named_as_its_key() -> None:
    for info in eq.methods():
        if not info.cls.__module__.startswith("equipoise."):
            continue  # the guide's own, where its pages ran before
        assert info.name.replace("-", "") == info.cls.__name__.lower()
        assert getattr(eq, info.cls.__name__) is info.cls


def test_names_are_forgiving_and_misses_are_suggested() -> None:
    assert isinstance(eq.balancer(" Nash_MTL "), eq.NashMTL)
    with pytest.raises(eq.errors.UnknownMethodError, match=r'no method "fairgard"\. Did you mean "fairgrad"'):
        eq.balancer("fairgard")
    with pytest.raises(eq.errors.UnknownOptionError, match=r'"cagrad" has no option "C".*Did you mean "c"'):
        eq.balancer("cagrad", C=0.3)
    with pytest.raises(eq.errors.UnknownOptionError, match=r"Its options: metric$"):
        eq.balancer("imtl-g", steps=3)


def test_a_balancer_of_ones_own() -> None:
    @eq.balance.register("inverse-norm", summary="every task gradient normalised", paper="mine")
    class InverseNorm(eq.balance.GramianBalancer):
        def weights(self, gramian: Tensor) -> Tensor:
            return gramian.diagonal(dim1=-2, dim2=-1).rsqrt()

    try:
        mtl = optimizer_of("inverse-norm")
        mtl.step(batch())
        assert torch.allclose(mtl.last.weights, 1 / mtl.last.norms)
        with pytest.raises(eq.InputError, match=r'name "inverse-norm" is taken by .*InverseNorm'):
            eq.balance.register("inverse-norm", summary="x", paper="x")(eq.MGDA)
    finally:
        registry.REGISTRY.remove("inverse-norm")


def test_a_balancer_on_gradients() -> None:
    class Signs(eq.balance.GradientBalancer):
        def direction(self, gradients: Tensor) -> Tensor:
            return gradients.sign().sum(0)

    mtl = optimizer_of(Signs(), lr=0.0)
    mtl.step(batch())
    assert mtl.last.gramian is None
    values = {float(v) for p in mtl.objective.model.encoder.parameters() for v in p.grad.flatten()}
    assert values <= {-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0}
    optimizer_of(Signs()).step(batch(), batch(seed=1))


def test_answers_may_be_lists_and_arrays_but_must_be_numbers() -> None:
    class Listed(eq.balance.LossBalancer):
        def __init__(self, answer: object) -> None:
            self.answer = answer

        def weights(self, losses: Tensor) -> Tensor:
            return self.answer  # type: ignore[return-value]

    mtl = optimizer_of(Listed([1.0, 2.0, 3.0]))
    mtl.step(batch())
    assert mtl.last.weights.tolist() == [1.0, 2.0, 3.0]
    with pytest.raises(eq.InputError, match="Listed must answer with a tensor of numbers; it gave str"):
        optimizer_of(Listed("equal")).step(batch())


def test_directions_that_are_not_finite() -> None:
    class Broken(eq.balance.GradientBalancer):
        def direction(self, gradients: Tensor) -> Tensor:
            return gradients.sum(0) * float("nan")

    mtl = optimizer_of(Broken())
    before = [p.clone() for p in mtl.objective.model.parameters()]
    with pytest.raises(eq.NonFiniteError, match=r"direction of task .* is not finite in step 0 \(Broken"):
        mtl.step(batch())
    assert all(torch.equal(a, b) for a, b in zip(before, mtl.objective.model.parameters(), strict=True))


def test_a_memory_of_another_problem_is_refused() -> None:
    for name in ("famo", "uw", "dwa"):
        balancer = eq.balancer(name)
        optimizer_of(balancer).step(batch())
        balancer.end_epoch()
        with pytest.raises(eq.InputError, match="has learned from 3 tasks and now meets 2"):
            optimizer_of(balancer, Heads(2)).step(batch(tasks=2))


def test_famo_says_when_it_is_never_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("equipoise.balance.famo._PATIENCE", 3)
    balancer, model = eq.FAMO(), Heads()
    for _ in range(2):
        eq.backward(losses(model, batch()), balancer)
    with pytest.warns(UserWarning, match=r"call balancer\.observe"):
        eq.backward(losses(model, batch()), balancer)


def test_balancers_that_implement_nothing() -> None:
    class Nothing(eq.balance.GramianBalancer):
        pass

    with pytest.raises(TypeError, match=r"Nothing implements neither solve\(\) nor weights\(\)"):
        optimizer_of(Nothing()).step(batch())


@pytest.mark.parametrize(("ours", "theirs"), [("mgda", aggregation.MGDA), ("imtl-g", aggregation.IMTLG)])
def test_torchjd_as_balancer(ours: str, theirs: type) -> None:
    mine = optimizer_of(ours, lr=0.0)
    mine.step(batch())
    other = optimizer_of(theirs(), lr=0.0)
    assert isinstance(other.balancer, TorchJDWeighting)
    other.step(batch())
    assert torch.allclose(mine.last.weights, other.last.weights, rtol=1e-2, atol=1e-3)


def test_torchjd_aggregators_that_need_the_matrix() -> None:
    mtl = optimizer_of(aggregation.ConFIG(), lr=0.0)
    assert isinstance(mtl.balancer, TorchJDAggregator)
    mtl.step(batch())
    assert len(mtl.shared) == 4
    values = losses(mtl.objective.model, batch()).values()
    gradients = [torch.autograd.grad(value, mtl.shared, retain_graph=True) for value in values]
    rows = torch.stack([torch.cat([part.reshape(-1) for part in row]) for row in gradients])
    found = torch.cat([parameter.grad.reshape(-1) for parameter in mtl.shared])
    torch.testing.assert_close(found, aggregation.ConFIG()(rows), rtol=1e-4, atol=1e-6)


def test_torchjd_weightings_batched_and_wrong_things() -> None:
    weighting = from_torchjd(aggregation.MGDAWeighting())
    assert weighting.weights(torch.eye(3).expand(2, 3, 3)).shape == (2, 3)
    with pytest.raises(eq.InputError, match="aggregator or weighting; got int"):
        from_torchjd(3)


def test_without_torchjd_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchjd.aggregation", None)
    with pytest.raises(eq.errors.MissingExtraError, match=r'pip install "equipoise\[torchjd\]"'):
        from_torchjd(3)
