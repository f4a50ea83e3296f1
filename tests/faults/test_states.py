"""Whatever is wrong with a saved state is said when it is loaded, in one line, and nothing has changed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.balance.rotograd import Rotations
from equipoise.bilevel.weighting import TaskWeighting
from equipoise.further import FurtherBatches
from equipoise.randomness import RandomState
from equipoise.teleport import COST, Guard, Probes, Schedule
from tests.states import assert_same_state, kept, same_state

TASKS = ("near", "far", "wide")


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 3)
        self.norm = nn.BatchNorm1d(3)
        self.heads = nn.ModuleDict({name: nn.Linear(3, 1) for name in TASKS})

    def forward(self, inputs: Tensor) -> Tensor:
        z = self.norm(self.encoder(inputs))
        return torch.cat([self.heads[name](z) for name in TASKS], 1)


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(8, 4, generator=generator), torch.randn(8, 3, generator=generator)


def losses(model: Any, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    inputs, targets = batch
    if isinstance(model, Heads) or hasattr(model, "norm"):
        z = model.norm(model.encoder(inputs))
        outputs = torch.cat([model.heads[name](z) for name in TASKS], 1)
    else:
        outputs = model(inputs)
    errors = (outputs - targets).square().mean(0)
    return dict(zip(TASKS, errors.unbind(), strict=True))


OPTIONS: dict[str, dict[str, Any]] = {
    "dwa": {},
    "nash-mtl": {"update_every": 2},
    "stch": {"formulation": "released", "warmup_epochs": 0},
    "rotograd": {"features": "norm", "heads": {name: f"heads.{name}" for name in TASKS}},
    "bayesagg-mtl": {
        "features": "norm",
        "heads": {name: f"heads.{name}" for name in TASKS},
        "targets": lambda batch: dict(zip(TASKS, batch[1].unbind(1), strict=True)),
    },
}
CASES: dict[str, Callable[[], Any]] = {
    info.name: (lambda name=info.name: eq.balancer(name, **OPTIONS.get(name, {}))) for info in eq.methods()
}
CASES |= {
    "ldc-mtl, network": lambda: eq.LDCMTL(router="mlp", features="norm"),
    "ldc-mtl, log": lambda: eq.LDCMTL(normalize="log", double_loop=True, inner_steps=1),
    "stch, before its reference": lambda: eq.STCH(formulation="released", warmup_epochs=5),
    "consmtl, gradvac": lambda: eq.ConsMTL(eq.GradVac()),
    "db-mtl, no average": lambda: eq.DBMTL(beta=0.0),
}


def trained(make: Callable[[], Any], steps: int = 3) -> eq.MultiTaskOptimizer:
    torch.manual_seed(0)
    model = Heads()
    objective = eq.Objective(model, losses, batches=[batch(seed) for seed in range(5)])
    mtl = eq.MultiTaskOptimizer(objective, torch.optim.Adam(model.parameters(), 1e-2), make())
    for step in range(steps):
        mtl.step(batch(step))
        if step == 0:
            mtl.end_epoch()
    return mtl


# -- mutations

HOSTILE = object()


def mutated(state: Any) -> Iterator[tuple[str, Any]]:
    """States that differ in one entry, at any depth, with the place and the kind of what was done."""
    for place, value in entries(state):
        for said, other in others(value):
            damaged = copy.deepcopy(state)
            put(damaged, place, other)
            yield f"{place}: {said}", damaged
    if isinstance(state, Mapping):
        for name in state:
            yield f"without {name}", {other: value for other, value in state.items() if other != name}
        yield "with more", {**state, "more": 1}
    for other in (None, 3, "text", [], {}, [("a", 1)]):
        yield f"{other!r} for all", other


def entries(state: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if place:
        yield place, state
    # Of many entries that are alike, one or two.
    if isinstance(state, Mapping):
        tensors = [name for name, value in state.items() if isinstance(value, Tensor)]
        alike = {*tensors[1:-2], *[name for name in state if isinstance(name, int)][1:]} if len(state) > 5 else set()
        for name in state:
            if name not in alike:
                yield from entries(state[name], (*place, name))
    elif isinstance(state, list | tuple):
        for number, value in enumerate(state[:1]):
            yield from entries(value, (*place, number))


def put(state: Any, place: tuple[Any, ...], value: Any) -> None:
    """Replaces an entry; the tuples on the way become new ones."""
    chain = [state]
    for name in place[:-1]:
        chain.append(chain[-1][name])
    for holder, name in zip(reversed(chain), reversed(place), strict=True):
        if isinstance(holder, tuple):
            value = (*holder[:name], value, *holder[name + 1 :])
        else:
            holder[name] = value
            return


def others(value: Any) -> Iterator[tuple[str, Any]]:
    """Values in the place of another: other types, shapes, dtypes, and numbers that make no sense."""
    if isinstance(value, Tensor):
        yield "text", "0.5"
        yield "a list", value.tolist()
        yield "NumPy", value.numpy()
        yield "an object", HOSTILE
        yield "longer", torch.cat([value, value]) if value.dim() else value.repeat(2)
        yield "another dimension", value[None]
        yield "empty", value.new_zeros(0)
        yield "sparse", value.to_sparse() if value.dim() else value[None].to_sparse()
        yield "on no device", value.to("meta")
        if value.is_floating_point():
            yield "complex", value.to(torch.complex64)
            yield "whole numbers", value.long()
            yield "half precision", value.half()
            if value.numel():
                yield "not a number", torch.full_like(value, torch.nan)
                yield "infinite", torch.full_like(value, torch.inf)
        else:
            yield "real", value.double()
            yield "shorter", value[:-1] if value.dim() and len(value) > 1 else value.new_zeros(0)
    elif isinstance(value, bool):
        yield from (("text", "yes"), ("a number", 0.5), ("none", None))
    elif isinstance(value, int | float):
        yield from (("text", "3"), ("none", None), ("a list", [value]), ("a tensor", torch.ones(2)), ("nan", float("nan")))
        yield from (("complex", 1j), ("an object", HOSTILE), ("a number", value))
    elif isinstance(value, str):
        yield from (("a number", 3), ("none", None), ("another text", value + "?"))
    elif value is None:
        yield from (("text", "3"), ("an object", HOSTILE), ("a number", 3), ("a mapping", {"a": 1}))
    elif isinstance(value, Mapping):
        yield from (("text", "3"), ("a list", list(value)), ("a number", 3))
    elif isinstance(value, list | tuple):
        yield from (("text", "3"), ("a mapping", {"a": 1}), ("a number", 3))
        if value:
            yield "shorter", type(value)(value[:-1])
    elif isinstance(value, np.ndarray):
        yield from (("text", "3"), ("longer", np.concatenate([value, value])))


def refused(load: Callable[[Any], None], damaged: Any, said: str) -> bool:
    """Whether a state is refused, in one line."""
    try:
        load(damaged)
    except eq.InputError as error:
        return "\n" not in str(error) or pytest.fail(f"{said}: {error}")
    return False


def refused_or_equal(load: Callable[[Any], None], state: Callable[[], Any], original: Any, damaged: Any, said: str) -> None:
    """Loading raises InputError and leaves everything, or takes up what can be saved again and is a legitimate state."""
    before = kept(state())
    if refused(load, damaged, said):
        assert_same_state(state(), before, said)
    else:
        load(kept(original))
        assert_same_state(state(), before, f"{said}, and back")


@pytest.mark.parametrize("name", CASES)
def test_every_entry_of_every_balancer(name: str) -> None:
    mtl = trained(CASES[name])
    balancer = mtl.balancer
    original = kept(balancer.state_dict())
    accepted = []
    for said, damaged in mutated(original):
        before = kept(balancer.state_dict())
        if refused(balancer.load_state_dict, damaged, said):
            assert_same_state(balancer.state_dict(), before, said)
        else:
            if not same_state(balancer.state_dict(), before):
                accepted.append(said)
            balancer.load_state_dict(kept(original))
    allowed = [entry for entry in accepted if unknowable(name, entry)]
    assert accepted == allowed, sorted(set(accepted) - set(allowed))


def unknowable(name: str, said: str) -> bool:
    """Mutations into states that such a balancer may well have."""
    place, _, what = said.rpartition(": ")
    unknown = ["last", "before_last", "reference", "first", "first_losses", "first_norms"]
    unknown += {"relobralo": ["averages"], "softadapt": ["history"], "ntk": ["traces"], "igb": ["base"]}.get(name, [])
    if what == "not a number":
        return any(f"'{entry}'" in place for entry in unknown)  # which stands for what is not known yet
    if what == "infinite":
        return any(f"'{entry}'" in place for entry in ("last", "before_last", "reference", "sums", "first_losses", "squares"))
    if what == "half precision":
        return any(f"'{entry}'" in place for entry in ("averages", "tracked", "moments", "squares", "solution", "state"))
    if "'param_groups'" in place:
        return what in (
            "infinite",
            "none",
            "a number",
            "text",
            "an object",
            "a tensor",
        )  # options, some of which may be anything
    # A parameter of another name is one that was not shared before.
    return what == "none" or (what == "another text" and "'layout'" in place)


def mtl_with_everything() -> eq.MultiTaskOptimizer:
    torch.manual_seed(0)
    model = Heads()
    objective = eq.Objective(model, losses, batches=[batch(seed) for seed in range(5)])
    cost = COST("weak", schedule=Schedule(budget=None, cooldown=1), probes=Probes("current"), guard=Guard())
    mtl = eq.MultiTaskOptimizer(objective, torch.optim.Adam(model.parameters(), 1e-2), eq.MoDo(), teleport=cost)
    for step in range(3):
        mtl.step(batch(step))
    return mtl


SKIPPED = ("'held'",)  # batches of whatever the user's loader gives


def test_every_entry_of_an_optimizer_with_a_teleport() -> None:
    mtl = mtl_with_everything()
    original = kept(mtl.state_dict())
    for said, damaged in mutated(original):
        if not any(part in said for part in SKIPPED):
            refused_or_equal(mtl.load_state_dict, mtl.state_dict, original, damaged, said)


def test_a_state_of_another_number_of_tasks_is_refused() -> None:
    mtl = trained(eq.FAMO)
    state = mtl.state_dict()
    state["balancer"]["logits"], state["balancer"]["moments"] = torch.zeros(2).double(), torch.zeros(3, 2).double()
    with pytest.raises(eq.InputError, match=r"shape \[K\] with K = 3"):
        mtl.load_state_dict(state)
    with pytest.raises(eq.InputError, match=r"shape \[K\] with K = 3"):
        mtl.balancer.load_state_dict(state["balancer"])
    eq.FAMO().load_state_dict(state["balancer"])  # which knows of no tasks yet


def test_a_fresh_optimizer_refuses_averages_of_other_shapes() -> None:
    state = trained(eq.MGDA).state_dict()
    state["optimizer"]["state"][0]["exp_avg"] = torch.zeros(7)
    fresh = trained(eq.MGDA, steps=0)
    before = kept(fresh.state_dict())
    with pytest.raises(eq.InputError, match=r'"exp_avg" of a parameter'):
        fresh.load_state_dict(state)
    assert_same_state(fresh.state_dict(), before)


def test_random_states_loaded_to_another_device_are_brought_back() -> None:
    for make in (eq.RLW, eq.GradDrop):
        balancer = make(seed=3)
        state = {"generator": balancer.state_dict()["generator"].to(torch.uint8)}
        balancer.load_state_dict(state)
    with pytest.raises(eq.InputError, match=r"torch\.Generator"):
        eq.RLW().load_state_dict({"generator": torch.zeros(5056, dtype=torch.uint8)})
    with pytest.raises(eq.InputError, match="PCG64"):
        eq.PCGrad().load_state_dict({"generator": np.random.Generator(np.random.MT19937(0)).bit_generator.state})


def test_random_state() -> None:
    good = RandomState.capture()
    for bad in (None, "state", torch.zeros(3), torch.zeros(16, dtype=torch.uint8)):
        with pytest.raises(eq.InputError, match="does not hold states"), RandomState(bad, {}).replayed():  # type: ignore[arg-type]
            raise AssertionError("not to be reached")
        assert good.equals(RandomState.capture())


def test_further_batches() -> None:
    generator = torch.Generator().manual_seed(1)
    loader = torch.utils.data.DataLoader(list(range(6)), batch_size=2, shuffle=True, generator=generator)
    further = FurtherBatches(loader, seed=0)
    further.draw(2)
    original = kept(further.state_dict())
    for said, damaged in mutated(original):
        refused_or_equal(further.load_state_dict, further.state_dict, original, damaged, said)


def bilevel(kind: str) -> Any:
    torch.manual_seed(0)
    outer, inner = nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    inputs = torch.randn(6, 2)

    def upper(outer: nn.Module, inner: nn.Module, batch: Any) -> dict[str, Tensor]:
        out = inner(outer(inputs))
        return {"one": out.square().mean(), "two": (out - 1).square().mean()}

    problem = eq.bilevel.BilevelProblem(
        lower=lambda outer, inner, batch: (inner(outer(inputs)) - 0.5).square().mean(), upper=upper, variables=(outer, inner)
    )
    parameters = [*outer.parameters(), *([] if kind == "MOML" else inner.parameters())]
    options: dict[str, Any] = {"lower_steps": 2, "lower_lr": 0.1}
    if kind == "MOML":
        options |= {"balancer": eq.GradNorm(), "start": "cold"}
    solver = getattr(eq.bilevel, kind)(problem, torch.optim.Adam(parameters, 1e-2), **options)
    for _ in range(2):
        solver.step()
    return solver


@pytest.mark.parametrize("kind", ["MOML", "FORUM"])
def test_bilevel_solvers(kind: str) -> None:
    solver = bilevel(kind)
    original = kept(solver.state_dict())
    for said, damaged in mutated(original):
        refused_or_equal(solver.load_state_dict, solver.state_dict, original, damaged, said)


@pytest.mark.parametrize("known", [True, False], ids=["under way", "fresh"])
def test_task_weightings(known: bool) -> None:
    def made() -> Any:
        torch.manual_seed(0)
        model = nn.Linear(4, 3)
        loader = torch.utils.data.DataLoader(list(range(4)), batch_size=1)
        loader.collate_fn = lambda numbers: batch(int(numbers[0]))
        return TaskWeighting(eq.Objective(model, losses), torch.optim.Adam(model.parameters(), 1e-2), "moml", validation=loader)

    first = made()
    for step in range(2):
        first.step(batch(step))
    original = kept(first.state_dict())
    loaded = first if known else made()
    for said, damaged in mutated(original):
        before = kept(loaded.state_dict())
        if refused(loaded.load_state_dict, damaged, said):
            assert_same_state(loaded.state_dict(), before, said)
        else:
            loaded = first if known else made()
            if known:
                loaded.load_state_dict(kept(original))


@pytest.mark.parametrize("size", [3, None], ids=["known size", "size still unknown"])
def test_rotations_of_a_model(size: int | None) -> None:
    good = torch.eye(3).double().repeat(2, 1, 1)
    for bad in (
        None,
        "text",
        good.float(),
        good[:1],
        good[0],
        good * torch.nan,
        torch.eye(3)[None, :2].repeat(2, 1, 1).double(),
    ):
        rotations = Rotations(["a", "b"], size)
        before = kept(dict(rotations.named_buffers()))
        with pytest.raises((eq.InputError, RuntimeError)):
            rotations.load_state_dict({"matrices": bad})
        assert_same_state(dict(rotations.named_buffers()), before)
    rotations = Rotations(["a", "b"], size)
    rotations.load_state_dict({"matrices": good})
    assert rotations.matrices is not None
    assert torch.equal(rotations.matrices, good)
