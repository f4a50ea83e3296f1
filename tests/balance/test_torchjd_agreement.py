"""Every method that TorchJD has, too: the same direction up to conventions of length, and each deliberate difference.

Directions are compared in double precision on random, wide, low-rank, duplicated, opposed and badly scaled gradients. What is
left out of a method's comparison is in its entry, with the reason, and below there is a test that shows the difference.

Of TorchJD 0.18's aggregators Constant alone has no counterpart here of its own: it is ``ls`` with weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor
from torchjd import aggregation
from torchjd.linalg import QuadprogProjector

import equipoise as eq
from equipoise import solvers
from equipoise.balance import Observation
from equipoise.balance.double_sampling import CrossObservation

EXACT = QuadprogProjector(norm_eps=0.0, reg_eps=0.0)
FAINT = QuadprogProjector(norm_eps=0.0, reg_eps=1e-9)


def _matrices() -> dict[str, Tensor]:
    rng = np.random.default_rng(11)
    normal = rng.standard_normal
    pair, five = normal((2, 7)), normal((5, 12))
    low = normal((6, 3)) @ normal((3, 10))
    copied = five.copy()
    copied[3] = copied[0]
    opposed = five.copy()
    opposed[1] = -opposed[0]
    clashing = five - 0.9 * five.mean(0)
    found = {
        "pair": pair,
        "conflicting pair": np.array([[1.0, 0.2, 0.0], [-2.0, 1.0, 0.5]]),
        "five": five,
        "five that conflict": clashing,
        "many": normal((12, 40)) + 0.3 * normal(40),
        "low rank": low,
        "duplicated": copied,
        "opposed": opposed,
        "scales over 100": five * 10.0 ** np.array([[-1.0], [0.0], [1.0], [0.5], [-0.5]]),
        "scales over 1e6": clashing * 10.0 ** np.array([[-3.0], [3.0], [0.0], [2.0], [-2.0]]),
        "one": normal((1, 4)),
    }
    return {name: torch.from_numpy(matrix) for name, matrix in found.items()}


MATRICES = _matrices()
RANK_DEFICIENT = ("low rank", "duplicated", "opposed")


@dataclass(frozen=True)
class Agreement:
    """A method of both libraries.

    Attributes:
        ours: the balancer.
        theirs: the aggregator for a number of tasks.
        factor: what our direction is multiplied with to follow their convention, from the number of tasks.
        tolerance: of the difference, relative to the terms that the direction is summed from.
        without: names of the matrices that are not compared, with the reason.
    """

    ours: Callable[[], eq.balance.Balancer]
    theirs: Callable[[int], Callable[[Tensor], Tensor]]
    factor: Callable[[int], float] = lambda tasks: 1.0
    tolerance: float = 1e-9
    without: dict[str, str] = field(default_factory=dict)


def _all(names: tuple[str, ...], reason: str) -> dict[str, str]:
    return dict.fromkeys(names, reason)


_RANDOM_ORDER = "for K > 2 the result depends on a random order, and each library draws its own"
_MORE_THAN_TWO = tuple(name for name, g in MATRICES.items() if len(g) > 2)

_FEWER_THAN_FOUR = tuple(name for name, g in MATRICES.items() if len(g) < 4)
_FEWER_THAN_THREE = tuple(name for name, g in MATRICES.items() if len(g) < 3)


class _Numbered(eq.LS):
    """Weighs the tasks by 1, 2, …"""

    def weights(self, losses: Tensor) -> Tensor:
        return eq.LS(list(range(1, len(losses) + 1))).weights(losses)


AGREEMENTS = {
    "ls is Sum": Agreement(eq.LS, lambda k: aggregation.Sum()),
    "ls with weights is Constant": Agreement(_Numbered, lambda k: aggregation.Constant(torch.arange(1.0, k + 1).double())),
    "ls is Mean, up to K": Agreement(eq.LS, lambda k: aggregation.Mean(), lambda k: 1 / k),
    # Frank-Wolfe is run to its end here, as far as that goes: it converges like 1/steps and stops moving.
    "mgda": Agreement(
        eq.MGDA,
        lambda k: aggregation.MGDA(epsilon=1e-12, max_iters=3000),
        tolerance=5e-3,
        without=_all(("opposed", "scales over 1e6"), "Frank-Wolfe has not converged: see below"),
    ),
    "pcd": Agreement(lambda: eq.PCD(tau=0.1), lambda k: aggregation.PCD(tau=0.1)),
    "pcgrad": Agreement(eq.PCGrad, lambda k: aggregation.PCGrad(), without=_all(_MORE_THAN_TWO, _RANDOM_ORDER)),
    "gradvac": Agreement(
        lambda: eq.GradVac(beta=0.5), lambda k: aggregation.GradVac(eps=0.0), without=_all(_MORE_THAN_TWO, _RANDOM_ORDER)
    ),
    "cagrad": Agreement(
        lambda: eq.CAGrad(c=0.4),
        lambda k: aggregation.CAGrad(c=0.4, norm_eps=0.0),
        tolerance=1e-4,
        without={"scales over 1e6": "an interior-point solver stops at 1e-8 of the *largest* numbers: see below"},
    ),
    "imtl-g": Agreement(
        eq.IMTLG,
        lambda k: aggregation.IMTLG(),
        without=_all(
            ("low rank", "opposed"), "no direction but 0 has equal projections; theirs is a least-squares one: see below"
        )
        | {"duplicated": "equal to the ridge only: see below", "scales over 1e6": "pinv cuts small gradients off: see below"},
    ),
    "nash-mtl": Agreement(
        eq.NashMTL,
        lambda k: aggregation.NashMTL(n_tasks=k, max_norm=0.0),
        tolerance=2e-3,
        without=_all(("low rank", "opposed"), "no solution exists where gradients cancel, or theirs stops early")
        | _all(("scales over 100", "scales over 1e6"), "their convex programmes fail: see below")
        | {"one": "their programme cannot be stated for one task"},
    ),
    "fairgrad": Agreement(
        lambda: eq.FairGrad(alpha=1.0),
        lambda k: aggregation.FairGrad(alpha=1.0),
        tolerance=1e-4,
        without=_all(("opposed", "low rank"), "no solution exists where gradients cancel, or least squares stops early")
        | {"scales over 1e6": "least squares stops early: see below"},
    ),
    "aligned-mtl": Agreement(
        eq.AlignedMTL,
        lambda k: aggregation.AlignedMTL(),
        without={"scales over 1e6": "components below 1e-5 of the largest are left out here: see below"},
    ),
    "aligned-mtl, median": Agreement(
        lambda: eq.AlignedMTL(scale="median"),
        lambda k: aggregation.AlignedMTL(scale_mode="median"),
        without={"scales over 1e6": "as for min"},
    ),
    "aligned-mtl, rmse": Agreement(
        lambda: eq.AlignedMTL(scale="rmse"),
        lambda k: aggregation.AlignedMTL(scale_mode="rmse"),
        without={"scales over 1e6": "as for min"},
    ),
    "upgrad": Agreement(
        eq.UPGrad,
        lambda k: aggregation.UPGrad(projector=EXACT),
        without=_all(RANK_DEFICIENT, "quadprog takes positive definite matrices only: see the next entry"),
    ),
    "upgrad, faintly regularised": Agreement(
        eq.UPGrad,
        lambda k: aggregation.UPGrad(projector=FAINT),
        tolerance=1e-4,
        without={"scales over 1e6": "even 1e-9 of the trace is more than the small gradients: see below"},
    ),
    "dualproj": Agreement(
        eq.DualProj,
        lambda k: aggregation.DualProj(projector=EXACT),
        without=_all(RANK_DEFICIENT, "quadprog takes positive definite matrices only: see the next entry"),
    ),
    "dualproj, faintly regularised": Agreement(
        eq.DualProj,
        lambda k: aggregation.DualProj(projector=FAINT),
        tolerance=1e-4,
        without={"scales over 1e6": "even 1e-9 of the trace is more than the small gradients: see below"},
    ),
    "config": Agreement(eq.ConFIG, lambda k: aggregation.ConFIG(), tolerance=1e-7),
    "krum": Agreement(
        lambda: eq.Krum(1, squared=False), lambda k: aggregation.Krum(1), without=_all(_FEWER_THAN_FOUR, "they refuse fewer")
    ),
    "krum, several selected": Agreement(
        lambda: eq.Krum(1, 3, squared=False),
        lambda k: aggregation.Krum(1, 3),
        without=_all(_FEWER_THAN_FOUR, "they refuse fewer"),
    ),
    "trimmed-mean": Agreement(
        eq.TrimmedMean, lambda k: aggregation.TrimmedMean(1), without=_all(_FEWER_THAN_THREE, "they refuse fewer")
    ),
}


def direction_of(balancer: eq.balance.Balancer, g: Tensor) -> tuple[Tensor, float]:
    """Our direction, and the size of the terms that it is summed from."""
    if isinstance(balancer, eq.balance.GradientBalancer):
        return balancer.direction(g), float(g.norm())
    if isinstance(balancer, eq.balance.LossBalancer):
        weights = balancer.weights(torch.ones(len(g), dtype=g.dtype))
    else:
        assert isinstance(balancer, eq.balance.GramianBalancer)
        weights = balancer.weights(g @ g.T)
    return weights @ g, float((weights.abs() * g.norm(dim=1)).sum())


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("name", AGREEMENTS)
def test_agreement(name: str, matrix: str) -> None:
    entry, g = AGREEMENTS[name], MATRICES[matrix]
    if matrix in entry.without:
        pytest.skip(entry.without[matrix])
    ours, size = direction_of(entry.ours(), g)
    theirs = entry.theirs(len(g))(g)
    assert float(theirs.norm()) > 0 or float(ours.norm()) <= 1e-6 * size
    factor = entry.factor(len(g))
    assert float((factor * ours - theirs).norm()) <= entry.tolerance * factor * size


@pytest.mark.parametrize("tasks", [3, 6])
def test_krum_of_equal_scores_does_not_depend_on_the_order_here(tasks: int) -> None:
    """Of three gradients the nearest two score the same, and they take the first. Squares may choose another than distances."""
    g = MATRICES["five"][:3] if tasks == 3 else torch.cat([torch.eye(3), -torch.eye(3)]).double()
    theirs = aggregation.KrumWeighting(0)(g @ g.T)
    assert sorted(theirs.tolist())[-1] == 1.0
    ours = eq.Krum(0, squared=False).weights(g @ g.T)
    assert ours.max() == (0.5 if tasks == 3 else pytest.approx(1 / 6))
    assert ours[theirs.argmax()] > 0
    far = torch.tensor([[-0.7, -0.1], [0.8, 1.5], [-1.3, 1.5], [1.3, 0.8], [0.3, -0.3], [1.5, 2.0]], dtype=torch.float64)
    assert eq.Krum(0).weights(far @ far.T).argmax() != eq.Krum(0, squared=False).weights(far @ far.T).argmax()


# -- methods with randomness: the same distribution


def test_random_weights_have_one_distribution() -> None:
    torch.manual_seed(0)
    theirs = torch.stack([aggregation.Random()(torch.eye(3)) for _ in range(4000)]).sort(0).values
    balancer = eq.RLW(seed=1)
    ours = torch.stack([balancer.weights(torch.ones(3)) for _ in range(4000)]).sort(0).values
    assert float((ours - theirs).abs().mean()) < 0.01
    # What other than standard normals would give.
    other = torch.softmax(1.3 * torch.randn(4000, 3), 1).sort(0).values
    assert float((other - theirs).abs().mean()) > 0.02


def test_sign_dropout_has_one_distribution() -> None:
    g = torch.tensor([[1.0, -2.0, 3.0, 0.5], [-0.5, 1.0, 3.0, -2.0], [2.0, -1.0, 1.0, 0.0]])
    for leak in (None, [0.0, 0.5, 1.0]):
        aggregator = aggregation.GradDrop(leak=None if leak is None else torch.tensor(leak))
        balancer = eq.GradDrop(leak=0.0 if leak is None else leak, seed=5)
        torch.manual_seed(3)
        theirs = torch.stack([aggregator(g) for _ in range(6000)])
        ours = torch.stack([balancer.direction(g) for _ in range(6000)])
        for entry in range(g.shape[1]):
            here, counts = ours[:, entry].mul(1e4).round().unique(return_counts=True)
            there, others = theirs[:, entry].mul(1e4).round().unique(return_counts=True)
            assert torch.equal(here, there), "the values that can come out are the same"
            assert float((counts - others).abs().max()) / 6000 < 0.04


def test_sign_dropout_with_equal_signs_is_the_sum_in_both() -> None:
    g = torch.tensor([[1.0, -2.0, 0.0], [3.0, -1.0, 0.0]])
    assert torch.equal(eq.GradDrop().direction(g[:, :2]), aggregation.GradDrop()(g[:, :2]))
    assert torch.equal(eq.GradDrop().direction(g), g.sum(0))


def test_gradient_surgery_of_three_has_one_set_of_answers() -> None:
    """All orders of three tasks: 2 a task, so 8 answers; both libraries give nothing else, and all of them."""
    g = MATRICES["five that conflict"][:3] - 0.8 * MATRICES["five that conflict"][:3].mean(0)
    gramian = g @ g.T
    torch.manual_seed(0)
    weighting, balancer = aggregation.PCGradWeighting(), eq.PCGrad(seed=0)
    ours = {tuple(balancer.weights(gramian).mul(1e6).round().tolist()) for _ in range(200)}
    theirs = {tuple(weighting(gramian).mul(1e6).round().tolist()) for _ in range(200)}
    assert ours == theirs
    assert len(ours) > 1


def test_gradient_vaccine_keeps_the_same_averages() -> None:
    """Two tasks have no order to draw, so all steps can be compared, with the averages that they go through."""
    rng = np.random.default_rng(3)
    ours, theirs = eq.GradVac(beta=0.5), aggregation.GradVac(beta=0.5, eps=0.0)
    lifted = 0
    for step in range(20):
        g = torch.from_numpy(rng.standard_normal((2, 6)) + 0.7)
        observation = Observation(("a", "b"), (0, 1), gramian=g @ g.T, step=step)
        mine = ours.decide(observation) @ g
        ours.update(observation)
        assert torch.allclose(mine, theirs(g), rtol=1e-9)
        lifted += not torch.allclose(mine, g.sum(0))
    assert lifted > 3


@pytest.mark.parametrize("matrix", ["five that conflict", "many", "low rank", "duplicated", "scales over 1e6"])
def test_surgery_and_vaccine_in_the_same_orders_are_the_same(matrix: str) -> None:
    """TorchJD draws from torch's global generator; the orders that it will draw are drawn before, from the same seed."""
    g = MATRICES[matrix] - 0.5 * MATRICES[matrix].mean(0)
    gramian, tasks = g @ g.T, len(g)
    vaccine, averages = aggregation.GradVacWeighting(beta=0.5, eps=0.0), np.zeros((tasks, tasks))
    for step in range(4):
        others = [[other for other in range(tasks) if other != task] for task in range(tasks)]
        torch.manual_seed(step)
        orders = [[other for other in torch.randperm(tasks).tolist() if other != task] for task in range(tasks)]
        torch.manual_seed(step)
        theirs = aggregation.PCGradWeighting()(gramian)
        assert _near(solvers.project_conflicts(gramian.numpy(), orders), theirs, g)
        torch.manual_seed(step)
        orders = [[row[place] for place in torch.randperm(tasks - 1).tolist()] for row in others]
        torch.manual_seed(step)
        theirs = vaccine(gramian)
        ours, met = solvers.vaccinate(gramian.numpy(), orders, averages)
        assert _near(ours, theirs, g)
        assert not _near(np.ones(tasks), theirs, g)
        averages = np.where(np.isnan(met), averages, 0.5 * averages + 0.5 * met)


