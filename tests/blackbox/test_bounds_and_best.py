"""Bounds, the best point seen, and small dimensions, for every optimizer; CMA-ES against pycma itself."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from equipoise.blackbox import ASMG, CMAES, MMES, OPTIMIZERS, make_optimizer, minimize
from equipoise.blackbox.checkpoint import read_checkpoint, write_checkpoint
from equipoise.errors import InputError


def made(name: str, mean, **more):
    return make_optimizer(name, mean, samples=12, seed=0, **more)


def valleys(points):
    """Least at 1 and at -1."""
    return np.stack([((points - 1) ** 2).sum(1), ((points + 1) ** 2).sum(1)], axis=1)


@pytest.mark.parametrize("bounds", [(2.0, 10.0), ([2.0, 2.5, 2.0], None), (2, [3, 4, 5])])
@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_everything_stays_inside_and_ends_at_the_bound(name: str, bounds) -> None:
    optimizer = made(name, np.full(3, 2.9), std=0.5, bounds=bounds)
    low = np.broadcast_to(bounds[0], 3)
    high = np.broadcast_to(np.inf if bounds[1] is None else bounds[1], 3)
    for _ in range(250):
        points = optimizer.ask()
        assert ((points >= low) & (points <= high)).all()
        optimizer.tell(valleys(points))
        assert ((optimizer.mean >= low) & (optimizer.mean <= high)).all()
    # 0 would be best without them.
    assert np.abs(optimizer.mean - low).max() < 0.25
    assert np.abs(optimizer.best - low).max() < 0.15
    twin = made(name, np.full(3, 2.9), std=0.5, bounds=bounds)
    twin.load_state_dict(optimizer.state_dict())
    assert (twin.ask() == optimizer.ask()).all()
    with pytest.raises(InputError, match="other bounds"):
        made(name, np.full(3, 2.9), bounds=(0, 20)).load_state_dict(optimizer.state_dict())


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_wide_bounds_change_nothing(name: str) -> None:
    if name == "cma-es":
        pytest.skip("pycma's own way to keep bounds changes the coordinates")
    one, two = made(name, np.full(3, 2.0)), made(name, np.full(3, 2.0), bounds=(-1e9, 1e9))
    for _ in range(20):
        assert (one.ask() == two.ask()).all()
        for optimizer in (one, two):
            optimizer.tell(valleys(optimizer.ask()))
    assert (one.mean == two.mean).all()


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_bounds_that_cannot_be_used(name: str) -> None:
    for bounds in ((3, 2), (2, 2), (0, 1), 5, (1, 2, 3), ([0, 0], 5), ("a", 5), (float("nan"), 5)):
        with pytest.raises(InputError, match="bounds"):
            made(name, np.full(3, 2.0), bounds=bounds)


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_the_best_point_is_the_best_that_was_evaluated(name: str) -> None:
    seen = []

    def f(x):
        outputs = [((x - 1) ** 2).sum(), ((x + 1) ** 2).sum()]
        if len(seen) % 7 == 3:
            outputs[1] = np.nan if len(seen) % 2 else -np.inf
        seen.append((x, outputs))
        return outputs

    result = minimize(f, np.full(3, 4.0), name, iterations=20, samples=8, seed=0, bounds=(-5, 5))
    point, outputs = min((one for one in seen if np.isfinite(one[1]).all()), key=lambda one: sum(one[1]))
    assert (result.best == point).all()
    assert (result.best_outputs == outputs).all()
    assert (result.optimizer.best == point).all()


def test_the_best_point_is_by_the_weights_that_were_given() -> None:
    optimizer = ASMG(np.zeros(2), samples=10, seed=0, weights=[1.0, 0.0])
    points = optimizer.ask()
    optimizer.tell(valleys(points))
    assert (optimizer.best == points[valleys(points)[:, 0].argmin()]).all()


@pytest.mark.parametrize("dimension", [1, 2, 3])
@pytest.mark.parametrize("start", [2.0, 100.0])
def test_mmes_moves_in_few_dimensions(dimension: int, start: float) -> None:
    ends = []
    for seed in range(5):
        optimizer = MMES(np.full(dimension, start), samples=10, seed=seed)
        for _ in range(250):
            optimizer.tell((optimizer.ask() ** 2).sum(1, keepdims=True))
        ends.append(np.abs(optimizer.mean).max())
    assert np.median(ends) < 1e-3


OWN = {
    "plain": {},
    "bounds": {"bounds": [2, 10]},
    "some bounds": {"bounds": [[2, None, 1, 0, -5], None]},
    "fixed": {"fixed_variables": {0: 3.0, 3: 4.0}},
    "scaled": {"scaling_of_variables": [1, 2, 1, 4, 1]},
    "diagonal": {"CMA_diagonal": True},
    "diagonal at first": {"CMA_diagonal": 10},
    "elitist": {"CMA_elitist": True},
    "mirrored": {"CMA_mirrors": 1},
    "integers": {"integer_variables": [1]},
}


def slopes(points):
    return ((np.asarray(points) - np.arange(5)) ** 4).sum(1, keepdims=True)


@pytest.mark.parametrize(
    "case", [case for case in OWN if case != "integers"]
)  # pycma takes these from NumPy's global generator
def test_the_mean_and_the_samples_are_pycmas(case: str) -> None:
    import cma

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours = CMAES(np.full(5, 3.0), samples=10, seed=0, options=OWN[case])
        rng = np.random.default_rng(0)
        quiet = {"verbose": -9, "verb_disp": 0, "verb_log": 0, "seed": np.nan, "popsize": 10}
        theirs = cma.CMAEvolutionStrategy(
            np.full(5, 3.0), 1.0, {**OWN[case], **quiet, "randn": lambda *n: rng.standard_normal(n)}
        )
        before = np.random.get_state()[1].copy()  # noqa: NPY002
        for _ in range(30):
            points = theirs.ask()
            assert (ours.ask() == points).all()
            theirs.tell(points, slopes(points)[:, 0].tolist())
            theirs.sm.randn = lambda *n: rng.standard_normal(n)
            ours.tell(slopes(points))
            assert (ours.mean == theirs.result.xfavorite).all()
            assert (ours.best_outputs == theirs.result.fbest).all()
        assert ours.mean.shape == ours.std.shape == (5,)
        assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    if "bounds" in OWN[case]:
        assert ours.mean.min() >= 2 or case != "bounds"
    if case == "fixed":
        assert (ours.mean[[0, 3]] == [3, 4]).all()
        assert (ours.std[[0, 3]] == 0).all()
        assert ours.std[[1, 2, 4]].min() > 0


@pytest.mark.parametrize("stop", [0, 1, 25])
@pytest.mark.parametrize("case", OWN)
def test_a_saved_search_is_numbers_and_goes_on_to_the_bit(case: str, stop: int, tmp_path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = CMAES(np.full(5, 3.0), samples=10, seed=0, options=OWN[case])
        for at in range(40):
            if at == stop:
                write_checkpoint(tmp_path / "state", whole.state_dict())
            whole.tell(slopes(whole.ask()))
        rest = CMAES(np.full(5, 3.0), samples=10, seed=9, options=OWN[case])
        rest.load_state_dict(read_checkpoint(tmp_path / "state"))
        for _ in range(stop, 40):
            rest.tell(slopes(rest.ask()))
    assert (rest.ask() == whole.ask()).all()
    assert (rest.mean == whole.mean).all()
    assert (rest.std == whole.std).all()


def searched(file: Path, iterations: int) -> str:
    """Goes on with the search that a file holds, or starts one, and keeps it there; the points that it asks for then."""
    one = CMAES(np.full(5, 3.0), std=4.0, bounds=(2, 40), samples=8, seed=0)
    if file.exists():
        one.load_state_dict(read_checkpoint(file))
    for _ in range(iterations):
        one.tell(slopes(one.ask()))
    one.ask()
    write_checkpoint(file, one.state_dict())
    return one.ask().tobytes().hex()


def test_another_process_goes_on_to_the_bit(tmp_path) -> None:
    """Hashes, by which pycma finds its solutions, are others there."""
    hashes = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    code = "import sys; from tests.blackbox.test_bounds_and_best import *; print(searched(Path(sys.argv[1]), 13))"
    environment = {**os.environ, "PYTHONHASHSEED": hashes, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    searched(tmp_path / "parts", 11)
    command = [sys.executable, "-c", code, str(tmp_path / "parts")]
    theirs = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert theirs == searched(tmp_path / "whole", 24) + "\n"


class Ran(Exception):
    pass


class Bait:
    def __reduce__(self):
        return exec, ("raise __import__('tests.blackbox.test_bounds_and_best', fromlist=['Ran']).Ran",)


def _spoilt(state, make):
    """Copies of a state with one entry somewhere in pycma's part replaced."""

    def spoilt(value, depth):
        if isinstance(value, list) and value and depth:
            for place, own in enumerate(value):
                for other in spoilt(own, depth - 1):
                    yield [*value[:place], other, *value[place + 1 :]]
        elif isinstance(value, dict) and depth:
            for key, own in value.items():
                for other in spoilt(own, depth - 1):
                    yield value | {key: other}
        for other in make:
            yield other

    for other in spoilt(state["strategy"], 4):
        yield state | {"strategy": other}


