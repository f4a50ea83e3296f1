"""Task weights learned on validation data, against steps written out for a small model."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import equipoise as eq
from equipoise.balance import MoCo
from equipoise.bilevel import BilevelProblem, TaskWeighting, hypergradients, weightings
from equipoise.bilevel.levels import Levels
from equipoise.bilevel.lower import descend
from equipoise.bilevel.rules import Descent
from equipoise.bilevel.weighting.look_ahead import LookAhead, one_step_hypergradients
from equipoise.bilevel.weighting.problem import WeightProblem
from equipoise.data import TensorBatches
from equipoise.errors import InputError, NonFiniteError, UnknownMethodError, UnknownOptionError, UnknownTaskError
from equipoise.solvers import constrained_descent, constraint_multiplier
from tests.states import assert_same_state

NAMES = [info.name for info in weightings()]
AHEAD = ["moml", "moco-bilevel"]
SIMPLEX = [name for name in NAMES if name != "auto-lambda"]
TOGETHER = ["forum", "bome", "bvfim"]
TASKS = ("near", "far", "odd")


class Net(nn.Module):
    """A shared layer and a head a task, in double precision."""

    def __init__(self, seed=0, norm=False, dropout=0.0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        middle = [nn.BatchNorm1d(5)] if norm else []
        self.encoder = nn.Sequential(nn.Linear(4, 5), *middle, nn.Tanh(), nn.Dropout(dropout))
        self.heads = nn.ModuleDict({task: nn.Linear(5, 1) for task in TASKS})
        self.double()
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.4

    def forward(self, x):
        features = self.encoder(x)
        return {task: head(features).squeeze(-1) for task, head in self.heads.items()}


def losses(model, batch):
    out = model(batch["x"])
    found = {
        "near": (out["near"] - batch["y"][:, 0]).square().mean(),
        "far": 10 * (out["far"] - batch["y"][:, 1]).square().mean(),
        "odd": nn.functional.softplus(-out["odd"] * batch["y"][:, 2].sign()).mean(),
    }
    return {task: found[task] for task in batch.get("tasks", TASKS)}


def batch(seed, rows=8):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(rows, size, generator=generator, dtype=torch.float64) for name, size in (("x", 4), ("y", 3))}


def made(solver, model=None, *, rate=0.05, tasks=TASKS, make=torch.optim.SGD, **options):
    model = Net() if model is None else model
    return TaskWeighting(eq.Objective(model, losses, tasks), make(model.parameters(), lr=rate), solver, **options)


def flat(tensors):
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def parameters_of(mtl):
    return flat(mtl.objective.model.parameters())


def gradient(value, parameters):
    found = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
    return flat([torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)])


def put(model, values):
    start = 0
    for parameter in model.parameters():
        parameter.data = values[start : start + parameter.numel()].view(parameter.shape).clone()
        start += parameter.numel()


def softmax(a):
    return np.exp(a) / np.exp(a).sum()


def adam(a, gradients, rate, eps=1e-8):
    """Adam written out."""
    m = v = np.zeros_like(a)
    for t, g in enumerate(gradients, 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        a = a - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + eps)
    return a


def task_gradients(model, data):
    values = losses(model, data)
    parameters = list(model.parameters())
    return np.array([float(v.detach()) for v in values.values()]), torch.stack(
        [gradient(v, parameters) for v in values.values()]
    )


def written_out_descent(model, data, weights, steps, size, decay=0.0):
    """ω̃^T from the model's ω."""
    twin = copy.deepcopy(model)
    for _ in range(steps):
        _, rows = task_gradients(twin, data)
        omega = flat(twin.parameters())
        put(twin, omega * (1 - size * decay) - size * (torch.from_numpy(weights) @ rows))
    return twin


def written_out_rows(model, train, held_out, a, steps, size, decay=0.0):
    """Rows of the Gramian's matrix for (a, ω), and q̃, for methods with a value function."""
    alpha = softmax(a)
    jacobian = np.diag(alpha) - np.outer(alpha, alpha)
    reached, _ = task_gradients(written_out_descent(model, train, alpha, steps, size, decay), train)
    present, rows = task_gradients(model, train)
    of_constraint = np.concatenate([jacobian @ (present - reached), alpha @ rows.numpy()])
    _, uppers = task_gradients(model, held_out)
    of_uppers = np.concatenate([np.zeros((3, 3)), uppers.numpy()], axis=1)
    return of_uppers, of_constraint, float(alpha @ (present - reached))


