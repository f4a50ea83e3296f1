import dataclasses

import pytest
import torch
from tests.study.timeless import timeless

from equipoise.data import TensorBatches
from equipoise.errors import InputError
from equipoise.study import Splits, parse_methods
from equipoise.study.plan import Run
from equipoise.study.records import fault
from equipoise.study.training import train


@pytest.fixture(autouse=True)
def _generators_as_before():
    """A run seeds the global generators of its process, which here is pytest's."""
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)


def run(problem, method=None, *, task=None, seed=0, epochs=3, gramian_every=2, **options):
    chosen = parse_methods(method)[0] if method else None
    return train(problem, Run(seed, method=chosen, task=task), epochs=epochs, gramian_every=gramian_every, **options)


def test_record_of_a_method(tiny):
    seen = []
    record = run(tiny, "fairgrad:alpha=2", finished_epoch=lambda *told: seen.append(told))
    assert seen == [(epoch["epoch"], epoch["validation"]) for epoch in record["history"]]
    assert [number for number, _ in seen] == [1, 2, 3]
    assert record["run"] == {
        "method": "fairgrad:alpha=2",
        "name": "fairgrad",
        "options": {"alpha": 2, "max_norm": None, "preference": None},
        "task": None,
        "seed": 0,
    }
    assert record["final"]["test"] == record["history"][-1]["test"]
    assert record["seconds_a_step"]["steps"] == 9
    assert 0 < record["seconds_a_step"]["median"] < 1
    assert record["wall_seconds"] > record["seconds_a_step"]["mean"] * 9
    assert record["memory_mb"]["base"] <= record["memory_mb"]["training"] <= record["memory_mb"]["process"]
    assert set(record["versions"]) >= {"python", "torch", "numpy", "equipoise", "platform"}
    for number, epoch in enumerate(record["history"], 1):
        assert (epoch["epoch"], epoch["steps"]) == (number, 3)
        assert set(epoch["losses"]) == set(epoch["weights"]) == {"near", "far"}
        assert set(epoch["test"]) == set(epoch["validation"]) == {"near error", "far error"}
        assert epoch["conflicts"]["steps"] == 3  # a method that forms Gramians is counted in every step
    assert record["history"][-1]["losses"]["far"] < record["history"][0]["losses"]["far"]


def test_numbers_of_the_problem_s_own_are_kept_for_every_epoch(tiny):
    record = run(
        dataclasses.replace(tiny, recorded=lambda model: {"size": sum(p.square().sum() for p in model.parameters())}), "ls"
    )
    sizes = [epoch["recorded"]["size"] for epoch in record["history"]]
    assert len(set(sizes)) == 3
    assert not fault(record)
    assert fault({**record, "history": [{**record["history"][0], "recorded": {"size": "large"}}]})
    assert all("recorded" not in epoch for epoch in run(tiny, "ls", epochs=1)["history"])


def test_further_batches_leave_the_training_data_alone(tiny):
    """With a step size of 0 the weights stay at 1/K, so that the steps are those of any method with these weights."""
    still, other = run(tiny, "modo:gamma=0"), run(tiny, "cagrad:c=0")
    for epoch, same in zip(still["history"], other["history"], strict=True):
        assert epoch["weights"] == pytest.approx({"near": 0.5, "far": 0.5})
        assert epoch["losses"] == pytest.approx(same["losses"], rel=1e-5)
    assert timeless(run(tiny, "sdmgrad")) == timeless(run(tiny, "sdmgrad"))
    assert run(tiny, "modo:gamma=10")["history"] != still["history"]


def test_methods_without_gramian_are_probed_in_every_nth_step(tiny):
    def steps(every):
        history = run(tiny, "ls", gramian_every=every)["history"]
        return [epoch["conflicts"] and epoch["conflicts"]["steps"] for epoch in history]

    assert steps(2) == [1, 2, 1]  # steps 2, 4, 6 and 8 of nine
    assert steps(1) == [3, 3, 3]
    assert steps(0) == [None, None, None]


