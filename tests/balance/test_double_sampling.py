"""MoDo and SDMGrad: their recursions written out by hand, and where the further batches come from."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.balance.double_sampling import CrossObservation
from equipoise.data import TensorBatches
from equipoise.engine.gramian import cross_gramian
from tests.problems import Heads, batch, losses, optimizer_of, parameters_of, same
from tests.states import assert_same_state, kept

BOTH = ["modo", "sdmgrad"]
SCALE = np.array([[1.0, 3.0], [0.5, 1.0], [2.0, 0.2]])


def quadratics(model: nn.Module, center: Tensor) -> dict[str, Tensor]:
    """Three quadratics around points that a batch (noise) moves."""
    point = model.weight[0]
    targets = torch.tensor([[1.0, 0.0], [-1.0, 0.5], [0.0, -2.0]], dtype=torch.float64) + center
    scales = torch.from_numpy(SCALE)
    return {f"q{k}": 0.5 * (scales[k] * (point - targets[k]).square()).sum() for k in range(3)}


def gradients(point: np.ndarray, center: Tensor) -> np.ndarray:
    targets = np.array([[1.0, 0.0], [-1.0, 0.5], [0.0, -2.0]]) + center.numpy()
    return SCALE * (point - targets)


def noise(seed: int) -> Tensor:
    return 0.3 * torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def onto_simplex(point: np.ndarray) -> np.ndarray:
    """By bisection on the threshold, unlike the library's."""
    low, high = point.min() - 1, point.max()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(point - middle, 0).sum() > 1 else (low, middle)
    return np.maximum(point - low, 0)


def modo(shares: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    shares = onto_simplex(shares - 0.05 * (first @ (second.T @ shares) + 0.1 * shares))
    return shares, shares


def sdmgrad(shares: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scale = np.sqrt(np.maximum((first * second).sum(1), 0)).mean() ** 2
    velocity = np.zeros(3)
    for _ in range(7):
        velocity = 0.5 * velocity + first @ (second.T @ shares + 0.4 * second.mean(0)) / scale
        shares = onto_simplex(shares - 0.3 * velocity)
    return shares, (shares + 0.4 / 3) / 1.4


@pytest.mark.parametrize(
    ("balancer", "recursion"), [(eq.MoDo(gamma=0.05, rho=0.1), modo), (eq.SDMGrad(lam=0.4, steps=7, lr=0.3), sdmgrad)]
)
def test_steps_are_the_papers_recursion(balancer: eq.balance.Balancer, recursion: Any) -> None:
    model = nn.Linear(2, 1, bias=False, dtype=torch.float64)
    point = model.weight.detach().numpy()[0].copy()
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, quadratics), torch.optim.SGD(model.parameters(), lr=0.1), balancer)
    shares = np.full(3, 1 / 3)
    for step in range(12):
        here, first, second = (noise(100 * step + place) for place in range(3))
        mtl.step(here, further=(first, second))
        shares, weights = recursion(shares, gradients(point, first), gradients(point, second))
        point = point - 0.1 * weights @ gradients(point, here)
        assert np.allclose(mtl.last.weights.numpy(), weights, atol=1e-10)
        assert np.allclose(model.weight.detach().numpy()[0], point, atol=1e-10)
    assert weights.std() > 0.01


def test_without_noise_sdmgrad_finds_the_common_descent_direction() -> None:
    g = torch.tensor([[1.0, 0.2], [-0.3, 1.0], [0.5, 0.5]], dtype=torch.float64)
    direction = eq.SDMGrad(lam=0.0, steps=3000, lr=0.05).weights(g @ g.T) @ g
    expected = eq.MGDA().weights(g @ g.T) @ g
    assert torch.allclose(direction, expected / eq.MGDA().weights(g @ g.T).sum(), atol=1e-6)


