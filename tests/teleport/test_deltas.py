"""Parameter deltas: all weights they fit, where they start, their gradients, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.teleport import OFT, Delta, Dense, LoHa, LowRank

DELTAS: list[Delta] = [LowRank(rank=2), LoHa(rank=2), OFT(blocks=2), Dense()]
SHAPES = [(6, 4), (4, 6), (6, 4, 3), (8, 4, 3, 3), (4, 2, 3, 2, 2)]
every_delta = pytest.mark.parametrize("delta", DELTAS, ids=repr)


class Graph(nn.Module):
    """A graph layer: sums over neighbours, then a linear map of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.own = nn.Parameter(torch.randn(6, 5))
        self.neighbours = nn.Parameter(torch.randn(6, 5))


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(6, 5),
    "conv1d": lambda: nn.Conv1d(4, 6, 3),
    "conv2d, grouped": lambda: nn.Conv2d(4, 8, 3, groups=2),
    "conv2d, depthwise": lambda: nn.Conv2d(4, 4, 3, groups=4),
    "conv2d, transposed": lambda: nn.ConvTranspose2d(4, 6, 3),
    "conv2d, transposed and grouped": lambda: nn.ConvTranspose2d(4, 6, 3, groups=2),
    "conv3d": lambda: nn.Conv3d(3, 4, 2),
    "gru": lambda: nn.GRU(4, 6, num_layers=2, bidirectional=True),
    "lstm, projected": lambda: nn.LSTM(4, 6, proj_size=3),
    "embedding": lambda: nn.Embedding(9, 4),
    "attention": lambda: nn.MultiheadAttention(4, 2),
    "bilinear": lambda: nn.Bilinear(3, 4, 5),
    "graph": Graph,
}


def weights_of(layer: nn.Module) -> dict[str, Tensor]:
    return dict(layer.named_parameters())


