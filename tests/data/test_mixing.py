"""Several data sets as one epoch: compared with hand-written loops, counted, stopped anywhere, and in several processes."""

from __future__ import annotations

import copy
import itertools
import math
from collections import Counter
from typing import Any

import pytest
import torch
from tests.integration.processes import Pool
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    TensorDataset,
)

import equipoise as eq
from equipoise.data import DatasetBatches, EpochDataset, MixedLoaders, TensorBatches, alternate, zip_loaders
from equipoise.errors import InputError
from equipoise.further import FurtherBatches


class Noisy(Dataset[Tensor]):
    """Rows that draw from torch's global generator."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, row: int) -> Tensor:
        return row + torch.rand(1)


class Endless(IterableDataset[int]):
    def __iter__(self):
        return iter(range(3))


class Rows(EpochDataset):
    def __len__(self) -> int:
        return 7

    def at(self, row: int, epoch: int) -> dict[str, Any]:
        READ.append(row)
        return {"x": torch.tensor([row, epoch])}


READ: list[int] = []


def flat(batch: Any) -> list[float]:
    if isinstance(batch, dict):
        return [number for part in batch.values() for number in flat(part)]
    if isinstance(batch, list | tuple):
        return [number for part in batch for number in flat(part)]
    return torch.as_tensor(batch, dtype=torch.float64).flatten().tolist()


def seen(steps: Any) -> list[dict[str, list[float]]]:
    return [{name: flat(batch) for name, batch in step.items()} for step in steps]


def several(seed: int = 3) -> dict[str, Any]:
    """One of each kind: shuffled by torch's global generator, by its own, by a batch sampler, by passes; and a list."""
    own = torch.Generator().manual_seed(seed)
    sampler = BatchSampler(RandomSampler(range(5), generator=torch.Generator().manual_seed(seed)), 2, False)
    return {
        "global": DataLoader(Noisy(9), batch_size=2, shuffle=True),
        "own": DataLoader(Noisy(4), batch_size=2, shuffle=True, generator=own),
        "sampler": DataLoader(TensorDataset(torch.arange(5.0)), batch_sampler=sampler),
        "passes": DatasetBatches(Rows(), 2, shuffle=True, seed=seed),
        "list": [1.0, 2.0, 3.0],
    }


# -- against hand-written loops


def test_zipped_as_by_hand() -> None:
    def loaders() -> tuple[TensorBatches, TensorBatches]:
        rows = torch.arange(11.0)
        return TensorBatches({"x": rows}, 2, shuffle=True, seed=1), TensorBatches({"x": -rows[:7]}, 2, shuffle=True, seed=2)

    def by_hand(steps: int, epochs: int) -> list[dict[str, list[float]]]:
        long, short = loaders()
        pairs = zip(*(itertools.chain.from_iterable(itertools.repeat(own)) for own in (long, short)), strict=False)
        return [{"a": flat(a), "b": flat(b)} for a, b in itertools.islice(pairs, steps * epochs)]

    for length, steps in (("longest", 6), ("shortest", 4), (9, 9)):
        long, short = loaders()
        mixed = zip_loaders({"a": long, "b": short}, length)
        assert len(mixed) == steps
        found = [step for _ in range(3) for step in seen(mixed)]
        assert found == by_hand(steps, 3)
        assert (mixed.epoch, mixed.step) == (3, 0)


def test_alternating_proportionally_is_every_batch_once_in_random_order() -> None:
    data = {"a": [f"a{n}" for n in range(30)], "b": [f"b{n}" for n in range(7)], "c": ["c0"]}
    mixed = alternate(data, seed=4)
    orders = []
    for _ in range(3):
        steps = list(mixed)
        assert len(steps) == len(mixed) == 38
        assert Counter(batch for step in steps for batch in step.values()) == Counter(itertools.chain(*data.values()))
        orders.append([next(iter(step)) for step in steps])
    assert orders[0] != orders[1] != orders[2]
    assert orders[0] != sorted(orders[0])
    again = alternate(data, seed=4)
    assert [next(iter(step)) for step in again] == orders[0]


