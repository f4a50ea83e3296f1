"""RotoGrad: rotations that stay rotations, gradients against plain autograd, and what becomes of them when things go wrong."""

from __future__ import annotations

import copy
import io
import pickle
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.balance.rotograd.rotograd import rotation_gradients
from equipoise.study import Problem, Study
from equipoise.study.problems import digits_problem
from tests.problems import Heads, batch, losses, optimizer_of, parameters_of, same
from tests.states import assert_same_state, kept

TASKS = ["t0", "t1", "t2"]


def made(
    model: Heads | None = None, *, rate: float = 0.05, make: Any = torch.optim.SGD, **options: Any
) -> eq.MultiTaskOptimizer:
    """A MultiTaskOptimizer with RotoGrad on Heads, found by name."""
    torch.manual_seed(0)
    model = Heads() if model is None else model
    heads = {f"t{k}": f"heads.{k}" for k in range(len(model.heads))}
    return optimizer_of(eq.RotoGrad("encoder", heads, **options), model, lr=rate, make=make)


def assert_rotations(matrices: Tensor, tolerance: float = 1e-12) -> None:
    identity = torch.eye(matrices.shape[-1], dtype=matrices.dtype)
    assert float((matrices @ matrices.mT - identity).abs().max()) <= tolerance
    assert torch.allclose(torch.linalg.det(matrices), torch.ones(len(matrices), dtype=matrices.dtype))


# -- the rotations


@pytest.mark.parametrize("start", ["identity", "random"])
@pytest.mark.parametrize("lr", [1e-3, 0.5])
def test_rotations_stay_rotations(start: str, lr: float) -> None:
    mtl = made(lr=lr, start=start)
    mtl.step(batch())
    first = mtl.balancer.matrices.clone()
    for step in range(50):
        mtl.step(batch(seed=step))
    assert_rotations(mtl.balancer.matrices)
    assert float((mtl.balancer.matrices - first).abs().max()) > 0.01


def test_random_rotations_are_uniform_and_of_their_seed() -> None:
    many = eq.balance.rotograd.Rotations([f"{k}" for k in range(4000)], size=3, start="random")
    assert_rotations(many.matrices)
    # Uniform on SO(3): entries have mean 0 and variance 1/3.
    assert float(many.matrices.mean(0).abs().max()) < 5 * (1 / 3 / 4000) ** 0.5
    assert torch.allclose(many.matrices.square().mean(0), torch.full((3, 3), 1 / 3, dtype=torch.float64), atol=0.03)
    pair = [eq.balance.rotograd.Rotations(["a"], size=5, start="random", seed=seed).matrices for seed in (1, 1, 2)]
    assert torch.equal(pair[0], pair[1])
    assert not torch.allclose(pair[0], pair[2])


@pytest.mark.parametrize(("shape", "dim"), [((4, 5), 1), ((4, 5, 3, 2), 1), ((4, 7, 5), -1)])
@pytest.mark.parametrize("size", [None, 5, 3])
def test_a_rotation_acts_on_the_channels(shape: tuple[int, ...], dim: int, size: int | None) -> None:
    rotations = eq.balance.rotograd.Rotations(["a", "b"], size, dim=dim, start="random")
    features = torch.randn(shape)
    turned = rotations(features, "b")
    whole = torch.eye(5)
    whole[: size or 5, : size or 5] = rotations.matrices[1].float()
    equation = "ij,njhw->nihw" if len(shape) == 4 else "ij,nj->ni" if len(shape) == 2 else "ij,ntj->nti"
    assert torch.allclose(turned, torch.einsum(equation, whole, features), atol=1e-6)
    assert eq.balance.rotograd.Rotations(["a"], dim=dim)(features.half(), "a").dtype == torch.float16


def test_the_subspace_alone_is_rotated() -> None:
    mtl = made(size=3, lr=0.1)
    for step in range(5):
        mtl.step(batch(seed=step))
    assert mtl.balancer.matrices.shape == (3, 3, 3)
    assert_rotations(mtl.balancer.matrices)


# -- gradients


