"""Whatever an evaluated function returns or does is an answer or a counted failure, and the search goes on."""

from __future__ import annotations

import asyncio
import io
import json
import sys
import zipfile

import numpy as np
import pytest
import torch

from equipoise.blackbox import ASMG, OPTIMIZERS, make_optimizer, minimize
from equipoise.blackbox.checkpoint import read_checkpoint, write_checkpoint
from equipoise.errors import EquipoiseError, InputError


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


class Hostile:
    def __array__(self, *args, **kwargs):
        raise RuntimeError("no array")

    def __reduce__(self):
        raise RuntimeError("no pickle")


class Unloadable:
    def __reduce__(self):
        return _refuse, ()


def _refuse():
    raise RuntimeError("not here")


def _raise(error):
    raise error


# What f does where the first coordinate is positive, and the kind under which it counts.
ACTS = {
    "nothing": (lambda: None, "shape"),
    "fewer": (lambda: [1.0], "shape"),
    "more": (lambda: np.ones(7), "shape"),
    "none at all": (lambda: [], "shape"),
    "a table": (lambda: [[1.0, 2.0]], "shape"),
    "text": (lambda: ["1", "2"], "shape"),
    "a mapping": (lambda: {"a": 1.0}, "shape"),
    "complex": (lambda: np.array([1j, 2.0]), "shape"),
    "complex tensor": (lambda: torch.tensor([1j, 2.0]), "shape"),
    "ragged": (lambda: [[1.0], [1.0, 2.0]], "shape"),
    "None inside": (lambda: [None, 1.0], "shape"),
    "masked": (lambda: np.ma.masked_array([1.0, 2.0], [True, False]), "not finite"),
    "nan": (lambda: [float("nan"), 1.0], "not finite"),
    "infinite": (lambda: [1.0, -float("inf")], "not finite"),
    "no array": (lambda: Hostile(), "shape"),
    "no load": (lambda: Unloadable(), "shape"),
    "error": (lambda: _raise(ValueError("boom")), "exception"),
    "an error that cannot be printed": (lambda: _raise(Unprintable()), "exception"),
    "exit": (lambda: sys.exit("bye"), "exception"),
    "exit quietly": (lambda: sys.exit(0), "exception"),
    "cancelled": (lambda: _raise(asyncio.CancelledError()), "exception"),
    "generator": (lambda: _raise(GeneratorExit()), "exception"),
    "recursion": (lambda: _raise(RecursionError("deep")), "exception"),
    "memory": (lambda: _raise(MemoryError()), "exception"),
}
BACKENDS = {
    "here": {},
    "threads": {"workers": 2, "backend": "threads"},
    "late threads": {"backend": "threads", "evaluation_seconds": 20.0},
}


def sometimes(act):
    return lambda x: act() if x[0] > 0 else [((x - 1) ** 2).sum(), ((x + 1) ** 2).sum()]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("act", ACTS)
def test_one_point_that_fails_costs_that_point(act: str, backend: str) -> None:
    what, kind = ACTS[act]
    result = minimize(sometimes(what), np.array([-0.4, -1.0]), iterations=3, samples=6, seed=1, **BACKENDS[backend])
    assert (result.stopped, result.evaluations) == ("iterations", 18)
    assert set(result.failures.counts) == {kind}
    assert 0 < result.failures.total == result.optimizer.failures < 18
    assert "\n" not in result.failures.first[kind]


def test_processes_survive_all_of_it() -> None:
    acts = [act for act, _ in ACTS.values()]

    def f(x):
        return acts[int(1000 * abs(x[1])) % len(acts)]() if x[0] > 0 else [1.0, x[0]]

    result = minimize(f, np.array([-0.4, -1.0]), iterations=2, samples=80, seed=1, workers=2)
    assert result.evaluations == 160
    assert result.failures.counts.keys() == {"shape", "not finite", "exception"}
    assert result.optimizer.failures == result.failures.total < 120


