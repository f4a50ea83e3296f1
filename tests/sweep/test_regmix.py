import numpy as np
import optuna
import pytest

from equipoise.errors import InputError
from equipoise.sweep import Space, Sweep
from equipoise.sweep.regmix import RegMix, random_mixtures
from equipoise.sweep.trials import make_sampler

TASKS = ("near", "far", "odd")
AIM = np.array([0.6, 0.3, 0.1])


def test_random_mixtures_lie_on_the_simplex_around_the_prior():
    prior = np.array([8.0, 1.0, 1.0])
    found = random_mixtures(prior, 400, seed=1)
    assert found.shape == (400, 3)
    assert found.min() > 1e-4
    np.testing.assert_allclose(found.sum(1), 1.0)
    smooth = np.sqrt(prior) / np.sqrt(prior).sum()
    np.testing.assert_allclose(found.mean(0), smooth, atol=0.06)
    assert found.max(1).max() > 0.99  # of little strength: one domain alone
    assert np.abs(found - smooth).max(1).min() < 0.1  # and of much: near the prior
    bounded = random_mixtures(prior, 50, most=3.0)
    assert (bounded <= np.array([1.0, 0.3, 0.3]) + 1e-3).all()
    np.testing.assert_array_equal(found[:5], random_mixtures([0.8, 0.1, 0.1], 5, seed=1))


def test_the_best_mixture_is_found_from_random_runs():
    mixtures = random_mixtures(3, 80, seed=0)
    losses = ((mixtures - AIM) ** 2).sum(1)
    fitted = RegMix.fit(mixtures, losses, folds=0)
    best = fitted.best(3, candidates=2000, top=64)
    assert best.sum() == pytest.approx(1.0)
    assert np.abs(best - AIM).max() < 0.2
    assert fitted.predict([AIM])[0] < np.quantile(losses, 0.2)
    assert np.isnan(fitted.correlation)
    line = RegMix.fit(mixtures, mixtures @ [1.0, 2.0, 3.0], "linear")
    assert line.correlation > 0.99
    assert line.best(3, candidates=2000, top=8)[0] > 0.95
    assert RegMix.fit(mixtures, losses, "linear").correlation < 0.9  # a bowl is no plane


def test_nothing_to_learn_from():
    mixtures = random_mixtures(3, 10)
    assert RegMix.fit(mixtures, np.ones(10), "linear").correlation == 0.0
    for given, losses in ((mixtures[:4], np.ones(4)), (mixtures, np.ones(9)), (mixtures, np.full(10, np.nan))):
        with pytest.raises(InputError, match="at least 5 runs"):
            RegMix.fit(given, losses)
    with pytest.raises(InputError, match='"boosting" or "linear"'):
        RegMix.fit(mixtures, np.ones(10), "trees")
    with pytest.raises(InputError, match="a positive number for each of at least two domains"):
        random_mixtures([1.0, 0.0], 3)
    with pytest.raises(InputError, match="give a larger bound"):
        random_mixtures([1.0, 1.0], 1, most=1.0)


@pytest.mark.parametrize(("kind", "sign"), [("dirichlet", 1), ("log", -1)])
def test_the_sampler_of_a_sweep_ends_near_the_best_mixture(kind, sign):
    space, budget = Space("ls", TASKS, f"weights={kind}"), 50
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study, tried = optuna.create_study(direction="minimize" if sign > 0 else "maximize"), []
    for asked in range(41):  # 40 at random, and one that was learned
        own = space.distributions()
        study.sampler = make_sampler("regmix", seed=3, asked=asked, budget=budget, distributions=own)
        trial = study.ask(own)
        tried.append(np.array(space.weights.values(trial.params)) / 3)
        study.tell(trial, sign * float(((tried[-1] - AIM) ** 2).sum()))
    distances = np.abs(np.array(tried) - AIM).max(1)
    assert distances[-1] < 0.6 * np.median(distances[:-1])
    assert distances[-1] < 0.25


def test_only_weights_are_swept_by_it(tmp_path, tug, quiet):
    assert Sweep(tug, "ls", sampler="regmix", folder=tmp_path, console=quiet).sampler == "regmix"
    with pytest.raises(InputError, match='"regmix" is for weights, and "cagrad" sweeps none'):
        Sweep(tug, "cagrad", sampler="regmix", folder=tmp_path, console=quiet)