@pytest.mark.parametrize(("shape", "dim"), [((6, 5), 1), ((6, 5, 2, 2), 1), ((6, 3, 5), -1)])
@pytest.mark.parametrize("size", [5, 3])
def test_gradient_of_the_rotations_loss(shape: tuple[int, ...], dim: int, size: int) -> None:
    """The paper's loss, written with g̃ and R themselves, differentiated by autograd along R exp(A)."""
    torch.manual_seed(0)
    rotations = eq.balance.rotograd.Rotations(["a", "b", "c"], size, dim=dim, start="random")
    features = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    seen = [rotations(features, task) for task in "abc"]
    functions = [torch.randn(seen[0].shape, dtype=torch.float64) for _ in seen]
    values = [(f * r.sin()).sum() * 10.0**k for k, (f, r) in enumerate(zip(functions, seen, strict=True))]
    rows = torch.stack([torch.autograd.grad(value, features, retain_graph=True)[0] for value in values])
    inner = [torch.autograd.grad(value, r, retain_graph=True)[0] for value, r in zip(values, seen, strict=True)]
    norms = rows.flatten(1).norm(dim=1)
    found = rotation_gradients(rows, norms, size, dim)
    common = (rows / norms.view(-1, *[1] * len(shape))).mean(0).movedim(dim, -1)
    for k, g in enumerate(inner):
        entries = torch.zeros(size, size, dtype=torch.float64, requires_grad=True)
        skew = entries.tril(-1) - entries.tril(-1).T
        turned = rotations.matrices[k] @ torch.linalg.matrix_exp(skew)
        channels = g.movedim(dim, -1)
        back = torch.cat([channels[..., :size] @ turned, channels[..., size:]], -1)  # rows times R are Rᵀ times columns
        loss = -(back * common).sum()
        (expected,) = torch.autograd.grad(loss, entries)
        assert torch.allclose(found[k].tril(-1), expected, rtol=1e-9, atol=1e-9)
        assert torch.allclose(found[k], -found[k].T)
        assert expected.abs().max() > 1e-3


def test_a_step_lowers_the_rotations_loss() -> None:
    mtl = made(rate=0.0, lr=5e-3)
    cosines = []
    for _ in range(100):
        mtl.step(batch())
        cosines.append(float(mtl.last.pairwise_cosines.mean()))
    assert cosines[10] > cosines[0] + 0.005
    assert cosines[-1] > cosines[0] + 0.1


