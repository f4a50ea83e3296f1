"""Methods for domains of a language model: CoBa, DoReMi and DoGE against their equations and their released codes' numbers."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.balance import Observation
from tests.problems import batch, losses, optimizer_of
from tests.states import assert_same_state

TASKS = ("a", "b", "c")


def seen(values: list[float], present: tuple[int, ...] = (0, 1, 2)) -> Observation:
    return Observation(TASKS, present, torch.tensor(values, dtype=torch.float64))


# -- CoBa

# compute_per_task_weight in MFTCoder's loss_utils.py, looks 4 to 12: window 6, warm-up 4, tau 5, losses relative to the first.
RELEASED_COBA = [
    [0.1121892135489573, 0.28235879244899365, 0.6054519940020491],
    [0.15321012288140692, 0.33494735941037684, 0.5118425177082163],
    [0.38387484344721806, 0.41682515782366547, 0.19929999872911636],
    [0.4415409910116644, 0.4193994997117575, 0.139059509276578],
    [0.34669663303375176, 0.5280758946203925, 0.1252274723458557],
    [0.27868853042742414, 0.60162261470288, 0.11968885486969567],
    [0.26666650646423656, 0.5846899070507344, 0.148643586485029],
    [0.24967122360131233, 0.3207585835375417, 0.4295701928611459],
    [0.07932304961252591, 0.07931871942802658, 0.8413582309594275],
]


def validation(step: int) -> list[float]:
    """One task converges fast, one slowly, one diverges; none without noise."""
    wiggle = ((-1) ** step, math.cos(step), math.sin(step))
    trends = (math.exp(-0.3 * step), 1 - 0.02 * step, 0.6 + 0.02 * step)
    return [trend + 0.02 * noise for trend, noise in zip(trends, wiggle, strict=True)]


def softmax(values: list[float]) -> list[float]:
    total = sum(math.exp(value) for value in values)
    return [math.exp(value) / total for value in values]


def test_coba_as_released() -> None:
    balancer = eq.CoBa(window=6, warmup=4, formulation="released")
    for step in range(1, 13):
        balancer.validated(validation(step))
        expected = RELEASED_COBA[step - 4] if step >= 4 else [1 / 3] * 3
        assert balancer.decide(seen([1, 1, 1])).tolist() == pytest.approx(expected, rel=1e-9)


def test_coba_by_its_equations() -> None:
    """Slopes by polynomial fits, softmaxes by hand; the loss of one task is in other units."""
    balancer = eq.CoBa(window=5, warmup=3, tau=2.0)
    rows, slopes, factors = [], [], []
    for step in range(1, 11):
        rows.append(validation(step))
        balancer.validated({"c": rows[-1][2], "a": rows[-1][0], "b": 100 * rows[-1][1]})
        if step < 3:
            continue
        ratios = torch.tensor(rows, dtype=torch.float64)[-5:] / torch.tensor(rows[0], dtype=torch.float64)
        design = torch.stack([torch.arange(len(ratios)).double(), torch.ones(len(ratios)).double()], 1)
        slopes.append(torch.linalg.lstsq(design, ratios).solution[0].tolist())
        now, last, t = slopes[-1], slopes[-5:], len(slopes)
        rcs = softmax([3 * own / sum(map(abs, now)) for own in now])
        acs = softmax([-len(last) * now[k] / sum(abs(row[k]) for row in last) for k in range(3)])
        top = [max(row) for row in slopes]
        factors.append(min(1.0, t * softmax([-2.0 * t * own / sum(map(abs, top)) for own in top])[-1]))
        expected = [factors[-1] * r + (1 - factors[-1]) * a for r, a in zip(rcs, acs, strict=True)]
        assert balancer.decide(seen([1, 1, 1])).tolist() == pytest.approx(expected, rel=1e-9)
        two = balancer.decide(seen([1, 1], (0, 2))).tolist()
        assert two == pytest.approx([expected[0] / (expected[0] + expected[2]), expected[2] / (expected[0] + expected[2])])
    assert min(factors) < 0.9 < max(factors)


def test_coba_looks_at_training_losses_until_it_is_told() -> None:
    told, left = eq.CoBa(window=4, warmup=2), eq.CoBa(window=4, warmup=2)
    for step in range(1, 6):
        told.validated(validation(step))
        left.decide(seen([1, 1, 1]))
        left.update(seen(validation(step)))
        told.update(seen([7.0, 7.0, 7.0]))
        assert left.decide(seen([1, 1, 1])).tolist() == told.decide(seen([1, 1, 1])).tolist()
    before = left.history[-1].tolist()
    left.update(seen([0.5], (1,)))  # the others, which are not there, count as unchanged
    assert left.history[-1].tolist() == [before[0], 0.5 / validation(1)[1], before[2]]
    left.validated([1.0, 1.0, 1.0])
    assert left.decide(seen([1, 1, 1])).tolist() == [1 / 3] * 3


def test_coba_refuses_what_are_no_validation_losses() -> None:
    balancer = eq.CoBa(window=4, warmup=2)
    for values in ({"a": 1.0, "b": 2.0}, {"a": 0.9, "b": 1.9}, {"a": 0.8, "b": 1.7}):
        balancer.validated(values)
    before = copy.deepcopy(balancer.state_dict())
    for wrong, message in (
        ({"a": 1.0}, "expected a, b"),
        ([1.0, math.nan], "must be finite"),
        ([1.0, 1.0, 1.0], "3 validation losses were given; before, there were 2"),
    ):
        with pytest.raises(eq.InputError, match=message):
            balancer.validated(wrong)
    with pytest.raises(eq.InputError, match="were of a, b; the tasks are x, y"):
        balancer.decide(Observation(("x", "y"), (0, 1), torch.ones(2)))
    assert_same_state(balancer.state_dict(), before)
    again = eq.CoBa(window=4, warmup=2)
    again.load_state_dict(before)
    again.validated({"b": 1.5, "a": 0.5})
    balancer.validated([0.5, 1.5])
    assert torch.equal(again.shares, balancer.shares)


# -- DoReMi


def test_doremi_as_released() -> None:
    """update_domain_weights of the released trainer, in float32; the second batch lacks a domain, whose excess stays."""
    balancer = eq.DoReMi(lr=1.0, smoothing=1e-4, reference=[1.0, 0.5, 2.0])
    steps = [
        ([1.5, 2.0, 1.7], (0, 1, 2), [0.2312341034412384, 0.6285021305084229, 0.14026369154453278]),
        ([1.7, 2.2], (0, 2), [0.1348450630903244, 0.8155223727226257, 0.04963243007659912]),
        ([1.1, 0.9, 2.9], (0, 1, 2), [0.10019466280937195, 0.817724347114563, 0.08208099007606506]),
    ]
    for values, present, expected in steps:
        weights = balancer.decide(seen(values, present))
        balancer.update(seen(values, present))
        whole = torch.tensor(expected, dtype=torch.float64)
        torch.testing.assert_close(weights, whole[list(present)] / whole[list(present)].sum(), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(balancer.log_shares.exp(), whole, rtol=1e-6, atol=1e-6)
    mean = torch.tensor([row for *_, row in steps], dtype=torch.float64).mean(0)
    torch.testing.assert_close(balancer.mixture, mean, rtol=1e-6, atol=1e-6)


def test_doremi_evaluates_a_reference_model_on_the_same_batch() -> None:
    balancer = eq.DoReMi()
    mtl = optimizer_of(balancer)
    model = mtl.objective.model
    reference = copy.deepcopy(model)
    with torch.no_grad():
        for own in reference.parameters():
            own.mul_(0.5)
    known = torch.stack(list(losses(reference, batch()).values())).detach()
    here = torch.stack(list(losses(model, batch()).values())).detach()
    balancer.reference = reference
    mtl.step(batch())
    expected = torch.softmax((here - known).clamp(min=0).double(), 0)
    torch.testing.assert_close(balancer.mixture, (1 - 1e-4) * expected + 1e-4 / len(expected))
    with pytest.raises(eq.InputError, match="needs MultiTaskOptimizer"):
        balancer.decide(seen([1.0, 1.0, 1.0]))
    with pytest.raises(eq.InputError, match="reference lacks c"):
        eq.DoReMi(reference={"a": 1.0, "b": 1.0}).decide(seen([1.0, 1.0, 1.0]))


# -- DoGE


def doge_step(shares: Tensor, rows: Tensor, targets: list[int], lr: float, mu: float = 0.01, most: float = 5.0) -> Tensor:
    """The released trainer's update, from gradients."""
    trained = [k for k in range(len(rows)) if k not in targets]
    scores = rows[trained] @ rows[targets or trained].T
    scores = lr * (scores.sum(1) if targets else scores.sum(1) - scores.diag()) / (rows[trained].norm(dim=1).mean() + 1e-6)
    return torch.softmax(shares.log() + scores.clamp(0.0, lr * most) / mu, 0)