def _near(ours: np.ndarray, theirs: Tensor, g: Tensor) -> bool:
    lengths = g.norm(dim=1)
    return float(((torch.from_numpy(ours) - theirs) @ g).norm()) <= 1e-6 * float((theirs.abs() * lengths).sum())


# -- methods with a memory: step by step


def _draws(tasks: int, steps: int, *, scale: float = 1.0) -> list[tuple[Tensor, Tensor]]:
    """Task gradients on two independent batches, for each step."""
    generator = torch.Generator().manual_seed(tasks)
    mean = torch.randn(tasks, 12, dtype=torch.float64, generator=generator)
    noises = torch.randn(steps, 2, *mean.shape, dtype=torch.float64, generator=generator)
    return [(scale * (mean + first), scale * (mean + second)) for first, second in noises]


def _crossed(balancer: eq.balance.Balancer, first: Tensor, second: Tensor) -> Tensor:
    """The weights after a step on two further batches."""
    tasks = tuple(range(len(first)))
    names = tuple(f"t{k}" for k in tasks)
    return balancer.decide(CrossObservation(names, tasks, gramian=first @ first.T, cross=first @ second.T, crossed=tasks))


@pytest.mark.parametrize("rho", [0.0, 0.1])
@pytest.mark.parametrize("tasks", [2, 5, 12])
def test_modo_takes_the_same_steps(tasks: int, rho: float) -> None:
    ours, theirs = eq.MoDo(gamma=0.02, rho=rho), aggregation.MoDoWeighting(gamma=0.02, rho=rho)
    for first, second in _draws(tasks, 30):
        weights = _crossed(ours, first, second)
        assert torch.allclose(weights, theirs(first @ second.T), rtol=0, atol=1e-13)
    assert float(weights.std()) > 0.02


