"""SegNet and its attention, apart from what the references say."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, nll_loss

import equipoise as eq
from equipoise.nets import CITYSCAPES, NYUV2, Output, SegNet, SegNetMTAN, classes, directions, values

BOTH = pytest.mark.parametrize("kind", [SegNet, SegNetMTAN])


@BOTH
def test_outputs_are_log_probabilities_numbers_and_unit_vectors(kind: type[SegNet | SegNetMTAN]) -> None:
    out = kind(NYUV2, width=8)(torch.randn(2, 3, 32, 64))
    assert list(out) == ["semantic", "depth", "normal"]
    assert torch.allclose(out["semantic"].exp().sum(1), torch.ones(2, 32, 64), atol=1e-5)
    assert torch.allclose(out["normal"].norm(dim=1), torch.ones(2, 32, 64), atol=1e-5)
    labels = torch.randint(13, (2, 32, 64))
    assert torch.allclose(nll_loss(out["semantic"], labels), cross_entropy(out["semantic"], labels))
    assert bool((out["depth"] < 0).any())


def test_a_direction_of_length_zero_stays_finite_and_so_does_its_gradient() -> None:
    maps = torch.zeros(1, 3, 2, 2, requires_grad=True)
    out = directions().finish(maps)
    out.sum().backward()
    assert bool(out.isfinite().all())
    assert maps.grad is not None
    assert bool(maps.grad.isfinite().all())


def test_any_tasks_can_be_predicted() -> None:
    tasks: dict[str, Output | int] = {"edges": classes(2), "albedo": 3, "flow": values(2)}
    out = SegNetMTAN(tasks, width=[2, 3, 4, 5, 6])(torch.zeros(2, 3, 32, 32))
    assert {task: map_.shape[1] for task, map_ in out.items()} == {"edges": 2, "albedo": 3, "flow": 2}


def test_attention_of_a_task_moves_that_task_alone() -> None:
    network = SegNetMTAN(NYUV2, width=2).eval()
    image = torch.randn(1, 3, 32, 64)
    before = network(image)
    with torch.no_grad():
        for parameter in network.attention["depth"].parameters():
            parameter.add_(torch.randn_like(parameter))
    after = network(image)
    assert [task for task in NYUV2 if not torch.equal(before[task], after[task])] == ["depth"]


def test_masks_that_let_everything_pass_and_a_closed_one() -> None:
    """With a mask of zeros at the last level of the decoder, a head sees nothing and gives its bias."""
    network = SegNetMTAN({"depth": 1}, width=2).eval()
    last = network.attention["depth"].decoder[-1][-2]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(-1e4)
        network.heads["depth"][0].bias.zero_()
        network.heads["depth"][1].bias.fill_(0.25)
    assert torch.equal(network(torch.randn(1, 3, 32, 32))["depth"], torch.full((1, 1, 32, 32), 0.25))


@BOTH
@pytest.mark.parametrize("shape", [(1, 3, 32, 48), (1, 3, 33, 32), (1, 1, 32, 32), (3, 32, 32), (1, 3, 0, 32)])
def test_images_that_cannot_be_halved_five_times_are_refused(kind: type[SegNet | SegNetMTAN], shape: tuple[int, ...]) -> None:
    with pytest.raises(eq.InputError, match="multiples of 32"):
        kind(CITYSCAPES, width=2)(torch.zeros(shape))


@BOTH
@pytest.mark.parametrize("width", [0, -3, [1, 2, 3], [4, 8, 16, 32, 0], [1.5] * 5])
def test_bad_widths_are_refused(kind: type[SegNet | SegNetMTAN], width: int | list[int]) -> None:
    with pytest.raises(eq.InputError, match="width"):
        kind(CITYSCAPES, width=width)


@pytest.mark.parametrize("tasks", [{}, None, {"depth": 0}, {"depth": True}, {"depth": "1"}, {"a.b": 1}, {"keys": 1}])
def test_bad_tasks_are_refused(tasks: object) -> None:
    with pytest.raises(eq.InputError):
        SegNet(tasks, width=2)  # type: ignore[arg-type]


@BOTH
def test_copies_and_pickles_are_the_same_network(kind: type[SegNet | SegNetMTAN]) -> None:
    network = kind(NYUV2, width=2).eval()
    image = torch.randn(1, 3, 32, 32)
    expected = network(image)
    fresh = kind(NYUV2, width=2).eval()
    fresh.load_state_dict(network.state_dict())
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network)), fresh):
        assert all(torch.equal(expected[task], map_) for task, map_ in other(image).items())


def test_a_narrow_attention_network_learns_on_a_cpu() -> None:
    torch.manual_seed(1)
    network = SegNetMTAN(CITYSCAPES, width=4)
    image = torch.rand(2, 3, 32, 32)
    depth = image.mean(1, keepdim=True)
    labels = (depth[:, 0] * 2).long()

    def losses(model: nn.Module, _: None) -> dict[str, torch.Tensor]:
        out = model(image)
        return {"semantic": nll_loss(out["semantic"], labels), "depth": (out["depth"] - depth).abs().mean()}

    mtl = eq.MultiTaskOptimizer(eq.Objective(network, losses), torch.optim.Adam(network.parameters(), 3e-2), eq.FAMO())
    first = mtl.step(None)
    for _ in range(10):
        last = mtl.step(None)
    assert float(last["semantic"]) < 0.6 * float(first["semantic"])
    assert float(last["depth"]) < 0.5 * float(first["depth"])
