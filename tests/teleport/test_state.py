"""Stopping before, in the epoch of, and right after a teleport, and going on: the same bits and the same history."""

from __future__ import annotations

import copy
import io
import itertools
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import equipoise as eq
from equipoise.teleport import COST, OFT, Dense, LowRank, Probes
from tests import problems
from tests.states import assert_same_state, kept
from tests.teleport.helpers import always, eager_cost, optimizer_with, timeless

EPOCH = 4
STEPS = 11
# With two batches to search on and one to judge, the first attempt comes after step 2.
STOPS = [1, 2, 3, 5, 8]
BALANCERS: dict[str, Any] = {
    "mgda": eq.MGDA,
    "fairgrad": eq.FairGrad,
    "nash-mtl": lambda: eq.NashMTL(update_every=3),
    "famo": eq.FAMO,
    "dwa": eq.DWA,
    "ls": eq.LS,
}


def cost_of(**options: Any) -> COST:
    settings: dict[str, Any] = {"delta": LowRank(rank=2), "probe_batches": 2, "per_epoch": 2, "cooldown": 2, "seed": 3}
    return eager_cost(**(settings | options))


def build(balancer: str, cost: COST, seed: int = 0, make: Any = torch.optim.Adam, **options: Any) -> eq.MultiTaskOptimizer:
    torch.manual_seed(seed)
    return optimizer_with(cost, BALANCERS[balancer](), problems.Heads(norm=True), make=make, lr=0.01, **options)


def run(mtl: eq.MultiTaskOptimizer, steps: range) -> None:
    for step in steps:
        mtl.step(problems.batch(seed=step))
        if step % EPOCH == EPOCH - 1:
            mtl.end_epoch()


def saved_and_loaded(state: dict[str, Any]) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def outcome(mtl: eq.MultiTaskOptimizer) -> dict[str, Tensor]:
    found = {name: tensor.clone() for name, tensor in mtl.objective.model.state_dict().items()}
    for number, state in mtl.optimizer.state_dict()["state"].items():
        found |= {f"{number}.{name}": tensor.clone() for name, tensor in state.items() if isinstance(tensor, Tensor)}
    return found


def check(balancer: str, options: dict[str, Any], stops: list[int], *, undisturbed: bool = False, **settings: Any) -> COST:
    """Resumes a run from what it saved at each stop. With ``undisturbed``, it must be as one that saves nothing."""

    def fresh(seed: int = 0) -> tuple[COST, eq.MultiTaskOptimizer]:
        cost = cost_of(**options)
        scaler = {"scaler": torch.amp.GradScaler("cpu", init_scale=2.0**8)} if settings.get("scaler") else {}
        return cost, build(balancer, cost, seed, **(settings | scaler))

    saved_cost, saved = fresh()
    states: dict[Any, Any] = {}
    for start, end in itertools.pairwise([0, *stops, STEPS]):
        run(saved, range(start, end))
        states[end] = saved_and_loaded(saved.state_dict())
    expected = outcome(saved)
    for stop in stops:
        resumed_cost, resumed = fresh(seed=1)
        resumed.load_state_dict(states[stop])
        run(resumed, range(stop, STEPS))
        found = outcome(resumed)
        assert [name for name in expected if not torch.equal(expected[name], found[name])] == [], stop
        assert timeless(resumed_cost.attempts) == timeless(saved_cost.attempts), stop
    if undisturbed:
        _, straight = fresh()
        run(straight, range(STEPS))
        found = outcome(straight)
        assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    return saved_cost


@pytest.mark.parametrize(
    ("balancer", "stops"), [(name, STOPS if name == "mgda" else STOPS[k % 3 :: 2]) for k, name in enumerate(BALANCERS)]
)
def test_every_moment_to_stop(balancer: str, stops: list[int]) -> None:
    cost = check(balancer, {"history": "reuse"}, stops, undisturbed=True)
    assert len(cost.attempts) >= 3


@pytest.mark.parametrize("history", ["keep", "reset", "released"])
def test_every_treatment_of_the_history(history: str) -> None:
    check("mgda", {"history": history}, [3, 5])


