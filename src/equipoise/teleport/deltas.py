"""Deltas: the shapes that Δθ may take while COST looks for another point.

A :class:`Delta` makes, for each shared parameter, a :class:`Difference`: a few trainable factors from which that parameter's Δ
is computed. The model is not touched. An :class:`Adaptation` gives tensors ``θ + Δθ`` by the parameters' names, the objective
is evaluated at them, and gradients flow back to the factors. Every delta starts at Δθ = 0. Which parameters it adapts can be
narrowed to some ``targets``, as PEFT's ``target_modules`` does.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Self, TypeAlias

import torch
from torch import Tensor, nn

from equipoise.engine.reals import as_real
from equipoise.errors import InputError, near_misses
from equipoise.modes import without_autocast
from equipoise.registry import Registry
from equipoise.teleport.checks import check_number, check_switch, check_whole, chosen

__all__ = [
    "DELTAS",
    "OFT",
    "Adaptation",
    "Delta",
    "DeltaLike",
    "Dense",
    "DenseDifference",
    "Difference",
    "LoHa",
    "LowRank",
    "RankedDelta",
    "Targets",
    "as_delta",
    "factor_dtype",
    "matrix_shape",
    "uniform_factor",
    "zero_factor",
]


Targets: TypeAlias = str | nn.Module | Sequence[str | nn.Module] | None
"""Which shared parameters a delta adapts: names, patterns, modules, or several of them; ``None`` for all that it can."""


class Difference(ABC):
    """The Δ of one parameter, made of a few factors.

    Attributes:
        factors: the tensors to train; they require gradients, and lie on the parameter's device.
    """

    factors: tuple[Tensor, ...]

    @abstractmethod
    def compute(self) -> Tensor:
        """Δ, in the parameter's shape, differentiable with respect to the factors."""


class DenseDifference(Difference):
    """A Δ whose entries are all free.

    Args:
        parameter: whose Δ it is.
    """

    def __init__(self, parameter: Tensor) -> None:
        self.factors = (torch.zeros_like(parameter, dtype=factor_dtype(parameter)).requires_grad_(),)

    def compute(self) -> Tensor:
        """Δ itself."""
        return self.factors[0]


class Adaptation:
    """Deltas of several parameters, being trained."""

    def __init__(self, parameters: Mapping[str, Tensor], differences: Mapping[str, Difference]) -> None:
        self._parameters = {name: parameters[name].detach() for name in differences}
        self._differences = dict(differences)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the adapted parameters."""
        return tuple(self._differences)

    @property
    def factors(self) -> list[Tensor]:
        """Everything that is trained."""
        return [factor for difference in self._differences.values() for factor in difference.factors]

    def deltas(self) -> dict[str, Tensor]:
        """Δθ by name, in the parameters' shapes and precision."""
        computed = {}
        for name, difference in self._differences.items():
            # A caller's autocast would remember casts of the factors and miss that they are being trained.
            with without_autocast(self._parameters[name].device):
                computed[name] = difference.compute().to(self._parameters[name].dtype)
        return computed

    def elsewhere(self) -> dict[str, Tensor]:
        """θ + Δθ by name, differentiable with respect to the factors."""
        return {name: _WithDenseGradient.apply(self._parameters[name] + delta) for name, delta in self.deltas().items()}


