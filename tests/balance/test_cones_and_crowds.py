"""ConicGrad, IMGrad, GradOPS, AIM, Krum, the trimmed mean and SAM-GS against plain calculations of what they are."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import equipoise as eq
from equipoise import solvers
from equipoise.balance import Observation

TASKS = ("a", "b", "c")


def rows(tasks: int, columns: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((tasks, columns)) * np.exp(rng.standard_normal((tasks, 1))) + 0.3 * rng.standard_normal(columns)


# -- ConicGrad


@pytest.mark.parametrize("c", [0.0, 0.3, 0.6, 0.9])
def test_no_direction_of_the_cone_serves_the_worst_off_task_better(c: float) -> None:
    rng = np.random.default_rng(5)
    inside = 0
    for seed in range(12):
        g = rows(2 + seed % 2, 3, seed)
        mean = g.mean(0)
        size = float(np.linalg.norm(mean))
        d = solvers.conic_direction(g @ g.T, c) @ g
        assert np.linalg.norm(d) == pytest.approx(size)
        assert d @ mean >= (c - 1e-9) * size**2
        inside += bool(d @ mean > (c + 1e-6) * size**2)
        tried = np.concatenate([rng.standard_normal((2000, 3)), d / size + 0.03 * rng.standard_normal((2000, 3))])
        tried *= size / np.linalg.norm(tried, axis=1, keepdims=True)
        tried = tried[tried @ mean >= c * size**2]
        best = float((tried @ g.T).min(axis=1).max())
        assert best - 1e-9 <= (g @ d).min() <= best + 0.02 * size
    assert inside if c < 0.9 else inside < 12, "both cases are met"


def test_the_cone_of_one_direction_and_the_half_space() -> None:
    g = rows(4, 9, 1)
    gramian = torch.from_numpy(g @ g.T)
    assert eq.ConicGrad(c=1.0).weights(gramian).tolist() == [0.25] * 4
    nearest = eq.MGDA().weights(gramian).numpy() @ g
    direction = eq.ConicGrad(c=0.0).weights(gramian).numpy() @ g
    assert np.allclose(direction / np.linalg.norm(direction), nearest / np.linalg.norm(nearest))


def test_a_cone_takes_a_task_without_gradient_for_one_that_must_not_lose() -> None:
    g = np.array([[1.0, 0.0, 0.0], [-0.8, 0.5, 0.0], [0.0, 0.0, 0.0]])
    weights = solvers.conic_weights(g @ g.T, 0.2)
    assert weights.tolist() == [0.0, 0.0, 1.0]
    assert solvers.conic_residual(g @ g.T, 0.2, weights) <= 0.0
    direction, nearest = solvers.conic_direction(g @ g.T, 0.2) @ g, solvers.dual_cone_projection(g @ g.T, [1 / 3] * 3) @ g
    assert np.allclose(direction / np.linalg.norm(direction), nearest / np.linalg.norm(nearest))


# -- IMGrad


def test_imgrad_minimises_the_released_objective() -> None:
    c = 0.8
    for seed in range(4):
        g = rows(3, 8, seed)
        gramian, mean = g @ g.T, g.mean(0)
        nearest = solvers.minimum_norm_point(gramian) @ g
        s = float(mean @ nearest / np.linalg.norm(mean) / np.linalg.norm(nearest))

        def objective(w: np.ndarray, g: np.ndarray = g, s: float = s, mean: np.ndarray = mean) -> np.ndarray:
            points = w @ g
            return (1.5 - s) * points @ mean + s * c * np.linalg.norm(mean) * np.linalg.norm(points, axis=-1)

        direction = solvers.imbalance_direction(gramian, c) @ g
        step = direction - mean
        assert np.linalg.norm(step) == pytest.approx(c * np.linalg.norm(mean))
        # The weights that give this step, up to its length.
        found = np.linalg.lstsq(g.T, step, rcond=None)[0]
        found /= found.sum()
        assert found.min() >= -1e-9
        tried = np.random.default_rng(seed).dirichlet(np.ones(3), 3000)
        assert objective(found) <= objective(tried).min() + 1e-9


@pytest.mark.parametrize(
    ("gradients", "released"),
    [
        ([[2.0, 0.5, -1.0, 0.0], [-1.5, 1.0, 0.5, 0.2], [0.3, -0.4, 0.8, 1.0]], [0.185739, 0.448236, 0.131495, 0.426618]),
        ([[4.0, 1.0, 0.0, 0.5], [0.2, -0.1, 0.3, 0.0], [-0.5, 0.8, 0.1, 0.4]], [0.712618, 0.726161, 0.579973, 0.445418]),
    ],
)
def test_imgrad_is_what_the_released_code_gives(gradients: list[list[float]], released: list[float]) -> None:
    """Numbers of ``imgrad`` in nyuv2/utils.py of github.com/zzpustc/IMGrad at 79b64bc, which SciPy solves to about 1e-3.

    Where lengths differ by decades it stops early, with a larger objective than ours; with a task without gradient, it divides
    rounding by 1e-8.
    """
    g = torch.tensor(gradients, dtype=torch.float64)
    assert (eq.IMGrad(c=0.8, rescale=True).weights(g @ g.T) @ g).tolist() == pytest.approx(released, abs=1e-3)


def test_imgrad_without_imbalance_is_cagrad_with_twice_the_pull() -> None:
    """With equal gradients all norms and cosines are 1, and both factors of the objective are 0.5 and 1."""
    gramian = torch.full((3, 3), 4.0, dtype=torch.float64)
    assert torch.allclose(eq.IMGrad(c=0.5).weights(gramian), eq.CAGrad(c=0.5).weights(gramian), atol=1e-5)
    assert torch.allclose(eq.IMGrad(c=0.5, rescale=True).weights(gramian) * 1.25, eq.IMGrad(c=0.5).weights(gramian))


def test_imgrad_where_gradients_cancel_goes_by_the_mean_alone() -> None:
    g = np.array([[1.0, 0.2], [-1.0, -0.2], [0.0, 0.5]])
    direction = solvers.imbalance_direction(g @ g.T, 0.8) @ g
    mean = g.mean(0)
    worst = g[(g @ mean).argmin()]
    assert np.allclose(direction, mean + 0.8 * np.linalg.norm(mean) * worst / np.linalg.norm(worst), atol=1e-4)


# -- GradOPS


def test_gradops_takes_off_what_the_others_span() -> None:
    g = np.array([[1.0, 0.0, 0.0, 0.2], [-1.0, 1.0, 0.0, 0.0], [0.2, 0.3, 1.0, 0.0]])
    gramian = g @ g.T
    expected = np.zeros(4)
    kept = 0
    for task in range(3):
        others = np.delete(g, task, axis=0)
        conflicts = (others @ g[task] < 0).any()
        kept += not conflicts
        expected += g[task] - conflicts * (others.T @ np.linalg.lstsq(others.T, g[task], rcond=None)[0])
    assert kept == 1
    assert np.allclose(eq.GradOPS().weights(torch.from_numpy(gramian)).numpy() @ g, expected)


def test_gradops_of_two_is_gradient_surgery_and_leaves_friends_alone() -> None:
    for pair in ([[1.0, 0.0], [-1.0, 1.0]], [[1.0, 0.3], [0.2, 1.0]]):
        g = torch.tensor(pair, dtype=torch.float64)
        assert torch.allclose(eq.GradOPS().weights(g @ g.T), eq.PCGrad().weights(g @ g.T))
    assert eq.GradOPS().weights(torch.eye(3)).tolist() == [1, 1, 1]
    assert torch.allclose(eq.GradOPS([1.0, 0.0]).weights(torch.tensor([[1.0, -0.5], [-0.5, 1.0]])), torch.tensor([1.0, 0.5]))


# -- AIM


def test_aim_by_hand_and_the_slope_of_its_policy() -> None:
    g = torch.from_numpy(rows(3, 7, 2))
    tau = (0.3 * torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))).requires_grad_()
    hardness = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    direction = torch.zeros(7, dtype=torch.float64)
    for i in range(3):
        direction = direction + g[i]
        for j in range(3):
            if j != i:
                cosine = g[i] @ g[j] / g[i].norm() / g[j].norm()
                direction = direction - torch.sigmoid(10 * (tau[i, j] - cosine)) * (g[i] @ g[j]) / g[j].square().sum() * g[j]
    gramian, thresholds = (g @ g.T).numpy(), tau.detach().numpy()
    weights = torch.from_numpy(solvers.intervened_weights(gramian, thresholds))
    assert torch.allclose(weights @ g, direction.detach())
    total = g.norm(dim=1).sum()
    loss = 0.01 * (direction.norm() - total) ** 2 - 0.08 * (hardness[:, None] * g).sum(0) @ direction
    (loss / total**2).backward()
    assert torch.allclose(torch.from_numpy(solvers.intervention_slope(gramian, thresholds, hardness.numpy())), tau.grad)


@pytest.mark.parametrize("per_pair", [True, False])
def test_aim_learns_by_adam_of_the_pairs_present(per_pair: bool) -> None:
    balancer = eq.AIM(lr=0.1, per_pair=per_pair)
    g = torch.from_numpy(rows(3, 7, 2))
    losses = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    observation = Observation(TASKS, (0, 2), losses[[0, 2]], gramian=g[[0, 2]] @ g[[0, 2]].T)
    assert balancer.decide(observation).tolist() == pytest.approx(balancer.weights(observation.gramian).tolist())
    balancer.update(observation)
    slope = solvers.intervention_slope(observation.gramian.numpy(), np.zeros((2, 2)), [0.25, 0.75])
    moved = balancer.thresholds
    if per_pair:  # Adam's first step is lr long and against the slope's sign
        assert moved[0, 2] == pytest.approx(-0.1 * math.copysign(1, slope[0, 1]), rel=1e-3)
        assert moved[1].tolist() == [0, 0, 0]
    else:
        assert torch.allclose(moved, torch.full((3, 3), -0.1 * math.copysign(1, slope.sum()), dtype=torch.float64), rtol=1e-3)
    balancer.update(Observation(TASKS, (0, 1, 2), losses, gramian=g @ g.T))
    assert (balancer.thresholds != moved).sum() == (6 if per_pair else 9)
    with pytest.raises(eq.InputError, match="learned from 3 tasks"):
        balancer.decide(Observation(("a", "b"), (0, 1), gramian=torch.eye(2)))


# -- Krum and the trimmed mean


def test_krum_by_hand() -> None:
    g = rows(7, 5, 4)
    for squared in (True, False):
        for count, outliers in ((1, 2), (3, 1), (9, 0)):
            distances = np.linalg.norm(g[:, None] - g, axis=2) ** (2 if squared else 1)
            scores = np.sort(distances, axis=1)[:, 1 : 7 - outliers - 1].sum(axis=1)
            chosen = np.argsort(scores)[:count]
            weights = eq.Krum(outliers, count, squared).weights(torch.from_numpy(g @ g.T)).numpy()
            assert np.allclose(weights, np.isin(np.arange(7), chosen) / len(chosen))
            assert np.allclose(solvers.krum_scores(g @ g.T, outliers, squared=squared), scores)


def test_a_crowd_outvotes_the_corrupt() -> None:
    rng = np.random.default_rng(0)
    truth = rng.standard_normal(20)
    honest = truth + 0.1 * rng.standard_normal((7, 20))
    for corrupt in (1e8 * rng.standard_normal((2, 20)), -100 * np.stack([truth, truth])):
        g = torch.from_numpy(np.concatenate([corrupt, honest]))
        for direction in (eq.Krum(2).weights(g @ g.T) @ g, eq.TrimmedMean(2).direction(g)):
            assert np.linalg.norm(direction.numpy() - truth) < 0.3 * np.linalg.norm(truth)
        assert np.linalg.norm(g.mean(0).numpy() - truth) > 10 * np.linalg.norm(truth)


def test_equal_scores_share_what_is_left() -> None:
    square = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]], dtype=torch.float64)
    assert eq.Krum(0).weights(square @ square.T).tolist() == [0.25] * 4
    assert eq.Krum(0, 3).weights(square @ square.T).tolist() == [0.25] * 4
    assert eq.Krum(3, 2).weights(torch.ones(1, 1)).tolist() == [1.0]
    with pytest.raises(eq.InputError, match="n_selected must be at least 1; got 0"):
        eq.Krum(n_selected=0)


def test_trimmed_mean_sorts_every_column(monkeypatch: pytest.MonkeyPatch) -> None:
    g = torch.from_numpy(rows(6, 11, 5))
    expected = torch.from_numpy(np.sort(g.numpy(), axis=0)[2:4].mean(axis=0))
    for columns in (1 << 20, 13):
        monkeypatch.setattr("equipoise.balance.trimmed_mean._COLUMNS", columns)
        assert torch.allclose(eq.TrimmedMean(2).direction(g), expected)
    assert torch.allclose(eq.TrimmedMean(9).direction(g), expected), "the median is all that is left"
    assert torch.equal(eq.TrimmedMean(0).direction(g), g.mean(0))
    with pytest.raises(eq.InputError, match="trim must be at least 0; got -1"):
        eq.TrimmedMean(-1)


# -- SAM-GS


def stepped(balancer: eq.SAMGS, gradients: Tensor, present: tuple[int, ...] = (0, 1, 2)) -> Tensor:
    observation = Observation(TASKS, present, gradients=gradients)
    direction = balancer.decide(observation)
    balancer.update(observation)
    return direction


def test_sam_gs_by_hand() -> None:
    """Alike gradients first, then one that dwarfs the others, then a step without the second task."""
    for formulation in ("paper", "released"):
        balancer = eq.SAMGS(gamma=0.5, formulation=formulation)
        mean, counts, unlike = torch.zeros(3, 4, dtype=torch.float64), torch.zeros(3), 0.0
        equalised = 0
        for step in range(1, 7):
            g = torch.from_numpy(rows(3, 4, step))
            present = (0, 2) if step == 5 else (0, 1, 2)
            if step % 3 == 0:
                g *= torch.tensor([[1e4], [1.0], [1e-3]])
            g = g[list(present)]
            direction = stepped(balancer, g, present)
            norms = g.norm(dim=1)
            similar = 2 * norms[:, None] * norms / (norms[:, None] ** 2 + norms**2)
            size = len(norms)
            alike = float(similar.mean() if formulation == "paper" else similar.triu(1).sum() / (size * (size - 1) / 2))
            unlike = 0.99 * unlike + 0.01 * (1 - alike) ** 2 + 1e-8
            for place, task in enumerate(present):
                mean[task] = 0.9 * mean[task] + 0.1 * g[place]
                counts[task] += 1
            if alike < 0.5:
                equalised += 1
                expected = (norms.mean() / norms) @ g
            else:
                corrected = mean / (1 - 0.9**counts)[:, None]
                divisor = math.sqrt(unlike / (1 - 0.99**step)) + (1e-8 if formulation == "paper" else 0)
                expected = (corrected[list(present)].abs() / divisor * g).sum(0)
            assert torch.allclose(direction, expected, rtol=1e-6)
        assert 0 < equalised < 6


def test_sam_gs_is_what_the_released_code_gives() -> None:
    """Numbers of ``balance_magnitude`` in methods/weight_methods.py of github.com/ThomBors/samgs at 7eee6a2."""
    g = torch.tensor([[2.0, 0.5, -1.0], [-1.5, 1.0, 0.5], [0.3, -0.4, 0.8]], dtype=torch.float64)
    balancer = eq.SAMGS(gamma=0.5, formulation="released")
    expected = [
        [10.780437992183494, 6.3862377236304395, -0.6444827060544474],
        [-1.134782946545631, -0.6722355498558359, 0.06784028484783655],
        [29.960887751104213, 25.314065518688118, 52.27147714101816],
    ]
    for gradients, released in zip((g, -0.5 * g, g * torch.tensor([[100.0], [1.0], [0.01]])), expected, strict=True):
        assert stepped(balancer, gradients).tolist() == pytest.approx(released, rel=1e-9)


def test_sam_gs_without_gradients_and_with_one_task() -> None:
    assert eq.SAMGS().direction(torch.zeros(3, 4)).tolist() == [0, 0, 0, 0]
    assert eq.SAMGS(gamma=1.0).direction(torch.tensor([[0.0, 0.0], [2.0, 0.0]])).tolist() == [1.0, 0.0]
    alone = eq.SAMGS(formulation="released").direction(torch.tensor([[3.0, -1.0]], dtype=torch.float64))
    assert alone.tolist() == pytest.approx([9e3, -1e3], rel=1e-3)  # g|g| over the root of ε/(1 − β₂)
    with pytest.raises(eq.InputError, match="gamma must be between 0 and 1; got 2"):
        eq.SAMGS(gamma=2.0)