@pytest.mark.parametrize("tasks", [2, 5, 12])
def test_sdmgrad_takes_the_same_steps(tasks: int) -> None:
    """With small inner steps: see below. Next to these gradients, what TorchJD adds to the squared norm, 1e-8, is nothing."""
    ours, theirs = eq.SDMGrad(lr=0.1), aggregation.SDMGradWeighting(lr=0.1)
    for first, second in _draws(tasks, 30, scale=1e4):
        weights = _crossed(ours, first, second)
        assert torch.allclose(weights, theirs(first @ second.T), rtol=0, atol=1e-12)
    assert float(weights.std()) > 0.02


@pytest.mark.parametrize("tasks", [2, 5])
def test_excess_mtl_takes_the_same_steps(tasks: int) -> None:
    """With a warm-up of one step: then TorchJD's scale of a task is the estimate of the first step, too, which moves nothing.

    What TorchJD adds to that scale, 1e-7, is nothing to gradients of this size. Its weights add up to 1, ours to K.
    """
    ours, theirs = eq.ExcessMTL(lr=0.3), aggregation.ExcessMTL(robust_step_size=0.3, n_warmup_steps=1)
    spread = 10.0 ** torch.linspace(4, 6, tasks, dtype=torch.float64)[:, None]
    for step, (g, _) in enumerate(_draws(tasks, 12)):
        observation = Observation(tuple(f"t{k}" for k in range(tasks)), tuple(range(tasks)), gradients=spread * g, step=step)
        direction = ours.decide(observation)
        ours.update(observation)
        assert torch.allclose(direction, tasks * theirs(spread * g), rtol=1e-10)
    assert ours.task_weights is not None
    assert float(ours.task_weights.std()) > 0.1