def test_the_products_between_two_batches_are_without_bias() -> None:
    """Their mean over many draws is the Gramian of the mean gradients; that of one batch has the noise on its diagonal."""
    generator = torch.Generator().manual_seed(3)
    truth = torch.tensor([[1.0, 2.0, 0.0], [0.5, -1.0, 1.0]], dtype=torch.float64)
    draws = truth + torch.randn(40_000, 2, 2, 3, dtype=torch.float64, generator=generator)
    between = torch.einsum("nip,njp->ij", draws[:, 0], draws[:, 1]) / len(draws)
    within = torch.einsum("nip,njp->ij", draws[:, 0], draws[:, 0]) / len(draws)
    assert torch.allclose(between, truth @ truth.T, atol=0.08)
    assert torch.allclose(within - truth @ truth.T, 3 * torch.eye(2, dtype=torch.float64), atol=0.12)
    for a, b in draws[:3]:
        assert torch.allclose(cross_gramian(a, b), torch.einsum("ip,jp->ij", a, b))
    long = torch.randn(2, 4, 50_000)
    assert torch.allclose(cross_gramian(long[0], long[1]), long[0].double() @ long[1].double().T)


@pytest.mark.parametrize("name", BOTH)
def test_zero_gradients_and_hopeless_noise_are_finite(name: str) -> None:
    noise = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for cross in (0 * noise, -noise @ noise.T, 1e280 * noise, 1e-280 * noise, noise, noise - noise.diag().diag()):
        balancer = eq.balancer(name)
        seen = CrossObservation(("a", "b", "c"), (0, 1, 2), torch.ones(3), cross=cross, crossed=(0, 1, 2))
        for _ in range(3):
            weights = balancer.decide(seen)
            assert torch.isfinite(weights).all()
            assert float(weights.sum()) == pytest.approx(1.0)
            assert (weights >= 0).all()


