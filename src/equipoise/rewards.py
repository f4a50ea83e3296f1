"""Several rewards in group-relative policy optimization: one advantage per completion from K rewards of it.

Rewards have the shape ``[K, groups, samples]``, a group being the completions of one prompt, or are a mapping name →
``[groups, samples]``. A reward that is not a number (of a function that does not apply to a completion) counts as its group's
mean. Everything here is detached and in the rewards' precision, float32 at least.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from equipoise.balance.mgda import MGDA
from equipoise.balance.per_task import PerTask
from equipoise.errors import InputError
from equipoise.states import Listed, Maybe, Of, Text, read_state

__all__ = ["CTWA", "gapo", "gdpo", "group_advantages"]

Rewards: TypeAlias = Tensor | Mapping[str, Tensor]
PerReward: TypeAlias = float | Sequence[float] | Mapping[str, float]


def group_advantages(rewards: Rewards, *, scale: bool = True, epsilon: float = 1e-4) -> Tensor:
    """The advantage of every reward by itself, relative to its group: A_k = (r_k − mean r_k)/(std r_k + ε).

    Args:
        rewards: ``[K, groups, samples]``.
        scale: divide by the standard deviation (over samples − 1) of those that are numbers.
        epsilon: ε.

    Returns:
        ``[K, groups, samples]``; 0 where all rewards of a group are equal.

    Raises:
        InputError: another shape, fewer than two samples, or an infinite reward.

    Example:
        >>> group_advantages(torch.tensor([[[0.0, 1.0]], [[5.0, 5.0]]]), epsilon=0.0).tolist()
        [[[-0.7071067690849304, 0.7071067690849304]], [[0.0, 0.0]]]
    """
    values, _ = _read(rewards)
    filled = _filled(values)
    centred = filled - filled.mean(-1, keepdim=True)
    if not scale:
        return centred
    count = (~torch.isnan(values)).sum(-1, keepdim=True)
    spread = (centred.square().sum(-1, keepdim=True) / (count - 1).clamp(min=1)).sqrt() + epsilon
    return torch.where(spread > 0, centred / torch.where(spread > 0, spread, 1.0), 0.0)


def gdpo(rewards: Rewards, weights: PerReward = 1.0, *, epsilon: float = 1e-4) -> Tensor:
    """GDPO: normalizes each reward in its group, adds, and normalizes over the batch (Liu et al., 2026, arXiv 2601.05242).

        A = Σ_k w_k (r_k − mean r_k)/(std r_k + ε),    advantages (A − mean A)/(std A + ε),

    means and deviations of r_k over a group, those of A over all completions. GRPO normalizes Σ_k w_k r_k instead, in which
    rewards of larger spread drown others, and different combinations of rewards get one advantage. The paper's text could
    not be had; this follows its authors' released code, where a reward that is not a number counts as 0 instead. TRL's
    ``multi_objective_aggregation="normalize_then_sum"`` is the same.

    Args:
        rewards: ``[K, groups, samples]``, of all processes.
        weights: w, one per reward in order or by name, or one for all.
        epsilon: ε.

    Returns:
        Advantages ``[groups, samples]``.

    Raises:
        InputError: see :func:`group_advantages`; or weights that are not those of the rewards.

    Example:
        >>> correct, short = torch.tensor([[0.0, 1.0, 1.0]]), torch.tensor([[9.0, 2.0, 7.0]])
        >>> gdpo({"correct": correct, "short": -short}).argmax().item()
        1
    """
    values, names = _read(rewards)
    given = _per_reward("weights", weights, names, values)
    combined = torch.einsum("k,kgn->gn", given, group_advantages(values, epsilon=epsilon))
    return (combined - combined.mean()) / (combined.std() + epsilon)


def gapo(
    rewards: Rewards,
    gramian: Tensor | ArrayLike,
    power: float = 1.0,
    *,
    preference: PerReward | None = None,
    epsilon: float = 1e-4,
) -> Tensor:
    """GAPO: advantages whose policy gradient is the minimum-norm point of rescaled gradients (Li et al., ACL 2025).

    With g_k the policy gradient of the group advantages A_k of reward k, GAPO steps along Σ_k α_k g_k/‖g_k‖^p, the
    shortest convex combination of the rescaled gradients, see :class:`~equipoise.MGDA` with ``power=p``. The
    policy gradient is linear in the advantages, so it is that of Σ_k α_k A_k/‖g_k‖^p. Where a loss per reward costs no
    more, ``balanced_loss(losses, MGDA(power=1))`` does the same without a Gramian at hand. The paper's text (arXiv
    2507.01915) could not be had and no code was released; this follows public summaries of it.

    Args:
        rewards: ``[K, groups, samples]``.
        gramian: of the policy gradients of :func:`group_advantages`, ``[K, K]``; the paper takes those of the last layer.
        power: p; 1 (gradients of length 1) or 2 in the paper.
        preference: λ; then it is P-GAPO, Σ_k λ_k g_k/‖g_k‖^p without a minimum-norm point (p = 1 there).
        epsilon: as for :func:`group_advantages`.

    Returns:
        Advantages ``[groups, samples]``.

    Raises:
        InputError: see :func:`group_advantages`; a Gramian of another size; a power or preference that cannot be.

    Example:
        >>> rewards = torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]]])
        >>> gapo(rewards, [[4.0, 0.0], [0.0, 1.0]], epsilon=0.0)  # half of what is twice as long
        tensor([[ 0.1768, -0.1768]])
    """
    values, names = _read(rewards)
    known = torch.as_tensor(gramian, dtype=torch.float64, device="cpu")
    weights = MGDA(power=power).weights(known)
    if len(weights) != len(values):
        raise InputError(f"the Gramian is of {len(weights)} gradients; there are {len(values)} rewards")
    if preference is not None:
        norms = known.diagonal().clamp(min=0).sqrt()
        wanted = _per_reward("preference", PerTask("preference", preference, least=0), names, norms)
        weights = wanted / torch.where(norms > 0, norms, 1.0) ** power
    return torch.einsum("k,kgn->gn", weights.to(values), group_advantages(values, epsilon=epsilon))


class CTWA:
    """Covariance targeted weight adaptation: keeps every reward correlated with what is trained on (Lu and Jiang, 2026).

    A reward improves, to first order, by its covariance within the groups with the training signal s. CTWA keeps an
    average of it above a target, by the reward's weight:

        v ← (1 − τ) v + τ mean over groups of Cov(r_k, s),    log w_k ← log w_k + η max(c_k − v_k, 0),

    the advantages being those of the weighted sum Σ_k w_k r_k within its group. A reward whose mean has reached its cap
    keeps its weight. Weights only grow, as in the paper's released code; only their proportions matter where advantages
    are scaled.

    The paper's text (arXiv 2602.06869) was not at hand but for a public summary of its equations; this follows its authors'
    released code, in which s is each completion's advantage times its importance ratio, 0 where it is clipped. On
    policy that is the advantage, which is taken where no signal is given. As there, completions whose |s| is above
    100 times the median are left out of the covariances.

    Args:
        targets: c, one per reward in order or by name, or one for all.
        lr: η; 0.02 in released code.
        tau: τ; 0.1 in released code.
        weights: w at the beginning.
        caps: means of the rewards above which their weights stay; none if left out.
        correlation: take correlations in place of covariances; they do not depend on the rewards' units.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> ctwa = CTWA(targets=0.5, lr=1.0)
        >>> rewards = {"correct": torch.tensor([[0.0, 1.0]]), "short": torch.tensor([[0.3, 0.1]])}
        >>> advantages = ctwa.advantages(rewards)
        >>> ctwa.update(rewards)
        >>> {name: round(weight, 2) for name, weight in ctwa.weights.items()}
        {'correct': 1.16, 'short': 1.77}
    """

    def __init__(
        self,
        targets: PerReward = 0.1,
        lr: float = 0.02,
        tau: float = 0.1,
        weights: PerReward = 1.0,
        caps: PerReward | None = None,
        correlation: bool = False,
    ) -> None:
        if not 0 <= lr < float("inf"):
            raise InputError(f"lr must be finite and at least 0; got {lr}")
        if not 0 < tau <= 1:
            raise InputError(f"tau must be above 0 and at most 1; got {tau}")
        self.targets, self.initial = PerTask("targets", targets), PerTask("weights", weights, least=1e-8)
        self.caps = None if caps is None else PerTask("caps", caps)
        self.lr, self.tau, self.correlation = float(lr), float(tau), correlation
        self.names: tuple[str, ...] = ()
        self.log_weights: Tensor | None = None
        self.average: Tensor | None = None

    @property
    def weights(self) -> dict[str, float]:
        """The present weights by name (by ``reward0`` … where there are none); empty before the first rewards."""
        if self.log_weights is None:
            return {}
        names = self.names or tuple(f"reward{k}" for k in range(len(self.log_weights)))
        return dict(zip(names, self.log_weights.exp().tolist(), strict=True))

    def advantages(self, rewards: Rewards, *, scale: bool = True, epsilon: float = 1e-4) -> Tensor:
        """Advantages ``[groups, samples]`` of the weighted sum, as :func:`group_advantages` takes them of a reward.

        Raises:
            InputError: see there; or other rewards than before.
        """
        values, _, logs = self._known(rewards)
        total = torch.einsum("k,kgn->gn", logs.exp().to(values), _filled(values))
        return group_advantages(total[None], scale=scale, epsilon=epsilon)[0]

    def update(self, rewards: Rewards, signal: Tensor | None = None) -> None:
        """Moves the weights; once per batch of completions.

        Args:
            rewards: ``[K, groups, samples]``, of all processes.
            signal: s ``[groups, samples]``; the present advantages if left out.

        Raises:
            InputError: see :meth:`advantages`; or a signal of another shape. Nothing has changed.
        """
        values, names, logs = self._known(rewards)
        s = self.advantages(rewards) if signal is None else signal.detach()
        if s.shape != values.shape[1:]:
            raise InputError(f"signal must have the shape {list(values.shape[1:])} of a reward; got {list(s.shape)}")
        s, values = s.double().cpu(), values.double().cpu()
        kept = torch.isfinite(s)
        median = s[kept].abs().quantile(0.5) if bool(kept.any()) else s.new_zeros(())
        if bool(median > 0):
            kept &= s.abs() <= 100 * median
        found = _covariances(values, s.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0), kept, self.correlation)
        average = found if self.average is None else (1 - self.tau) * self.average + self.tau * found
        deficit = (_per_reward("targets", self.targets, names, values) - average).clamp(min=0)
        if self.caps is not None:
            reached = values.nanmean((1, 2)) >= _per_reward("caps", self.caps, names, values)
            deficit = torch.where(reached, 0.0, deficit)
        self.names, self.average, self.log_weights = names, average, logs + self.lr * deficit

    def state_dict(self) -> dict[str, Any]:
        """A copy of everything that decides how it goes on."""
        average, logs = (None if own is None else own.clone() for own in (self.average, self.log_weights))
        return {"names": self.names, "average": average, "log_weights": logs}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a saved state. Raises InputError: it is no such state; nothing has changed."""
        kept = Maybe(Of(("K",), cpu=True))
        read = read_state("CTWA", state, {"names": Listed(Text()), "average": kept, "log_weights": kept})
        if len(read["names"]) not in (0, 0 if read["average"] is None else len(read["average"])):
            raise InputError("the state of CTWA does not fit together: its names are not those of its weights")
        average, logs = (None if read[own] is None else read[own].clone() for own in ("average", "log_weights"))
        self.names, self.average, self.log_weights = read["names"], average, logs

    def _known(self, rewards: Rewards) -> tuple[Tensor, tuple[str, ...], Tensor]:
        """The rewards, their names, and the logarithms of their weights."""
        values, names = _read(rewards, self.names)
        if self.log_weights is None:
            return values, names, _per_reward("weights", self.initial, names, values.double().cpu()).log()
        if len(self.log_weights) != len(values):
            raise InputError(f"{len(values)} rewards were given; before, there were {len(self.log_weights)}")
        return values, names, self.log_weights

    def __repr__(self) -> str:
        return f"CTWA(targets={self.targets}, lr={self.lr}, tau={self.tau}, correlation={self.correlation})"