# -- deliberate differences


def test_difference_sdmgrad_at_its_default_steps_amplifies_rounding() -> None:
    """Steps of 5 with a momentum of 0.5 overshoot: what differs by rounding has grown a thousandfold after 30 × 20 of them.

    So TorchJD and we agree to 1e-8, not to rounding, at the same steps; and the 1e-8 that TorchJD adds to the squared norm
    shows for gradients of size 1. TorchJD's own default is 10, ours that of LibMTL, 5.
    """
    ours, theirs, other = eq.SDMGrad(), aggregation.SDMGradWeighting(lr=5.0), aggregation.SDMGradWeighting(lr=5.0)
    moved, large, small = eq.SDMGrad(), [], []
    grown = 0.0
    for first, second in _draws(12, 30):
        weights = _crossed(ours, first, second)
        large.append(float((weights - theirs(1e8 * (first @ second.T))).abs().max()))
        small.append(float((weights - other(first @ second.T)).abs().max()))
        nudged = first * (1 + 1e-12 * torch.linspace(-1, 1, 12, dtype=torch.float64))[:, None]
        grown = max(grown, float((weights - _crossed(moved, nudged, second)).abs().max()))
    assert max(large) < 1e-8
    assert 1e-8 < max(small) < 1e-2
    assert grown > 1e-9, "a thousandfold and more"


