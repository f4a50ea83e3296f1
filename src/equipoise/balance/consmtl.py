"""ConsMTL: task-specific parameters that pull their task's gradient towards the joint direction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from equipoise.balance.base import GramianBalancer, Observation
from equipoise.balance.mixins import Attached, Pull, PullsHeads
from equipoise.balance.registry import register
from equipoise.balance.wrapping import inner_balancer, keeps_weights
from equipoise.errors import InputError
from equipoise.modules import find_module
from equipoise.states import Anything, read_state

if TYPE_CHECKING:
    from equipoise.objective import Objective

__all__ = ["ConsMTL", "Consistency"]

Consistency = Literal["product", "cosine"]


@register(
    "consmtl",
    summary="`fairgrad` or another on shared parameters; heads learn to pull their gradients towards its direction",
    paper=(
        "Qin, Wang and Yan, Towards Consistent Multi-Task Learning: Unlocking the Potential of Task-Specific Parameters, "
        "CVPR 2025"
    ),
    price="K + 2 backward; 3 K with `measure=cosine`",
    promise="that of the aggregator on shared parameters; heads that make gradients conflict less, within a bound",
    serves="conflicts that remain whatever the weights, where each task has parameters of its own",
    caveats="needs layers with a double backward; tune `mu` (1e-3 to 50 in released runs)",
    adds_up_to="what its aggregator's do",
    checked="central differences, equations of the released code",
)
class ConsMTL(Attached, PullsHeads, GramianBalancer):
    """Shared parameters θ follow d = Σ_k w_k g_k, w from an aggregator; task-specific ones φ_k descend on ℓ_k + μ r_k.

    With g_k = ∇_θ ℓ_k(θ, φ_k) and d held constant, r_k is

        ``"product"``: −⟨g_k, d⟩,    ``"cosine"``: 1 − ⟨g_k, d⟩ / (‖g_k‖ ‖d‖),

    0 where a gradient vanishes. μ ∂r_k/∂φ_k is exact, by a second backward pass through the first, and is shortened to at
    most ``at_most`` ‖∂ℓ_k/∂φ_k‖ before it is added to ``.grad``. Tasks without parameters of their own get nothing.

    The paper's text was not at hand. This follows its abstract, and the authors' released code for the equations: FairGrad
    with α = 2, r_k the negative inner product, ``at_most`` 0.1, and μ = 1 (NYU-v2), 50 (Cityscapes, CelebA) or 1e-3 (QM9).
    The released code takes g_k and d of r_k at the features z that the heads start from (and w from the shared parameters'
    gradients), which ``features`` does; left out, they are those of the shared parameters, which the abstract names.
    The released code also multiplies d by K and clips it to length 1; use ``clip`` and the learning rate for that. The cosine
    is not from there: it does not reward long gradients.

    Works with micro-batches, gradient scalers and several processes: u = ∂r_k/∂g_k is constant and ⟨g_k, u⟩ linear in g_k.
    Losses not drawn from torch's random numbers (Python's, NumPy's) may differ in a second evaluation; one batch of losses
    that are tensors is not evaluated twice. :func:`~equipoise.backward` does not take ``features``.

    **Mind.** It is of second order: layers without a double backward (cuDNN's RNNs, fused attention) fail. Tune ``mu`` (1e-3 to
    50 in released runs). For tasks without parameters of their own it does no more than its aggregator. The K + 2 backward
    passes go through the shared part. Micro-batches or callables cost one more forward pass.

    Args:
        aggregator: a balancer on the Gramian or its name; ``FairGrad(alpha=2.0)`` if left out.
        mu: μ ≥ 0; 0 is the aggregator alone.
        measure: ``"product"`` or ``"cosine"``.
        at_most: bound on the extra gradient relative to the task's own; ``None`` for no bound.
        features: a module of the model or its dotted name, that runs once an evaluation; with ``"product"`` only.

    Raises:
        InputError: an argument that cannot be used.

    Example:
        >>> ConsMTL("mgda").weights(torch.tensor([[4.0, 0.0], [0.0, 1.0]]))
        tensor([0.2000, 0.8000])
        >>> pull = ConsMTL("mgda").pull(torch.tensor([0.2, 0.8]), torch.tensor([[4.0, 0.0], [0.0, 1.0]]))
        >>> pull.coefficients.shape
        torch.Size([2, 2])
    """

    def __init__(
        self,
        aggregator: GramianBalancer | str | None = None,
        mu: float = 1.0,
        measure: Consistency = "product",
        at_most: float | None = 0.1,
        features: nn.Module | str | None = None,
    ) -> None:
        chosen = inner_balancer(aggregator, "fairgrad:alpha=2.0", "aggregator")
        if keeps_weights(chosen):
            raise InputError(f"aggregator must decide in every step; got {chosen!r}")
        if not 0 <= mu < float("inf"):
            raise InputError(f"mu must be finite and at least 0; got {mu}")
        if measure not in get_args(Consistency):
            raise InputError(f'measure must be "product" or "cosine"; got "{measure}"')
        if at_most is not None and not 0 < at_most < float("inf"):
            raise InputError(f"at_most must be positive and finite, or None; got {at_most}")
        if features is not None and not isinstance(features, nn.Module | str):
            raise InputError(f"features must be a module of the model or its name; got {type(features).__name__}")
        if features is not None and measure != "product":
            raise InputError('features= goes with measure="product" only: the cosine needs lengths before any is known')
        self.aggregator = chosen
        self.metric = chosen.metric
        self.mu = float(mu)
        self.measure = measure
        self.at_most = at_most
        self.features = features
        self.stateful = ("aggregator",) if chosen.stateful else ()  # type: ignore[misc]  # as the aggregator is
        self._module = features if isinstance(features, nn.Module) else None

    def attach(self, objective: Objective) -> None:
        """Finds the features module, if it was given by its name."""
        if isinstance(self.features, str):
            self._module = find_module(objective.model, self.features)

    def decide(self, observation: Observation) -> Tensor:
        """The aggregator's weights ``[k]``."""
        return self.aggregator.decide(observation)

    def weights(self, gramian: Tensor | ArrayLike) -> Tensor:
        """The aggregator's weights."""
        return self.aggregator.weights(gramian)

    def solve(self, gramian: NDArray[np.float64]) -> NDArray[np.float64]:
        """The aggregator's weights from one Gramian."""
        return self.aggregator.solve(gramian)

    def update(self, observation: Observation) -> None:
        """Lets the aggregator learn."""
        self.aggregator.update(observation)

    def end_epoch(self) -> None:
        """Tells the aggregator."""
        self.aggregator.end_epoch()

    @property
    def pulls(self) -> bool:
        """Whether μ > 0."""
        return self.mu > 0

    def pull(self, weights: Tensor, gramian: Tensor) -> Pull | None:
        """μ ∂r_i/∂g_i as combinations of the task gradients."""
        if not self.pulls:
            return None
        w, products = weights.detach().double().cpu(), gramian.detach().double().cpu()
        if self.measure == "product":
            coefficients = (-self.mu * w).repeat(len(w), 1)
        else:
            # ∂r/∂g = −(d/‖d‖ − cos · g/‖g‖)/‖g‖
            norms = products.diagonal().clamp(min=0).sqrt()
            length = (w @ products @ w).clamp(min=0).sqrt()
            fine = (norms > 0) & (length > 0)
            scales = torch.where(fine, norms * length, 1.0)
            cosines = (products @ w) / scales
            coefficients = -self.mu * w[None] / scales[:, None]
            coefficients += torch.diag(self.mu * cosines / torch.where(fine, norms.square(), 1.0))
            coefficients = torch.where(fine[:, None], coefficients, 0.0)
        return Pull(coefficients, self.at_most, self._module)

    def state_dict(self) -> dict[str, Any]:
        """The aggregator's."""
        return {"aggregator": self.aggregator.state_dict()} if self.stateful else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a saved state.

        Raises:
            InputError: the state belongs to another kind of balancer, or is damaged; nothing has changed.
        """
        read = self.read_state(state)
        if self.stateful:
            self.aggregator.load_state_dict(read["aggregator"])

    def read_state(self, state: dict[str, Any], sizes: dict[str, int] | None = None) -> dict[str, Any]:
        """The aggregator's, read by it."""
        read = read_state("ConsMTL", state, dict.fromkeys(self.stateful, Anything()))
        return {name: self.aggregator.read_state(entry, sizes) for name, entry in read.items()}

    def __repr__(self) -> str:
        where = "" if self.features is None else f", features={self.features if isinstance(self.features, str) else '…'}"
        return f'ConsMTL({self.aggregator!r}, mu={self.mu}, measure="{self.measure}", at_most={self.at_most}{where})'