@pytest.mark.parametrize("norms", [True, False])
def test_gradients_against_plain_autograd(norms: bool) -> None:
    mtl = made(rate=0.01, lr=0.05, start="random", norms=norms)
    model = mtl.objective.model
    start: list[float] = []
    for step in range(4):
        data = batch(seed=step)
        before = copy.deepcopy(model)  # with rotations of its own, as they are now
        matrices = None if mtl.balancer.matrices is None else mtl.balancer.matrices.clone()
        mtl.step(data)
        if matrices is None:
            matrices = eq.balance.rotograd.Rotations(TASKS, 8, start="random").matrices
        features = before.encoder(data[0])
        outs = [
            nn.functional.linear(features @ matrix.float().T, head.weight, head.bias).squeeze(-1)
            for matrix, head in zip(matrices, before.heads, strict=True)
        ]
        values = [s * (out - data[1][:, k]).square().mean() for k, (s, out) in enumerate(zip((1, 10, 0.1), outs, strict=True))]
        assert torch.allclose(torch.stack(values), mtl.last.losses, rtol=1e-5)
        rows = [torch.autograd.grad(value, features, retain_graph=True)[0] for value in values]
        sizes = [float(row.norm()) for row in rows]
        start = start or sizes
        ratios = [size / first for size, first in zip(sizes, start, strict=True)]
        common = sum(r / sum(ratios) * size for r, size in zip(ratios, sizes, strict=True))
        weights = [common / size if norms else 1.0 for size in sizes]
        assert mtl.last.weights.tolist() == pytest.approx(weights, rel=1e-4)
        seed = sum(w * row for w, row in zip(weights, rows, strict=True))
        expected = torch.autograd.grad(features, list(before.encoder.parameters()), seed, retain_graph=True)
        for parameter, gradient in zip(model.encoder.parameters(), expected, strict=True):
            assert torch.allclose(parameter.grad, gradient, rtol=1e-4, atol=1e-6)
        for value, head, mine in zip(values, before.heads, model.heads, strict=True):
            own = torch.autograd.grad(value, list(head.parameters()), retain_graph=True)
            for parameter, gradient in zip(mine.parameters(), own, strict=True):
                assert torch.allclose(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


def test_burn_in_takes_the_norms_anew() -> None:
    mtl = made(burn_in=3)
    norms = []
    for step in range(6):
        mtl.step(batch(seed=step))
        norms.append(mtl.last.norms)
        assert torch.equal(mtl.balancer.first_norms, norms[3] if step >= 3 else norms[0])


# -- what it is for


class Opposed(nn.Module):
    """Two tasks that want the same features at opposite places; the heads have nothing to learn."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3))
        self.heads = nn.ModuleDict({"here": nn.Identity(), "there": nn.Identity()})


def opposed_losses(model: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    features = model.encoder(inputs)
    target = torch.tensor([1.0, 0.5, -0.5])
    return {
        "here": (model.heads["here"](features) - target).square().sum(1).mean(),
        "there": (model.heads["there"](features) + target).square().sum(1).mean(),
    }


@pytest.mark.parametrize("seed", [0, 1])
def test_opposed_tasks_are_turned_towards_each_other(seed: int) -> None:
    def trained(balancer: eq.balance.Balancer) -> tuple[float, list[float]]:
        torch.manual_seed(seed)
        model = Opposed()
        inputs = torch.randn(32, 4)
        adam = torch.optim.Adam(model.parameters(), 2e-3)
        mtl = eq.MultiTaskOptimizer(eq.Objective(model, opposed_losses), adam, balancer)
        cosines = []
        for _ in range(150):
            total = sum(float(loss) for loss in mtl.step(inputs).values())
            if mtl.last.gramian is not None:
                cosines.append(float(mtl.last.pairwise_cosines[0, 1]))
        return total, cosines

    heads = {"here": "heads.here", "there": "heads.there"}
    equal, _ = trained(eq.LS())
    still, unturned = trained(eq.RotoGrad("encoder", heads, lr=0.0))
    assert unturned[60] < -0.8
    assert min(equal, still) >= 2.99  # 2‖t‖² = 3 is the best that one place for both can give
    for norms in (True, False):
        rotated, turned = trained(eq.RotoGrad("encoder", heads, lr=0.03, norms=norms))
        assert turned[0] < -0.5
        assert turned[60] > 0.8  # the angle fell from more than 120 degrees to less than 37
        assert rotated < 0.1


# -- robustness


def test_tasks_that_a_batch_lacks_keep_their_rotation() -> None:
    def partly(model: nn.Module, data: Any) -> dict[str, Tensor]:
        whole = losses(model, data[:2])
        return {task: whole[task] for task in data[2]}

    torch.manual_seed(0)
    model = Heads()
    objective = eq.Objective(model, partly, tasks=TASKS)
    balancer = eq.RotoGrad("encoder", {f"t{k}": f"heads.{k}" for k in (2, 0, 1)}, lr=0.05)
    mtl = eq.MultiTaskOptimizer(objective, torch.optim.SGD(model.parameters(), lr=0.01), balancer)
    mtl.step((*batch(), ("t0", "t2")))
    assert balancer.seen.tolist() == [1, 1, 0]  # in the order of the heads: t2, t0, t1
    identity = torch.eye(8, dtype=torch.float64)
    assert torch.equal(balancer.matrices[2], identity)
    assert not torch.allclose(balancer.matrices[1], identity)
    mtl.step((*batch(5, seed=1), ("t1",)))  # alone, there is nobody to turn to
    assert mtl.last.weights.tolist() == [1.0]
    before = balancer.matrices.clone()
    mtl.step((*batch(7, seed=2), ("t1", "t2")))
    assert torch.equal(balancer.matrices[1], before[1])
    assert not torch.equal(balancer.matrices[2], before[2])
    assert_rotations(balancer.matrices)


@pytest.mark.parametrize("scales", [(1e-10, 1.0, 1e10), (0.0, 1.0, 2.0), (0.0, 0.0, 0.0), (1e15, 1e15, 1e-15)])
@pytest.mark.filterwarnings("ignore:all task gradients")
def test_any_scale_and_vanishing_gradients(scales: tuple[float, ...]) -> None:
    def scaled(model: nn.Module, data: Any) -> dict[str, Tensor]:
        return {task: s * loss for s, (task, loss) in zip(scales, losses(model, data).items(), strict=True)}

    torch.manual_seed(0)
    model = Heads()
    mtl = eq.MultiTaskOptimizer(
        eq.Objective(model, scaled),
        torch.optim.Adam(model.parameters(), lr=1e-3),
        eq.RotoGrad("encoder", {f"t{k}": f"heads.{k}" for k in range(3)}, lr=0.01),
    )
    for step in range(20):
        mtl.step(batch(seed=step))
        assert torch.isfinite(mtl.last.weights).all()
    assert_rotations(mtl.balancer.matrices)
    assert all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())


def test_units_of_the_losses_do_not_matter_to_the_rotations() -> None:
    def trained(unit: float) -> Tensor:
        torch.manual_seed(0)
        model = Heads()
        mtl = eq.MultiTaskOptimizer(
            eq.Objective(model, lambda m, b: {task: unit * loss for task, loss in losses(m, b).items()}),
            torch.optim.SGD(model.parameters(), lr=0.01 / unit),
            eq.RotoGrad("encoder", {f"t{k}": f"heads.{k}" for k in range(3)}, lr=0.01),
        )
        for step in range(10):
            mtl.step(batch(seed=step))
        return mtl.balancer.matrices

    assert torch.allclose(trained(1.0), trained(2.0**-20), atol=1e-6)


def test_one_task() -> None:
    mtl = made(Heads(1))
    for step in range(3):
        mtl.step(batch(tasks=1, seed=step))
        assert mtl.last.weights.tolist() == [1.0]
    assert torch.equal(mtl.balancer.matrices[0], torch.eye(8, dtype=torch.float64))


@pytest.mark.parametrize("spoil", [lambda loss: loss * float("nan"), lambda loss: (loss - loss.detach()).sqrt()])
def test_a_failed_step_leaves_everything_as_it_was(spoil: Any) -> None:
    fails = [False]

    def function(model: nn.Module, data: Any) -> dict[str, Tensor]:
        values = losses(model, data)
        return values | {"t1": spoil(values["t1"])} if fails[0] else values

    def trained(failing: bool) -> tuple[dict[str, Tensor], Tensor]:
        torch.manual_seed(0)
        model = Heads()
        mtl = eq.MultiTaskOptimizer(
            eq.Objective(model, function),
            torch.optim.Adam(model.parameters(), lr=0.01),
            eq.RotoGrad("encoder", {f"t{k}": f"heads.{k}" for k in range(3)}, lr=0.05),
        )
        for step in range(6):
            if failing and step == 3:
                fails[0], before = True, kept(mtl.balancer.state_dict())
                with pytest.raises(eq.NonFiniteError, match='"t1"'):
                    mtl.step(batch(seed=99))
                assert_same_state(mtl.balancer.state_dict(), before)
                fails[0] = False
            mtl.step(batch(seed=step))
        return parameters_of(model), mtl.balancer.matrices

    (straight, turned), (stumbled, also) = trained(False), trained(True)
    assert same(straight, stumbled)
    assert torch.equal(turned, also)


def test_a_gradient_scaler_gives_the_same_rotations() -> None:
    def trained(**options: Any) -> tuple[dict[str, Tensor], Tensor, list[bool]]:
        torch.manual_seed(0)
        mtl = optimizer_of(eq.RotoGrad(lr=0.05), Heads(), lr=0.01, **options)
        skipped = []
        while mtl.balancer.seen is None or int(mtl.balancer.seen[0]) < 4:
            mtl.step(batch())
            skipped.append(mtl.last.skipped)
        return parameters_of(mtl.objective.model), mtl.balancer.matrices, skipped

    plain, turned, _ = trained()
    scaled, also, skipped = trained(scaler=torch.amp.GradScaler("cpu", init_scale=2.0**127))
    assert skipped[0]
    assert same(plain, scaled, atol=1e-6)
    assert torch.allclose(turned, also, atol=1e-5)


# -- the model, saved and served


def test_resumed_to_the_bit_and_served_elsewhere() -> None:
    straight, stopped = (made(lr=0.05, start="random", make=torch.optim.Adam, rate=0.01) for _ in range(2))
    for step in range(10):
        straight.step(batch(seed=step))
    for step in range(5):
        stopped.step(batch(seed=step))
    file = io.BytesIO()
    torch.save(stopped.state_dict(), file)
    file.seek(0)
    resumed = made(lr=0.05, start="random", make=torch.optim.Adam, rate=0.01)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for step in range(5, 10):
        resumed.step(batch(seed=step))
    assert same(parameters_of(straight.objective.model), parameters_of(resumed.objective.model))
    assert torch.equal(straight.balancer.matrices, resumed.balancer.matrices)

    model, inputs = straight.objective.model.eval(), batch(seed=77)[0]
    with torch.no_grad():
        expected = model(inputs)
        served = Heads()
        served.load_state_dict(model.state_dict())
        rotations = eq.balance.rotograd.Rotations(TASKS)
        rotations.load_state_dict(straight.balancer.rotations.state_dict())
        rotations.hook({f"t{k}": head for k, head in enumerate(served.heads)})
        assert all(torch.equal(a, b) for a, b in zip(served(inputs), expected, strict=True))
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert all(torch.equal(a, b) for a, b in zip(twin(inputs), expected, strict=True))
        straight.balancer.detach()
        plain = Heads()
        plain.load_state_dict(model.state_dict())
        assert all(torch.equal(a, b) for a, b in zip(model(inputs), plain(inputs), strict=True))
        assert not torch.allclose(model(inputs)[0], expected[0])


def test_rotations_called_by_the_model_itself() -> None:
    class Own(Heads):
        def __init__(self) -> None:
            super().__init__()
            self.rotations = eq.balance.rotograd.Rotations(TASKS, 8)

        def forward(self, inputs: Tensor) -> list[Tensor]:
            features = self.encoder(inputs)
            return [head(self.rotations(features, f"t{k}")).squeeze(-1) for k, head in enumerate(self.heads)]

    hooked = made(lr=0.05)
    torch.manual_seed(0)
    model = Own()
    own = optimizer_of(eq.RotoGrad("encoder", rotations=model.rotations, lr=0.05), model)
    for step in range(5):
        hooked.step(batch(seed=step))
        own.step(batch(seed=step))
    assert torch.equal(hooked.balancer.matrices, model.state_dict()["rotations.matrices"])
    assert same(parameters_of(hooked.objective.model), parameters_of(model))


def test_evaluations_between_steps_are_free() -> None:
    mtl = made()
    mtl.step(batch())
    model = mtl.objective.model
    with torch.no_grad():
        model.heads[0](torch.randn(3, 8))  # features from elsewhere
        model(batch(3)[0])
    assert mtl.gramian(batch()).shape == (3, 3)
    mtl.step(batch(seed=1))


# -- bad input


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lr": -1.0}, "lr must be finite and at least 0; got -1.0"),
        ({"burn_in": -1}, "burn_in must be a number of steps from 0 on; got -1"),
        ({"size": 0}, "size must be a number of channels from 1 on; got 0"),
        ({"dim": 0}, "dim must not be 0"),
        ({"start": "zero"}, 'start must be "identity" or "random"; got "zero"'),
        ({"features": 3}, "features must be a module or its name in the model; got int"),
        ({"heads": ["a"]}, "heads must be a mapping task → module"),
        ({"heads": {"a": 1}}, 'the head of task "a" must be a module or its name; got int'),
        ({"rotations": 1}, "rotations must be equipoise.balance.rotograd.Rotations; got int"),
        ({"rotations": eq.balance.rotograd.Rotations(["a"]), "heads": {"a": "b"}}, "not both"),
    ],
)
def test_bad_arguments(options: dict[str, Any], said: str) -> None:
    with pytest.raises(eq.InputError, match=re.escape(said)):
        eq.RotoGrad(**options)


def test_bad_parts() -> None:
    def refused(balancer: eq.balance.Balancer, said: str, model: nn.Module | None = None, **options: Any) -> None:
        model = Heads() if model is None else model
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with pytest.raises(eq.InputError, match=re.escape(said)):
            eq.MultiTaskOptimizer(eq.Objective(model, losses), optimizer, balancer, **options)

    heads: dict[str, Any] = {f"t{k}": f"heads.{k}" for k in range(3)}
    refused(eq.RotoGrad(), 'RotoGrad(features="encoder", heads=')
    refused(eq.RotoGrad("encodr", heads), 'no module "encodr". Did you mean "encoder"')
    refused(eq.RotoGrad("encoder", heads | {"t1": "heads.7"}), 'no module "heads.7"')
    refused(eq.RotoGrad(nn.Linear(1, 1), heads), "features must be a part of the objective's model")
    refused(eq.RotoGrad("encoder", heads | {"t1": "heads.0"}), "also that of another task")
    model = Heads()
    refused(
        eq.RotoGrad("encoder", heads),
        "takes gradients at features of its own; leave features= out",
        model,
        features=model.heads[0],
    )
    refused(eq.RotoGrad("encoder", heads), "is rotated already", made().objective.model)
    mtl = made()
    mtl.balancer.detach()
    made(mtl.objective.model)  # taken off, there is room for others


def test_what_a_step_cannot_do() -> None:
    heads = {f"t{k}": f"heads.{k}" for k in range(3)}

    def step(function: Any, said: str, balancer: eq.balance.Balancer | None = None, batches: int = 1) -> None:
        torch.manual_seed(0)
        model = Heads()
        before = parameters_of(model)
        chosen = balancer or eq.RotoGrad("encoder", heads)
        mtl = eq.MultiTaskOptimizer(eq.Objective(model, function), torch.optim.SGD(model.parameters(), lr=0.1), chosen)
        with pytest.raises(eq.InputError, match=re.escape(said)):
            mtl.step(*[batch()] * batches)
        assert same(before, parameters_of(model))

    def past_an_activation(model: Any, data: Any) -> dict[str, Tensor]:
        features = model.encoder(data[0]).relu()
        return {f"t{k}": head(features).square().mean() for k, head in enumerate(model.heads)}

    def without_the_head(model: Any, data: Any) -> dict[str, Tensor]:
        return losses(model, data) | {"t1": model.encoder(data[0]).square().mean()}

    def skipping(model: Any, data: Any) -> dict[str, Tensor]:
        features = model.encoder(data[0])
        return {"t0": model.heads[0](features).square().mean(), "t1": features.square().mean()}

    step(past_an_activation, 'task "t0" must be given the output of the features module as it is')
    step(without_the_head, "ran 2 times")
    step(skipping, 'nothing was rotated for task "t1"')
    step(losses, 'no rotation for task "t1"', eq.RotoGrad("encoder", {"t0": "heads.0"}))
    step(losses, "takes one batch per step", batches=2)
    step(lambda m, b: {task: lambda task=task: losses(m, b)[task] for task in TASKS}, "losses given as callables")
    step(losses, "rotations are of 9 channels; the features have 8", eq.RotoGrad("encoder", heads, size=9))
    with pytest.raises(eq.InputError, match="use MultiTaskOptimizer"):
        eq.backward(losses(Heads(), batch()), eq.RotoGrad("encoder", heads))


def test_states_of_others_are_refused() -> None:
    mtl = made()
    mtl.step(batch())
    state = mtl.balancer.state_dict()
    with pytest.raises(eq.InputError, match="RotoGrad keeps the state"):
        mtl.balancer.load_state_dict({})
    with pytest.raises(eq.InputError, match=r"rotations for t0, t1, t2; this RotoGrad has t0, t1: give it the same heads"):
        eq.RotoGrad("encoder", {"t0": "heads.0", "t1": "heads.1"}).load_state_dict(state)
    with pytest.raises(eq.InputError, match="rotations of 8 channels; this RotoGrad rotates 4"):
        eq.RotoGrad("encoder", {f"t{k}": f"heads.{k}" for k in range(3)}, size=4).load_state_dict(state)


# -- studies


def test_studies_say_when_a_problem_lacks_parts(tmp_path: Any) -> None:
    digits = digits_problem()
    assert Study(digits, "rotograd", folder=tmp_path).methods[0].label == "rotograd"
    bare = Problem("bare", digits.tasks, digits.metrics, digits.build, digits.data, digits.evaluate)
    with pytest.raises(eq.InputError, match='method "rotograd" acts on parts of the model, and problem "bare"'):
        Study(bare, "ls,rotograd", folder=tmp_path)