def randomize(factors: list[Tensor], size: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for factor in factors:
            factor.copy_(size * torch.randn(factor.shape, generator=generator, dtype=torch.float64))


@every_delta
@pytest.mark.parametrize("layer", LAYERS)
def test_layers_start_where_they_are_and_can_move(layer: str, delta: Delta) -> None:
    torch.manual_seed(0)
    parameters = weights_of(LAYERS[layer]())
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    adaptation = delta.adapt(parameters, torch.Generator().manual_seed(0))
    matrices = {name for name, parameter in parameters.items() if parameter.dim() >= 2}
    assert set(adaptation.names) == (set(parameters) if isinstance(delta, Dense) else matrices)
    point, differences = adaptation.elsewhere(), adaptation.deltas()
    for name in adaptation.names:
        assert differences[name].shape == point[name].shape == parameters[name].shape
        assert not differences[name].any()
        assert torch.equal(point[name], before[name])
    randomize(adaptation.factors)
    for difference in adaptation.deltas().values():
        assert difference.abs().max() > 1e-3
    # The parameters themselves are never written to.
    assert all(torch.equal(before[name], parameter) for name, parameter in parameters.items())


@every_delta
@pytest.mark.parametrize("shape", SHAPES)
def test_a_first_step_moves_every_weight(shape: tuple[int, ...], delta: Delta) -> None:
    """Starting at zero must not be a saddle at which no factor has a gradient."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    adaptation = delta.adapt({"weight": weight}, torch.Generator().manual_seed(1))
    pull = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    (adaptation.elsewhere()["weight"] * pull).sum().backward()
    with torch.no_grad():
        for factor in adaptation.factors:
            assert factor.grad is not None
            factor -= 0.01 * factor.grad
    assert adaptation.deltas()["weight"].abs().max() > 1e-5


@every_delta
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients(shape: tuple[int, ...], delta: Delta) -> None:
    weight = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = delta.difference(weight, torch.Generator().manual_seed(1))
    assert found is not None
    randomize(list(found.factors), 0.5)

    def computed(*factors: Tensor) -> Tensor:
        found.factors = factors
        return found.compute()

    inputs = tuple(factor.detach().clone().requires_grad_() for factor in found.factors)
    assert torch.autograd.gradcheck(computed, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(computed, inputs, fast_mode=True)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("delta", "bound"), [(LowRank(rank=2), 2), (LoHa(rank=2), 4)])
def test_the_rank_is_as_low_as_said(shape: tuple[int, ...], delta: Delta, bound: int) -> None:
    adaptation = delta.adapt({"weight": torch.zeros(shape, dtype=torch.float64)}, torch.Generator())
    randomize(adaptation.factors)
    matrix = adaptation.deltas()["weight"].detach().reshape(shape[0], -1)
    assert int(torch.linalg.matrix_rank(matrix)) == min(bound, *matrix.shape)


@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("shape", [(5, 12), (5, 3, 4), (5, 3, 2, 2)])
def test_rotations_keep_norms_and_angles(shape: tuple[int, ...], blocks: int) -> None:
    weight = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    adaptation = OFT(blocks=blocks).adapt({"weight": weight}, torch.Generator())
    randomize(adaptation.factors)
    moved = adaptation.elsewhere()["weight"].detach()
    rows, before = moved.reshape(5, -1), weight.reshape(5, -1)
    torch.testing.assert_close(rows @ rows.T, before @ before.T, rtol=1e-10, atol=1e-10)
    assert (moved - weight).abs().max() > 0.1
    # Columns of different blocks do not mix: each row's part in a block keeps its norm.
    torch.testing.assert_close(rows.reshape(5, blocks, -1).norm(dim=2), before.reshape(5, blocks, -1).norm(dim=2))


def test_a_rotation_is_orthogonal() -> None:
    """Of the identity matrix it is the rotation itself."""
    adaptation = OFT(blocks=2).adapt({"weight": torch.eye(6, dtype=torch.float64)}, torch.Generator())
    randomize(adaptation.factors, 3.0)
    rotation = adaptation.elsewhere()["weight"].detach()
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(6, dtype=torch.float64), rtol=1e-12, atol=1e-12)
    assert float(torch.linalg.det(rotation)) == pytest.approx(1.0)
    assert not rotation[:3, 3:].any()


@pytest.mark.parametrize(("columns", "wanted", "expected"), [(12, 5, 4), (10, 5, 5), (14, 5, 7), (7, 5, 1), (15, 4, 3)])
def test_the_number_of_blocks_divides_the_columns(columns: int, wanted: int, expected: int) -> None:
    adaptation = OFT(blocks=wanted).adapt({"weight": torch.zeros(3, columns)}, torch.Generator())
    (angles,) = adaptation.factors
    size = columns // expected
    assert angles.shape == (expected, size * (size - 1) // 2)


@every_delta
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype, delta: Delta) -> None:
    """Factors are trained in single precision, Δθ comes out in the parameter's."""
    weight = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    adaptation = delta.adapt({"weight": weight}, torch.Generator().manual_seed(0))
    assert {factor.dtype for factor in adaptation.factors} == {torch.float32}
    point = adaptation.elsewhere()["weight"]
    assert point.dtype == adaptation.deltas()["weight"].dtype == dtype
    assert torch.equal(point, weight)
    (point.float() * torch.randn(6, 4, generator=torch.Generator().manual_seed(2))).sum().backward()
    assert any(factor.grad is not None and factor.grad.any() for factor in adaptation.factors)


@every_delta
def test_double_precision(delta: Delta) -> None:
    adaptation = delta.adapt({"weight": torch.ones(6, 4, dtype=torch.float64)}, torch.Generator())
    assert {factor.dtype for factor in adaptation.factors} == {torch.float64}


@every_delta
def test_autocast_does_not_reach_the_factors(delta: Delta) -> None:
    """Autocast remembers casts of leaves for as long as it is on, and would not notice that the factors were trained."""
    weight = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    adaptation = delta.adapt({"weight": weight}, torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        adaptation.elsewhere()
        randomize(adaptation.factors)
        inside = adaptation.deltas()["weight"]
    assert torch.equal(inside, adaptation.deltas()["weight"])
    assert inside.any()


@every_delta
def test_channels_last_weights(delta: Delta) -> None:
    plain = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    found = []
    for weight in (plain, plain.to(memory_format=torch.channels_last)):
        adaptation = delta.adapt({"weight": weight}, torch.Generator().manual_seed(1))
        randomize(adaptation.factors)
        found.append(adaptation.elsewhere()["weight"].detach())
    assert torch.equal(*found)


@every_delta
def test_random_numbers_come_from_the_generator_given(delta: Delta) -> None:
    before = torch.get_rng_state()
    weight = torch.zeros(6, 4)
    first, again, other = (delta.adapt({"w": weight}, torch.Generator().manual_seed(seed)).factors for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    if isinstance(delta, LowRank | LoHa):
        assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("kind", [LowRank, LoHa])
def test_layers_smaller_than_the_rank_get_their_own(kind: type[LowRank] | type[LoHa]) -> None:
    adaptation = kind(rank=5).adapt({"small": torch.zeros(2, 7), "large": torch.zeros(9, 8)}, torch.Generator())
    half = len(adaptation.factors) // 2
    assert {min(factor.shape) for factor in adaptation.factors[:half]} == {2}
    assert {min(factor.shape) for factor in adaptation.factors[half:]} == {5}


@pytest.mark.parametrize("delta", [LowRank(rank=2, vectors=True), LoHa(rank=2, vectors=True), OFT(blocks=2, vectors=True)])
def test_vectors_can_be_adapted_densely(delta: Delta) -> None:
    parameters = {"weight": torch.ones(6, 4), "bias": torch.ones(6), "temperature": torch.tensor(2.0)}
    adaptation = delta.adapt(parameters, torch.Generator())
    assert set(adaptation.names) == set(parameters)
    randomize(adaptation.factors)
    deltas = adaptation.deltas()
    assert deltas["bias"].shape == (6,)
    assert deltas["temperature"].shape == ()
    assert deltas["bias"].any()
    assert deltas["temperature"].any()


@pytest.mark.parametrize("delta", [LowRank(), LoHa(), OFT()], ids=repr)
def test_nothing_to_adapt(delta: Delta) -> None:
    with pytest.raises(eq.InputError, match=r"nothing to adapt: none of the 2 .*\(a \[3\], b \[\]\).* Use delta=Dense\(\)"):
        delta.adapt({"a": torch.ones(3), "b": torch.ones(())}, torch.Generator())
    assert Dense().adapt({"a": torch.ones(3), "b": torch.ones(())}, torch.Generator()).names == ("a", "b")


@pytest.mark.parametrize("kind", [LowRank, LoHa])
def test_a_rank_larger_than_every_weight(kind: type[LowRank] | type[LoHa]) -> None:
    parameters = {"a": torch.zeros(4, 9), "b": torch.zeros(3, 2, 5), "c": torch.zeros(50)}
    kind(rank=4).adapt(parameters, torch.Generator())
    with pytest.raises(eq.InputError, match=r"\(rank=5\) is larger than every shared weight: the largest has rank 4\. Choose"):
        kind(rank=5).adapt(parameters, torch.Generator())


def test_more_blocks_than_columns() -> None:
    with pytest.raises(eq.InputError, match=r"OFT\(blocks=5\) cuts every shared weight into single columns.* widest has 4"):
        OFT(blocks=5).adapt({"weight": torch.zeros(8, 4)}, torch.Generator())
    with pytest.raises(eq.InputError, match="single columns"):
        OFT(blocks=1).adapt({"weight": torch.zeros(8, 1)}, torch.Generator())


NAMES = ["encoder.0.weight", "encoder.0.bias", "encoder.2.attention.weight", "encoder.2.attention.bias", "norm.weight"]


@pytest.mark.parametrize("kind", [LowRank, LoHa, OFT, Dense])
@pytest.mark.parametrize(
    ("targets", "adapted"),
    [
        (None, NAMES),
        ("encoder", NAMES[:4]),
        (["encoder.0"], NAMES[:2]),
        ("attention", NAMES[2:4]),
        ("2.attention.weight", [NAMES[2]]),
        ("*.attention.w*", [NAMES[2]]),
        ("encoder.?", NAMES[:4]),
        (["encoder.[01]", "norm.weight"], [*NAMES[:2], NAMES[4]]),
    ],
)
def test_targets(kind: type[Delta], targets: Any, adapted: list[str]) -> None:
    parameters = {name: torch.ones(*((5, 7) if "weight" in name else (5,))) for name in NAMES}
    delta = kind(targets=targets)  # type: ignore[call-arg]
    names = delta.adapt(parameters, torch.Generator()).names
    assert list(names) == [name for name in adapted if kind is Dense or "weight" in name]


def test_modules_are_targets() -> None:
    model = nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 7), nn.Linear(7, 8))
    parameters = dict(model.named_parameters())
    assert LowRank(targets=[model[1], "2"]).adapt(parameters, torch.Generator()).names == ("1.weight", "2.weight")
    assert Dense(targets=model[0]).adapt(parameters, torch.Generator()).names == ("0.weight", "0.bias")
    with pytest.raises(eq.InputError, match="none of the shared parameters: the module Linear"):
        LowRank(targets=nn.Linear(5, 6)).adapt(parameters, torch.Generator())


def test_targets_that_are_none() -> None:
    parameters = {name: torch.ones(*((5, 7) if "weight" in name else (5,))) for name in NAMES}
    with pytest.raises(eq.InputError) as caught:
        OFT(targets=["norm", "encodre.0"]).adapt(parameters, torch.Generator())
    assert 'OFT has a target that is none of the shared parameters: "encodre.0". Did you mean "encoder.0"' in str(caught.value)
    assert str(caught.value).endswith(f"There are: {', '.join(NAMES)}")
    with pytest.raises(eq.InputError, match=r'nothing to adapt in its target "encoder.0.bias": encoder.0.bias \[5\]\. .*Dense'):
        LoHa(targets=["norm", "encoder.0.bias"]).adapt(parameters, torch.Generator())
    assert LoHa(targets="0.bias", vectors=True).adapt(parameters, torch.Generator()).names == ("encoder.0.bias",)
    for targets in ([], "", [""], 3, ["a", 3], {"a"}):
        for kind in (LowRank, LoHa, OFT, Dense):
            with pytest.raises(eq.InputError, match="targets must be names, patterns or modules"):
                kind(targets=targets)  # type: ignore[arg-type]


def test_the_rank_is_that_of_the_targets() -> None:
    parameters = {"narrow": torch.zeros(4, 9), "wide": torch.zeros(30, 40)}
    LowRank(rank=5, targets="wide").adapt(parameters, torch.Generator())
    with pytest.raises(eq.InputError, match="larger than every shared weight: the largest has rank 4"):
        LowRank(rank=5, targets="narrow").adapt(parameters, torch.Generator())


def test_bad_numbers() -> None:
    for kind in (LowRank, LoHa):
        for rank in (0, -1, 2.5, True, "5"):
            with pytest.raises(eq.InputError, match="rank must be a whole number from 1 on"):
                kind(rank=rank)  # type: ignore[arg-type]
        for alpha in (0.0, -1.0, float("nan")):
            with pytest.raises(eq.InputError, match="alpha must be positive"):
                kind(alpha=alpha)
    for blocks in (0, -1, 2.5, True):
        with pytest.raises(eq.InputError, match="blocks must be a whole number from 1 on"):
            OFT(blocks=blocks)  # type: ignore[arg-type]
