"""Architecture search: the number of parameters as in the thesis, and a search that heeds it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from equipoise.errors import InputError
from equipoise_papers.applications.architecture_search.cell import (
    OPERATIONS,
    FoundNetwork,
    SearchNetwork,
    chosen,
    edges,
    expected_parameters,
    number_of_parameters,
    operation,
    parameter_counts,
    size_loss,
)
from equipoise_papers.applications.architecture_search.run import ArchitectureSearchOutcome, run, show
from equipoise_papers.applications.architecture_search.search import problem, search, split_digits
from equipoise_papers.applications.architecture_search.settings import ArchitectureSearchSettings

TINY = ArchitectureSearchSettings(channels=4, nodes=3, steps=25, lower_steps=2, batch_size=24, training_steps=40, logits_lr=0.2)
LARGEST = 3 * 9 * 4**2


def searched(solver: str, wished: float) -> tuple[Tensor, list[dict[str, float]]]:
    torch.manual_seed(0)
    logits, network = torch.zeros(3, len(OPERATIONS)), SearchNetwork(4, 3)
    history = search(logits, network, split_digits(0), TINY, wished, solver=solver)
    return logits.detach(), history


def test_expected_parameters_by_hand() -> None:
    logits, counts = torch.tensor([[0.0, math.log(3.0)], [math.log(4.0), 0.0]]), torch.tensor([10.0, 100.0])
    # Probabilities (1/4, 3/4) and (4/5, 1/5): 2.5 + 75 + 8 + 20.
    assert float(expected_parameters(logits, counts)) == pytest.approx(105.5)
    assert number_of_parameters(logits, counts) == 110
    assert float(size_loss(logits, counts, 100.0)) == pytest.approx(5.5 / 200, rel=1e-5)
    assert float(size_loss(logits, counts, 105.5)) == pytest.approx(0.0, abs=1e-6)


def test_gradient_of_the_size() -> None:
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    counts = torch.tensor([0.0, 3.0, 5.0, 20.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda logits: size_loss(logits, counts, 1.0), logits)


def test_certain_logits_have_the_size_of_what_they_choose() -> None:
    counts = parameter_counts(4)
    logits = 100.0 * torch.eye(5)[[0, 2, 4]]
    architecture = chosen(logits)
    assert architecture == ("skip", "conv1", "conv3")
    network = FoundNetwork(architecture, 4, 3)
    true = sum(parameter.numel() for parameter in network.operations.parameters())
    assert number_of_parameters(logits, counts) == true == 16 + 144
    assert float(expected_parameters(logits, counts)) == pytest.approx(true)


def test_a_search_network_with_certain_logits_is_the_network_found() -> None:
    mixed, images = SearchNetwork(4, 3), torch.rand(6, 1, 8, 8)
    logits = 1000.0 * torch.eye(5)[[3, 1, 4]]
    found = FoundNetwork(chosen(logits), 4, 3)
    found.stem.load_state_dict(mixed.stem.state_dict())
    found.classifier.load_state_dict(mixed.classifier.state_dict())
    for edge, position in enumerate((3, 1, 4)):
        found.operations[edge].load_state_dict(mixed.choices[edge][position].state_dict())
    torch.testing.assert_close(mixed(images, logits), found(images))


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_keep_the_shape(name: str) -> None:
    images = torch.rand(2, 4, 4, 4)
    assert operation(name, 4)(images).shape == images.shape


@pytest.mark.parametrize("solver", ["moml", "forum"])
def test_the_search_moves_the_size_towards_what_is_wished_and_still_learns(solver: str) -> None:
    counts = parameter_counts(4)
    start = float(expected_parameters(torch.zeros(3, 5), counts))
    sizes = {}
    for wished in (0.1 * LARGEST, 0.7 * LARGEST):
        logits, history = searched(solver, wished)
        sizes[wished] = float(expected_parameters(logits, counts))
        assert abs(sizes[wished] - wished) < 0.5 * abs(start - wished)
    # A cell of hardly any parameters has little to learn with; this is the large one's.
    first, last = (np.mean([entry["clean"] for entry in part]) for part in (history[:5], history[-5:]))
    assert last < first - 0.1
    small, large = sizes.values()
    assert small < start < large


def test_runs_repeat_to_the_bit_and_the_table_shows_them() -> None:
    few = ArchitectureSearchSettings(channels=2, nodes=3, steps=2, batch_size=8, training_steps=3)
    outcome = run("forum", 30, 1, few)
    assert outcome == run("forum", 30, 1, few)
    assert isinstance(outcome, ArchitectureSearchOutcome)
    assert outcome.parameters == sum(int(parameter_counts(2)[list(OPERATIONS).index(name)]) for name in outcome.architecture)
    text = show([outcome], few)
    assert f"| forum  |  30 | {outcome.expected:15.0f} |" in text
    assert all(f"{source}→{target}" in text for source, target in edges(3))


def test_the_robust_objective_is_the_attacked_loss() -> None:
    torch.manual_seed(0)
    logits, network, split = torch.zeros(3, 5), SearchNetwork(4, 3), split_digits(0)
    for radius, raised in ((0.0, False), (0.2, True)):
        posed = problem(logits, network, ArchitectureSearchSettings(radius=radius, channels=4, nodes=3), 100)
        clean, robust, _ = posed.objectives_at(posed.here(), split.validation)
        assert bool(robust > clean + 0.01) is raised


def test_the_splits_share_no_image() -> None:
    split = split_digits(0)
    assert sum(len(part.labels) for part in split) == 1797
    rows = [{tuple(image.flatten().tolist()) for image in part.pixels} for part in split]
    assert not rows[0] & rows[1]
    assert not (rows[0] | rows[1]) & rows[2]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: run("random", 1, 0, TINY), 'unknown method "random"; expected one of darts'),
        (lambda: expected_parameters(torch.zeros(2, 3), torch.zeros(2)), r"got \[2, 3\] and \[2\]"),
        (lambda: number_of_parameters(torch.zeros(3), torch.zeros(3)), "logits must be"),
        (lambda: size_loss(torch.zeros(1, 2), torch.ones(2), -1.0), "from 0 to 1, .* got -1"),
        (lambda: size_loss(torch.zeros(2, 2), torch.ones(2), 3.0), "from 0 to 2, .* got 3"),
        (lambda: size_loss(torch.zeros(1, 2), torch.zeros(2), 1.0), "no operation has parameters"),
        (lambda: operation("conv", 4), 'unknown operation "conv".*Did you mean'),
        (lambda: FoundNetwork(["skip"], 4, 3), "has 3 edges; got 1 operations"),
        (lambda: SearchNetwork(4, 3)(torch.zeros(1, 1, 8, 8), torch.zeros(2, 5)), r"= \[3, 5\]; got \[2, 5\]"),
        (lambda: problem(torch.zeros(3, 5), SearchNetwork(4, 3), TINY, 1, ("speed",)), "objectives must be some of"),
        (lambda: search(torch.zeros(3, 5), SearchNetwork(4, 3), split_digits(0), TINY, 1, solver="x"), "unknown solver"),
        (lambda: ArchitectureSearchSettings(nodes=1), "nodes must be a whole number of at least 2"),
        (lambda: ArchitectureSearchSettings(lower_lr=0.0), "lower_lr"),
    ],
)
def test_bad_input(call: Callable[[], Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        call()