def test_the_order_of_the_tasks_does_not_matter_to_sdmgrad() -> None:
    """With steps small enough to settle; large ones circle, and make much of a difference in rounding."""
    g = torch.randn(5, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    order = torch.tensor([3, 0, 4, 1, 2])
    balancer = eq.SDMGrad(lr=0.1)
    assert torch.allclose(balancer.weights(g @ g.T)[order], balancer.weights(g[order] @ g[order].T), atol=1e-9)


@pytest.mark.parametrize("name", BOTH)
def test_heads_learn_from_the_steps_batch_alone(name: str) -> None:
    mtl = optimizer_of(name, lr=0.0)
    model = mtl.objective.model
    mtl.step(batch())
    for k, loss in enumerate(losses(model, batch()).values()):
        expected = torch.autograd.grad(loss, list(model.heads[k].parameters()))
        assert all(torch.allclose(p.grad, g) for p, g in zip(model.heads[k].parameters(), expected, strict=True))


@pytest.mark.parametrize("batched", [None, 0])
@pytest.mark.parametrize("name", BOTH)
def test_micro_batches_callables_and_the_drop_in_take_the_same_steps(name: str, batched: int | None) -> None:
    def lazily(model: nn.Module, data: Any) -> dict[str, Any]:
        return {task: lambda task=task: losses(model, data)[task] for task in ("t0", "t1", "t2")}

    def halves(data: Any) -> list[Any]:
        return list(zip(data[0].chunk(2), data[1].chunk(2), strict=True))

    whole, parts = optimizer_of(name), optimizer_of(name, batched=batched)
    torch.manual_seed(0)
    model, own = Heads(), Heads()
    own.load_state_dict(whole.objective.model.state_dict())
    model.load_state_dict(whole.objective.model.state_dict())
    late = eq.MultiTaskOptimizer(eq.Objective(model, lazily), torch.optim.SGD(model.parameters(), lr=0.05), name)
    sgd, balancer = torch.optim.SGD(own.parameters(), lr=0.05), eq.balancer(name)
    for step in range(4):
        here, first, second = (batch(seed=10 * step + place) for place in range(3))
        whole.step(here, further=(first, second))
        parts.step(*halves(here), further=(*halves(first), *halves(second)))
        late.step(here, further=[first, second])
        sgd.zero_grad()
        eq.backward(losses(own, here), balancer, further=[losses(own, first), losses(own, second)])
        sgd.step()
    expected = parameters_of(whole.objective.model)
    for other in (parts.objective.model, model, own):
        assert same(expected, parameters_of(other), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(balancer.shares, torch.full((3,), 1 / 3, dtype=torch.float64), atol=1e-6)


def test_the_drop_in_adds_to_what_is_there() -> None:
    model = Heads()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    balancer = eq.MoDo()
    eq.backward(losses(model, batch()), balancer, further=[losses(model, batch(seed=s)) for s in (1, 2)])
    added = [p.grad - 1 for p in model.heads.parameters()]
    model.zero_grad()
    eq.backward(losses(model, batch()), eq.MoDo(), further=[losses(model, batch(seed=s)) for s in (1, 2)])
    assert all(torch.allclose(a, p.grad, atol=1e-5) for a, p in zip(added, model.heads.parameters(), strict=True))


@pytest.mark.parametrize("shown", [True, False])
def test_the_drop_in_keeps_nothing_of_further_batches(shown: bool) -> None:
    """Not in ``.grad``, whether or not the shared parameters were declared."""
    model = Heads()
    balancer = eq.MoDo(gamma=0.0)
    shared = model.encoder.parameters() if shown else None
    eq.backward(losses(model, batch()), balancer, shared, further=[losses(model, batch(seed=s)) for s in (1, 2)])
    got = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    (sum(losses(model, batch()).values()) / 3).backward()  # type: ignore[union-attr]
    for name, parameter in model.named_parameters():
        factor = 1 if name.startswith("encoder") else 3
        assert torch.allclose(got[name], factor * parameter.grad, atol=1e-6)


class Explode(torch.autograd.Function):
    """Fine going forward, not a number coming back."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return grad * float("nan")


def spoilt(model: nn.Module, data: Any) -> dict[str, Tensor]:
    found = losses(model, data[:2])
    if len(data) > 2:
        found["t1"] = Explode.apply(found["t1"]) if data[2] == "gradient" else found["t1"] * float("nan")
    return found


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("name", BOTH)
def test_what_is_not_finite_in_any_of_the_batches_changes_nothing(name: str, place: int, what: str) -> None:
    torch.manual_seed(0)
    model = Heads(norm=True)
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, spoilt), torch.optim.Adam(model.parameters(), lr=0.01), name)
    mtl.step(batch(), further=(batch(seed=1), batch(seed=2)))
    before = kept(mtl.state_dict())
    batches = [batch(seed=3), batch(seed=4), batch(seed=5)]
    batches[place] = (*batches[place], what)
    with pytest.raises(eq.NonFiniteError, match=f'the {what} of task "t1" is not finite in step 1'):
        mtl.step(batches[0], further=tuple(batches[1:]))
    assert_same_state(mtl.state_dict(), before)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_scaler_skips_the_step_wherever_the_overflow_is(place: int) -> None:
    torch.manual_seed(0)
    model = Heads()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    mtl = eq.MultiTaskOptimizer(
        eq.Objective(model, spoilt), torch.optim.SGD(model.parameters(), lr=0.01), "modo", scaler=scaler
    )
    batches: list[Any] = [batch(seed=3), batch(seed=4), batch(seed=5)]
    batches[place] = (*batches[place], "gradient")
    before = parameters_of(model)
    mtl.step(batches[0], further=tuple(batches[1:]))
    assert mtl.last.skipped
    assert same(before, parameters_of(model))
    assert mtl.balancer.shares is None
    assert scaler.get_scale() == 2.0**9


def test_a_scaler_does_not_change_the_step() -> None:
    plain, scaled = optimizer_of("sdmgrad"), optimizer_of("sdmgrad", scaler=torch.amp.GradScaler("cpu", init_scale=2.0**8))
    for step in range(3):
        plain.step(batch(seed=step))
        scaled.step(batch(seed=step))
    assert same(parameters_of(plain.objective.model), parameters_of(scaled.objective.model), rtol=1e-4, atol=1e-6)


EVERY = ("t0", "t1", "t2")


def some(model: nn.Module, data: Any) -> dict[str, Tensor]:
    """Losses of the tasks that the batch says it holds."""
    return {task: loss for task, loss in losses(model, data[0]).items() if task in data[1]}


def test_tasks_that_a_batch_lacks() -> None:
    model = Heads()
    objective = eq.Objective(model, some, tasks=EVERY)
    mtl = eq.MultiTaskOptimizer(objective, torch.optim.SGD(model.parameters(), lr=0.01), eq.MoDo(gamma=0.1))
    mtl.step((batch(), EVERY), further=((batch(seed=1), EVERY), (batch(seed=2), EVERY)))
    before = mtl.balancer.shares.clone()
    products = [
        torch.stack(
            [torch.cat([g.flatten() for g in torch.autograd.grad(loss, mtl.shared, retain_graph=True)]) for loss in found]
        )
        for found in (list(losses(model, batch(seed=seed)).values()) for seed in (3, 4))
    ]
    cross = (products[0][[0, 2]] @ products[1][[0, 2]].T).double().numpy()
    mtl.step((batch(), ("t0", "t1")), further=((batch(seed=3), EVERY), (batch(seed=4), ("t0", "t2"))))
    after = mtl.balancer.shares
    assert after[1] == before[1]
    together = float(before[[0, 2]].sum())
    start = before[[0, 2]].numpy() / together
    assert np.allclose(after[[0, 2]].numpy(), together * onto_simplex(start - 0.1 * cross @ start), atol=1e-5)
    assert not torch.allclose(after, before, atol=1e-3)
    assert torch.equal(mtl.last.weights, after[:2]), "the weights of absent tasks are not shared out"
    # No task in both: nothing moves.
    mtl.step((batch(), EVERY), further=((batch(seed=5), ("t1",)), (batch(seed=6), ("t0", "t2"))))
    assert torch.equal(mtl.balancer.shares, after)
    objective.losses = lambda model, data: some(model, data) or {"t9": losses(model, data[0])["t0"]}
    with pytest.raises(eq.errors.UnknownTaskError, match="t9") as raised:
        mtl.step((batch(), EVERY), further=((batch(seed=5), EVERY), (batch(seed=6), ())))
    assert raised.value.__notes__ == ["this is about further batch 2 of the step"]


class Halves(nn.Module):
    """Two encoders: one for the tasks t0 and t1, one for t1 and t2."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 4), nn.Linear(6, 4)
        self.heads = nn.ModuleList(nn.Linear(4, 1) for _ in range(3))

    def forward(self, inputs: Tensor) -> list[Tensor]:
        first, second = self.first(inputs).tanh(), self.second(inputs).tanh()
        features = (first, first + second, second)
        return [head(part).squeeze(-1) for head, part in zip(self.heads, features, strict=True)]


@pytest.mark.parametrize("drop_in", [False, True])
@pytest.mark.parametrize("name", BOTH)
def test_what_is_shared_is_found_in_all_the_batches_of_a_step(name: str, drop_in: bool) -> None:
    """Each batch holds other tasks, so none of them alone tells; the steps are those with the shared parameters declared."""

    def trained(declared: bool) -> tuple[dict[str, Tensor], Tensor]:
        torch.manual_seed(0)
        model = Halves()
        shared = [*model.first.parameters(), *model.second.parameters()] if declared else None
        balancer, optimizer = eq.balancer(name), torch.optim.SGD(model.parameters(), lr=0.05)
        mtl = eq.MultiTaskOptimizer(eq.Objective(model, some, tasks=EVERY), optimizer, balancer, shared)
        held = [("t0", "t1"), ("t0", "t1", "t2"), ("t1", "t2")]
        for step in range(6):
            here, *further = ((batch(seed=10 * step + place), held[(step + place) % 3]) for place in range(3))
            if drop_in:
                optimizer.zero_grad()
                told = [some(model, data) for data in further]
                eq.backward(some(model, here), balancer, shared, tasks=EVERY, further=told)
                optimizer.step()
            else:
                mtl.step(here, further=further)
        return parameters_of(model), balancer.shares

    (found, shares), (told, others) = trained(False), trained(True)
    assert same(found, told)
    assert torch.equal(shares, others)
    assert float(shares.std()) > 1e-4


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("name", BOTH)
def test_further_batches_leave_no_trace(name: str, micro_batches: int) -> None:
    """Batch-norm statistics and random numbers go on as after a step without further batches."""

    def stepped(method: str) -> tuple[nn.Module, Tensor]:
        torch.manual_seed(0)
        model = Heads(norm=True, dropout=0.5)
        rows = [tuple(row) for row in zip(*batch(40), strict=True)]
        loader = torch.utils.data.DataLoader(rows, batch_size=8, shuffle=True)  # type: ignore[arg-type]
        objective = eq.Objective(model, losses, batches=loader)
        mtl = eq.MultiTaskOptimizer(objective, torch.optim.SGD(model.parameters(), lr=0.0), method)
        for step in range(4):  # more than one pass over the five batches
            mtl.step(*(batch(seed=10 * step + part) for part in range(micro_batches)))
        return model, torch.get_rng_state()

    (model, random), (plain, expected) = stepped(name), stepped("mgda")
    assert same(dict(model.named_buffers()), dict(plain.named_buffers()))
    assert torch.equal(random, expected)


def test_further_batches_draw_random_numbers_of_their_own() -> None:
    """Were the masks of two batches the same, their products would have the masks' noise on the diagonal."""
    seen: list[Tensor] = []

    def masked(model: nn.Module, data: Tensor) -> Tensor:
        seen.append(torch.rand(4))
        return model(data).square().mean(0)

    model = nn.Linear(3, 2)
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, masked), torch.optim.SGD(model.parameters(), lr=0.01), "modo")
    inputs = torch.ones(4, 3)
    for _ in range(2):
        mtl.step(inputs, further=(inputs, inputs))
    assert len(seen) == 3 + 2 * 3, "once more in the first step only, to find what is shared"
    performed = [*seen[3:]]
    assert len({tuple(mask.tolist()) for mask in performed}) == 6
    torch.manual_seed(5)
    mtl.step(inputs, further=(inputs, inputs))
    again = [mask.clone() for mask in seen[-3:]]
    torch.manual_seed(5)
    mtl.step(inputs, further=(inputs, inputs))
    assert all(torch.equal(a, b) for a, b in zip(again, seen[-3:], strict=True)), "and they follow from the random state"