def test_difference_sdmgrad_of_small_gradients() -> None:
    """The 1e-8 that TorchJD adds stops small gradients from moving the weights; here the size of gradients does not matter."""
    draws = _draws(5, 10)
    ours, same, theirs = eq.SDMGrad(lr=0.1), eq.SDMGrad(lr=0.1), aggregation.SDMGradWeighting(lr=0.1)
    for first, second in draws:
        weights = _crossed(ours, first, second)
        assert torch.allclose(weights, _crossed(same, 1e-6 * first, 1e-6 * second), rtol=0, atol=1e-9)
        there = theirs(1e-12 * (first @ second.T))
    assert float(weights.std()) > 0.02
    assert float(there.std()) < 0.1 * float(weights.std())


def test_difference_sdmgrad_without_a_positive_product_on_the_diagonal() -> None:
    """Noise may leave none. TorchJD then divides by 1e-8, so the weights jump; here by the largest product."""
    cross = torch.tensor([[-1.0, -0.2], [-0.4, -1.5]], dtype=torch.float64)
    theirs = aggregation.SDMGradWeighting(lr=0.01, n_iter=1)(cross)
    ours = eq.SDMGrad(lr=0.01, steps=1)
    weights = ours.decide(CrossObservation(("a", "b"), (0, 1), gramian=torch.eye(2), cross=cross, crossed=(0, 1)))
    assert float(theirs.max()) > 0.88, "all the weight that a task can have"
    assert float((weights - 0.5).abs().max()) < 0.01