@dataclass(frozen=True)
class Delta(ABC):
    """The shape that Δθ may take. COST asks it for an :class:`Adaptation` whenever it attempts a teleport.

    A delta of your own is a frozen dataclass with the method :meth:`difference`; its fields are its options. A field
    ``targets`` narrows it to some of the shared parameters:

    - a name: a parameter's, a module's (``"encoder.2"``), or some consecutive parts of one (``"q_proj"``, wherever it is);
      a module stands for everything below it;
    - a pattern: a parameter's or module's whole name with ``*``, ``?`` and ``[…]`` (``"encoder.*.weight"``);
    - a module itself: its parameters.
    """

    @abstractmethod
    def difference(self, parameter: Tensor, generator: torch.Generator) -> Difference | None:
        """The Δ of one parameter, zero at first, or ``None`` if this delta leaves the parameter alone.

        Args:
            parameter: a shared parameter.
            generator: on the parameter's device; for factors that do not start at zero.
        """

    def adapt(self, parameters: Mapping[str, Tensor], generator: torch.Generator) -> Adaptation:
        """Makes the differences of the shared parameters.

        Args:
            parameters: the shared parameters by name.
            generator: on their device; for factors that do not start at zero.

        Raises:
            InputError: there is nothing here that this kind of delta can adapt, or nothing that one of the targets names.
        """
        groups = self._groups(parameters)
        if groups:
            aimed = set().union(*groups.values())
            parameters = {name: parameter for name, parameter in parameters.items() if name in aimed}
        self.check(parameters)
        found = {name: self.difference(parameter, generator) for name, parameter in parameters.items()}
        differences = {name: difference for name, difference in found.items() if difference is not None}
        for target, names in groups.items():
            if not differences.keys() & names:
                shapes = ", ".join(f"{name} {list(parameters[name].shape)}" for name in sorted(names))
                raise InputError(
                    f"{type(self).__name__} has nothing to adapt in its target {target}: {shapes}. Weights of two or more "
                    f"dimensions it can; vectors=True or delta=Dense() takes vectors as well"
                )
        if not differences:
            shapes = ", ".join(f"{name} {list(parameter.shape)}" for name, parameter in list(parameters.items())[:5])
            more = ", …" if len(parameters) > 5 else ""
            raise InputError(
                f"{type(self).__name__} has nothing to adapt: none of the {len(parameters)} shared parameters has two or more "
                f"dimensions ({shapes}{more}). Use delta=Dense(), which takes parameters of any shape"
            )
        return Adaptation(parameters, differences)

    def _groups(self, parameters: Mapping[str, Tensor]) -> dict[str, set[str]]:
        """The names of the parameters that each target means, by the target in words."""
        groups = {}
        for target in _as_targets(getattr(self, "targets", None)) or ():
            names = {name for name, parameter in parameters.items() if _meant(target, name, parameter)}
            words = f"the module {type(target).__name__}" if isinstance(target, nn.Module) else f'"{target}"'
            if not names:
                parts = {name.rsplit(".", cut)[0] for name in parameters for cut in range(name.count(".") + 1)}
                close = near_misses(target, sorted(parts)) if isinstance(target, str) else ""
                more = f" and {len(parameters) - 8} more" if len(parameters) > 8 else ""
                raise InputError(
                    f"{type(self).__name__} has a target that is none of the shared parameters: {words}.{close} There are: "
                    f"{', '.join(list(parameters)[:8])}{more}"
                )
            groups[words] = names
        return groups

    def check(self, parameters: Mapping[str, Tensor]) -> None:  # noqa: B027  (most deltas fit everything)
        """Refuses parameters that do not fit the options.

        Raises:
            InputError: they do not fit.
        """


def _as_targets(targets: Any) -> tuple[str | nn.Module, ...] | None:
    """Several targets, however they were given. Raises InputError: they are none."""
    if targets is None:
        return None
    several = (targets,) if isinstance(targets, str | nn.Module) else targets
    fine = (
        isinstance(several, Sequence)
        and len(several)
        and all(isinstance(one, str | nn.Module) and one != "" for one in several)
    )
    if not fine:
        raise InputError(
            f'targets must be names, patterns or modules of what is to be adapted, as ["encoder.0", "*.attention.*"], or None; '
            f"got {targets!r}"
        )
    return tuple(several)


def _meant(target: str | nn.Module, name: str, parameter: Tensor) -> bool:
    """Whether a target means the parameter of this name."""
    if isinstance(target, nn.Module):
        return any(parameter is own for own in target.parameters())
    if not set("*?[").isdisjoint(target):
        parts = name.split(".")
        return any(fnmatchcase(".".join(parts[:count]), target) for count in range(1, len(parts) + 1))
    return f".{target}." in f".{name}."