@pytest.mark.parametrize("solver", TOGETHER)
def test_a_step_of_the_methods_that_move_both_levels_is_the_one_written_out(solver):
    """Three steps, so that averages, decays and Adam's memory are met as well."""
    options = {"rho": 0.3} if solver != "bvfim" else {"barrier": 0.05, "margin": 0.5, "regularization": 0.1, "decay": 1.5}
    mtl = made(solver, lower_steps=3, lower_lr=0.02, lr=0.01, **options)
    twin, a, seen, average = Net(), np.zeros(3), [], np.full(3, 1 / 3)
    for step in range(3):
        train, held_out = batch(2 * step), batch(2 * step + 1)
        shrink = 1.5**-step
        decay = 0.5 * shrink if solver == "bvfim" else 0.0
        uppers, constraint, gap = written_out_rows(twin, train, held_out, a, 3, 0.02, decay)
        omega = parameters = flat(twin.parameters()).numpy()
        if solver == "forum":
            rows = np.vstack([uppers, constraint])
            phi = 0.15 * constraint @ constraint
            lambdas, _ = constrained_descent(rows @ rows.T, phi)
            share = (step + 1) ** -0.75
            average = (1 - share) * average + share * lambdas
            mean = average @ uppers
            direction = mean + constraint_multiplier(rows @ rows.T, average, phi) * constraint
            assert direction @ constraint >= phi * (1 - 1e-9)
        else:
            mean = uppers.mean(0)
            square = constraint @ constraint
            if solver == "bome":
                nu = max(0.0, (0.3 * square - mean @ constraint) / square)
                direction = mean + nu * constraint
            else:
                slack = max(0.5 * shrink - gap, 0.25 * shrink)
                direction = mean + 0.05 * shrink / slack * constraint
                direction[3:] += 0.1 * shrink * omega
        seen.append(direction[:3])
        expected = parameters - 0.05 * direction[3:]
        values, _ = task_gradients(twin, train)
        reported = mtl.step(train, held_out)
        np.testing.assert_allclose(list(reported.values()), values, rtol=1e-12)
        np.testing.assert_allclose(mtl.last.weights, softmax(a), rtol=1e-12)
        a = adam(np.zeros(3), seen, 0.01)
        np.testing.assert_allclose(parameters_of(mtl), expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(list(mtl.weights.values()), softmax(a), rtol=1e-9)
        put(twin, torch.from_numpy(expected))
    assert abs(a).max() > 0.02


@pytest.mark.parametrize("solver", AHEAD)
@pytest.mark.parametrize("lower_steps", [1, 3])
def test_a_step_of_the_methods_that_look_ahead_is_the_one_written_out(solver, lower_steps):
    """Hypergradients by finite differences of the validation losses after the virtual steps."""
    own = {"gamma": 3.0, "beta": 0.7} if solver == "moco-bilevel" else {}
    mtl = made(solver, lower_steps=lower_steps, lower_lr=0.05, lr=0.02, **own)
    twin, a, seen = Net(), np.zeros(3), []
    combine = MoCo(**own) if own else eq.MGDA()
    for step in range(2):
        train, held_out = batch(2 * step), batch(2 * step + 1)

        def after(free, twin=twin, train=train, held_out=held_out):
            return task_gradients(written_out_descent(twin, train, softmax(free), lower_steps, 0.05), held_out)[0]

        rows = np.stack([(after(a + d) - after(a - d)) / 2e-5 for d in 1e-5 * np.eye(3)], axis=1)
        gradients = torch.from_numpy(rows)
        if own:
            observation = eq.balance.Observation(TASKS, (0, 1, 2), torch.ones(3), gradients=gradients, step=step)
            seen.append(combine.decide(observation).numpy())
            combine.update(observation)
        else:
            seen.append((combine.weights(gradients @ gradients.T) @ gradients).numpy())
        a = adam(np.zeros(3), seen, 0.02)
        values, of_training = task_gradients(twin, train)
        expected = flat(twin.parameters()) - 0.05 * torch.from_numpy(softmax(a)) @ of_training
        reported = mtl.step(train, held_out)
        np.testing.assert_allclose(list(reported.values()), values, rtol=1e-8)
        np.testing.assert_allclose(list(mtl.weights.values()), softmax(a), rtol=1e-6)
        np.testing.assert_allclose(mtl.last.weights, softmax(a), rtol=1e-6)
        np.testing.assert_allclose(parameters_of(mtl), expected, rtol=1e-6, atol=1e-9)
        put(twin, expected)
    assert abs(a).max() > 0.01


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("tasks", [TASKS, ("odd", "near")])
def test_the_fast_way_for_one_step_gives_what_unrolling_gives(norm, tasks):
    free = torch.tensor([0.3, -0.5, 0.1], dtype=torch.float64)
    found = []
    for way in (hypergradients, one_step_hypergradients):
        problem = WeightProblem(eq.Objective(Net(norm=norm, dropout=0.3), losses, TASKS), free.clone())
        train, held_out = {**batch(0), "tasks": tasks}, batch(1)
        torch.manual_seed(3)
        data = train if way is one_step_hypergradients else [train]
        found.append(way(problem, problem.here(), data, held_out, 0.1))
    slow, fast = found
    torch.testing.assert_close(fast.rows, slow.rows, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(fast.values, slow.values)
    assert fast.lower == pytest.approx(slow.lower)
    assert slow.rows.abs().max() > 1e-4


@pytest.mark.parametrize("primary", [None, "far"])
def test_a_step_of_auto_lambda_is_the_one_written_out(primary):
    """As the released code has it: momentum and weight decay are in the virtual step, λ is no softmax."""
    model = Net(norm=True)
    groups = [{"params": model.encoder.parameters(), "lr": 0.2}, {"params": model.heads.parameters()}]
    sgd = torch.optim.SGD(groups, lr=0.05, momentum=0.9, weight_decay=0.1)
    mtl = TaskWeighting(eq.Objective(model, losses, TASKS), sgd, "auto-lambda", lr=0.02, primary=primary)
    twin, weights, seen = Net(norm=True), np.full(3, 0.1), []
    parameters = list(twin.parameters())
    own = len(list(twin.encoder.parameters()))
    rates = flat([torch.full_like(p, 0.2 if place < own else 0.05) for place, p in enumerate(parameters)])
    velocity, counts = torch.zeros_like(rates), np.array([float(primary in (None, task)) for task in TASKS])
    for step in range(3):
        train, held_out = batch(2 * step), batch(2 * step + 1)
        omega = flat(parameters)
        _, rows = task_gradients(twin, train)
        gradient = torch.from_numpy(weights) @ rows + 0.1 * omega
        put(twin, omega - rates * (0.9 * velocity + gradient))
        towards = rates * (torch.from_numpy(counts) @ task_gradients(twin, held_out)[1])
        radius = 0.01 / towards.norm()
        sides = []
        for sign in (1, -1):
            put(twin, omega + sign * radius * towards)
            sides.append(task_gradients(twin, train)[0])
        difference = -(sides[0] - sides[1]) / (2 * float(radius))
        exact = -(rows @ towards).numpy()
        np.testing.assert_allclose(difference, exact, rtol=1e-2)
        seen.append(difference)
        weights = adam(np.full(3, 0.1), seen, 0.02)
        velocity = 0.9 * velocity + torch.from_numpy(weights) @ rows + 0.1 * omega
        put(twin, omega - rates * velocity)
        mtl.step(train, held_out)
        np.testing.assert_allclose(list(mtl.weights.values()), weights, rtol=1e-7)
        np.testing.assert_allclose(parameters_of(mtl), flat(parameters), rtol=1e-7, atol=1e-10)
    assert abs(weights - 0.1).max() > 0.02
    assert mtl.bilevel.weights.tolist() == counts.tolist()


def test_auto_lambda_without_differences_takes_the_derivative(monkeypatch):
    """What it does with several processes or a scaler, on one batch; a primary task that is none changes nothing."""
    train, held_out = {**batch(0), "tasks": ("odd", "near")}, batch(1)
    found = []
    for one in (True, False):
        monkeypatch.setattr(LookAhead, "_one", lambda *_, one=one: one)
        mtl = made("auto-lambda", lr=0.5, primary=["odd", "far"], initial=1.0)
        mtl.step(train, held_out)
        found.append(mtl._adam.state[mtl._free]["exp_avg"].clone())
    assert float(found[0][1]) == 0.0
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-12)
    mtl = made("auto-lambda", primary=["od"])
    before = copy.deepcopy(mtl.state_dict())
    with pytest.raises(InputError, match=r'primary names a task "od".*Did you mean "odd"'):
        mtl.step(train, held_out)
    assert_same_state(mtl.state_dict(), before)


@pytest.mark.parametrize("solver", SIMPLEX)
def test_weights_stay_on_the_simplex_and_move(solver):
    mtl = made(solver, lr=0.5, lower_lr=0.01)
    for step in range(20):
        mtl.step(batch(step), batch(100 + step))
        weights = np.array(list(mtl.weights.values()))
        assert (weights > 0).all()
        assert weights.sum() == pytest.approx(1.0)
    assert np.ptp(weights) > 0.05


@pytest.mark.parametrize("solver", NAMES)
def test_training_lowers_the_validation_losses(solver):
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    rows = {"x": x, "y": torch.tanh(x @ torch.randn(4, 3, generator=torch.Generator().manual_seed(6), dtype=torch.float64))}
    train, held_out = ({name: tensor[part] for name, tensor in rows.items()} for part in (slice(48), slice(48, None)))
    mtl = made(solver, make=torch.optim.Adam, rate=0.02, lower_lr=0.01)
    before = losses(mtl.objective.model, held_out)
    for _ in range(80):
        mtl.step(train, held_out)
    after = losses(mtl.objective.model, held_out)
    assert all(after[task] < 0.8 * before[task] for task in TASKS)


@pytest.mark.parametrize("solver", NAMES)
@pytest.mark.parametrize("kind", ["batches", "loader", "halves"])
def test_resumed_training_gives_the_same_bits(solver, kind):
    rows = batch(9, 22)

    def loader():
        if kind == "batches":
            return TensorBatches(rows, 5, shuffle=True, seed=1)
        return DataLoader(TensorDataset(*rows.values()), 5, shuffle=True, collate_fn=collate)

    def collate(items):
        return dict(zip(rows, map(torch.stack, zip(*items, strict=True)), strict=True))

    def fresh():
        torch.manual_seed(4)
        model = Net(norm=True, dropout=0.2)
        return made(solver, model, make=torch.optim.Adam, validation=None if kind == "halves" else loader())

    straight = fresh()
    for step in range(9):
        straight.step(batch(step))
    first = fresh()
    for step in range(6):  # into the second epoch of the validation data
        first.step(batch(step))
    saved, random = copy.deepcopy(first.state_dict()), torch.get_rng_state()
    first.step(batch(99))
    second = fresh()
    second.load_state_dict(saved)
    torch.set_rng_state(random)
    for step in range(6, 9):
        second.step(batch(step))
    assert torch.equal(parameters_of(second), parameters_of(straight))
    assert second.weights == straight.weights
    assert second.steps == straight.steps == 9
    for one, other in zip(second.objective.model.buffers(), straight.objective.model.buffers(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("solver", TOGETHER)
def test_lower_steps_that_are_too_long_are_taken_back(solver):
    """Squares with a step size far beyond 2 over their curvature; plain lower steps leave the finite numbers in no time."""
    with pytest.raises(NonFiniteError, match="a smaller lower_lr may help"):
        made(solver, lower_steps=200, lower_lr=1e3, careful=False).step(batch(0), batch(1))
    mtl = made(solver, lower_steps=8, lower_lr=1.0)
    for step in range(5):
        mtl.step(batch(step), batch(9))
        assert math.isfinite(mtl.bilevel.lower)
        assert mtl.bilevel.constraint >= 0  # the answer is no worse than the present ω


def test_a_lower_step_taken_back_is_tried_again_at_half_its_length():
    x, alpha = torch.tensor(1.0), torch.zeros(())
    tried = []

    def lower(alpha, omega, batch):
        tried.append(float(omega.detach()))
        return omega.square() + 0 * alpha

    problem = BilevelProblem(lower, lambda alpha, omega, batch: [omega], (alpha, x))
    levels, rule = Levels(problem), Descent(1.25)
    found = descend(levels, problem.here(), [(None,)] * 4, rule, careful=True, step=0).point
    # 1 − 1.25·2 = −1.5 is worse; half of it gives −0.25; then 0.0625; the last, −0.015625, is looked at and stays.
    assert tried == [1.0, -1.5, -0.25, 0.0625, -0.015625]
    assert float(found.lower[0]) == -0.015625
    assert float(descend(levels, problem.here(), [(None,)], rule, careful=True, step=0).point.lower[0]) == 1.0


def test_frozen_weights_stay_equal_while_the_model_is_trained():
    mtl = made("forum", lr=0.0)
    before = flat(mtl.objective.model.parameters())
    for seed in range(3):
        mtl.step(batch(seed), batch(seed + 10))
    assert set(mtl.weights.values()) == {1 / len(TASKS)}
    assert not torch.equal(flat(mtl.objective.model.parameters()), before)


@pytest.mark.parametrize("solver", [*AHEAD, "auto-lambda"])
def test_looking_ahead_leaves_the_model_alone(solver):
    """Batch-norm statistics after a step are those of the one ordinary training step."""
    mtl = made(solver, Net(norm=True))
    plain = Net(norm=True)
    losses(plain, batch(0))
    mtl.step(batch(0), batch(1))
    for one, other in zip(mtl.objective.model.buffers(), plain.buffers(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("solver", NAMES)
def test_one_batch_is_cut_in_two(solver):
    whole = batch(0, 16)
    first, second = ({name: tensor[part] for name, tensor in whole.items()} for part in (slice(8), slice(8, None)))
    cut, given = made(solver), made(solver)
    cut.step(whole)
    given.step(first, second)
    assert cut.weights == given.weights
    if solver in TOGETHER:
        assert torch.equal(parameters_of(cut), parameters_of(given))
    else:  # the ordinary training step uses all of the batch
        assert list(cut.last.losses) == pytest.approx([float(loss.detach()) for loss in losses(Net(), whole).values()])


@pytest.mark.parametrize("solver", NAMES)
def test_training_batches_may_lack_tasks(solver):
    mtl = made(solver)
    found = mtl.step({**batch(0), "tasks": ("odd", "near")}, batch(1))
    assert set(found) == {"near", "odd"}
    assert mtl.last.tasks == tuple(found)
    assert len(mtl.last.weights) == 2
    assert sum(mtl.weights.values()) == pytest.approx(1.0 if solver in SIMPLEX else 0.3, rel=0.01)
    assert mtl.step(batch(2), batch(3)).keys() == set(TASKS)


@pytest.mark.parametrize("solver", NAMES)
def test_validation_batches_may_not(solver):
    mtl = made(solver)
    before = parameters_of(mtl)
    with pytest.raises(InputError, match=r"validation batch lacks the tasks near, odd; .* every validation batch"):
        mtl.step(batch(0), {**batch(1), "tasks": ("far",)})
    assert torch.equal(parameters_of(mtl), before)
    assert list(mtl.weights.values()) == pytest.approx([1 / 3 if solver in SIMPLEX else 0.1] * 3)


@pytest.mark.parametrize("solver", NAMES)
@pytest.mark.parametrize("where", ["training", "validation"])
def test_a_loss_that_is_not_finite_changes_nothing(solver, where):
    mtl = made(solver, Net(norm=True), make=torch.optim.Adam)
    mtl.step(batch(0), batch(1))
    before = copy.deepcopy(mtl.state_dict())
    bad = batch(2)
    bad["y"][0, 1] = math.inf
    with pytest.raises(NonFiniteError, match="far"):
        mtl.step(*((bad, batch(3)) if where == "training" else (batch(3), bad)))
    assert_same_state(mtl.state_dict(), before)
    assert mtl.steps == 1


def test_weights_are_taken_back_if_the_training_step_fails():
    """The hypergradients are fine, and the whole batch, on which the model is trained, is not."""

    def picky(model, data):
        if len(data["x"]) > 4:
            raise ValueError("too many rows")
        return losses(model, data)

    model = Net()
    mtl = TaskWeighting(eq.Objective(model, picky, TASKS), torch.optim.SGD(model.parameters(), 0.1), "moml")
    with pytest.raises(ValueError, match="too many rows"):
        mtl.step(batch(0, 8))
    assert set(mtl.weights.values()) == {1 / 3}
    assert mtl.bilevel is None
    mtl.step(batch(0, 4), batch(1, 4))
    assert mtl.bilevel.step == 0


@pytest.mark.parametrize("solver", NAMES)
def test_tasks_are_learned_from_the_first_batch(solver):
    declared, learned = made(solver, Net(norm=True)), made(solver, Net(norm=True), tasks=None)
    assert learned.weights == {}
    for mtl in (declared, learned):
        mtl.step(batch(0), batch(1))
    assert learned.objective.tasks.names == TASKS
    assert torch.equal(parameters_of(learned), parameters_of(declared))
    for one, other in zip(learned.objective.model.buffers(), declared.objective.model.buffers(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("solver", ["forum", "moml"])
def test_clipping_bounds_the_step_of_the_model(solver):
    mtl = made(solver, rate=1.0, clip=1e-3)
    before = parameters_of(mtl)
    mtl.step(batch(0), batch(1))
    assert float((parameters_of(mtl) - before).norm()) == pytest.approx(1e-3, rel=1e-3)
    assert not mtl.optimizer._optimizer_step_pre_hooks


def test_the_gramian_is_that_of_the_training_losses():
    mtl = made("forum")
    plain = eq.MultiTaskOptimizer(mtl.objective, torch.optim.SGD(mtl.objective.model.parameters(), 0.1), "ls")
    before = copy.deepcopy(mtl.state_dict())
    torch.testing.assert_close(mtl.gramian(batch(0)), plain.gramian(batch(0)))
    assert_same_state(mtl.state_dict(), before)


def test_one_task_is_trained_as_it_is():
    model, plain = Net(), Net()

    def one(model, data):
        return {"near": losses(model, data)["near"]}

    for own in (model, plain):
        for task in ("far", "odd"):
            own.heads[task].requires_grad_(False)
    mtl = TaskWeighting(eq.Objective(model, one, ["near"]), torch.optim.SGD(model.parameters(), 0.1), "moml")
    other = eq.MultiTaskOptimizer(eq.Objective(plain, one, ["near"]), torch.optim.SGD(plain.parameters(), 0.1), "ls")
    mtl.step(batch(0), batch(1))
    other.step(batch(0))
    assert mtl.weights == {"near": 1.0}
    assert torch.equal(flat(model.parameters()), flat(plain.parameters()))


@pytest.mark.parametrize(
    ("solver", "options", "error", "message"),
    [
        ("forun", {}, UnknownMethodError, 'no method of task weights "forun".* Did you mean "forum"'),
        ("forum", {"roh": 0.1}, UnknownOptionError, 'no option "roh".* Did you mean "rho"'),
        ("forum", {"start": "cold"}, UnknownOptionError, 'no option "start"'),
        ("moml", {"rho": 0.1}, UnknownOptionError, 'no option "rho"'),
        ("forum", {"rho": -1.0}, InputError, "rho must be finite"),
        ("forum", {"lower_steps": 0}, InputError, "lower_steps must be a whole number"),
        ("moml", {"balancer": "rotograd"}, InputError, "needs more than the objectives"),
        ("moco-bilevel", {"beta": 2.0}, InputError, "beta must be above 0"),
        ("auto-lambda", {"initial": 0.0}, InputError, "initial must be positive"),
        ("auto-lambda", {"primary": []}, InputError, "primary must name at least one"),
        ("forum", {"lr": -1e-9}, InputError, "lr must be finite and at least 0"),
        ("forum", {"validation": iter([])}, InputError, "can be iterated over again"),
        ("forum", {"clip": -1.0}, InputError, "clip must be a positive norm"),
    ],
)
def test_bad_arguments(solver, options, error, message):
    for tasks in (TASKS, None):  # also while the tasks are unknown
        with pytest.raises(error, match=message):
            made(solver, tasks=tasks, **options)


def test_bad_steps():
    with pytest.raises(InputError, match="give only one of them"):
        made("forum", validation=[batch(1)]).step(batch(0), batch(1))
    with pytest.raises(InputError, match="validation loader is empty"):
        made("forum", validation=[]).step(batch(0))
    with pytest.raises(
        InputError, match="one first dimension of at least 2; this one holds tensors whose first dimensions are 1"
    ):
        made("forum").step(batch(0, 1))
    with pytest.raises(InputError, match="this one holds str"):
        made("forum").step({**batch(0), "name": "x"})
    with pytest.raises(UnknownTaskError, match='task "near" is unknown; the tasks are fixed as far, odd'):
        made("forum", tasks=("far", "odd")).step(batch(0), batch(1))
    model = Net()
    part = torch.optim.SGD(model.encoder.parameters(), 0.1)
    with pytest.raises(InputError, match="no optimizer holds the lower-level variable"):
        TaskWeighting(eq.Objective(model, losses, TASKS), part, "forum")


def test_bad_states():
    mtl = made("forum")
    mtl.step(batch(0), batch(1))
    state = mtl.state_dict()
    with pytest.raises(InputError, match='state is of the method "forum"; this one is "bome"'):
        made("bome").load_state_dict(state)
    with pytest.raises(InputError, match="saved without a validation loader; there is one here"):
        made("forum", validation=[batch(1)]).load_state_dict(state)
    with pytest.raises(InputError, match="lacks optimizer, solver"):
        made("forum").load_state_dict({"model": state["model"]})
    with pytest.raises(InputError, match="the tasks here are far, odd"):
        made("forum", tasks=("far", "odd")).load_state_dict(state)


@pytest.mark.parametrize("solver", NAMES)
def test_an_autocast_around_the_loop_meets_no_stale_casts(solver):
    found = []
    for cached in (True, False):
        mtl = made(solver, Net().float(), lr=0.1)
        single = [{name: tensor.float() for name, tensor in batch(seed).items()} for seed in range(6)]
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=cached):
            for step in range(3):
                mtl.step(single[2 * step], single[2 * step + 1])
        found.append((parameters_of(mtl), mtl.weights))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


def test_inner_products_keep_their_precision_under_autocast():
    """Where the losses themselves do not look at autocast, neither must the hypergradients."""

    def plain(model, data):
        with torch.autocast("cpu", enabled=False):
            return losses(model, data)

    found = []
    for enabled in (True, False):
        model = Net().float()
        mtl = TaskWeighting(eq.Objective(model, plain, TASKS), torch.optim.SGD(model.parameters(), 0.1), "moml")
        single = [{name: tensor.float() for name, tensor in batch(seed).items()} for seed in range(2)]
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            mtl.step(*single)
        found.append(mtl.bilevel.stationarity)
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_the_guide_has_them_all():
    page = (Path(__file__).parents[2] / "docs" / "task-weights.md").read_text(encoding="utf-8")
    for info in weightings():
        assert f"| `{info.name}` | {info.summary} | {info.price} |" in page


@pytest.mark.parametrize("solver", NAMES)
def test_weights_of_a_half_precision_model_are_learned_in_single_precision(solver):
    model = Net().bfloat16()
    lower, upper = ({name: tensor.bfloat16() for name, tensor in batch(seed).items()} for seed in (1, 2))
    mtl = TaskWeighting(eq.Objective(model, losses, TASKS), torch.optim.SGD(model.parameters(), 1e-3), solver)
    with torch.no_grad():
        mtl._free.fill_(1.0)  # where bfloat16 has steps of 0.004
    mtl.step(lower, upper)
    moved = (mtl._free.detach() - 1.0).abs()
    assert float(moved.max()) == pytest.approx(0.001, rel=0.01)


def test_a_state_without_what_is_frozen():
    def frozen(value: float = 0.5) -> TaskWeighting:
        model = Net()
        nn.init.constant_(model.encoder[0].weight.requires_grad_(False), value)
        return made("forum", model)

    first, second = frozen(), frozen()
    first.step(batch(0), batch(1))
    state = copy.deepcopy(first.state_dict(trainable_only=True))
    assert len(state["model"]) == len(first.objective.model.state_dict()) - 1
    second.load_state_dict(state)
    assert_same_state(second.state_dict(), first.state_dict())
    with pytest.raises(InputError, match="beside another frozen"):
        frozen(0.6).load_state_dict(state)