def test_difference_excess_mtl_begins_with_equal_weights() -> None:
    """Without a warm-up TorchJD moves the first weights by unscaled estimates, in which loud losses win; released code and we
    do not. Defaults differ, too: TorchJD's step is 1, ours that of released code, 0.01.
    """
    g = MATRICES["pair"] * torch.tensor([[1.0], [100.0]], dtype=torch.float64)
    theirs = aggregation.ExcessMTLWeighting()(g)
    assert float(theirs[1]) > 0.99
    assert torch.allclose(eq.ExcessMTL(lr=1.0).direction(g), g.sum(0))
    assert eq.ExcessMTL().lr == 0.01


def test_difference_excess_mtl_of_a_task_without_gradients_at_first() -> None:
    """TorchJD divides by 1e-7 then, so that this task takes all the weight; here its scale is the first estimate above 0."""
    ours, theirs = eq.ExcessMTL(lr=1.0), aggregation.ExcessMTLWeighting(n_warmup_steps=1)
    silent = MATRICES["pair"] * torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    for step, g in enumerate([silent, MATRICES["pair"], MATRICES["pair"]]):
        observation = Observation(("a", "b"), (0, 1), gradients=g, step=step)
        ours.decide(observation)
        ours.update(observation)
        there = theirs(g)
    assert ours.task_weights is not None
    assert float(there[0]) > 0.999
    assert 0.2 < float(ours.task_weights[0]) < 1.8