class Counted:
    """A loader that counts how many batches were taken from it."""

    def __init__(self, length: int = 3) -> None:
        self.length = length
        self.taken = 0

    def __iter__(self) -> Iterator[Any]:
        for place in range(self.length):
            self.taken += 1
            yield batch(seed=place)


def test_batches_are_drawn_when_they_are_needed_and_round_and_round() -> None:
    loader = Counted()
    model = Heads()
    mtl = eq.MultiTaskOptimizer(
        eq.Objective(model, losses, batches=loader), torch.optim.SGD(model.parameters(), lr=0.01), "modo"
    )
    assert loader.taken == 0
    mtl.step(batch())
    assert loader.taken == 2
    mtl.step(batch(), batch())
    assert loader.taken == 6
    place = mtl.state_dict()["further"]
    assert (place["passes"], place["drawn"]) == (1, 3)
    mtl.step(batch(), further=(batch(), batch()))
    assert loader.taken == 6
    plain = eq.MultiTaskOptimizer(
        eq.Objective(model, losses, batches=loader), torch.optim.SGD(model.parameters(), lr=0.01), "mgda"
    )
    plain.step(batch())
    assert loader.taken == 6


def in_memory() -> Any:
    rows = {"x": batch(48)[0], "y": batch(48)[1]}
    return TensorBatches(rows, 16, shuffle=True, seed=3)


