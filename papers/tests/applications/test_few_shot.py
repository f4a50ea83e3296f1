"""Robust few-shot learning: episodes are what they say, and both objectives pay off on classes never seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from equipoise.bilevel import hypergradients
from equipoise.errors import InputError
from equipoise_papers.applications.characters import characters
from equipoise_papers.applications.few_shot.learner import Encoder, Episodes, head, problem, split_classes
from equipoise_papers.applications.few_shot.run import FewShotOutcome, evaluate, run, show, train
from equipoise_papers.applications.few_shot.settings import FewShotSettings

TINY = FewShotSettings(
    steps=30, test_episodes=5, lower_steps=4, lower_lr=0.3, attack_steps=2, test_attack_steps=4, channels=8, lr=1e-2,
    characters=30, base_classes=20, ways=3, shots=2, radius=0.2,
)  # fmt: skip
CHANCE = 100 / TINY.ways


@pytest.fixture(scope="module")
def outcomes() -> dict[str, FewShotOutcome]:
    return {method: run(method, 0, TINY) for method in ("untrained", "clean", "both-mgda", "both-ls")}


@pytest.mark.parametrize("seed", range(20))
def test_base_and_novel_classes_are_disjoint_and_everything_is_one_of_them(seed: int) -> None:
    base, novel = split_classes(6, seed, 10)
    assert len(base) == 6
    assert sorted(base + novel) == list(range(10))


def test_episodes_hold_what_they_say() -> None:
    images, classes = characters(10), (1, 4, 7, 9)
    episodes = Episodes(images, classes, ways=3, shots=2, queries=5, seed=1)
    met = set()
    for _ in range(20):
        episode = episodes.draw()
        met.add(episode.classes)
        assert len(set(episode.classes)) == 3
        assert set(episode.classes) <= set(classes)
        assert not set(episode.rows[0].tolist()) & set(episode.rows[1].tolist())
        for own, rows, count in zip(episode[:2], episode.rows, (2, 5), strict=True):
            assert own.labels.bincount().tolist() == [count] * 3
            assert torch.equal(own.pixels, images.pixels[rows])
            assert torch.equal(torch.tensor(episode.classes)[own.labels], images.labels[rows])
    assert len(met) > 5


def test_episodes_follow_from_the_seed() -> None:
    images = characters(5)
    first, again, other = (Episodes(images, range(5), ways=2, shots=1, queries=1, seed=seed).draw().rows for seed in (0, 0, 1))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_drawings_of_a_character_are_alike_and_follow_from_the_seed() -> None:
    images = characters(8, 6, seed=3)
    assert torch.equal(images.pixels, characters(8, 6, seed=3).pixels)
    assert not torch.equal(images.pixels, characters(8, 6, seed=4).pixels)
    assert images.labels.bincount().tolist() == [6] * 8
    assert (images.pixels.min(), images.pixels.max()) == (0, 1)
    blurred = torch.nn.functional.avg_pool2d(images.pixels, 4).flatten(1)
    apart = torch.cdist(blurred, blurred)
    same = images.labels[:, None] == images.labels
    assert apart[same & ~torch.eye(48, dtype=torch.bool)].mean() < 0.8 * apart[~same].mean()
    assert apart[same & ~torch.eye(48, dtype=torch.bool)].min() > 0.05  # no two are one drawing


def test_learns_classes_never_seen(outcomes: dict[str, FewShotOutcome]) -> None:
    for method in ("clean", "both-mgda", "both-ls"):
        assert outcomes[method].clean_accuracy > CHANCE + 25
        assert outcomes[method].clean_loss < outcomes["untrained"].clean_loss - 0.2


def test_the_second_objective_buys_robustness(outcomes: dict[str, FewShotOutcome]) -> None:
    for method in ("both-mgda", "both-ls"):
        assert outcomes[method].robust_loss < outcomes["clean"].robust_loss
        assert outcomes[method].robust_loss > outcomes[method].clean_loss
    assert outcomes["both-ls"].robust_loss < outcomes["clean"].robust_loss - 0.1
    assert outcomes["both-ls"].share == pytest.approx(0.5)
    assert outcomes["clean"].share is None


def test_mgda_gives_the_attacked_loss_the_share_of_the_shortest_combination() -> None:
    few = replace(TINY, steps=1)
    encoder, classifier = Encoder(few.channels), head(few.ways, few.channels)

    def episodes() -> Episodes:
        return Episodes(characters(6), range(6), ways=few.ways, shots=few.shots, queries=4, seed=0)

    posed, episode = problem(encoder, classifier, few), episodes().draw()
    clean, robust = hypergradients(posed, posed.here(), [episode] * few.lower_steps, episode, few.lower_lr).rows
    share = float((clean - robust) @ clean / (clean - robust).square().sum())
    assert 0.1 < share < 0.9
    assert train(encoder, episodes(), few) == pytest.approx(share, rel=1e-3)


def test_runs_repeat_to_the_bit() -> None:
    few = FewShotSettings(steps=2, test_episodes=2, channels=4)
    assert run("both-mgda", 3, few) == run("both-mgda", 3, few)


def test_the_robust_objective_is_the_attacked_loss() -> None:
    torch.manual_seed(0)
    encoder, classifier = Encoder(), head(3)
    torch.nn.init.normal_(classifier.weight, std=0.3)
    episode = Episodes(characters(6), range(6), ways=3, shots=2, queries=5, seed=0).draw()
    for radius, raised in ((0.0, False), (0.2, True)):
        posed = problem(encoder, classifier, FewShotSettings(radius=radius))
        clean, robust = posed.objectives_at(posed.here(), episode)
        assert (bool(robust > clean + 0.01)) is raised
        assert posed.objectives == ("clean", "robust")


def test_evaluation_leaves_the_encoder_as_it_is() -> None:
    encoder = Encoder()
    before = [parameter.clone() for parameter in encoder.parameters()]
    evaluate(encoder, Episodes(characters(4), range(4), ways=3, shots=1, queries=2, seed=0), FewShotSettings(test_episodes=1))
    assert all(torch.equal(new, old) for new, old in zip(encoder.parameters(), before, strict=True))
    assert all(parameter.grad is None for parameter in encoder.parameters())


def test_the_table_says_what_was_found(outcomes: dict[str, FewShotOutcome]) -> None:
    text = show(list(outcomes.values()), TINY)
    for method, outcome in outcomes.items():
        line = next(line for line in text.splitlines() if line.startswith(f"| {method} "))
        assert f"{outcome.robust_accuracy:.1f}" in line
        assert f"{outcome.clean_loss:.3f}" in line


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: run("both", 0, TINY), 'unknown method "both"; expected one of untrained'),
        (lambda: FewShotSettings(ways=21), "ways must be from 2 to .* got 21"),
        (lambda: FewShotSettings(shots=0), "shots must be a whole number of at least 1; got 0"),
        (lambda: FewShotSettings(decay=-1.0), "decay"),
        (lambda: FewShotSettings(lr=0.0), "lr must"),
        (lambda: split_classes(10, 0, 10), "base must be from 1 to 9"),
        (lambda: problem(Encoder(), head(2), TINY, ("speed",)), 'must be "clean", "robust" or both'),
        (lambda: problem(Encoder(), head(2), TINY, ()), 'must be "clean", "robust" or both'),
        (lambda: Episodes(characters(3), [1, 1, 2], ways=2, shots=1, queries=1, seed=0), "different classes"),
        (lambda: Episodes(characters(3), [1], ways=2, shots=1, queries=1, seed=0), "2 ways need at least"),
        (lambda: Episodes(characters(3), [1, 2], ways=2, shots=150, queries=50, seed=0), "class 1 has 20 images"),
        (lambda: Episodes(characters(3), [1, 2], ways=2, shots=0, queries=1, seed=0), "shots and queries must be at least 1"),
    ],
)
def test_bad_input(call: Callable[[], Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        call()