def test_difference_mgda_is_exact() -> None:
    """TorchJD: Frank-Wolfe, at most 100 steps, until a step is below 1e-3. Here: an active-set method."""
    worst = 0.0
    for name in ("five that conflict", "scales over 1e6", "opposed", "low rank"):
        gramian = (MATRICES[name] @ MATRICES[name].T).numpy()
        theirs = aggregation.MGDAWeighting()(torch.from_numpy(gramian)).numpy()
        ours = solvers.minimum_norm_point(gramian)
        assert solvers.minimum_norm_residual(gramian, ours) < 1e-10
        assert ours @ gramian @ ours <= theirs @ gramian @ theirs * (1 + 1e-9)
        worst = max(worst, solvers.minimum_norm_residual(gramian, theirs))
    assert worst > 1e-4


def test_difference_cagrad_is_accurate_for_small_gradients() -> None:
    """TorchJD divides by the trace and hands over to an interior-point solver; norm_eps makes small gradients stop."""
    g = MATRICES["scales over 1e6"]
    gramian = (g @ g.T).numpy()
    extra = aggregation.CAGradWeighting(c=0.4, norm_eps=0.0)(torch.from_numpy(gramian)).numpy() - 1 / len(g)
    theirs = solvers.conflict_averse_residual(gramian, 0.4, extra / extra.sum())
    assert solvers.conflict_averse_residual(gramian, 0.4, solvers.conflict_averse_weights(gramian, 0.4)) < 1e-12
    assert theirs > 1e-9
    small = 1e-3 * MATRICES["pair"]
    assert float(aggregation.CAGrad(c=0.4)(small).norm()) == 0.0
    ours = eq.CAGrad(c=0.4).weights(small @ small.T)
    assert torch.allclose(ours, eq.CAGrad(c=0.4).weights(MATRICES["pair"] @ MATRICES["pair"].T))


def test_difference_imtl_g_has_equal_projections_at_any_scale() -> None:
    """TorchJD takes the pseudo-inverse of the Gramian itself, in which small gradients fall below the cut-off."""
    g = MATRICES["five"] * torch.tensor([[1e-9], [1e9], [1.0], [1e4], [1e-4]], dtype=torch.float64)
    gramian = (g @ g.T).numpy()
    theirs = aggregation.IMTLGWeighting()(torch.from_numpy(gramian)).numpy()
    assert solvers.equal_projections_residual(gramian, solvers.equal_projections(gramian)) < 1e-12
    assert solvers.equal_projections_residual(gramian, theirs) > 1e-3


@pytest.mark.parametrize("name", ["low rank", "opposed"])
def test_difference_imtl_g_ends_where_no_direction_has_equal_projections(name: str) -> None:
    """Ours is then nearly 0; theirs has a length, but projections that differ."""
    g = MATRICES[name]
    ours, size = direction_of(eq.IMTLG(), g)
    assert float(ours.norm()) < 1e-4 * size
    theirs = aggregation.IMTLG()(g)
    projections = (g @ theirs) / g.norm(dim=1)
    assert float(projections.max() - projections.min()) > 1e-3 * float(theirs.norm())


def test_difference_imtl_g_of_duplicates() -> None:
    """A copy changes nothing in the direction; the ridge of 1e-10 is all that ours is off by."""
    g = MATRICES["duplicated"]
    ours, theirs = direction_of(eq.IMTLG(), g)[0], aggregation.IMTLG()(g)
    assert cosine(ours, theirs) > 1 - 1e-9
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-6


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["scales over 100", "scales over 1e6"])
def test_difference_nash_solves_its_equation_at_any_scale(name: str) -> None:
    """TorchJD follows the release: convex programmes by ECOS, started from the last step's, and on failure the last answer."""
    g = MATRICES[name]
    gramian = (g @ g.T).numpy()
    weights = aggregation.NashMTL(n_tasks=5, max_norm=0.0).weighting(g).numpy()
    rescaled = weights * math.sqrt(5 / float(weights @ gramian @ weights))
    assert solvers.nash_residual(gramian, solvers.nash_bargaining(gramian)) < 1e-12
    assert solvers.nash_residual(gramian, rescaled) > 1e-2