@pytest.mark.parametrize("target", [None, "b"])
def test_doge_follows_its_update(target: str | None) -> None:
    balancer = eq.DoGE(lr=0.005, targets=target)
    trained = [k for k in range(3) if TASKS[k] != target]
    shares, sums = torch.full((len(trained),), 1 / len(trained), dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for step in range(5):
        rows = torch.randn(3, 6, generator=torch.Generator().manual_seed(step), dtype=torch.float64) + 0.5
        shares = doge_step(shares, rows, [] if target is None else [1], 0.005)
        observation = Observation(TASKS, (0, 1, 2), gramian=rows @ rows.T)
        weights = balancer.decide(observation)
        balancer.update(observation)
        expected = torch.zeros(3, dtype=torch.float64).index_copy(0, torch.tensor(trained), shares)
        torch.testing.assert_close(weights, expected)
        sums += expected
    torch.testing.assert_close(balancer.mixture, sums / 5)
    assert float(shares.max() - shares.min()) > 0.1
    missing = Observation(TASKS, (0, 1), gramian=torch.ones(2, 2))
    before = balancer.log_shares.exp()
    assert float(balancer.decide(missing).sum()) == pytest.approx(1.0)
    balancer.update(missing)
    assert float(balancer.log_shares[2].exp()) == float(before[2])  # the share of an absent domain waits


def test_doge_takes_the_pace_of_the_optimizer() -> None:
    fast, slow, own = eq.DoGE(lr="model"), eq.DoGE(lr="model"), eq.DoGE(lr=0.05)
    for balancer, lr in ((fast, 0.05), (slow, 0.0), (own, 0.0)):
        optimizer_of(balancer, lr=lr).step(batch())
    assert torch.equal(fast.mixture, own.mixture)
    assert not torch.allclose(fast.mixture, slow.mixture)
    assert float(slow.mixture.std()) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: eq.CoBa(window=1), "window must be a whole number"),
        (lambda: eq.CoBa(tau=-1.0), "tau must be finite"),
        (lambda: eq.CoBa(formulation="code"), 'must be "paper" or "released"'),
        (lambda: eq.DoReMi(lr=-1.0), "lr must be finite"),
        (lambda: eq.DoReMi(smoothing=2.0), "smoothing must lie between 0 and 1"),
        (lambda: eq.DoGE(mu=0.0), "mu must be positive"),
        (lambda: eq.DoGE(lr=math.inf), "lr must be finite"),
        (lambda: eq.DoGE(lr="model").weights(torch.eye(2)), r"balancer\.pace\(optimizer\)"),
        (lambda: eq.DoGE(targets=["d"]).decide(seen([1, 1, 1])), "has none"),
        (lambda: eq.DoGE(targets=["d"]).decide(Observation(TASKS, (0,), gramian=torch.ones(1, 1))), 'a domain "d"'),
        (lambda: eq.DoGE(targets=TASKS).decide(Observation(TASKS, (0,), gramian=torch.ones(1, 1))), "all domains"),
    ],
)
def test_what_domains_refuse(make, message: str) -> None:
    with pytest.raises(eq.InputError, match=message):
        make()


def test_a_mixture_of_domains_is_learned_in_training() -> None:
    """Two domains that agree and one of noise: DoGE weighs the former more, DoReMi those with most to learn."""

    def trained(balancer: eq.balance.Balancer) -> Tensor:
        torch.manual_seed(0)
        model = nn.Linear(4, 1)
        truth = torch.randn(4, 1)

        def domains(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
            error = model(x) - x @ truth
            return {"a": error.square().mean(), "b": (2 * error).square().mean(), "c": (model(x) - noise).square().mean()}

        noise = torch.randn(32, 1)
        mtl = eq.MultiTaskOptimizer(eq.Objective(model, domains), torch.optim.SGD(model.parameters(), 0.02), balancer)
        for _ in range(40):
            mtl.step(torch.randn(32, 4))
        return balancer.mixture

    mixture = trained(eq.DoGE())
    assert mixture[2] < mixture[0]
    assert mixture[2] < mixture[1]
    mixture = trained(eq.DoReMi(lr=0.1, reference={"a": 0.0, "b": 0.0, "c": 10.0}))
    assert mixture[2] < mixture[0] < mixture[1]