def loaded(generator: torch.Generator | None = None, *, batched: bool = False) -> Any:
    rows = [{"x": x, "y": y} for x, y in zip(*batch(48), strict=True)]

    def noisy(found: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        x = torch.stack([row["x"] for row in found])
        return {"x": x + 0.1 * torch.randn(x.shape), "y": torch.stack([row["y"] for row in found])}

    if batched:
        sampler = torch.utils.data.RandomSampler(rows, generator=generator)
        batches = torch.utils.data.BatchSampler(sampler, 16, drop_last=False)
        return torch.utils.data.DataLoader(rows, batch_sampler=batches, collate_fn=noisy)  # type: ignore[arg-type]
    return torch.utils.data.DataLoader(rows, batch_size=16, shuffle=True, collate_fn=noisy, generator=generator)  # type: ignore[arg-type]


LOADERS: dict[str, Any] = {
    "TensorBatches": in_memory,
    "DataLoader": loaded,
    "DataLoader with a generator": lambda: loaded(torch.Generator().manual_seed(4)),
    "DataLoader with a batch sampler": lambda: loaded(torch.Generator().manual_seed(4), batched=True),
}


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("stop", [0, 4, 5])
def test_resumed_training_draws_the_same_batches(loader: str, stop: int) -> None:
    def made() -> eq.MultiTaskOptimizer:
        torch.manual_seed(0)
        model = Heads(norm=True)
        objective = eq.Objective(model, lambda model, data: losses(model, (data["x"], data["y"])), batches=LOADERS[loader]())
        return eq.MultiTaskOptimizer(objective, torch.optim.Adam(model.parameters(), lr=0.01), eq.MoDo(gamma=0.05))

    def go(mtl: eq.MultiTaskOptimizer, steps: range) -> None:
        for step in steps:
            inputs, targets = batch(seed=step)
            mtl.step({"x": inputs, "y": targets})

    straight, stopped, resumed = made(), made(), made()
    go(straight, range(9))
    go(stopped, range(stop))
    file = io.BytesIO()
    torch.save(stopped.state_dict(), file)
    file.seek(0)
    torch.manual_seed(99)  # drawing depends on the saved seed alone
    resumed.load_state_dict(torch.load(file, weights_only=True))
    go(resumed, range(stop, 9))
    assert same(parameters_of(straight.objective.model), parameters_of(resumed.objective.model))
    assert torch.equal(straight.balancer.shares, resumed.balancer.shares)
    if loader == "TensorBatches":
        copied = copy.deepcopy(stopped)
        go(copied, range(stop, 9))
        assert same(parameters_of(straight.objective.model), parameters_of(copied.objective.model))


def test_a_seed_chooses_the_batches() -> None:
    def drawn(seed: int) -> Tensor:
        return torch.cat([data["x"] for data in eq.further.FurtherBatches(loaded(), seed).draw(3)])

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_passes_differ_from_those_of_the_training() -> None:
    rows = TensorBatches({"x": torch.arange(64)}, 64, shuffle=True, seed=3)
    orders = [rows.order(epoch).tolist() for epoch in range(20)]
    further = eq.further.FurtherBatches(TensorBatches({"x": torch.arange(64)}, 64, shuffle=True, seed=3))
    drawn = [data["x"].tolist() for data in further.draw(20)]
    assert len({tuple(order) for order in orders + drawn}) == 40


def test_bad_input() -> None:
    model = Heads()
    sgd = torch.optim.SGD(model.parameters(), lr=0.01)
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), sgd, "sdmgrad")
    with pytest.raises(
        eq.InputError, match=r"SDMGrad looks at 2 further batches per step: give a loader.*further=\(first, second\)"
    ):
        mtl.step(batch())
    with pytest.raises(eq.InputError, match="a tuple of 2 batches, or of a multiple of 2; got 3 of them"):
        mtl.step(batch(), further=(batch(), batch(), batch()))
    with pytest.raises(eq.InputError, match="got dict"):
        mtl.step(batch(), further={"a": batch()})  # type: ignore[arg-type]
    with pytest.raises(eq.InputError, match=r"FairGrad.*looks at no further batches; leave further= out"):
        eq.MultiTaskOptimizer(eq.Objective(model, losses), sgd, "fairgrad").step(batch(), further=(batch(), batch()))
    with pytest.raises(eq.InputError, match=r"MoDo looks at 2 further batches: further=.*; got 0"):
        eq.backward(losses(model, batch()), eq.MoDo())
    with pytest.raises(eq.InputError, match="MGDA looks at no further batches; got 1"):
        eq.backward(losses(model, batch()), eq.MGDA(), further=[losses(model, batch())])
    with pytest.raises(eq.InputError, match="again and again"):
        eq.Objective(model, losses, batches=iter([batch()]))
    with pytest.raises(eq.InputError, match="gave no batch in a whole pass"):
        eq.further.FurtherBatches([]).draw(1)
    features = eq.MultiTaskOptimizer(eq.Objective(model, losses, batches=[batch()]), sgd, "modo", features=model.encoder)
    with pytest.raises(eq.InputError, match="looks at further ones"):
        features.step(batch())
    for name, options, message in [
        ("modo", {"gamma": -1.0}, "gamma must be finite and at least 0; got -1.0"),
        ("modo", {"rho": float("inf")}, "rho"),
        ("sdmgrad", {"lam": -1.0}, "lam"),
        ("sdmgrad", {"steps": 0}, "steps must be a whole number of at least 1; got 0"),
        ("sdmgrad", {"momentum": 1.0}, "momentum"),
    ]:
        with pytest.raises(eq.InputError, match=message):
            eq.balancer(name, **options)
