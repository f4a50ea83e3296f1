"""The linear heads of a model, and what a head's loss says of its parameters: one class per kind of target."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from equipoise.errors import InputError
from equipoise.modules import find_part

__all__ = [
    "BinaryCrossEntropy",
    "CrossEntropy",
    "Gaussian",
    "Likelihood",
    "SquaredError",
    "find_head",
    "likelihood_of",
    "multiple_of",
    "parameters_of",
    "with_bias",
]


_JITTERS = (0.0, 1e-12, 1e-10, 1e-8, 1e-6)


class Gaussian(NamedTuple):
    """B independent Gaussians over D numbers each, with density proportional to exp(−½ wᵀΛw + wᵀη).

    What a batch says of the parameters has the same form (it need not be a density by itself), so that a posterior is the sum
    of a prior and of what the batches say, in whatever order.

    Attributes:
        precision: Λ ``[B, D, D]``.
        shift: η = Λm ``[B, D, R]``; R columns for R means that have one precision in common.

    Example:
        >>> prior = Gaussian.spherical(2, 0.5, like=Gaussian(torch.zeros(1, 2, 2), torch.zeros(1, 2, 1)))
        >>> prior.precision[0].diagonal(), prior.mean()[0, :, 0]
        (tensor([2., 2.]), tensor([0., 0.]))
    """

    precision: Tensor
    shift: Tensor

    @staticmethod
    def spherical(size: int, variance: float, like: Gaussian) -> Gaussian:
        """N(0, ``variance``·I) over ``size`` numbers, in the shape of another."""
        identity = torch.eye(size, dtype=like.precision.dtype, device=like.precision.device)
        return Gaussian((identity / variance).expand_as(like.precision), torch.zeros_like(like.shift))

    def __add__(self, other: tuple[Tensor, ...]) -> Gaussian:  # type: ignore[override]
        """The product of the two densities."""
        precision, shift = other
        return Gaussian(self.precision + precision, self.shift + shift)

    def beside(self, other: tuple[Tensor, ...]) -> Gaussian:
        """Another one where this one is, which may have been saved on another device."""
        precision, shift = other
        return Gaussian(precision.to(self.precision.device), shift.to(self.shift.device))

    def factor(self) -> Tensor:
        """L with LLᵀ = Λ ``[B, D, D]``; not a number where Λ is not positive definite, far beyond rounding."""
        diagonal = self.precision.diagonal(dim1=-2, dim2=-1)
        for jitter in _JITTERS:
            # Relative to each entry of the diagonal, so that features of any size are treated alike.
            raised = self.precision + torch.diag_embed(jitter * diagonal) if jitter else self.precision
            factor: Tensor
            factor, info = torch.linalg.cholesky_ex(raised)
            if not bool(info.any()):
                return factor
        return torch.full_like(self.precision, torch.nan)

    def mean(self, factor: Tensor | None = None) -> Tensor:
        """The means m ``[B, D, R]``."""
        solution: Tensor = torch.cholesky_solve(self.shift, self.factor() if factor is None else factor)
        return solution

    def covariance(self, factor: Tensor | None = None) -> Tensor:
        """Λ⁻¹ ``[B, D, D]``."""
        inverse: Tensor = torch.cholesky_inverse(self.factor() if factor is None else factor)
        return inverse

    def draw(self, noise: Tensor) -> Tensor:
        """Draws ``[S, B, D]`` from standard normal numbers of that shape; one mean each (R = 1)."""
        factor = self.factor()
        spread: Tensor = torch.linalg.solve_triangular(factor.mT, noise.permute(1, 2, 0), upper=True)  # [B, D, S]
        return (self.mean(factor) + spread).permute(2, 0, 1)


class Likelihood(Protocol):
    """The loss of one sample, ℓ(z, y), as −log p(y | z) up to a factor and a constant."""

    @property
    def called(self) -> str:
        """Its name in messages."""

    def residual(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """∂ℓ/∂z for outputs z ``[..., C, N]``."""

    def magnitude(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """What the residual is a difference of ``[C, N]``: its rounding errors are in proportion to that."""

    def evidence(self, inputs: Tensor, targets: Tensor, weights: Tensor) -> Gaussian:
        """The batch's factor of the posterior, exact or to second order at the head's own parameters.

        Args:
            inputs: h̃ ``[N, D]``.
            targets: as :func:`likelihood_of` gives them, ``[C, N]`` or, for classes, ``[N]``.
            weights: W̃ ``[C, D]``.
        """


class SquaredError:
    """ℓ = mean over outputs of (z_c − y_c)²; y_c = w̃_cᵀh̃ + ε with ε ~ N(0, σ²), the outputs independent given h.

    Then Λ = Σ h̃h̃ᵀ/σ² for each of the outputs, and η_c = Σ h̃ y_c/σ².
    """

    called = "the mean squared error"

    def __init__(self, noise: float = 1.0) -> None:
        self.noise = noise

    def residual(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """2 (z − y)/C."""
        return 2 * (outputs - targets) / outputs.shape[-2]

    def magnitude(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """2 (|z| + |y|)/C."""
        return 2 * (outputs.abs() + targets.abs()) / outputs.shape[-2]

    def evidence(self, inputs: Tensor, targets: Tensor, weights: Tensor) -> Gaussian:
        """One precision ``[1, D, D]`` for all outputs, shift ``[1, D, C]``; the parameters do not matter."""
        return Gaussian((inputs.T @ inputs / self.noise)[None], (inputs.T @ targets.T / self.noise)[None])


class CrossEntropy:
    """ℓ = −log softmax(z)_y.

    Its Hessian by (w̃_1, …, w̃_C) is H = Σ (diag(p) − ppᵀ) ⊗ h̃h̃ᵀ, p = softmax(z), and its gradient g = Σ (p − e_y) ⊗ h̃, so
    that to second order the batch's factor has the precision H and the shift Hw̃ − g: with a prior, its mode is where one
    Newton step from w̃ leads.
    """

    called = "the cross-entropy"

    def residual(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Probabilities less the class given, p − e_y."""
        return outputs.softmax(-2) - F.one_hot(targets, outputs.shape[-2]).to(outputs).T

    def magnitude(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(outputs)

    def evidence(self, inputs: Tensor, targets: Tensor, weights: Tensor) -> Gaussian:
        """Precision ``[1, CD, CD]`` and shift ``[1, CD, 1]``."""
        classes, size = weights.shape
        outputs = weights @ inputs.T
        mixed = (outputs.softmax(0).T[:, :, None] * inputs[:, None, :]).flatten(1)
        precision = -(mixed.T @ mixed).view(classes, size, classes, size)
        # The diagonal's blocks: Σ p_c h̃h̃ᵀ.
        own = torch.einsum("nci,nj->cij", mixed.view(-1, classes, size), inputs)
        precision.diagonal(dim1=0, dim2=2).add_(own.permute(1, 2, 0))
        precision = precision.reshape(classes * size, classes * size)
        slopes = self.residual(outputs, targets) @ inputs
        shift = precision @ weights.flatten() - slopes.flatten()
        return Gaussian(precision[None], shift[None, :, None])


class BinaryCrossEntropy:
    """ℓ = mean over outputs of −log σ(z_c) where y_c = 1 and −log σ(−z_c) where y_c = 0; the outputs' parameters independent.

    To second order, output c's factor has the precision H_c = Σ p_c (1 − p_c) h̃h̃ᵀ and the shift H_c w̃_c − Σ (p_c − y_c) h̃.
    """

    called = "the binary cross-entropy"

    def residual(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(p − y)/C."""
        return (outputs.sigmoid() - targets.to(outputs)) / outputs.shape[-2]

    def magnitude(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """1/C."""
        return torch.ones_like(outputs) / outputs.shape[-2]

    def evidence(self, inputs: Tensor, targets: Tensor, weights: Tensor) -> Gaussian:
        """Precision ``[C, D, D]`` and shift ``[C, D, 1]``."""
        probabilities = (weights @ inputs.T).sigmoid()
        curvature = probabilities * (1 - probabilities)
        precision = (curvature[:, None, :] * inputs.T) @ inputs
        slopes = (probabilities - targets.to(probabilities)) @ inputs
        shift = torch.einsum("cij,cj->ci", precision, weights) - slopes
        return Gaussian(precision, shift[:, :, None])


def likelihood_of(task: str, targets: object, rows: int, outputs: int, noise: float = 1.0) -> tuple[Likelihood, Tensor]:
    """The likelihood that a task's targets stand for, and the targets in the shape that it takes: ``[C, N]`` or ``[N]``.

    Args:
        task: its name, for messages.
        targets: floating-point ``[N]`` or ``[N, C]`` for squared errors, integer ``[N]`` for classes, boolean ``[N]`` or
            ``[N, C]`` for yes-or-no answers; ``[N]`` stands for ``[N, 1]``.
        rows: N.
        outputs: C, of the head.
        noise: σ² of squared errors.

    Raises:
        InputError: targets of another kind or shape, or classes that the head does not have.

    Example:
        >>> likelihood, targets = likelihood_of("age", torch.ones(5), 5, 1)
        >>> likelihood.called, targets.shape
        ('the mean squared error', torch.Size([1, 5]))
    """
    if not isinstance(targets, Tensor):
        raise InputError(f'the targets of task "{task}" must be a tensor; got {type(targets).__name__}')
    if targets.is_floating_point() or targets.dtype == torch.bool:
        shaped = targets[:, None] if targets.dim() == 1 else targets
        if shaped.shape != (rows, outputs):
            expected = f"[{rows}, {outputs}]" + (f" or [{rows}]" if outputs == 1 else "")
            raise InputError(
                f'the targets of task "{task}" must have the shape {expected}, samples and outputs of its head; '
                f"got {list(targets.shape)}"
            )
        if targets.dtype == torch.bool:
            return BinaryCrossEntropy(), shaped.T
        return SquaredError(noise), shaped.T.double()
    if targets.dtype.is_complex:
        raise InputError(f'the targets of task "{task}" must be floating-point, integer or boolean; got {targets.dtype}')
    if targets.shape != (rows,):
        raise InputError(
            f'the targets of task "{task}" are integers, so classes, and must have the shape [{rows}]; '
            f"got {list(targets.shape)}"
        )
    if outputs < 2:
        raise InputError(
            f'the targets of task "{task}" are integers, so classes, of which its head knows {outputs}; give numbers as '
            "floating point and yes-or-no answers as booleans"
        )
    least, most = int(targets.min()), int(targets.max())
    if least < 0 or most >= outputs:
        raise InputError(f'the classes of task "{task}" must be from 0 to {outputs - 1}; got {least if least < 0 else most}')
    return CrossEntropy(), targets.long()


_TOLERANCE = 0.02


def find_head(model: nn.Module, part: nn.Module | str, task: str) -> nn.Linear:
    """The linear head of a task. Raises InputError: the model has no such part, or it is no ``nn.Linear``."""
    found = find_part(model, part, f'the head of task "{task}"')
    if not isinstance(found, nn.Linear):
        raise InputError(
            f'BayesAggMTL needs heads that are nn.Linear on the shared features; that of task "{task}" is '
            f"{type(found).__name__}. Move its other layers into the features, or choose another method"
        )
    return found


def parameters_of(head: nn.Linear) -> Tensor:
    """W̃ ``[C, D]`` in float64: the weight, and the bias, if there is one, as its last column."""
    weight = head.weight.detach().double()
    return weight if head.bias is None else torch.cat([weight, head.bias.detach().double()[:, None]], 1)


def with_bias(features: Tensor, head: nn.Linear) -> Tensor:
    """h̃ ``[N, D]``: the features, and a 1 if the head has a bias."""
    return features if head.bias is None else torch.cat([features, features.new_ones(len(features), 1)], 1)


def multiple_of(
    task: str, head: nn.Linear, likelihood: Likelihood, inputs: Tensor, targets: Tensor, row: Tensor, epsilon: float
) -> float | None:
    """By what a task's loss is a multiple of the mean of ℓ over the samples, read off its gradient of the features.

    Args:
        task: its name.
        head: its head.
        likelihood: of its targets.
        inputs: h̃ ``[N, D]`` in float64.
        targets: of the N samples.
        row: gradient of the task's loss by the features ``[N, m]``.
        epsilon: rounding unit of the features' dtype.

    Returns:
        ``None`` where the gradient vanishes, up to rounding, so that nothing can be read off.

    Raises:
        InputError: the loss is no multiple: another function, other targets, or something between features and head.
    """
    weights = parameters_of(head)
    outputs = weights @ inputs.T
    weight = weights[:, : head.in_features]
    expected = likelihood.residual(outputs, targets).T @ weight / len(inputs)
    rounding = 64 * epsilon * float((likelihood.magnitude(outputs, targets).T @ weight.abs() / len(inputs)).norm())
    size = float(expected.norm())
    # Twenty times what may be rounding: below that the quotient would mean nothing.
    if not size > 20 * rounding:
        return None
    row = row.double()
    multiple = float((row * expected).sum()) / size**2
    off = float((row - multiple * expected).norm())
    if not (multiple > 0 and off <= _TOLERANCE * float(row.norm()) + multiple * rounding):
        apart = 100 * off / max(float(row.norm()), 1e-300) if multiple > 0 else 100.0
        raise InputError(
            f'the loss of task "{task}" is not a positive multiple of {likelihood.called} of its head on the features against '
            f"its targets: its gradient by the features is off by {apart:.2g} %. BayesAggMTL takes floating-point targets for "
            "squared errors, integers for classes and booleans for yes-or-no answers, and knows no other losses"
        )
    return multiple