# -- shares


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0, math.inf])
@pytest.mark.parametrize("together", [True, False])
def test_shares_are_those_of_the_formula(temperature: float, together: bool) -> None:
    sizes = {"a": 100, "b": 37, "c": 4}
    make = zip_loaders if together else alternate
    mixed = make({name: range(size) for name, size in sizes.items()}, 53, weights="proportional", temperature=temperature)
    raw = {name: size ** (1 / temperature) for name, size in sizes.items()}
    whole = max(raw.values()) if together else sum(raw.values())
    total: Counter[str] = Counter()
    for epoch in range(400):
        counts = mixed.counts(epoch)
        assert dict(Counter(name for step in mixed.plan(epoch) for name in step)) == {n: c for n, c in counts.items() if c}
        for name, count in counts.items():
            assert abs(count - 53 * raw[name] / whole) < 1
        if not together:
            assert sum(counts.values()) == 53
        total.update(counts)
    for name in sizes:  # rounded by chance, so that no share is lost in the long run; 400 epochs, 5 standard deviations
        assert total[name] / 400 == pytest.approx(53 * raw[name] / whole, abs=0.13)


def test_lengths_follow_from_shares() -> None:
    data = {"a": range(100), "b": range(10)}
    assert len(alternate(data)) == len(alternate(data, "shortest")) == 110
    assert len(alternate(data, weights="equal")) == 200
    assert len(alternate(data, "shortest", weights="equal")) == 20
    assert len(alternate(data, weights={"a": 1, "b": 3})) == 400
    assert alternate(data, temperature=2.0).counts(0)["a"] >= 100
    assert len(zip_loaders(data, weights="proportional")) == 100
    assert zip_loaders(data, weights="proportional").counts(0) == {"a": 100, "b": 10}
    assert len(zip_loaders(data, weights={"a": 1, "b": 2})) == 200
    # A share of less than a batch per epoch is not lost.
    rare = alternate({"a": range(1000), "b": range(1)}, 10, seed=0)
    assert {rare.counts(epoch)["b"] for epoch in range(200)} == {0, 1}


def test_what_is_not_seen_in_one_epoch_is_seen_in_the_next() -> None:
    mixed = zip_loaders({"a": range(10), "b": range(4)}, "shortest")
    assert [step["a"] for _ in range(5) for step in mixed] == list(range(10)) * 2
    mixed = alternate({"a": range(10), "b": range(4)}, 7, weights="equal", seed=0)
    drawn = [batch for _ in range(6) for step in mixed for name, batch in step.items() if name == "a"]
    assert drawn == [n % 10 for n in range(len(drawn))]


# -- stopped and resumed


@pytest.mark.parametrize("make", [zip_loaders, lambda *a, **k: zip_loaders(*a, weights="proportional", **k), alternate])
def test_resumed_anywhere_bit_by_bit(make: Any) -> None:
    mixed, whole, states = make(several(), seed=5), [], []
    random = torch.get_rng_state()
    for _ in range(2):
        for step in mixed:
            whole.append(seen([step])[0])
            states.append((mixed.epoch, copy.deepcopy(mixed.state_dict())))
    assert torch.equal(torch.get_rng_state(), random)  # the training's random numbers are not touched
    for place in range(0, len(states), 2):
        epoch, state = states[place]
        resumed = make(several(), seed=99)  # the seed is the state's
        resumed.load_state_dict(state)
        assert resumed.state_dict()["step"] == state["step"]
        rest = [step for _ in range(2 - epoch) for step in seen(resumed)]
        assert rest == whole[place + 1 :], place


def test_loaders_that_can_skip_do_not_read_what_is_skipped() -> None:
    mixed = zip_loaders({"rows": DatasetBatches(Rows(), 2)})
    next(iter(mixed))
    state = mixed.state_dict()
    resumed = zip_loaders({"rows": DatasetBatches(Rows(), 2)})
    resumed.load_state_dict(state)
    READ.clear()
    next(iter(resumed))
    assert READ == [2, 3]


def test_training_with_each_tasks_own_batch_resumes_bit_by_bit() -> None:
    def start() -> tuple[MixedLoaders, eq.MultiTaskOptimizer, nn.Module]:
        torch.manual_seed(0)
        model = nn.ModuleDict({"encoder": nn.Linear(3, 4), "a": nn.Linear(4, 1), "b": nn.Linear(4, 1), "c": nn.Linear(4, 1)})
        rows = torch.randn(60, 4, generator=torch.Generator().manual_seed(1))

        def losses(model: Any, batch: Any) -> dict[str, Tensor]:
            return {
                task: (model[task](model["encoder"](x).tanh()).squeeze(-1) - y).square().mean()
                for task, (x, y) in batch.items()
            }

        parts = {"a": rows[:30], "b": rows[30:48], "c": rows[48:]}
        sets = {task: TensorDataset(part[:, :3], part[:, 3]) for task, part in parts.items()}
        loaders = {task: DataLoader(own, batch_size=6, shuffle=True) for task, own in sets.items()}
        mixed = zip_loaders(loaders, weights="proportional")
        objective = eq.Objective(model, losses, tasks=mixed.names)
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        return mixed, eq.MultiTaskOptimizer(objective, optimizer, balancer="fairgrad", shared=model["encoder"]), model

    mixed, mtl, model = start()
    present = set()
    for _ in range(2):
        for batch in mixed:
            mtl.step(batch)
            assert mtl.last is not None
            assert set(mtl.last.tasks) == set(batch)
            present.add(mtl.last.tasks)
            if (mixed.epoch, mixed.step) == (1, 2):
                saved = copy.deepcopy((mixed.state_dict(), mtl.state_dict(), model.state_dict()))
    assert len(present) > 1
    resumed, again, other = start()
    resumed.load_state_dict(saved[0])
    again.load_state_dict(saved[1])
    other.load_state_dict(saved[2])
    for batch in resumed:
        again.step(batch)
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