def test_probing_changes_nothing(tiny):
    probed, plain = (run(tiny, "ls", gramian_every=every) for every in (1, 0))
    for one, other in zip(probed["history"], plain["history"], strict=True):
        assert one["losses"] == other["losses"]
        assert one["test"] == other["test"]


def test_probes_and_formed_gramians_tell_the_same(tiny):
    """In the first step both methods stand at the same point, so their Gramians must agree."""
    formed = run(tiny, "mgda", epochs=1, gramian_every=1)["history"][0]["conflicts"]
    probed = run(tiny, "ls", epochs=1, gramian_every=1)["history"][0]["conflicts"]
    one_batch = dataclasses.replace(tiny, data=lambda seed: Splits(*[tiny.data(seed).test] * 3))
    formed, probed = (run(one_batch, method, epochs=1, gramian_every=1)["history"][0]["conflicts"] for method in ("mgda", "ls"))
    for task in ("near", "far"):
        for quantity in ("cosine", "norm", "conflicts"):
            assert formed["tasks"][task][quantity] == pytest.approx(probed["tasks"][task][quantity], rel=1e-5)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(tiny):
    for method in ("fairgrad", "rlw", "pcgrad"):
        torch.manual_seed(123)  # whatever state the process is in
        first = timeless(run(tiny, method))
        assert timeless(run(tiny, method)) == first
        assert timeless(run(tiny, method, seed=1))["final"] != first["final"]


def test_methods_start_from_the_same_parameters_and_see_the_same_batches(tiny):
    starts = []

    def build(seed):
        model, losses = tiny.build(seed)
        starts.append([parameter.detach().clone() for parameter in model.parameters()])
        return model, losses

    for arguments in ({"method": "ls"}, {"method": "rlw"}, {"task": "near"}):
        run(dataclasses.replace(tiny, build=build), epochs=1, **arguments)
    for other in starts[1:]:
        assert all(torch.equal(a, b) for a, b in zip(starts[0], other, strict=True))


def test_baseline_trains_one_task_alone(tiny):
    record = run(tiny, task="far")
    assert record["run"]["method"] == "stl:far"
    for epoch in record["history"]:
        assert set(epoch["losses"]) == {"far"}
        assert set(epoch["test"]) == {"far error"}
        assert epoch["conflicts"] is None


