"""DoGE: domain weights by how well a domain's gradient serves the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equipoise.balance.base import GramianBalancer, Observation
from equipoise.balance.ldc.pace import Pace
from equipoise.balance.mixins import Paced
from equipoise.balance.mixture import Mixture
from equipoise.balance.registry import register
from equipoise.errors import InputError, near_misses

__all__ = ["DoGE"]


@register(
    "doge",
    summary="more weight for domains whose gradient lowers the other domains' losses, or those of target domains",
    paper="Fan, Pagliardini and Jaggi, DoGE: Domain Reweighting with Generalization Estimation, ICML 2024",
    price="K backward",
    promise="weights ascend on what a domain's step does for the others; their mean is a data mixture",
    serves="the mixture of domains for a language model, towards all of them or a target of one's own",
    caveats="`lr` should be the model's (`lr=model`); the units of a loss matter",
    adds_up_to="1",
    checked="closed form of its step, numbers of the released code",
)
class DoGE(Paced, Mixture, GramianBalancer):
    """Moves domain weights α towards domains whose gradients agree with those of the others, by mirror descent:

        W_j = ⟨g_j, Σ_{i ≠ j} g_i⟩ / (mean norm of the g),    α ← α exp(clip(η W, 0, η w)/μ) / Σ,

    from α = 1/K, η being the model's learning rate there, and the direction Σ_j α_j g_j. With ``targets`` those domains are not
    trained on: they get the weight 0 and no share, and W_j = ⟨g_j, Σ_{i in targets} g_i⟩ over the mean norm of the others.
    :attr:`mixture`, the mean of α over all steps, is what a larger model is then to be trained on. Only inner products are
    needed, so a proxy of the Gramian will do.

    The paper's text was not available; this follows its authors' released code (arXiv 2310.15393), but for its clipping of each
    domain's gradient: use ``clip`` of the optimizer. Of a batch that lacks domains, those present move, share a weight of 1,
    and keep the share that they had together. Parameters of a domain's own get its gradient with weight 1, targets' too.

    Args:
        mu: μ, of the mirror descent; 0.01 in released runs, 0.05 in those with targets.
        lr: η; 5e-4 in released runs. ``"model"`` takes the present learning rate of the optimizer.
        most: w, the largest estimate that counts; 5 in released code.
        smoothing: how much of equal shares is mixed in after every move; 0 in released code.
        targets: names of the domains that are only to be generalized to; all are both if left out.

    Raises:
        InputError: an argument is out of range, or a target is none of the domains, or all of them are.

    Example:
        >>> DoGE(lr=0.01).weights(torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
        tensor([0.4223, 0.4223, 0.1554])
    """

    stateful: ClassVar = Mixture.stateful

    def __init__(
        self,
        mu: float = 0.01,
        lr: float | Literal["model"] = 5e-4,
        most: float = 5.0,
        smoothing: float = 0.0,
        targets: Sequence[str] | str | None = None,
    ) -> None:
        for name, value in (("mu", mu), ("most", most)):
            if not 0 < value < float("inf"):
                raise InputError(f"{name} must be positive and finite; got {value}")
        if lr != "model" and (isinstance(lr, str) or not 0 <= lr < float("inf")):
            raise InputError(f'lr must be finite and at least 0, or "model"; got {lr}')
        super().__init__(smoothing)
        self.mu, self.lr, self.most = float(mu), lr, float(most)
        self.targets = (targets,) if isinstance(targets, str) else None if targets is None else tuple(targets)
        self._pace = Pace()
        self._held: Tensor | None = None

    def pace(self, *optimizers: torch.optim.Optimizer) -> None:
        """Says whose learning rate η is, with ``lr="model"``."""
        self._pace.follow(optimizers)

    def decide(self, observation: Observation) -> Tensor:
        """α of the domains present, after the move by this step's Gramian; 0 for targets."""
        observation.check_memory(self, self.log_shares)
        gramian = observation.needed("gramian").numpy()
        present = list(observation.present)
        aims = self._aims(observation.tasks)
        logs = self._before(observation, torch.device("cpu"))
        if aims.any() and self.log_shares is None:
            logs = torch.full_like(logs, -np.log(len(aims) - aims.sum())).masked_fill(torch.from_numpy(aims), -1e300)
        trained = np.flatnonzero(~aims[present])
        weights = torch.zeros(len(present), dtype=torch.float64, device="cpu")
        if len(trained):
            places = torch.tensor([present[place] for place in trained], device="cpu")
            own = logs[places]
            moved = self._moved(own, torch.from_numpy(self._gains(gramian, aims[present])))
            logs = logs.index_copy(0, places, (moved + torch.logsumexp(own, 0)).clamp(max=0.0))
            weights[torch.from_numpy(trained)] = moved.exp()
        self._held = logs
        return weights

    def update(self, observation: Observation) -> None:
        """Keeps what was decided."""
        if self._held is not None:
            logs, self._held = self._held, None
            self._keep(logs)

    def solve(self, gramian: NDArray[np.float64]) -> NDArray[np.float64]:
        """The first step's weights; a training's memory plays no part."""
        if self.targets is not None:
            raise InputError("targets are given by name and need the domains' names; use the balancer in a step")
        count = len(gramian)
        equal = torch.full((count,), -np.log(count), dtype=torch.float64, device="cpu")
        gains = torch.from_numpy(self._gains(gramian, np.zeros(count, dtype=bool)))
        return np.asarray(self._moved(equal, gains).exp())

    def _aims(self, tasks: tuple[str, ...]) -> NDArray[np.bool_]:
        for name in self.targets or ():
            if name not in tasks:
                raise InputError(f'targets name a domain "{name}", which does not exist.{near_misses(name, tasks)}')
        found = np.array([name in (self.targets or ()) for name in tasks])
        if found.all():
            raise InputError("targets name all domains; leave at least one to train on, or leave targets out")
        return found

    def _gains(self, gramian: NDArray[np.float64], aims: NDArray[np.bool_]) -> NDArray[np.float64]:
        """η W/μ, clipped, of the domains that are trained on."""
        norms = np.sqrt(np.clip(gramian.diagonal(), 0, None))[~aims]
        others = gramian[~aims][:, aims] if self.targets is not None else gramian - np.diag(gramian.diagonal())
        largest = float(np.abs(gramian).max()) or 1.0  # a sum of huge products would leave the number range
        estimates = (others / largest).sum(1) * (largest / (norms.mean() + 1e-6))  # the constant is the released code's
        if self.lr == "model" and not self._pace.groups:
            raise InputError('lr="model" takes the learning rate of your optimizer; say which: balancer.pace(optimizer)')
        lr = self._pace.rate() if self.lr == "model" else self.lr
        return np.asarray(lr * np.clip(estimates, 0.0, self.most) / self.mu)

    def __repr__(self) -> str:
        targets = "" if self.targets is None else f", targets={list(self.targets)}"
        return f"DoGE(mu={self.mu}, lr={self.lr}, most={self.most}, smoothing={self.smoothing}{targets})"