def matrix_shape(parameter: Tensor) -> tuple[int, int]:
    """A weight as a matrix: its first dimension by all others, as PEFT's layers have it.

    Example:
        >>> matrix_shape(torch.zeros(8, 3, 5, 5))
        (8, 75)
    """
    return parameter.shape[0], math.prod(parameter.shape[1:])


class _WithDenseGradient(torch.autograd.Function):
    """The tensor itself. An embedding may answer with a sparse gradient, which cannot go back through a reshape."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.to_dense() if gradient.is_sparse else gradient


def factor_dtype(parameter: Tensor) -> torch.dtype:
    """The precision of a parameter's factors: its own, or float32 where that is half precision, too coarse for training.

    A complex parameter has complex factors.
    """
    return torch.float32 if parameter.dtype in (torch.float16, torch.bfloat16) else parameter.dtype


def uniform_factor(parameter: Tensor, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """A factor with entries uniform in ±1/√(columns), as PEFT's LoRA and LoHa layers start; both parts of complex ones.

    Args:
        parameter: whose Δ it is a factor of; gives the device and the precision.
        shape: of the factor.
        generator: on the parameter's device.
    """
    bound = 1.0 / math.sqrt(shape[-1])
    factor = torch.empty(*shape, dtype=factor_dtype(parameter), device=parameter.device)
    as_real(factor).uniform_(-bound, bound, generator=generator)
    return factor.requires_grad_()


def zero_factor(parameter: Tensor, shape: Sequence[int]) -> Tensor:
    """A factor that starts at zero.

    Args:
        parameter: whose Δ it is a factor of; gives the device and the precision.
        shape: of the factor.
    """
    return torch.zeros(*shape, dtype=factor_dtype(parameter), device=parameter.device).requires_grad_()


@dataclass(frozen=True)
class RankedDelta(Delta):
    """A base for deltas whose factors have a given rank, scaled by ``alpha / rank`` as in PEFT.

    Args:
        rank: of the factors; a weight that is smaller gets its own full rank.
        alpha: the numerator of the scale; PEFT's default is 8.
        vectors: adapt one-dimensional parameters (biases, norm layers) as well, densely.
        targets: which of the shared parameters, see :class:`Delta`; left out, all that it can.

    Raises:
        InputError: a rank below 1, an ``alpha`` that is not positive, or targets that are none.
    """

    rank: int = 5
    alpha: float = 8.0
    vectors: bool = False
    targets: Targets = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", _as_targets(self.targets))
        check_whole("rank", self.rank, 1)
        check_number("alpha", self.alpha, "positive")
        check_switch("vectors", self.vectors)

    @property
    def scale(self) -> float:
        """What the product of the factors is multiplied by: ``alpha / rank``."""
        return self.alpha / self.rank

    def fitting(self, rows: int, columns: int) -> int:
        """The rank for a weight of this size."""
        return min(self.rank, rows, columns)

    def limited(self, parameters: Mapping[str, Tensor]) -> Self:
        """The same with a rank that is at most that of the largest weight."""
        largest = [min(matrix_shape(parameter)) for parameter in parameters.values() if parameter.dim() >= 2]
        return dataclasses.replace(self, rank=min(self.rank, max(largest, default=self.rank)))

    def check(self, parameters: Mapping[str, Tensor]) -> None:
        """Refuses a rank that is larger than every weight: nothing about it would be low."""
        largest = [min(matrix_shape(parameter)) for parameter in parameters.values() if parameter.dim() >= 2]
        if largest and self.rank > max(largest):
            raise InputError(
                f"{type(self).__name__}(rank={self.rank}) is larger than every shared weight: the largest has rank "
                f"{max(largest)}. Choose a smaller rank, or delta=Dense() for all entries"
            )

    def difference(self, parameter: Tensor, generator: torch.Generator) -> Difference | None:
        """Factors for a weight; for a vector a dense Δ, if vectors are adapted at all."""
        if parameter.dim() < 2:
            return DenseDifference(parameter) if self.vectors else None
        return self.factorized(parameter, generator)

    @abstractmethod
    def factorized(self, parameter: Tensor, generator: torch.Generator) -> Difference:
        """Factors for a weight of two or more dimensions."""


@dataclass(frozen=True)
class LowRank(RankedDelta):
    """ΔW = (alpha / rank) · B A, with B ``[rows, rank]`` zero at first and A ``[rank, columns]`` random (Hu et al., 2021).

    For any weight of two or more dimensions: linear, convolution, recurrent, embedding and graph layers. A weight is taken
    as a matrix of its first dimension by all others, so a convolution's A looks at whole patches, as in PEFT.

    Args:
        rank: 5 in the COST paper (appendix B.2).
        alpha: numerator of the scale.
        vectors: adapt one-dimensional parameters as well, densely.
        targets: which of the shared parameters, such as ``["encoder", "*.attention.*"]``; left out, all of them.

    Example:
        >>> adaptation = LowRank(rank=2).adapt({"weight": torch.ones(4, 3)}, torch.Generator())
        >>> [tuple(factor.shape) for factor in adaptation.factors], float(adaptation.deltas()["weight"].detach().abs().max())
        ([(4, 2), (2, 3)], 0.0)
    """

    def factorized(self, parameter: Tensor, generator: torch.Generator) -> Difference:
        """B and A."""
        return _Product(parameter, self.fitting(*matrix_shape(parameter)), self.scale, generator)


class _Product(Difference):
    def __init__(self, parameter: Tensor, rank: int, scale: float, generator: torch.Generator) -> None:
        rows, columns = matrix_shape(parameter)
        self._shape = parameter.shape
        self._scale = scale
        self.factors = (zero_factor(parameter, (rows, rank)), uniform_factor(parameter, (rank, columns), generator))

    def compute(self) -> Tensor:
        left, right = self.factors
        return (left @ (self._scale * right)).view(self._shape)


@dataclass(frozen=True)
class LoHa(RankedDelta):
    """ΔW = (alpha / rank) · (A₁ B₁) ⊙ (A₂ B₂), with B₂ zero at first (Hyeon-Woo et al., 2021: FedPara).

    Its rank can reach rank², at twice the factors of :class:`LowRank`.

    Args:
        rank: of each product.
        alpha: numerator of the scale.
        vectors: adapt one-dimensional parameters as well, densely.
        targets: which of the shared parameters; left out, all of them.

    Example:
        >>> adaptation = LoHa(rank=2).adapt({"weight": torch.ones(4, 3)}, torch.Generator())
        >>> [tuple(factor.shape) for factor in adaptation.factors]
        [(4, 2), (2, 3), (4, 2), (2, 3)]
    """

    def factorized(self, parameter: Tensor, generator: torch.Generator) -> Difference:
        """A₁, B₁, A₂ and B₂."""
        return _HadamardProduct(parameter, self.fitting(*matrix_shape(parameter)), self.scale, generator)


class _HadamardProduct(Difference):
    def __init__(self, parameter: Tensor, rank: int, scale: float, generator: torch.Generator) -> None:
        rows, columns = matrix_shape(parameter)
        self._shape = parameter.shape
        self._scale = scale
        self.factors = (
            uniform_factor(parameter, (rows, rank), generator),
            uniform_factor(parameter, (rank, columns), generator),
            uniform_factor(parameter, (rows, rank), generator),
            zero_factor(parameter, (rank, columns)),
        )

    def compute(self) -> Tensor:
        first_left, first_right, second_left, second_right = self.factors
        product = (first_left @ first_right) * (second_left @ (self._scale * second_right))
        return product.view(self._shape)


@dataclass(frozen=True)
class OFT(Delta):
    """ΔW = W Rᵀ - W, R block-diagonal and orthogonal: R_b = (I - S_b)(I + S_b)⁻¹, S_b skew-symmetric (Qiu et al., 2023).

    Angles between the weight's rows stay as they are. S is zero at first, so R = I.

    Args:
        blocks: how many blocks the columns are cut into (PEFT's ``r``); where they cannot be cut into so many equal ones,
            the nearest number that divides them.
        vectors: adapt one-dimensional parameters as well, densely.
        targets: which of the shared parameters; left out, all of them.

    Raises:
        InputError: fewer than one block, or targets that are none.

    Example:
        >>> adaptation = OFT(blocks=2).adapt({"weight": torch.ones(4, 6)}, torch.Generator())
        >>> [tuple(factor.shape) for factor in adaptation.factors]  # two blocks of three columns: three angles each
        [(2, 3)]
    """

    blocks: int = 5
    vectors: bool = False
    targets: Targets = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", _as_targets(self.targets))
        check_whole("blocks", self.blocks, 1)
        check_switch("vectors", self.vectors)

    def difference(self, parameter: Tensor, generator: torch.Generator) -> Difference | None:
        """Angles for a weight that can be rotated."""
        if parameter.dim() < 2:
            return DenseDifference(parameter) if self.vectors else None
        columns = matrix_shape(parameter)[1]
        # A block of one column has no angle.
        return _Rotation(parameter, _nearest_divisor(columns, self.blocks)) if columns > 1 else None

    def check(self, parameters: Mapping[str, Tensor]) -> None:
        """Refuses so many blocks that no weight has two columns in one."""
        columns = [matrix_shape(parameter)[1] for parameter in parameters.values() if parameter.dim() >= 2]
        if columns and self.blocks >= max(columns):
            raise InputError(
                f"OFT(blocks={self.blocks}) cuts every shared weight into single columns, which cannot be rotated: the "
                f"widest has {max(columns)}. Choose fewer blocks"
            )


class _Rotation(Difference):
    def __init__(self, parameter: Tensor, blocks: int) -> None:
        self._weight = parameter.detach()
        rows, columns = matrix_shape(parameter)
        size = columns // blocks
        self._cut = (rows, blocks, size)
        self._upper = torch.triu_indices(size, size, 1, device=parameter.device)
        # Angles are real, those of a complex weight as well.
        self.factors = (zero_factor(as_real(self._weight), (blocks, size * (size - 1) // 2)),)

    def compute(self) -> Tensor:
        (angles,) = self.factors
        _, blocks, size = self._cut
        upper = angles.new_zeros(blocks, size, size)
        upper[:, self._upper[0], self._upper[1]] = angles
        skew = upper - upper.transpose(1, 2)
        identity = torch.eye(size, dtype=angles.dtype, device=angles.device)
        rotations = torch.linalg.solve(identity + skew, identity - skew, left=False)
        cut = self._weight.to(factor_dtype(self._weight)).reshape(self._cut)
        return (torch.einsum("rbi,boi->rbo", cut, rotations.to(cut.dtype)) - cut).reshape(self._weight.shape)


def _nearest_divisor(number: int, wanted: int) -> int:
    """The divisor nearest to a number, the smaller of two; never the number itself, for that leaves nothing to rotate."""
    divisors = [divisor for divisor in range(1, number) if number % divisor == 0]
    return min(divisors, key=lambda divisor: (abs(divisor - wanted), divisor))


@dataclass(frozen=True)
class Dense(Delta):
    """Δθ without any structure, for small models and toy problems; takes parameters of any shape.

    Args:
        targets: which of the shared parameters; left out, all of them.

    Raises:
        InputError: targets that are none.

    Example:
        >>> [tuple(factor.shape) for factor in Dense().adapt({"x": torch.ones(2)}, torch.Generator()).factors]
        [(2,)]
    """

    targets: Targets = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", _as_targets(self.targets))

    def difference(self, parameter: Tensor, generator: torch.Generator) -> Difference | None:
        """Δ itself."""
        return DenseDifference(parameter)


DELTAS: Registry[type[Delta]] = Registry("delta", error=InputError)
for _name, _kind in (("lowrank", LowRank), ("loha", LoHa), ("oft", OFT), ("dense", Dense)):
    DELTAS.add(_name, _kind)
DeltaLike: TypeAlias = "str | Delta"


def as_delta(delta: DeltaLike) -> Delta:
    """Reads a delta, or the name of one, which is then made with its defaults.

    Raises:
        InputError: neither of these, or an unknown name.

    Example:
        >>> as_delta("oft")
        OFT(blocks=5, vectors=False, targets=None)
    """
    return chosen(DELTAS, delta, Delta)  # type: ignore[type-abstract]
