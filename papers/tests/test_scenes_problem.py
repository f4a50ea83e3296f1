"""The problem of rendered scenes: its losses by hand, its data from the cache, training that learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import equipoise as eq
from equipoise.errors import InputError
from equipoise_papers.problems.dense_losses import depth_loss, normal_loss, semantic_loss
from equipoise_papers.problems.scenes import scenes_problem

SMALL = {"size": (32, 64), "train": 4, "val": 1, "test": 2, "width": 4, "batch_size": 2}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """One cache for all tests here; rendering is done once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EQUIPOISE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def test_losses_are_means_over_valid_pixels():
    generator = np.random.default_rng(0)
    scores = generator.standard_normal((2, 4, 3, 5))
    logarithms = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    label = generator.integers(-1, 4, (2, 3, 5))
    picked = [logarithms[n, label[n, i, j], i, j] for n, i, j in np.argwhere(label >= 0)]
    assert float(semantic_loss(torch.tensor(logarithms), torch.tensor(label))) == pytest.approx(-np.mean(picked))

    depth = np.where(generator.random((2, 1, 3, 5)) < 0.3, 0, generator.uniform(1, 5, (2, 1, 3, 5)))
    guess = generator.uniform(0, 5, (2, 1, 3, 5))
    expected = np.abs(guess - depth)[depth > 0].mean()
    assert float(depth_loss(torch.tensor(guess), torch.tensor(depth))) == pytest.approx(expected)

    vectors = generator.standard_normal((2, 2, 3, 3, 5))
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    guess, normal = vectors
    normal[0, :, 0, 0] = 0
    cosines = (guess * normal).sum(1)[(normal != 0).any(1)]
    assert len(cosines) == 29
    assert float(normal_loss(torch.tensor(guess), torch.tensor(normal))) == pytest.approx(1 - cosines.mean())


def test_a_batch_without_targets_has_finite_losses_and_no_gradient():
    guesses = [torch.randn(1, channels, 2, 2, requires_grad=True) for channels in (3, 1, 3)]
    nothing = (torch.full((1, 2, 2), -1), torch.zeros(1, 1, 2, 2), torch.zeros(1, 3, 2, 2))
    for loss, guess, target in zip((semantic_loss, depth_loss, normal_loss), guesses, nothing, strict=True):
        value = loss(guess, target)
        assert torch.isfinite(value)
        value.backward()
        assert guess.grad is not None
        assert (guess.grad == 0).all()


@pytest.mark.parametrize(("kind", "metrics"), [("rooms", 9), ("streets", 4)])
def test_all_runs_see_the_same_scenes_in_an_order_of_their_own(kind, metrics):
    problem = scenes_problem(kind, **(SMALL | {"test": 1}))
    assert len(problem.metrics) == metrics
    first, again = problem.data(0), problem.data(0)
    other = problem.data(1)
    assert [len(split) for split in first] == [2, 1, 1]
    for ours, theirs in zip(first.train, again.train, strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert torch.equal(first.train.tensors["image"], other.train.tensors["image"])
    assert any(not torch.equal(first.train.order(epoch), other.train.order(epoch)) for epoch in range(5))


@pytest.mark.parametrize("network", ["segnet", "segnet-mtan"])
def test_training_lowers_all_losses(network):
    problem = scenes_problem("rooms", network=network, **SMALL)
    splits = problem.data(0)
    torch.manual_seed(0)
    model, losses = problem.build(0)
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses, tasks=problem.tasks), problem.optimizer(model), eq.FairGrad())
    seen = [{task: float(loss) for task, loss in mtl.step(batch).items()} for _ in range(7) for batch in splits.train]
    for task in problem.tasks:
        assert np.mean([step[task] for step in seen[-4:]]) < 0.98 * np.mean([step[task] for step in seen[:2]])
    model.eval()
    with torch.no_grad():
        values = problem.evaluate(model, splits.test)
    assert set(values) == {metric.name for metric in problem.metrics}
    assert all(np.isfinite(value) for value in values.values())


def test_options_tell_problems_apart():
    """Results of different networks or scenes must not end in one folder."""
    identities = [
        scenes_problem().identity(),
        scenes_problem(width=16).identity(),
        scenes_problem(train=100).identity(),
        scenes_problem(network="segnet-mtan").identity(),
        scenes_problem("streets", size=(64, 128)).identity(),
        scenes_problem(data_seed=1).identity(),
    ]
    assert all(one != other for number, one in enumerate(identities) for other in identities[:number])


def test_bad_input_is_refused():
    with pytest.raises(InputError, match=r'no network "vgg" for scenes; expected one of segnet, segnet-mtan'):
        scenes_problem(network="vgg")
    with pytest.raises(InputError, match=r"size is 60x96; segnet needs height and width to be multiples of 32"):
        scenes_problem(size=(60, 96))
