"""Methods that go on with another one's weights (CR-MOGM, PSMGD, MAdam), and PCD, against their formulas."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

import equipoise as eq
from equipoise.balance import Observation
from equipoise.balance.coerce import from_torchjd
from equipoise.solvers import priority_residual, priority_weights
from tests.problems import batch, losses, optimizer_of, parameters_of, same

TASKS = ("a", "b", "c")


def _seen(rows: Tensor, present: tuple[int, ...] = (0, 1, 2)) -> Observation:
    rows = rows[list(present)]
    return Observation(TASKS, present, torch.ones(len(rows)), rows @ rows.T, rows)


def _rows(count: int, seed: int = 0, columns: int = 5) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(3, columns, generator=generator, dtype=torch.float64) for _ in range(count)]


def test_cr_mogm_averages_weights_as_torchjd_does() -> None:
    from torchjd import aggregation

    theirs = aggregation.CRMOGMWeighting(aggregation.UPGradWeighting(), alpha=0.7)
    ours = eq.CRMOGM(from_torchjd(aggregation.UPGradWeighting()), alpha=0.7)  # type: ignore[arg-type]
    for rows in [*_rows(3), torch.zeros(3, 5).double(), 1e10 * _rows(1)[0]]:
        seen = _seen(rows)
        assert seen.gramian is not None
        torch.testing.assert_close(ours.decide(seen), theirs(seen.gramian), rtol=1e-12, atol=0.0)
        ours.update(seen)


def test_cr_mogm_with_batches_that_lack_tasks() -> None:
    balancer, inner, average = eq.CRMOGM("upgrad", alpha=0.5), eq.UPGrad(), dict.fromkeys(range(3))
    for rows, present in zip(_rows(4), [(0, 1), (1, 2), (0, 2), (0, 1, 2)], strict=True):
        fresh = inner.decide(_seen(rows, present)).tolist()
        for place, weight in zip(present, fresh, strict=True):
            before: Any = average[place]
            average[place] = weight if before is None else 0.5 * before + 0.5 * weight  # type: ignore[assignment]
        assert balancer.decide(_seen(rows, present)).tolist() == pytest.approx([average[place] for place in present])
        balancer.update(_seen(rows, present))


def test_psmgd_keeps_the_weights_of_every_other_step() -> None:
    mtl, seen = optimizer_of("psmgd:every=2"), []
    for step in range(4):
        mtl.step(batch(seed=step))
        assert mtl.last is not None
        assert (mtl.last.gramian is None) == (step % 2 == 1)
        if mtl.last.gramian is not None:
            seen.append(eq.MGDA().weights(mtl.last.gramian))
        torch.testing.assert_close(mtl.last.weights, seen[-1].clamp(min=1e-6 * float(seen[-1].max())))


def test_psmgd_leaves_heads_of_weight_zero_their_own_gradient() -> None:
    mtl = optimizer_of(eq.PSMGD(every=2), lr=0.0)
    mtl.step(batch())
    mtl.balancer.kept = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)  # type: ignore[attr-defined]
    mtl.step(batch())
    model: Any = mtl.objective.model
    for head, loss in zip(model.heads, losses(model, batch()).values(), strict=True):
        (expected,) = torch.autograd.grad(loss, [head.weight], retain_graph=True)
        torch.testing.assert_close(head.weight.grad, expected)


def test_madam_divides_by_the_squares_that_its_weights_would_have_had() -> None:
    balancer, past = eq.MAdam("upgrad", beta=0.9), []
    for rows in _rows(4):
        past.append(rows)
        weights = eq.UPGrad().weights(rows @ rows.T)
        shares = [0.9 ** (len(past) - 1 - step) * (1 - 0.9) / (1 - 0.9 ** len(past)) for step in range(len(past))]
        square = sum(share * (weights @ one) ** 2 for share, one in zip(shares, past, strict=True))
        expected = (weights @ rows) / (square.sqrt() + 1e-8)  # type: ignore[union-attr]
        torch.testing.assert_close(balancer.decide(_seen(rows)), expected, rtol=1e-10, atol=0.0)
        balancer.update(_seen(rows))


def test_madam_with_batches_that_lack_tasks_counts_each_pair_for_itself() -> None:
    balancer = eq.MAdam("upgrad", beta=0.5)
    first, second = _rows(2)
    balancer.decide(_seen(first, (0, 2)))
    balancer.update(_seen(first, (0, 2)))
    weights = eq.UPGrad().weights(second @ second.T)
    past, now = torch.zeros(2, 5, dtype=torch.float64)
    for i in range(3):
        for j in range(3):
            share = weights[i] * weights[j] / 3
            both = 1 not in (i, j)
            past += share * first[i] * first[j] if both else 0.0
            now += share * (2.0 if both else 3.0) * second[i] * second[j]
    square = torch.maximum(past + now, now.clamp(min=0))  # less than the present alone is left where terms do not fit together
    assert (past > 0).any()
    found = balancer.decide(_seen(second))
    torch.testing.assert_close(found, (weights @ second) / (square.sqrt() + 1e-8), rtol=1e-9, atol=0.0)


@pytest.mark.parametrize(
    "method",
    [
        "cr-mogm:balancer=cagrad,alpha=0.5",
        "psmgd:every=3,balancer=cr-mogm(balancer=gradnorm)",
        "madam:balancer=cr-mogm(balancer=fairgrad)",
        "pcd",
    ],
)
def test_training_stopped_and_resumed_is_the_same_to_the_bit(method: str) -> None:
    whole = optimizer_of(method, make=torch.optim.Adam)
    for step in range(4):
        whole.step(batch(seed=step))
    again = optimizer_of(method, make=torch.optim.Adam)
    again.load_state_dict(copy.deepcopy(whole.state_dict()))
    for step in (4, 5):
        whole.step(batch(seed=step))
        again.step(batch(seed=step))
    assert same(parameters_of(whole.objective.model), parameters_of(again.objective.model))


def test_what_wraps_takes_the_metric_with_it_and_refuses_what_does_more_than_weigh() -> None:
    assert eq.CRMOGM(eq.balancer("fairgrad:metric=optimizer")).metric == "optimizer"  # type: ignore[arg-type]
    assert eq.balancer("psmgd:metric=optimizer").metric == "optimizer"  # type: ignore[attr-defined]
    for name in ("cr-mogm", "psmgd", "madam"):
        for inner in ("famo", "consmtl", "modo"):
            with pytest.raises(eq.InputError, match="looks at the Gramian alone"):
                eq.balancer(name, balancer=inner)
    eq.PSMGD(balancer="nash-mtl"), eq.MAdam("cr-mogm:balancer=nash-mtl")
    for keeping in (eq.NashMTL(update_every=2), eq.CRMOGM(eq.PSMGD(every=2))):
        for wrapper in (eq.PSMGD, eq.MAdam):
            with pytest.raises(eq.InputError, match="balancer must decide in every step"):
                wrapper(balancer=keeping)
    with pytest.raises(eq.InputError, match="plain inner products"):
        eq.balancer("madam:balancer=mgda(metric=optimizer)")
    with pytest.raises(eq.InputError, match="all of kept, known or none"):
        eq.CRMOGM().load_state_dict({"kept": torch.ones(3).double(), "known": None, "balancer": {}})


@pytest.mark.parametrize("tau", [0.0, 0.02, 0.5])
def test_pcd_of_two_tasks_has_the_closed_form_of_its_page(tau: float) -> None:
    for rows in _rows(6):
        pair = rows[:2] / rows[:2].norm(dim=1, keepdim=True)
        overlap = float(pair[0] @ pair[1])
        direction = pair[0] + max(tau - overlap, 0.0) * pair[1]
        expected = float(rows[0].norm()) * direction / direction.norm()
        weights = eq.PCD(tau=tau, epsilon=0.0).weights(rows[:2] @ rows[:2].T)
        torch.testing.assert_close(weights @ rows[:2], expected, rtol=1e-9, atol=1e-12)


def test_pcd_gives_every_other_task_its_share_or_follows_the_primary_alone() -> None:
    for rows in _rows(20, seed=3, columns=6):
        gramian = (rows @ rows.T).numpy()
        weights = priority_weights(gramian, [0.1, 0.3, 0.0], primary=1)
        assert priority_residual(gramian, [0.1, 0.3, 0.0], weights, primary=1) < 1e-9
        gains = gramian @ weights
        assert gains[0] >= 0.1 * gramian[0, 0] * (1 - 1e-9)
        assert gains[2] >= -1e-9 * gramian[2, 2]
    opposed = torch.tensor([[1.0, 0.5], [0.0, 1.0], [0.0, -1.0]], dtype=torch.float64)
    assert eq.PCD(tau=0.1).weights(opposed @ opposed.T).tolist() == [1.0, 0.0, 0.0]
    assert eq.PCD().weights(torch.zeros(3, 3)).tolist() == [0.0, 0.0, 0.0]


def test_pcd_serves_nearly_opposed_tasks_among_equal_ones() -> None:
    """A singular programme, whose ridge alone would keep the multipliers from being as large as they have to be."""
    rows = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows[3] = rows[2]
    rows[5] = -rows[4] + 1e-3 * rows[1]
    gramian = (rows @ rows.T).numpy()
    weights = priority_weights(gramian, [0.5] * 6)
    assert weights[4] > 1e4
    assert priority_residual(gramian, [0.5] * 6, weights) < 1e-9
    assert (gramian @ weights - 0.5 * gramian.diagonal())[1:].min() > -1e-6 * gramian.diagonal().max()


def test_pcd_by_name_and_in_batches_that_lack_tasks() -> None:
    rows, other = _rows(2)
    order = [1, 0, 2]
    named, first = eq.PCD(primary="b"), eq.PCD()
    for now in (rows, other):
        here = named.decide(_seen(now))
        there = first.decide(_seen(now[order]))
        torch.testing.assert_close(here[order], there)
        named.update(_seen(now))
        first.update(_seen(now[order]))
    assert named.decide(_seen(rows, (0, 2))).tolist() == [0.0, 0.0]
    for options, message in (
        ({"primary": "d"}, 'a task "d"'),
        ({"primary": 3}, "task 3.* of 3"),
        ({"tau": [0.1]}, "1 numbers"),
    ):
        with pytest.raises(eq.InputError, match=message):
            eq.PCD(**options).decide(_seen(rows))  # type: ignore[arg-type]
