"""Two processes with half the batch each take the same steps as one with all of it."""

from __future__ import annotations

import pytest
import torch

from tests import problems
from tests.integration import scenarios
from tests.integration.processes import Pool
from tests.integration.scenarios import State


def agree(states: list[State], alone: State) -> None:
    first, second = states
    assert problems.same(first, second), "the processes took different steps"
    for name in alone:
        scale = float(alone[name].abs().max())
        assert (first[name] - alone[name]).abs().max() <= 2e-5 * max(scale, 1.0), name


EVERYWHERE = ["ls", "dwa", "uw", "famo", "fairgrad", "pcgrad", "cagrad", "nash-mtl"]
EVERYWHERE += ["ldc-mtl", "ldc-mtl:router=mlp,features=encoder", "go4align", "imtl-l", "gradnorm", "upgrad", "db-mtl", "moco"]
EVERYWHERE += ["samo:rho=0.05"]


@pytest.mark.parametrize("method", EVERYWHERE)
def test_two_processes_equal_one_with_the_joint_batch(pool: Pool, method: str) -> None:
    agree(pool.run(scenarios.plain, method), scenarios.plain(0, 1, method))


@pytest.mark.parametrize("method", ["uw", "famo", "fairgrad"])
def test_micro_batches(pool: Pool, method: str) -> None:
    agree(pool.run(scenarios.plain, method, 2), scenarios.plain(0, 1, method, 2))


def test_a_router_whose_gradients_flow_into_the_model(pool: Pool) -> None:
    # Every process routes by its own samples, which one with the joint batch does not; but all take the same step.
    method = "ldc-mtl:router=mlp,features=encoder,formulation=released,lr=0.05"
    first, second = pool.run(scenarios.plain, method)
    assert problems.same(first, second)


@pytest.mark.parametrize("router", ["vector", "mlp"])
@pytest.mark.parametrize("way", ["step", "backward"])
def test_a_router_in_the_models_optimizer(pool: Pool, way: str, router: str) -> None:
    agree(pool.run(scenarios.lent, way, router), scenarios.lent(0, 1, way, router))


def test_clipping(pool: Pool) -> None:
    options = {"clip": 0.05}
    agree(pool.run(scenarios.plain, "mgda", 1, options), scenarios.plain(0, 1, "mgda", 1, options))


@pytest.mark.parametrize("method", ["mgda", "fairgrad"])
def test_features(pool: Pool, method: str) -> None:
    agree(pool.run(scenarios.features, method), scenarios.features(0, 1, method))


@pytest.mark.parametrize("group", [False, True])
def test_rotated_features(pool: Pool, group: bool) -> None:
    agree(pool.run(scenarios.rotated, group), scenarios.rotated(0, 1, group))


def test_posteriors_of_all_processes_samples(pool: Pool) -> None:
    agree(pool.run(scenarios.bayesian), scenarios.bayesian(0, 1))


def test_directions_of_samples_need_all_tasks_everywhere(pool: Pool) -> None:
    pool.run(scenarios.unlike)


@pytest.mark.parametrize("method", ["dwa", "cagrad"])
def test_a_model_wrapped_for_data_parallelism(pool: Pool, method: str) -> None:
    agree(pool.run(scenarios.wrapped, method), scenarios.wrapped(0, 1, method))


@pytest.mark.parametrize("method", ["ls", "fairgrad"])
def test_task_positions(pool: Pool, method: str) -> None:
    agree(pool.run(scenarios.task_positions, method), scenarios.task_positions(0, 1, method))


@pytest.mark.parametrize("compiled", [False, True])
def test_a_wrapping_that_cannot_be_taken_off_is_refused(pool: Pool, compiled: bool) -> None:
    for message in pool.run(scenarios.wrapped_inside, compiled):
        assert "DistributedDataParallel" in message


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("method", ["uw", "fairgrad"])
def test_partly_labelled_data(pool: Pool, method: str, shared: bool, declared: bool) -> None:
    agree(pool.run(scenarios.partly_labelled, method, shared, declared), scenarios.partly_labelled(0, 1, method, shared))


@pytest.mark.parametrize("method", ["ls", "pcgrad", "modo"])
def test_a_task_a_process(pool: Pool, method: str) -> None:
    agree(pool.run(scenarios.disjoint, method), scenarios.disjoint(0, 1, method))


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("method", ["dwa", "pcgrad", "modo"])
def test_the_drop_in(pool: Pool, method: str, shared: bool) -> None:
    agree(pool.run(scenarios.dropin, method, shared), scenarios.dropin(0, 1, method, shared))


@pytest.mark.parametrize("method", ["ls", "mgda"])
def test_the_drop_in_refuses_other_tasks_in_every_process(pool: Pool, method: str) -> None:
    for message in pool.run(scenarios.dropin_partly_labelled, method):
        assert "MultiTaskOptimizer" in message


@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize(
    ("method", "mode"), [("uw", "parameters"), ("famo", "parameters"), ("pcgrad", "parameters"), ("mgda", "features")]
)
def test_what_is_not_finite_in_one_process_stops_all(pool: Pool, method: str, mode: str, where: str) -> None:
    answers = pool.run(scenarios.non_finite, method, mode, where)
    assert answers[0] == answers[1]
    kind, tasks, what, unchanged = answers[0]
    assert (kind, what, unchanged) == ("NonFiniteError", where, True)
    assert "t1" in tasks


def test_every_process_sees_the_joint_gramian(pool: Pool) -> None:
    alone = scenarios.agreement(0, 1, "ls")
    for gramian in pool.run(scenarios.agreement, "ls"):
        assert gramian == pytest.approx(alone, rel=1e-5)


def test_odd_tensors_are_given_to_all(pool: Pool) -> None:
    (first, format_kept), (second, _) = pool.run(scenarios.buffers_shared)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert format_kept


@pytest.mark.parametrize("method", ["modo", "sdmgrad"])
def test_further_batches(pool: Pool, method: str) -> None:
    agree(pool.run(scenarios.double_sampling, method), scenarios.double_sampling(0, 1, method))


@pytest.mark.parametrize("place", [0, 1, 2])
def test_further_batches_that_are_not_finite_in_one_process_stop_all(pool: Pool, place: int) -> None:
    assert pool.run(scenarios.double_sampling_spoilt, "sdmgrad", place) == [("('t1',)", True)] * 2