@pytest.mark.parametrize("act", ACTS)
def test_a_batch_that_fails_costs_its_rows(act: str) -> None:
    calls = []

    def f(points):
        calls.append(1)
        if len(calls) == 1:
            return ACTS[act][0]()
        return np.stack([((points - 1) ** 2).sum(1), ((points + 1) ** 2).sum(1)], axis=1)

    result = minimize(f, np.ones(2), iterations=3, samples=6, seed=1, batched=True)
    assert (result.failures.total, result.evaluations) == (6, 18)


def test_the_first_answer_does_not_say_how_many_outputs_there_are() -> None:
    calls = []

    def f(x):
        calls.append(1)
        return [1.0, 2.0, 3.0] if len(calls) == 1 else [x.sum(), -x.sum()]

    result = minimize(f, np.ones(2), iterations=2, samples=5, seed=0)
    assert result.objectives.shape == (2, 2)
    assert result.failures.counts == {"shape": 1}


def test_tensors_with_a_graph_and_in_half_precision_are_outputs() -> None:
    weight = torch.ones(2, requires_grad=True)

    def f(x):
        total = (weight * torch.as_tensor(x)).sum()
        return [total, (total**2).to(torch.bfloat16)]

    for options in ({}, {"workers": 2}):
        assert minimize(f, np.ones(2), iterations=2, samples=4, seed=0, **options).failures.total == 0


@pytest.mark.parametrize("backend", ["here", "threads", "late threads"])
def test_ctrl_c_passes(backend: str) -> None:
    result = minimize(lambda x: _raise(KeyboardInterrupt()), np.ones(2), samples=4, **BACKENDS[backend])
    assert (result.stopped, result.iterations, result.objectives.shape) == ("interrupted", 0, (0, 0))


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_no_iteration_is_an_empty_result(name: str) -> None:
    result = minimize(lambda x: [x.sum()] * 2, np.ones(3), name, evaluations=3, samples=10)
    assert (result.stopped, result.evaluations, result.objectives.shape) == ("evaluations", 0, (0, 0))
    assert (result.x == 1).all()


@pytest.mark.parametrize("outputs", ["raises", "nan", "one"])
def test_nothing_that_succeeds_says_what_failed_first(outputs: str, tmp_path) -> None:
    def f(x):
        return (
            _raise(OSError("no simulator")) if outputs == "raises" else [np.nan, 1.0] if outputs == "nan" else np.ones((1, 2))
        )

    said = {"raises": "no simulator", "nan": "not finite", "one": "shape"}[outputs]
    for _ in range(2):  # the second from a checkpoint
        with pytest.raises(EquipoiseError, match=said):
            minimize(f, np.ones(2), iterations=2, samples=4, checkpoint=tmp_path / "search.npz")


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_an_iteration_of_failures_changes_nothing_but_the_counters(name: str) -> None:
    one, two = (make_optimizer(name, np.ones(4), samples=6, seed=0) for _ in range(2))
    for optimizer in (one, two):
        points = optimizer.ask()
        optimizer.tell(np.stack([points.sum(1), (points**2).sum(1)], axis=1))
    mean = one.mean
    one.ask()
    one.tell(np.full((len(one.ask()), 2), np.nan))
    assert (one.mean == mean).all()
    points = one.ask()
    one.tell(np.stack([points.sum(1), (points**2).sum(1)], axis=1))
    assert np.isfinite(one.mean).all()
    assert (one.mean != mean).any()


