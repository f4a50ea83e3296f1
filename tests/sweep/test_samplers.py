import optuna
import pytest

from equipoise.errors import InputError
from equipoise.sweep import Space
from equipoise.sweep.trials import PRUNERS, SAMPLERS, make_pruner, make_sampler

SPACE = Space("cagrad", ("near", "far"), "c=0.1:0.9,rescale=true|false")


def searched(name, budget, directions, *, seed=0):
    """Parameters of a search that makes a new sampler for every trial, as a sweep does."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(directions=directions)
    study.enqueue_trial(SPACE.default())
    for asked in range(budget):
        study.sampler = make_sampler(name, seed=seed, asked=asked, budget=budget)
        trial = study.ask(SPACE.distributions())
        error = (trial.params["c"] - 0.7) ** 2 + 0.1 * trial.params["rescale"]
        study.tell(trial, [error, trial.params["c"]][: len(directions)])
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_searches_and_repeats_itself(name, several):
    directions = ["minimize"] * (1 + several)
    budget = 8 if name == "gp" else 14  # a Gaussian process is fitted for every trial
    parameters = searched(name, budget, directions)
    assert parameters[0] == {"c": 0.4, "rescale": False}
    # A fresh generator a trial, and not the same number again and again; children of nsga2 may be like their parents.
    assert len({own["c"] for own in parameters}) >= (7 if name == "nsga2" else budget - 1)
    assert {own["rescale"] for own in parameters} == {True, False}
    assert parameters == searched(name, budget, directions)
    assert parameters[1:5] != searched(name, 5, directions, seed=1)[1:]


@pytest.mark.parametrize("name", ["tpe", "gp"])
def test_models_find_what_chance_does_not(name):
    last = [own["c"] for own in searched(name, 30, ["minimize"])[-6:]]
    # At random the mean distance in 0.1 … 0.9 is 0.25.
    assert sum(abs(c - 0.7) for c in last) / 6 < 0.15


def test_pruners():
    for name in PRUNERS:
        assert isinstance(make_pruner(name, epochs=5), optuna.pruners.BasePruner)
    with pytest.raises(InputError, match=r'no pruner "hyperban"\. Did you mean "hyperband"'):
        make_pruner("hyperban", epochs=5)