def _tensor(values: Any) -> Tensor:
    """A tensor as it is, and anything else on the CPU."""
    return values if isinstance(values, Tensor) else torch.as_tensor(values, device="cpu")


def _read(rewards: Rewards, known: tuple[str, ...] = ()) -> tuple[Tensor, tuple[str, ...]]:
    """Rewards ``[K, groups, samples]``, and their names where they have any."""
    names: tuple[str, ...] = ()
    if isinstance(rewards, Mapping):
        names = known or tuple(rewards)
        if set(names) != set(rewards):
            raise InputError(f"rewards of {', '.join(rewards)} were given; before, there were {', '.join(names)}")
        rewards = torch.stack([_tensor(rewards[name]) for name in names])
    values = _tensor(rewards).detach()
    if values.dim() != 3 or min(values.shape) < 1 or values.shape[2] < 2:
        raise InputError(f"rewards have the shape [K, groups, samples], with at least 2 samples; got {list(values.shape)}")
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    if bool(torch.isinf(values).any()):
        raise InputError("a reward is infinite; rewards must be finite, or not a number where one does not apply")
    return values, names


def _filled(values: Tensor) -> Tensor:
    """With a group's mean where a reward is not a number; 0 where a group has none."""
    return torch.where(torch.isnan(values), values.nanmean(-1, keepdim=True).nan_to_num(nan=0.0), values)