def test_a_blend_that_is_still_to_come() -> None:
    """Right after the landing, before the step that the history is blended in."""
    landed = cost_of(history="reuse")
    mtl = build("mgda", landed)
    run(mtl, range(3))
    assert mtl.last is not None
    assert mtl.last.teleport.accepted
    check("mgda", {"history": "reuse", "stop_step": 3}, [3])


@pytest.mark.parametrize(
    "options",
    [
        {"guard": True, "tolerance": 0.005, "delta": Dense()},
        {"formulation": "released", "delta": OFT(blocks=2)},
        {"probe": "current", "held_out_batches": 0},
        {"held_out_batches": 3},
        {"start": 1, "stop": 3, "per_epoch": 1, "cooldown": 1},
        {"budget": 5.0},
        {"scaling": "none", "samples": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("balancer", ["fairgrad", "famo"])
def test_every_option_with_a_memory(balancer: str, options: dict[str, Any]) -> None:
    check(balancer, options | {"check_every": 2}, [3, 6])


@pytest.mark.parametrize("make", [torch.optim.NAdam, torch.optim.Adamax, torch.optim.SGD])
@pytest.mark.parametrize("history", ["reuse", "released"])
def test_other_optimizers(make: Any, history: str) -> None:
    check("mgda", {"history": history}, [3, 6], make=make)


def test_between_two_looks_of_a_loss_based_balancer() -> None:
    """When to look next depends on when that was done last, not on when the last attempt was."""
    cost = check("ls", {"check_every": 4, "cooldown": 1, "per_epoch": 9}, [3, 4, 5])
    assert [report.step for report in cost.attempts] == [2, 6, 10]


def test_losses_that_have_become_small() -> None:
    """They are compared to the largest they ever were, which the batches held no longer tell."""

    def losses(model: torch.nn.Module, batch: Any) -> dict[str, Tensor]:
        found = problems.losses(model, batch[:2])
        return found | {"t1": found["t1"] * batch[2]}

    def fresh() -> eq.MultiTaskOptimizer:
        torch.manual_seed(0)
        return optimizer_with(cost_of(per_epoch=None), "mgda", losses=losses, make=torch.optim.Adam)

    def go_on(mtl: eq.MultiTaskOptimizer, steps: range) -> None:
        for step in steps:
            mtl.step((*problems.batch(seed=step), 1.0 if step < 5 else 1e-6))

    straight, resumed, stopped = fresh(), fresh(), fresh()
    go_on(straight, range(14))
    go_on(stopped, range(9))
    resumed.load_state_dict(saved_and_loaded(stopped.state_dict()))
    go_on(resumed, range(9, 14))
    assert problems.same(*(problems.parameters_of(mtl.objective.model) for mtl in (straight, resumed)))


def test_with_a_gradient_scaler() -> None:
    check("mgda", {"history": "reuse"}, [3, 6], scaler=True)


def test_with_a_loader() -> None:
    """The batches held are saved, so that another loader, or another shuffle, changes nothing."""

    def loader(seed: int) -> DataLoader[Any]:
        generator = torch.Generator().manual_seed(seed)
        return DataLoader(TensorDataset(*problems.batch(64)), batch_size=8, shuffle=True, generator=generator)

    straight, stopped, resumed = (build("mgda", cost_of(probe=loader(seed))) for seed in (1, 1, 2))
    run(straight, range(STEPS))
    run(stopped, range(3))
    resumed.load_state_dict(saved_and_loaded(stopped.state_dict()))
    run(resumed, range(3, STEPS))
    expected, found = outcome(straight), outcome(resumed)
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []


def test_with_all_batches_of_the_loader_that_the_training_goes_through() -> None:
    """A search leaves the training's order alone, draws another one in each pass, and finds its place again."""
    searched: list[Tensor] = []

    def losses(model: nn.Module, batch: problems.Batch) -> dict[str, Tensor]:
        if not model.training:  # the released search
            searched.append(batch[0])
        return problems.losses(model, batch)

    def fresh() -> tuple[Any, torch.Generator, eq.MultiTaskOptimizer]:
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(3)
        loader = DataLoader(TensorDataset(*problems.batch(32)), 8, shuffle=True, generator=generator)
        cost = COST.released(always, epochs=1, delta=LowRank(rank=2), probes=Probes(loader, "all", 0))
        return loader, generator, optimizer_with(cost, losses=losses, make=torch.optim.Adam)

    def epochs(loader: Any, mtl: Any, count: int = 1) -> list[Tensor]:
        met = []
        for _ in range(count):
            for batch in loader:
                met.append(batch[0])
                mtl.step(batch)
            mtl.end_epoch()
        return met

    loader, generator, straight = fresh()
    met = epochs(loader, straight, 3)
    assert [report.accepted for report in straight.teleport.attempts] == [True] * 3  # type: ignore[union-attr]
    # L*, and in an inner step the losses at θ + Δθ on two batches, and on one of them at five perturbed points.
    assert len(searched) == 3 * (4 + 8 * (1 + 1 + 5))
    drawn = list({id(batch): batch for batch in searched if all(batch is not own for own in met)}.values())
    assert len(drawn) == 3 * 3 * 4
    passes = [torch.cat(drawn[start : start + 4]) for start in range(0, len(drawn), 4)]
    assert not any(torch.equal(passes[0], other) for other in passes[1:])

    loader, generator, other = fresh()
    other.teleport = None
    assert all(map(torch.equal, met, epochs(loader, other, 3)))

    loader, generator, stopped = fresh()
    epochs(loader, stopped, 2)
    state, order = saved_and_loaded(stopped.state_dict()), generator.get_state()
    loader, generator, resumed = fresh()
    resumed.load_state_dict(state)
    generator.set_state(order)
    epochs(loader, resumed)
    expected, found = outcome(straight), outcome(resumed)
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []


def test_the_dropout_masks_come_from_the_state_that_is_saved_beside() -> None:
    def fresh() -> eq.MultiTaskOptimizer:
        torch.manual_seed(0)
        return optimizer_with(cost_of(), "mgda", problems.Heads(dropout=0.3), make=torch.optim.Adam)

    straight, stopped, resumed = fresh(), fresh(), fresh()
    torch.manual_seed(5)
    run(straight, range(STEPS))
    torch.manual_seed(5)
    run(stopped, range(6))
    drawn, state = torch.get_rng_state(), saved_and_loaded(stopped.state_dict())
    resumed.load_state_dict(state)
    torch.set_rng_state(drawn)
    run(resumed, range(6, STEPS))
    assert problems.same(*(problems.parameters_of(mtl.objective.model) for mtl in (straight, resumed)))


def test_a_saved_state_is_a_copy() -> None:
    mtl = build("mgda", cost_of(history="reuse"))
    run(mtl, range(5))
    assert mtl.teleport is not None
    state = mtl.teleport.state_dict()
    frozen = kept(state)
    run(mtl, range(5, 10))
    assert_same_state(state, frozen)


def test_a_cost_can_be_copied_and_pickled() -> None:
    cost = cost_of(trigger="weak")
    run(build("mgda", cost), range(6))
    for copied in (copy.deepcopy(cost), pickle.loads(pickle.dumps(cost))):
        assert repr(copied) == repr(cost)
        assert timeless(copied.attempts) == timeless(cost.attempts)
        assert_same_state(copied.state_dict(), cost.state_dict())


def test_states_of_something_else() -> None:
    with pytest.raises(eq.InputError, match="this is no state of a COST: it lacks attempts, generator"):
        cost_of().load_state_dict({"schedule": {}})
    plain = optimizer_with(None, "mgda")
    plain.step(problems.batch())
    with pytest.raises(eq.InputError, match="saved without a teleport; this optimizer has one"):
        optimizer_with(cost_of(), "mgda").load_state_dict(plain.state_dict())


def test_two_runs_with_the_same_seed_are_the_same_and_with_another_are_not() -> None:
    runs = [build("mgda", cost_of(seed=seed)) for seed in (3, 3, 4)]
    for mtl in runs:
        run(mtl, range(8))
    first, again, other = (problems.parameters_of(mtl.objective.model) for mtl in runs)
    assert problems.same(first, again)
    assert not problems.same(first, other)