def test_baseline_equals_a_plain_loop(tiny):
    record = run(tiny, task="far", epochs=2)
    torch.manual_seed(0)
    model, losses = tiny.build(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    train_loader = tiny.data(0).train
    torch.manual_seed(0)
    for _ in range(2):
        model.train()
        for batch in train_loader:
            optimizer.zero_grad()
            losses(model, batch)["far"].backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        expected = tiny.evaluate(model, tiny.data(0).test)["far error"]
    assert record["final"]["test"]["far error"] == pytest.approx(expected, rel=1e-6)


def test_baseline_never_calls_the_other_tasks(tiny):
    def build(seed):
        model, losses = tiny.build(seed)

        def lazy(model, batch):
            return {"near": lambda: pytest.fail("called"), "far": lambda: losses(model, batch)["far"]}

        return model, lazy

    record = run(dataclasses.replace(tiny, build=build), task="far")
    assert record["final"]["test"] == run(tiny, task="far")["final"]["test"]


def partly_labelled(tiny):
    """Every second batch lacks the task "far"."""

    def build(seed):
        model, losses = tiny.build(seed)
        count = 0

        def partial(model, batch):
            nonlocal count
            count += 1
            both = losses(model, batch)
            return {"near": both["near"]} if count % 2 == 0 else both

        return model, partial

    return dataclasses.replace(tiny, build=build)


def test_partly_labelled_data_counts_what_was_seen(tiny):
    problem = partly_labelled(tiny)
    record = run(problem, "mgda", epochs=2)
    assert all(set(epoch["losses"]) == {"near", "far"} for epoch in record["history"])
    alone = run(problem, task="far", epochs=2)
    assert [epoch["steps"] for epoch in alone["history"]] == [2, 1]


def test_schedule_steps_once_an_epoch(tiny):
    rates = []

    def schedule(optimizer):
        def rate(epoch):
            rates.append(optimizer.param_groups[0]["lr"])
            return 0.5**epoch

        return torch.optim.lr_scheduler.LambdaLR(optimizer, rate)

    run(dataclasses.replace(tiny, schedule=schedule), "ls", epochs=3)
    assert rates == [1e-3, 1e-3, 5e-4, 2.5e-4]


def test_optimizer_from_build_and_shared_parameters(tiny):
    def build(seed):
        model, losses = tiny.build(seed)
        return model, losses, torch.optim.SGD(model.parameters(), lr=0.0)

    record = run(dataclasses.replace(tiny, build=build), "ls")
    assert record["history"][0]["test"] == record["history"][-1]["test"]
    first_layer = run(dataclasses.replace(tiny, shared=lambda model: model[0]), "mgda", epochs=1)
    everything = run(tiny, "mgda", epochs=1)
    norms = [one["history"][0]["conflicts"]["tasks"]["near"]["norm"] for one in (first_layer, everything)]
    assert norms[0] < norms[1]


def empty(rows=0):
    return TensorBatches({"x": torch.zeros(rows, 3), "y": torch.zeros(rows, 2)}, 4)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_empty_evaluation_loader(tiny, split):
    problem = dataclasses.replace(tiny, data=lambda seed: tiny.data(seed)._replace(**{split: empty()}))
    with pytest.raises(InputError, match=f'the {split} loader of problem "tiny" is empty'):
        run(problem, "ls")


@pytest.mark.parametrize("loader", [empty(), []])
def test_empty_training_loader(tiny, loader):
    problem = dataclasses.replace(tiny, data=lambda seed: tiny.data(seed)._replace(train=loader))
    with pytest.raises(InputError, match='training loader of problem "tiny" gave no batch in epoch 1'):
        run(problem, "ls")


def test_loader_that_is_used_up(tiny):
    problem = dataclasses.replace(tiny, data=lambda seed: tiny.data(seed)._replace(train=iter(list(tiny.data(seed).train))))
    with pytest.raises(InputError, match="gave no batch in epoch 2"):
        run(problem, "ls")


def test_no_validation_split(tiny):
    problem = dataclasses.replace(tiny, data=lambda seed: tiny.data(seed)._replace(validation=None))
    assert run(problem, "ls", epochs=1)["final"]["validation"] is None


def test_evaluation_without_one_of_the_metrics(tiny):
    problem = dataclasses.replace(tiny, evaluate=lambda model, loader: {"near error": 1.0, "far eror": 1.0})
    with pytest.raises(InputError, match=r'returned no "far error".* "far eror"'):
        run(problem, "ls")


def test_further_arguments_of_the_optimizer_reach_it(tiny):
    crawling = dataclasses.replace(
        tiny, stepping=lambda model: {"clip": 1e-9}, optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1)
    )
    history = run(crawling, "ls")["history"]
    assert history[0]["test"]["near error"] == pytest.approx(history[-1]["test"]["near error"], rel=1e-5)


def test_a_released_search_goes_through_the_training_data_and_leaves_its_order_alone(tiny):
    """``preset=released`` in text: attempts begin after a quarter of the epochs, on passes over the study's own loader."""
    text = "cost(preset=released(epochs=4),trigger=weak)+ls"
    record = run(tiny, text, epochs=4)
    assert not fault(record)
    assert [attempt["epoch"] for attempt in record["teleports"]] == [1, 2, 3]
    for attempt in record["teleports"]:
        assert len(attempt["invariance"]) == 2 * 3  # two passes over three batches
        assert attempt["accepted"]
        assert attempt["distance"] > 0
    assert timeless(record) == timeless(run(tiny, text, epochs=4))
    plain = run(tiny, "ls", epochs=4)
    assert record["history"][0]["losses"] == plain["history"][0]["losses"]
    assert record["history"][1]["losses"] != plain["history"][1]["losses"]