def test_an_epoch_broken_off_is_not_gone_on_with() -> None:
    mixed = zip_loaders({"a": range(4)})
    iteration = iter(mixed)
    assert next(iteration) == {"a": 0}
    assert len(list(mixed)) == 4
    assert mixed.epoch == 2
    with pytest.raises(InputError, match="another iteration over these loaders was begun"):
        next(iteration)


def test_an_epoch_can_be_chosen_and_further_batches_be_drawn() -> None:
    def further() -> FurtherBatches:
        return FurtherBatches(
            zip_loaders({n: loader for n, loader in several().items() if n not in ("own", "sampler")}, seed=1), 2
        )

    first = further()
    drawn = seen(first.draw(13))
    state = first.state_dict()
    rest = seen(first.draw(9))
    second = further()
    second.load_state_dict(state)
    assert seen(second.draw(9)) == rest
    mixed = zip_loaders({"a": TensorBatches({"x": torch.arange(8)}, 2, shuffle=True)})
    plain = TensorBatches({"x": torch.arange(8)}, 2, shuffle=True)
    mixed.set_epoch(3)
    plain.set_epoch(3)
    assert seen(mixed) == [{"a": flat(batch)} for batch in plain]
    assert mixed.epoch == 4
    assert drawn


# -- several processes


def distributed(rank: int, count: int) -> Any:
    def loader(rows: int, first: int) -> DataLoader[Any]:
        data = TensorDataset(torch.arange(first, first + rows))
        return DataLoader(data, batch_size=2, sampler=DistributedSampler(data, shuffle=True))  # type: ignore[arg-type]

    torch.manual_seed(rank)  # the choice is process 0's
    exact = alternate({"a": loader(16, 0), "b": loader(8, 100)})
    epochs = [seen(exact), seen(exact)]
    # Loaders without a sampler may differ in length, and so may their seeds.
    uneven = zip_loaders(
        {"a": range(5 + rank), "b": DataLoader(range(4), batch_size=2, shuffle=True)}, weights={"a": 1, "b": 0.5}
    )
    shortest = zip_loaders({"a": range(5 + rank), "b": range(4)}, "shortest")
    iteration, state = iter(uneven), None
    for _ in range(3):
        next(iteration)
    state = uneven.state_dict()
    rest = seen(iteration)
    return epochs, len(uneven), uneven.plan(0), len(shortest), state, rest


def resumed(rank: int, count: int, state: Any) -> Any:
    torch.manual_seed(rank)
    loaders = {"a": range(5 + rank), "b": DataLoader(range(4), batch_size=2, shuffle=True)}
    uneven = zip_loaders(loaders, weights={"a": 1, "b": 0.5})
    uneven.load_state_dict(state)
    return seen(uneven)


def different(rank: int, count: int) -> Any:
    zip_loaders({f"set {rank}": range(5)})


def test_processes_take_equal_steps_of_the_same_data_sets() -> None:
    pool = Pool(2)
    try:
        (first, *one), (second, *other) = pool.run(distributed)
        for epoch in range(2):
            assert [set(step) for step in first[epoch]] == [set(step) for step in second[epoch]]
            rows = [row for mine in (first, second) for step in mine[epoch] for batch in step.values() for row in batch]
            assert sorted(rows) == [*range(16), *range(100, 108)]  # every row once, over both
        assert first[0] != first[1]
        assert one[:3] == other[:3]
        assert one[0] == 6
        assert one[2] == 4
        # One process's state serves all.
        assert [one[4], other[4]] == pool.run(resumed, one[3])
        for fine, answer in pool.outcomes(different):
            assert not fine
            assert "the processes have different data sets (set 0; set 1)" in answer[1]
    finally:
        pool.close()


# -- what is refused


