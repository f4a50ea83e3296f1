"""MGDA's published normalizations and FAMO's floors, against their formulas."""

from __future__ import annotations

import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor, nn

import equipoise as eq
from equipoise import solvers
from equipoise.balance import Observation

TASKS = ("a", "b", "c")
ROWS = torch.tensor([[4.0, 0.0, 1.0], [-1.0, 0.5, 0.0], [0.0, -2.0, 0.25]], dtype=torch.float64)
LOSSES = torch.tensor([3.0, 0.5, 8.0], dtype=torch.float64)


@pytest.mark.parametrize("normalization", ["none", "l2", "loss", "loss+"])
def test_mgda_divides_gradients_first_and_weighs_them_as_they_are(normalization: str) -> None:
    norms = ROWS.norm(dim=1)
    units = {"none": torch.ones(3), "l2": norms, "loss": LOSSES, "loss+": LOSSES * norms}[normalization]
    scaled = ROWS / units[:, None]
    expected = solvers.minimum_norm_point((scaled @ scaled.T).numpy())
    balancer = eq.balancer(f"mgda:normalization={normalization}")
    found = balancer.decide(Observation(TASKS, (0, 1, 2), LOSSES, gramian=ROWS @ ROWS.T))
    assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    if normalization in ("none", "l2"):
        assert_allclose(balancer.weights(ROWS @ ROWS.T), expected, rtol=1e-9, atol=1e-12)  # type: ignore[attr-defined]
    else:
        with pytest.raises(eq.InputError, match="needs the losses"):
            balancer.weights(ROWS @ ROWS.T)  # type: ignore[attr-defined]


def test_mgda_in_a_step_equals_its_formula() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 3).double()
    inputs = torch.randn(5, 3, dtype=torch.float64)

    def losses(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        errors = (model(batch) - torch.tensor([1.0, 10.0, 100.0])).square().mean(0)
        return dict(zip(TASKS, errors.unbind(), strict=True))

    mtl = eq.MultiTaskOptimizer(
        eq.Objective(model, losses), torch.optim.SGD(model.parameters(), 0.0), "mgda:normalization=loss+"
    )
    mtl.step(inputs)
    own = losses(model, inputs)
    parameters = list(model.parameters())
    gradients = (torch.autograd.grad(loss, parameters, retain_graph=True) for loss in own.values())
    rows = [torch.cat([piece.flatten() for piece in pieces]) for pieces in gradients]
    values = torch.stack(list(own.values())).detach()
    raw = torch.stack(rows)
    scaled = raw / (values * raw.norm(dim=1))[:, None]
    weights = torch.from_numpy(solvers.minimum_norm_point((scaled @ scaled.T).numpy()))
    found = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])  # type: ignore[union-attr]
    assert_allclose(found, weights @ raw, rtol=1e-9)


def test_mgda_with_zero_gradients_and_losses() -> None:
    gramian = torch.diag(torch.tensor([4.0, 0.0, 1e-300], dtype=torch.float64))
    assert eq.MGDA(normalization="l2").weights(gramian).tolist() == [0.0, 1.0, 0.0]
    shown = Observation(TASKS, (0, 1, 2), torch.tensor([1.0, 0.0, 2.0]), gramian=torch.eye(3))
    weights = eq.MGDA(normalization="loss").decide(shown)
    assert weights.isnan().tolist() == [False, True, False]
    with pytest.raises(eq.InputError, match="one of none, l2, loss"):
        eq.MGDA(normalization="l1")  # type: ignore[arg-type]


@pytest.mark.parametrize("floors", [[1.0, -2.0, 0.5], {"c": 0.5, "a": 1.0, "b": -2.0}])
def test_famo_with_floors_is_famo_of_what_lies_above_them(floors: list[float] | dict[str, float]) -> None:
    above = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    with_floors, plain = eq.FAMO(floors=floors), eq.FAMO()
    for step in range(4):
        present = (0, 1, 2) if step != 2 else (1, 2)
        index = list(present)
        losses = LOSSES[index] / (step + 1) + above[index]
        found = with_floors.decide(Observation(TASKS, present, losses))
        assert_allclose(found, plain.decide(Observation(TASKS, present, losses - above[index])), rtol=1e-12)
        with_floors.observe(losses, losses - 0.01, present)
        plain.observe(losses - above[index], losses - 0.01 - above[index], present)
    assert with_floors.logits is not None
    assert plain.logits is not None
    assert_allclose(with_floors.logits, plain.logits, rtol=1e-9)
    below = with_floors.decide(Observation(TASKS, (0, 1, 2), torch.tensor([2.0, -2.5, 1.0])))
    assert below.isnan().tolist() == [False, True, False]


def test_famo_s_floors_are_those_of_the_tasks() -> None:
    with pytest.raises(eq.InputError, match='floors names a task "d"'):
        eq.FAMO(floors={"d": 1.0}).decide(Observation(TASKS, (0, 1, 2), LOSSES))
    with pytest.raises(eq.InputError, match="2 numbers for 3 tasks"):
        eq.balancer("famo:floors=[1,2]").decide(Observation(TASKS, (0, 1, 2), LOSSES))
    with pytest.raises(eq.InputError, match="must be finite"):
        eq.FAMO(floors=float("nan"))
    assert torch.isfinite(eq.FAMO(floors=-1.0).weights(LOSSES)).all()
    assert repr(eq.FAMO(floors=[1.0])) == "FAMO(lr=0.025, weight_decay=0.01, floors=[1.0])"