def _files() -> dict[str, bytes]:
    def archive(**entries: bytes) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            for name, content in entries.items():
                file.writestr(name, content)
        return buffer.getvalue()

    def array(value) -> bytes:
        buffer = io.BytesIO()
        np.save(buffer, value)
        return buffer.getvalue()

    def state(text: str) -> bytes:
        return archive(**{"__state__.npy": array(np.array(text))})

    packed = io.BytesIO()
    np.savez_compressed(packed, __state__=np.array("{}"))
    huge = array(np.zeros(3)).replace(b"(3,)", b"(9" + b"9" * 14 + b",)", 1)
    return {
        "empty": b"",
        "text": b"hello",
        "an array": array(np.ones(3)),
        "no archive": b"PK\x03\x04" + b"\0" * 40,
        "half an archive": state("{}")[:60],
        "without a state": archive(other=b""),
        "no json": state("{"),
        "a list": state("[]"),
        "deep": state("[" * 100_000),
        "another array": state(json.dumps({"settings": {"__array__": "a7"}})),
        "bytes": state(json.dumps({"settings": {"__bytes__": 3}})),
        "no parts": state("{}"),
        "a pickle": archive(**{"__state__.npy": array(np.array("{}")).replace(b"<U2", b"|O ", 1)}),
        "packed": packed.getvalue(),
        "a claim": archive(**{"__state__.npy": array(np.array('{"x": {"__array__": "a0"}}')), "a0.npy": huge}),
    }


@pytest.mark.parametrize("kind", _files())
def test_files_that_are_no_checkpoint_are_one_line(kind: str, tmp_path) -> None:
    file = tmp_path / "search.npz"
    file.write_bytes(_files()[kind])
    with pytest.raises(InputError, match=r"search\.npz is") as raised:
        minimize(lambda x: [x.sum(), 1.0], np.ones(2), iterations=2, samples=4, checkpoint=file)
    assert "\n" not in str(raised.value)


def test_folders_and_pipes_are_no_checkpoints(tmp_path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(InputError, match="no checkpoint"):
            read_checkpoint(path)


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_states_of_another_kind_are_refused_before_anything_changes(name: str, tmp_path) -> None:
    optimizer = make_optimizer(name, np.ones(4), samples=6, seed=0)
    points = optimizer.ask()
    optimizer.tell(np.stack([points.sum(1), (points**2).sum(1)], axis=1))
    optimizer.ask()
    state = optimizer.state_dict()
    write_checkpoint(tmp_path / "good", state)
    twin = make_optimizer(name, np.ones(4), samples=6, seed=0)
    twin.load_state_dict(read_checkpoint(tmp_path / "good"))
    assert (twin.ask() == optimizer.ask()).all()
    for key, value in state.items():
        # Not a number has no place in any state; neither has a text where there is none, nor more rows than were asked for.
        others = [None, "a", {}, [1.0], np.array(["a"]), np.ones((3, 3, 3)), -1, float("nan")]
        for other in others:
            if key == "bounds" and other is None:
                continue
            if type(other) is type(value) and not isinstance(value, np.ndarray | int):
                continue
            if key in ("asked", "objectives", "best", "best_outputs", "lambda", "last", "normals", "signs") and other is None:
                continue
            fresh = make_optimizer(name, np.ones(4), samples=6, seed=0)
            before = fresh.ask()
            with pytest.raises(InputError) as raised:
                fresh.load_state_dict(state | {key: other})
            assert "\n" not in str(raised.value)
            assert (fresh.ask() == before).all()
            assert fresh.iterations == 0


def test_more_failures_than_parents_resume_too(tmp_path) -> None:
    search = lambda **more: minimize(  # noqa: E731
        lambda x: [x.sum() if x[0] > 1.0 else np.nan, 1.0], np.ones(4), "mmes", samples=8, seed=0, **more
    )
    whole = search(iterations=6)
    search(iterations=3, checkpoint=tmp_path / "search.npz")
    assert (search(iterations=6, checkpoint=tmp_path / "search.npz").x == whole.x).all()


def test_asmg_with_too_few_objectives_is_told_at_once() -> None:
    with pytest.raises(InputError, match="at least 2"):
        minimize(lambda x: x.sum(), np.ones(2), ASMG(np.ones(2), samples=4))