def _per_reward(option: str, given: PerReward | PerTask, names: tuple[str, ...], values: Tensor) -> Tensor:
    numbers = given if isinstance(given, PerTask) else PerTask(option, given)
    return values.new_tensor(numbers.of_some(names, range(len(values))))


def _covariances(values: Tensor, signal: Tensor, kept: Tensor, correlation: bool) -> Tensor:
    """The mean over groups of Cov(r_k, s) ``[K]``, or of their correlations where there are any; of what is kept."""
    counts = kept.sum(-1)
    fine = counts > 1
    if not bool(fine.any()):
        return values.new_zeros(len(values))
    part, count = kept[fine].double(), counts[fine].double()
    s = signal[fine]
    s = (s - (s * part).sum(-1, keepdim=True) / count[:, None]) * part
    r = _filled(values[:, fine])
    r = (r - (r * part).sum(-1, keepdim=True) / count[:, None]) * part
    products = (r * s).sum(-1) / count
    if not correlation:
        return products.mean(-1)
    lengths = (r.square().sum(-1) / count).sqrt() * (s.square().sum(-1) / count).sqrt()
    there = lengths > 1e-8
    return torch.where(there, products / torch.where(there, lengths, 1.0), 0.0).sum(-1) / there.sum(-1).clamp(min=1)
