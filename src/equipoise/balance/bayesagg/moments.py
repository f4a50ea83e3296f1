"""The moments of every sample's gradient over the heads' posteriors, and the direction that they give."""

from __future__ import annotations

import torch
from torch import Tensor

from equipoise.balance.bayesagg.likelihoods import Gaussian, Likelihood

__all__ = ["FLOOR", "aggregate", "drawn_moments", "squared_error_moments"]

_ENTRIES = 1 << 22


def squared_error_moments(posterior: Gaussian, inputs: Tensor, targets: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Exact moments of g = (1/C) Σ_c 2 (w̃_cᵀh̃ − y_c) w_c, the gradient of the mean squared error over C outputs.

    The residual r = w̃ᵀh̃ − y and w_j are jointly Gaussian with means ρ = mᵀh̃ − y and m_j, variances s² = h̃ᵀSh̃ and S_jj, and
    covariance c_j = (Sh̃)_j. So for one output

        E[2 r w_j] = 2 (ρ m_j + c_j)
        Var[2 r w_j] = 4 ((ρ² + s²) S_jj + s² m_j² + 2 ρ m_j c_j + c_j²)

    and those of several, independent outputs add up.

    Args:
        posterior: precision ``[1, D, D]``, shift ``[1, D, C]``.
        inputs: h̃ ``[N, D]``.
        targets: ``[C, N]``.
        width: m, how many of the D inputs are features; the last may be a bias's 1.

    Returns:
        Mean and variance, ``[N, m]`` each.

    Example:
        >>> certain = Gaussian(1e12 * torch.eye(1, dtype=torch.float64)[None], 1e12 * torch.full((1, 1, 1), 3.0).double())
        >>> mean, variance = squared_error_moments(certain, torch.ones(1, 1).double(), torch.ones(1, 1).double(), 1)
        >>> round(float(mean), 6), float(variance) < 1e-8  # 2 (3 − 1)·3
        (12.0, True)
    """
    factor = posterior.factor()
    center = posterior.mean(factor)[0]  # [D, C]
    covariance = posterior.covariance(factor)[0]
    outputs = center.shape[1]
    mixed = inputs @ covariance
    spread = (mixed * inputs).sum(1, keepdim=True)  # s² [N, 1]
    mixed = mixed[:, :width]  # c
    residual = inputs @ center - targets.T
    center, own = center[:width], covariance.diagonal()[:width]
    pull = residual @ center.T
    mean = 2 * (pull + outputs * mixed)
    variance = 4 * (
        (residual.square().sum(1, keepdim=True) + outputs * spread) * own
        + spread * center.square().sum(1)
        + 2 * pull * mixed
        + outputs * mixed.square()
    )
    return mean / outputs, variance / outputs**2


def drawn_moments(
    likelihood: Likelihood, draws: Tensor, center: Tensor, inputs: Tensor, targets: Tensor, width: int
) -> tuple[Tensor, Tensor]:
    """Moments of g = Σ_c ∂ℓ/∂z_c w_c over draws of the parameters.

    The variance is that of the draws (divided by their number), computed from deviations from the gradient at the mean
    parameters, so that gradients that hardly vary lose no digits.

    Args:
        likelihood: gives ∂ℓ/∂z.
        draws: W̃ ``[S, C, D]``.
        center: mean parameters ``[C, D]``.
        inputs: h̃ ``[N, D]``.
        targets: of N samples.
        width: m, how many of the D inputs are features.

    Returns:
        Mean and variance, ``[N, m]`` each, in the draws' precision.
    """
    reference = likelihood.residual(center @ inputs.T, targets).T @ center[:, :width]
    total, squares = torch.zeros_like(reference), torch.zeros_like(reference)
    # A piece at a time: all S gradients of all samples together may not fit.
    for piece in draws.split(max(1, _ENTRIES // max(1, reference.numel()))):
        gradients = torch.matmul(likelihood.residual(piece @ inputs.T, targets).mT, piece[:, :, :width])
        gradients -= reference
        total += gradients.sum(0)
        squares += gradients.square_().sum(0)
    shift = total / len(draws)
    return reference + shift, (squares / len(draws) - shift.square()).clamp(min=0)


FLOOR = 1e-8
"""No variance counts as less, as in the released code."""


def aggregate(means: Tensor, variances: Tensor, powers: Tensor) -> Tensor:
    """Σ_k μ_k/v_k / Σ_k 1/v_k with v_k = max(Var_k, 1e-8)^power_k, for every sample and every feature by itself.

    Args:
        means: μ ``[k, N, m]``.
        variances: of the same shape.
        powers: ``[k]``; 0 for the plain mean over the tasks.

    Returns:
        ``[N, m]``, within the range of the means.

    Example:
        >>> import torch
        >>> aggregate(torch.tensor([[[0.0]], [[4.0]]]), torch.tensor([[[1.0]], [[3.0]]]), torch.ones(2))
        tensor([[1.]])
    """
    # Shares of the inverses by way of logarithms, so that no power can overflow.
    logarithms = -powers[:, None, None] * variances.clamp(min=FLOOR).log()
    return (logarithms.softmax(0) * means).sum(0)