def test_difference_fairgrad_solves_its_equation_at_any_scale() -> None:
    """TorchJD: bounded least squares with numerical derivatives from 1/K."""
    g = MATRICES["scales over 1e6"]
    gramian = (g @ g.T).numpy()
    theirs = aggregation.FairGradWeighting(alpha=1.0)(torch.from_numpy(gramian)).numpy()
    assert solvers.fair_residual(gramian, 1.0, solvers.fair_weights(gramian, 1.0)) < 1e-12
    assert solvers.fair_residual(gramian, 1.0, theirs) > 1e-4


def test_difference_aligned_mtl_leaves_rounding_out() -> None:
    """TorchJD keeps all eigenvalues above K ε of the largest, ε of the Gramian's precision; here the limit is 1e-10.

    A component of 1e-6 that rounding made would shorten the whole step by a factor of a million.
    """
    g = MATRICES["five"].clone()
    g[1] = g[0] + 1e-6 * g[1]
    theirs = aggregation.AlignedMTL()(g)
    ours = direction_of(eq.AlignedMTL(), g)[0]
    g[1] = g[0]
    assert float((ours - direction_of(eq.AlignedMTL(), g)[0]).norm() / ours.norm()) < 1e-4
    assert float(theirs.norm()) < 1e-4 * float(ours.norm())


@pytest.mark.parametrize("name", ["upgrad", "dualproj"])
def test_difference_dual_cone_without_regularisation(name: str) -> None:
    """TorchJD adds 1e-4 of the trace to the Gramian, so that losses with small gradients may increase; here none does."""
    g = MATRICES["scales over 1e6"]
    ours = direction_of(eq.balancer(name), g)[0]
    theirs = {"upgrad": aggregation.UPGrad, "dualproj": aggregation.DualProj}[name]()(g)
    lengths = g.norm(dim=1)
    assert float(((g @ ours) / lengths).min()) >= -1e-9 * float(ours.norm())
    assert float(((g @ theirs) / lengths).min()) < -1e-3 * float(theirs.norm())


@pytest.mark.parametrize("name", ["upgrad", "dualproj"])
def test_difference_dual_cone_of_small_gradients(name: str) -> None:
    """TorchJD takes gradients as zero when the trace is below norm_eps = 1e-4, and then does not project at all."""
    g = 1e-3 * MATRICES["conflicting pair"]
    theirs = {"upgrad": aggregation.UPGrad, "dualproj": aggregation.DualProj}[name]()(g)
    assert torch.allclose(theirs, g.mean(0))
    ours = direction_of(eq.balancer(name), g)[0]
    assert float((g @ theirs).min()) < 0
    assert float((g @ ours).min()) >= -1e-12 * float(ours.norm() * g.norm())
    assert torch.allclose(1e3 * ours, direction_of(eq.balancer(name), 1e3 * g)[0])


def test_difference_config_where_gradients_cancel() -> None:
    """No unit vector has equal cosines with g and −g: 0 here; TorchJD normalises what rounding left."""
    g = torch.tensor([[0.3, 0.1, 0.7], [-0.3, -0.1, -0.7]], dtype=torch.float64)
    assert eq.ConFIG().weights(g @ g.T).tolist() == [0.0, 0.0]
    g = torch.cat([g, torch.zeros(1, 3, dtype=torch.float64)])
    assert eq.ConFIG().weights(g @ g.T).tolist() == [0.0, 0.0, 0.0]


def test_difference_sign_dropout_of_zeros() -> None:
    """0/0 is the purity where no task has a gradient; TorchJD multiplies its not-a-number away, and so gets 0, too."""
    g = torch.zeros(2, 3)
    assert torch.equal(eq.GradDrop().direction(g), aggregation.GradDrop()(g))
    # Where sums leave the number range, theirs is 0 or infinite, for ∞/∞ is no purity; ours is what remains of one sign, and
    # if that is no number, a line says so.
    large = torch.tensor([[3e38], [3e38], [-3e38]])
    assert abs(float(eq.GradDrop(seed=1).direction(large))) > 1e38
    with pytest.raises(eq.NonFiniteError, match="leaves the range"):
        eq.GradDrop().direction(large)
    assert float(aggregation.GradDrop()(large)) == 0.0
