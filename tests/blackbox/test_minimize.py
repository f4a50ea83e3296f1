"""minimize: failures survived, limits, resumption bit by bit."""

from __future__ import annotations

import functools
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from equipoise.blackbox import ASMG, OPTIMIZERS, minimize
from equipoise.blackbox.minimizing import worded
from equipoise.errors import EquipoiseError, InputError
from tests.blackbox.functions import fragile


def quadratics(x):
    return [((x - 1) ** 2).sum(), ((x + 1) ** 2).sum()]


def test_processes_survive_everything_and_count_it() -> None:
    result = minimize(fragile, np.full(4, 1.5), iterations=4, samples=10, workers=2, seed=0, evaluation_seconds=0.5)
    assert result.evaluations == 40
    assert result.failures.counts.keys() == {"crash", "not finite", "exception", "timeout"}
    assert result.failures.first["exception"] == "ValueError: boom"
    assert result.optimizer.failures == result.failures.total


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_resumes_bit_by_bit(name: str, tmp_path) -> None:
    options = {"samples": 10, "seed": 3}
    whole = minimize(quadratics, torch.full((4,), 1.5), name, iterations=30, **options)
    file = tmp_path / "search.npz"
    minimize(quadratics, np.full(4, 1.5), name, iterations=13, checkpoint=file, **options)
    with pytest.raises(InputError, match="another file"):
        minimize(quadratics, np.full(4, 1.5), name, iterations=30, checkpoint=file, samples=10, seed=4)
    rest = minimize(quadratics, np.full(4, 1.5), name, iterations=30, checkpoint=file, workers=2, backend="threads", **options)
    assert (whole.x == rest.x).all()
    assert (whole.std == rest.std).all()
    assert (whole.objectives == rest.objectives).all()


def test_resumes_only_from_the_same_start_and_schedule(tmp_path) -> None:
    def search(x0, slope, name: str = "search"):
        schedule = lambda t: slope / (t + 1)  # noqa: E731
        return minimize(quadratics, x0, iterations=2, samples=4, seed=0, checkpoint=tmp_path / name, lr=schedule)

    search(np.ones(3), 0.1)
    search(np.ones(3), 0.1)
    with pytest.raises(InputError, match="another x0"):
        search(np.full(3, 1.5), 0.1)
    with pytest.raises(InputError, match="another x0"):
        search(np.ones(4), 0.1)
    with pytest.raises(InputError, match="same options"):
        search(np.ones(3), 0.2)
    # An optimizer of one's own has its start in itself.
    for iterations in (2, 4):
        own = ASMG(np.ones(3), samples=4, seed=0)
        result = minimize(quadratics, None, own, iterations=iterations, checkpoint=tmp_path / "own")
        assert result.iterations == iterations


class Schedule:
    def __init__(self, rate: float) -> None:
        self.rate = rate

    def __call__(self, t: int) -> float:
        return self.rate if t in {"a", "b", "c"} else 0.5


_CALLABLES = (
    "[lambda t: 0.5, lambda t: 0.25, lambda t, a=1: 0.5, functools.partial(pow, 2), functools.partial(pow, 3), Schedule(1.0), "
    "Schedule(2.0), Schedule(1.0).__call__, Schedule(2.0).__call__, abs, np.exp, max]"
)


def test_callables_are_told_apart_and_are_the_same_in_another_process() -> None:
    own = [worded(value) for value in eval(_CALLABLES)]
    assert len(set(own)) == len(own)
    imports = "import functools; import numpy as np; from tests.blackbox.test_minimize import *"
    code = f"{imports}; print((''.join(frozenset('abc')), [worded(v) for v in {_CALLABLES}]))"
    for hashes in "12":
        environment = {**os.environ, "PYTHONHASHSEED": hashes, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        order, theirs = eval(done.stdout)
        assert [text.replace("__main__", __name__) for text in theirs] == own  # lambdas name the module that wrote them
        if order != "".join(frozenset("abc")):  # sets have another order there than here: that is what was to be met
            return
    raise AssertionError("hashes are the same in all processes")


class Drifting:
    """A function whose outputs depend on how often it was called."""

    def __init__(self, stop_at: int = -1) -> None:
        self.calls = np.zeros(1, dtype=np.int64)
        self.stop_at = stop_at

    def __call__(self, points):
        self.calls += 1
        if self.calls[0] == self.stop_at:
            raise KeyboardInterrupt
        shift = np.sin(float(self.calls[0]))
        return np.stack([((points - shift) ** 2).sum(1), ((points + 1) ** 2).sum(1)], axis=1)

    def state_dict(self):
        return {"calls": self.calls}

    def load_state_dict(self, state) -> None:
        self.calls = state["calls"].copy()


def test_the_functions_state_travels_through_interruptions(tmp_path) -> None:
    search = functools.partial(minimize, x0=np.ones(3), batched=True, samples=5, seed=0)
    whole = search(Drifting(), iterations=12)
    part = search(Drifting(stop_at=6), iterations=12, checkpoint=tmp_path / "a", checkpoint_every=100)
    assert (part.stopped, part.iterations) == ("interrupted", 5)
    function = Drifting()
    rest = search(function, iterations=12, checkpoint=tmp_path / "a")
    assert function.calls[0] == 12
    assert (rest.x == whole.x).all()
    assert (rest.objectives == whole.objectives).all()
    with pytest.raises(InputError, match="with a state"):
        search(lambda x: Drifting()(x), iterations=12, checkpoint=tmp_path / "a")
    with pytest.raises(InputError, match="threads"):
        search(Drifting(), iterations=12, checkpoint=tmp_path / "b", workers=2)
    for state in ({"weights": torch.ones(2)}, {3: 1}, {"objects": np.array([None])}):
        function.state_dict = lambda state=state: state
        with pytest.raises(InputError, match="cannot be stored"):
            search(function, iterations=12, checkpoint=tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_limits_and_callback() -> None:
    assert minimize(quadratics, np.ones(2), evaluations=99, samples=10).evaluations == 90
    assert minimize(quadratics, np.ones(2), seconds=0.2).stopped == "seconds"
    assert minimize(quadratics, np.ones(2), callback=lambda at: at.iteration == 3).iterations == 3


def test_nothing_succeeds() -> None:
    def broken(x):
        raise RuntimeError("no simulator here")

    with pytest.raises(EquipoiseError, match="no simulator here"):
        minimize(broken, np.ones(2))