def test_a_hostile_state_runs_nothing_and_is_one_line() -> None:
    optimizer = CMAES(np.full(5, 3.0), samples=10, seed=0)
    optimizer.tell(slopes(optimizer.ask()))
    state = optimizer.state_dict()
    fresh = CMAES(np.full(5, 3.0), samples=10, seed=0)
    before = fresh.ask()
    for hostile in (
        state | {"strategy": pickle.dumps(Bait())},
        state | {"strategy": ["object", "CMAOptions", None, {"a": "__import__('os')"}]},
        state | {"parts": []},
        state | {"parts": [np.full(own.shape, np.nan) for own in state["parts"]]},
        {key: value for key, value in state.items() if key != "strategy"},
    ):
        with pytest.raises(InputError) as raised:
            fresh.load_state_dict(hostile)
        assert "\n" not in str(raised.value)
        assert (fresh.ask() == before).all()
    for number, hostile in enumerate(_spoilt(state, ["__import__('os').getcwd()", ["object", "CMADataLogger", None, {}]])):
        if number % 7:
            continue
        try:
            other = CMAES(np.full(5, 3.0), samples=10, seed=0)
            other.load_state_dict(hostile)
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017


def test_two_free_dimensions_are_the_fewest() -> None:
    with pytest.raises(InputError, match="one dimension"):
        CMAES(np.ones(3), options={"fixed_variables": {0: 1.0, 1: 1.0}})
    with pytest.raises(InputError, match="given twice"):
        CMAES(np.ones(3), bounds=(0, 2), options={"bounds": [0, 2]})
