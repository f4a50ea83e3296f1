"""Two processes with half the batch each teleport as one does with all of it, and to the same point to the bit."""

from __future__ import annotations

from typing import Any

import pytest

from tests import problems
from tests.integration.processes import Pool
from tests.teleport import scenarios


def alike(answers: list[scenarios.Answer]) -> scenarios.Answer:
    (first, reports, history), (second, _, other) = answers
    assert problems.same(first, second), "the processes went to different points"
    assert history == other
    return first, reports, history


def agree(answers: list[scenarios.Answer], alone: scenarios.Answer) -> None:
    together, reports, _ = alike(answers)
    parameters, expected, _ = alone
    assert len(reports) == len(expected) >= 2
    for report, single in zip(reports, expected, strict=True):
        assert [report[key] for key in ("step", "epoch", "tasks", "accepted")] == [
            single[key] for key in ("step", "epoch", "tasks", "accepted")
        ]
        assert report["distance"] > 1e-3
        for name in ("losses", "norms", "cosines"):
            for when in ("before", "after"):
                key = f"{name}_{when}"
                assert report[key] == pytest.approx(single[key], rel=1e-6, abs=1e-9), key
        assert report["invariance"] == pytest.approx(single["invariance"], rel=1e-6, abs=1e-9)
        assert report["reward"] == pytest.approx(single["reward"], rel=1e-6, abs=1e-9)
    for name in parameters:
        assert float((together[name] - parameters[name]).abs().max()) <= 1e-7, name


@pytest.mark.parametrize("method", ["ls", "famo", "fairgrad", "pcgrad"])
def test_two_processes_equal_one_with_the_joint_batch(pool: Pool, method: str) -> None:
    arguments: tuple[Any, ...] = (method, "low rank", {})
    agree(pool.run(scenarios.plain, *arguments), scenarios.plain(0, 1, *arguments))


@pytest.mark.parametrize(
    ("delta", "options"),
    [
        ("dense", {"history": "reuse"}),
        ("oft", {"samples": 1}),
        ("low rank", {"formulation": "released", "radius": 0.01, "lr": 1e-4}),
        ("dense", {"probe_batches": 2, "held_out_batches": 2, "scaling": "none", "lr": 0.05}),
    ],
)
def test_options(pool: Pool, delta: str, options: dict[str, Any]) -> None:
    arguments = ("mgda", delta, options)
    agree(pool.run(scenarios.plain, *arguments), scenarios.plain(0, 1, *arguments))


@pytest.mark.parametrize("method", ["mgda", "uw"])
def test_micro_batches(pool: Pool, method: str) -> None:
    arguments: tuple[Any, ...] = (method, "low rank", {"cooldown": 3}, 2)
    agree(pool.run(scenarios.plain, *arguments), scenarios.plain(0, 1, *arguments))


@pytest.mark.parametrize("delta", ["dense", "low rank"])
@pytest.mark.parametrize("method", ["mgda", "ls"])
def test_a_task_that_one_process_alone_sees(pool: Pool, method: str, delta: str) -> None:
    arguments: tuple[Any, ...] = (method, delta, {})
    agree(pool.run(scenarios.partly_labelled, *arguments), scenarios.partly_labelled(0, 1, *arguments))


@pytest.mark.parametrize("history", ["reuse", "released"])
@pytest.mark.parametrize("method", ["fairgrad", "ls"])
def test_the_guard_decides_alike_everywhere(pool: Pool, method: str, history: str) -> None:
    _, reports, _ = alike(pool.run(scenarios.default_inner, method, history))
    assert len(reports) >= 2


def test_dropout_and_batch_norm(pool: Pool) -> None:
    _, reports, _ = alike(pool.run(scenarios.with_dropout))
    assert [report["accepted"] for report in reports] == [True] * 4


def test_what_is_not_finite_in_one_process_keeps_all_where_they_are(pool: Pool) -> None:
    for after, kept, attempts in pool.run(scenarios.cliff):
        assert problems.same(after, kept)
        assert attempts == [(False, "the loss of t1 became non-finite")]