def test_loaders_without_a_length() -> None:
    mixed = zip_loaders({"a": DataLoader(Endless(), batch_size=2), "b": [5]}, 4)
    assert [flat(step["a"]) for step in mixed] == [[0, 1], [2], [0, 1], [2]]
    with pytest.raises(InputError, match=r'the loader "a" does not say how many batches it has.*length=1000'):
        zip_loaders({"a": DataLoader(Endless(), batch_size=2), "b": [5]})
    with pytest.raises(InputError, match='the loader "a" does not say'):
        alternate({"a": DataLoader(Endless(), batch_size=2)}, 4)
    assert len(alternate({"a": DataLoader(Endless()), "b": [5]}, 4, weights={"a": 2, "b": 1})) == 4


class Nothing:
    def __iter__(self):
        return iter(())


class Broken:
    def __len__(self) -> int:
        return 2

    def __iter__(self):
        raise InputError("the disk is gone")


@pytest.mark.parametrize(
    ("loaders", "options", "said"),
    [
        ({}, {}, r"zip_loaders\(\) needs loaders by name"),
        ([[1]], {}, r"zip_loaders\(\) needs loaders by name.*got list"),
        ({1: [1]}, {}, r"got the keys \[1\]"),
        ({"a": iter([1])}, {}, 'the loader "a" must be something that can be iterated over again and again'),
        ({"a": TensorDataset(torch.ones(2))}, {}, "such as a DataLoader; got TensorDataset"),
        ({"a": "text"}, {}, "got str"),
        ({"a": []}, {}, 'the loader "a" has no batch'),
        ({"a": [1]}, {"length": "all"}, "length must be .*got 'all'"),
        ({"a": [1]}, {"length": 0}, "length must be .*got 0"),
        ({"a": [1]}, {"length": True}, "length must be .*got True"),
        ({"a": [1]}, {"weights": "temperature"}, "weights must be .*got 'temperature'"),
        ({"abc": [1]}, {"weights": {"abd": 1}}, 'a weight was given for "abd", which is no loader. Did you mean "abc"'),
        ({"a": [1], "b": [1]}, {"weights": {"a": 1}}, 'weights must give "b" a finite number above 0; got None'),
        ({"a": [1]}, {"weights": {"a": 0}}, 'weights must give "a" a finite number above 0; got 0'),
        ({"a": [1]}, {"weights": {"a": math.nan}}, "got nan"),
        ({"a": [1]}, {"temperature": 0}, "temperature must be above 0"),
        ({"a": [1]}, {"temperature": math.nan}, "temperature must be above 0"),
        ({"a": [1] * 99, "b": [1]}, {"weights": "proportional", "temperature": 1e-3}, 'leaves nothing of "b"'),
        ({"a": [1]}, {"seed": 1.5}, "seed must be a whole number; got 1.5"),
    ],
)
def test_bad_input_is_refused_in_one_line(loaders: Any, options: Any, said: str) -> None:
    with pytest.raises(InputError, match=said) as refused:
        zip_loaders(loaders, **options)
    assert "\n" not in str(refused.value)


def test_bad_loaders_are_named() -> None:
    one = DataLoader(range(3))
    with pytest.raises(InputError, match='"a" and "b" are the same loader'):
        zip_loaders({"a": one, "b": one})
    with pytest.raises(InputError, match='the loader "b" gave no batch in a whole pass'):
        list(zip_loaders({"a": [1], "b": Nothing()}, 2))
    with pytest.raises(InputError, match=r"^the disk is gone$"):
        list(zip_loaders({"a": [1], "b": Broken()}))
    with pytest.raises(InputError, match="epoch must be a whole number from 0 on; got -1"):
        zip_loaders({"a": [1]}).set_epoch(-1)


def test_a_foreign_state_changes_nothing() -> None:
    mixed = alternate({"a": range(3), "b": range(2)}, seed=1)
    next(iter(mixed))
    before = copy.deepcopy(mixed.state_dict())
    other = alternate({"a": range(3), "c": range(2)}).state_dict()
    longer = alternate({"a": range(4), "b": range(2)}).state_dict()
    for state, said in [
        (other, "must hold a mapping of a, b as"),
        (longer, "of epochs of 6 steps and these have 5"),
        ({**before, "epoch": -1}, 'a whole number from 0 on as "epoch"'),
        ({**before, "step": 5}, "the state"),
        ({}, "keeps the state"),
        (7, "must be a mapping"),
    ]:
        with pytest.raises(InputError, match=said):
            mixed.load_state_dict(state)  # type: ignore[arg-type]
        assert mixed.state_dict() == before
