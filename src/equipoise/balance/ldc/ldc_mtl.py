"""LDC-MTL: loss discrepancy control for multi-task learning."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from equipoise.balance.base import LossBalancer, Observation
from equipoise.balance.ldc.pace import Pace
from equipoise.balance.ldc.router import NetworkRouter, Representation, Router, VectorRouter, mlp_router
from equipoise.balance.ldc.total import (
    SMALLEST,
    Division,
    Normalization,
    Shares,
    Sigmoid,
    SigmoidOfReLU,
    Softmax,
    clamped_softmax,
    lower_level_solution,
    lower_slopes,
    normalized,
    reference,
    total,
)
from equipoise.balance.mixins import Accompanied, Attached, Companion, ElsewhereObservation, LooksElsewhere, Paced
from equipoise.balance.per_task import remind_of_epochs
from equipoise.balance.registry import register
from equipoise.errors import InputError, NonFiniteError
from equipoise.modules import find_module
from equipoise.objective import Objective
from equipoise.states import Anything, Form, Listed, Maybe, Named, Number, Of, read_state, tasks_known

__all__ = ["LDCMTL", "LDCReport"]

_PENALTY = {"paper": 10.0, "released": 0.1}
Activation = Literal["softmax", "sigmoid", "sigmoid-relu", "clamped-softmax"]
_OF_VECTORS: dict[str, type[Shares]] = {"softmax": Softmax, "sigmoid": Sigmoid, "sigmoid-relu": SigmoidOfReLU}
_OF_NETWORKS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": partial(torch.softmax, dim=0),
    "clamped-softmax": clamped_softmax,
    "sigmoid": torch.sigmoid,
}


@dataclass(frozen=True)
class LDCReport:
    """What LDC-MTL saw in its last step.

    Attributes:
        upper: f, the discrepancy of the losses.
        lower: g, their weighted sum.
        shares: σ ``[k]`` of the tasks present.
        router_gradient: ‖∇_W g(W, x)‖; only with ``double_loop=True``.
        router_gradient_at_solution: ‖∇_W g(W, z_N)‖, which the single loop leaves out; only with ``double_loop=True``.
    """

    upper: Tensor
    lower: Tensor
    shares: Tensor
    router_gradient: Tensor | None = None
    router_gradient_at_solution: Tensor | None = None


@register(
    "ldc-mtl",
    summary="keeps the gaps between neighbouring losses small while their weighted sum falls",
    paper="LDC-MTL: Balancing Multi-Task Learning through Scalable Loss Discrepancy Control, 2025",
    aliases=("ldc", "ldcmtl"),
    price="1 backward",
    promise="small discrepancy between the (normalised) losses at the price of plain training",
    serves="many tasks, when one backward is all you can afford and no task may be left behind",
    caveats="the order of the tasks matters; weights can be negative; tune λ; remembers",
    adds_up_to="λ with `tau=ones` (1 in the released formulation); about that otherwise",
    checked="autograd of the total loss; released formulation term by term; Figure 1 (`equipoise figure ldc-toy`)",
)
class LDCMTL(Attached, LooksElsewhere, Accompanied, Paced, LossBalancer):
    """Controls the discrepancy between losses as a bilevel problem, in a single loop (LDC-MTL paper, eq. 1 and Algorithm 1).

    Upper level f(W, x) = Σ_{i<K} |τ_i ℓ_i − τ_{i+1} ℓ_{i+1}|, lower level g(W, x) = Σ_i σ_i(W) ℓ_i. Model x and router W
    descend together on one total loss, which costs one backward pass whatever K: what x gets is the weighted sum of the
    losses with weights ∂(total)/∂ℓ_i, and W takes a step of an Adam of its own, whose step size falls as the model's does.

    **What λ means.** With ``formulation="paper"`` the total is f + λ g (eq. 2 without the lower level's solution): a
    *larger* ``penalty`` counts the losses more and their discrepancy less. With ``"released"`` it is λ f + g: a *smaller*
    one does. Up to a common factor, λ in the one is 1/λ in the other; the values of the paper's tables (0.005 to 0.1) are
    those of the released code. Left out, ``penalty`` is 10 and 0.1, which is the same trade-off (that of the paper's
    Cityscapes runs).

    **The released code** further differs, and not in one way. A free vector goes through a sigmoid, not a softmax, starts at 1,
    and g is divided by the sum of the weights, held constant (CelebA); on QM9 it is sigmoid(max(W, 0)) and starts between 0.2
    and 1. The networks are a single linear layer (``router="linear"``; 579 parameters for 192 → 3, the difference between the
    paper's counts for NYU-v2) whose softmax is cut off at 0.2 and 0.8, and the model gets gradients through the features that
    they look at; g is not divided on Cityscapes, and on NYU-v2 it is, with the divisor differentiated. ``"rescale"``
    divides by ℓ'_i over the smallest ℓ'. ``formulation="released"`` alone is CelebA's vector and Cityscapes' network; the
    options for the others are in the guide, page "Loss discrepancy".

    **What moves W.** Left alone, an Adam of its own, with the step size ``lr`` times the model's learning rate over the
    highest that it has had (of each parameter group, averaged over groups by their size). So W slows down under any scheduler
    as the model does, and while a model warms up W has its full speed. ``lr="model"`` is the model's learning rate itself,
    as in the released code, which has one Adam for both. Or put W into an optimizer of yours::

        balancer = LDCMTL()
        groups = [{"params": model.parameters()}, {"params": balancer.parameters(tasks=4), "lr": 1e-2}]
        optimizer = torch.optim.Adam(groups, lr=1e-3)

    Then that optimizer moves it, ``lr`` and ``follow`` are not looked at, and W's gradient is in ``.grad`` like the model's
    (clipping, a gradient scaler and weight decay act on it as on any group). Entries of tasks that a batch lacks have the
    gradient 0 there; the own Adam leaves them alone altogether.

    ``double_loop=True`` is Algorithm 2: ∇_W g(W, z_N) is taken away from W's step, z_N being N gradient steps
    z ← z − β λ ∇_z g away from the model, by substitution. It needs :class:`~equipoise.MultiTaskOptimizer` and N + 1
    more evaluations of the losses and N more of their gradients; ``report`` then holds both gradients' norms.

    A batch that lacks tasks takes the gaps between those that are neighbours in it, and shares that add up over them.

    **Mind.** Weights can be negative: a loss below its neighbours is held up. The order of the tasks matters. The units matter
    with ``normalize=none``. It remembers. ``log`` needs positive losses and ``end_epoch()``. Tune λ.

    Args:
        penalty: λ; see above.
        tau: ``"weights"`` for τ = σ(W), ``"ones"`` for τ = 1.
        normalize: ``"none"``, for losses on one scale (the paper's CelebA); ``"rescale"``: each loss over its first value
            (1e-30 at least); ``"log"``: log(ℓ/ℓ_0), ℓ_0 from the first step of each epoch (the paper's QM9).
        router: ``"vector"``, one free number per task; ``"mlp"``, the network of appendix A.1; ``"linear"``, a single layer as
            in the released code; or a module that turns the mean features ``[C]`` into ``[K]`` numbers.
        formulation: ``"paper"`` or ``"released"``.
        initial: the losses ``[K]`` that ``"rescale"`` divides by, where they are known beforehand; each task's first loss if
            left out.
        features: the module (or its dotted name in the model) whose output the network looks at, averaged over samples and
            places.
        activation: what makes shares of the router's numbers: ``"softmax"``, ``"sigmoid"``, ``"sigmoid-relu"`` (vectors),
            ``"clamped-softmax"`` (networks). Left out, as the formulation has it.
        division: whether g is divided by the sum of the shares: ``"none"``, ``"constant"``, or ``"through"``, with the divisor
            differentiated. Left out, ``"constant"`` for a free vector of the released formulation, else ``"none"``.
        start: the free vector at first: a number, or two between which its entries are drawn. Left out, 0, or 1 in the
            released formulation.
        lr: step size of Adam on W, while the model's learning rate is at its highest; 1e-3, the paper's step size for both
            x and W. ``"model"`` for the model's own.
        follow: let the step size fall as the model's does.
        smooth: γ of √(x² + γ) in place of |x|; 0 for |x|.
        through_features: let gradients flow from the router into the model. Left out, as the formulation has it: in the
            paper's σ(W) is constant for x.
        double_loop: Algorithm 2.
        inner_steps: N.
        inner_lr: β.
        warm_start: where z starts in each step: ``"solution"``, at the last step's z_N, or ``"model"``, at x, as Algorithm 2
            writes it.
        seed: of what is drawn for the router at first.

    Raises:
        InputError: an argument that cannot be used.
        NonFiniteError: at a step: a loss that is not positive with ``normalize="log"``, or a double loop that diverged.

    Example:
        >>> balancer = LDCMTL(penalty=1.0, normalize="none")
        >>> balancer.weights(torch.tensor([4.0, 1.0])).tolist()  # ½ + ½, and ½ − ½: the smaller loss is not followed
        [1.0, 0.0]
        >>> LDCMTL(penalty=0.1, tau="ones", normalize="none", formulation="released").weights(torch.tensor([4.0, 1.0]))
        tensor([0.6000, 0.4000])
    """

    stateful = ("router", "first", "solution", "peaks")

    def __init__(
        self,
        penalty: float | None = None,
        tau: Literal["weights", "ones"] = "weights",
        normalize: Normalization | None = "rescale",
        router: Literal["vector", "mlp", "linear"] | nn.Module = "vector",
        formulation: Literal["paper", "released"] = "paper",
        *,
        initial: Sequence[float] | None = None,
        features: nn.Module | str | None = None,
        activation: Activation | None = None,
        division: Division | None = None,
        start: float | Sequence[float] | None = None,
        lr: float | Literal["model"] = 1e-3,
        follow: bool = True,
        smooth: float = 0.0,
        through_features: bool | None = None,
        double_loop: bool = False,
        inner_steps: int = 50,
        inner_lr: float = 1e-3,
        warm_start: Literal["model", "solution"] = "solution",
        seed: int = 0,
    ) -> None:
        normalize = "none" if normalize is None else normalize  # "none" in a study's text means None
        _one_of("tau", tau, ("weights", "ones"))
        _one_of("normalize", normalize, get_args(Normalization))
        _one_of("formulation", formulation, ("paper", "released"))
        _one_of("warm_start", warm_start, ("model", "solution"))
        if isinstance(router, str):
            _one_of("router", router, ("vector", "mlp", "linear"))
        elif not isinstance(router, nn.Module):
            raise InputError(f'router must be "vector", "mlp", "linear" or a module; got {type(router).__name__}')
        if (router == "vector") != (features is None):
            raise InputError(
                "a network router needs features=<module or its name in the model>, whose output it looks at; a vector has no "
                "use for it"
            )
        if penalty is not None and not penalty > 0:
            raise InputError(f"penalty must be a positive number; got {penalty}")
        released, free = formulation == "released", router == "vector"
        if activation is None:
            activation = ("sigmoid" if free else "clamped-softmax") if released else "softmax"
        _one_of("activation", activation, tuple(_OF_VECTORS if free else _OF_NETWORKS))
        division = ("constant" if released and free else "none") if division is None else division
        _one_of("division", division, get_args(Division))
        if start is not None and not free:
            raise InputError("start is where a free vector begins; a network begins with its own parameters")
        if isinstance(lr, str):
            _one_of("lr", lr, ("model",))
        for name, value in (("lr", 0.0 if isinstance(lr, str) else lr), ("smooth", smooth), ("inner_lr", inner_lr)):
            if not value >= 0:
                raise InputError(f"{name} must be at least 0; got {value}")
        if inner_steps < 1:
            raise InputError(f"inner_steps must be a whole number from 1 on; got {inner_steps}")
        if initial is not None and (normalize != "rescale" or not all(value > 0 for value in initial)):
            raise InputError(f'initial holds the positive losses that normalize="rescale" divides by; got {initial}')
        self.penalty = _PENALTY[formulation] if penalty is None else float(penalty)
        self.tau = tau
        self.normalize: Normalization = normalize
        self.formulation = formulation
        self.activation = activation
        self.division = division
        self.lr = lr
        self.follow = follow
        self.smooth = smooth
        self.double_loop = double_loop
        self.inner_steps = inner_steps
        self.inner_lr = inner_lr
        self.warm_start = warm_start
        self.report: LDCReport | None = None
        self._released = released
        self._through = released if through_features is None else through_features
        self._features = features
        self._make = _network(router, seed)
        self._given = router if isinstance(router, nn.Module) else None
        self._lent: nn.Module | None = None
        self._pace = Pace()
        self._looked: list[int] = []
        self._representation: Representation | None = None
        self._router: Router | None = None
        if router == "vector":
            self._through = False
            self._router = VectorRouter(_OF_VECTORS[activation](), _start(start, float(released)), seed)
        elif isinstance(features, nn.Module):
            self._listen(features)
        first = None if initial is None else torch.tensor(list(initial), dtype=torch.float64, device="cpu")
        self._first = None if first is None else first.clamp(min=SMALLEST)
        self._solution: dict[str, Tensor] | None = None
        self._gradient: Tensor | None = None
        self._companion: Companion | None = None
        self._steps = 0

    # -- the model

    def parameters(self, tasks: int | None = None, channels: int | None = None) -> list[nn.Parameter]:
        """W, to be put into an optimizer of yours before the first step; the balancer then leaves moving it to that optimizer.

        Args:
            tasks: K; not needed where the router is a module of yours.
            channels: of the features, for ``router="mlp"`` and ``"linear"``.

        Raises:
            InputError: a number is missing. (One that does not fit is told at the first step.)

        Example:
            >>> len(LDCMTL().parameters(tasks=4)[0])
            4
        """
        missing = tasks is None or (self._make is not None and channels is None)
        if missing and not self._lends and self._given is None:
            raise InputError("parameters() needs tasks=<how many>" + ("" if self._make is None else ", channels=<of features>"))
        router = self._router
        if isinstance(router, VectorRouter):
            if not router.parameters():
                assert tasks is not None
                router.lend(tasks)
                self._looked = []
            return router.parameters()
        if self._lent is None:
            assert self._make is not None
            made = router.network if isinstance(router, NetworkRouter) else None
            self._lend(self._make(channels or 0, tasks or 0) if made is None else made)
        assert self._lent is not None
        return [parameter for parameter in self._lent.parameters() if parameter.requires_grad]

    def pace(self, *optimizers: torch.optim.Optimizer) -> None:
        """Says which optimizers train the model, whose learning rates W follows; see the class.

        :class:`~equipoise.MultiTaskOptimizer` does so by itself. In a loop of your own, call it once before the first step.

        Raises:
            InputError: :meth:`parameters` were asked for, and the optimizers do not hold them (or not all).
        """
        self._pace.follow(optimizers)
        looked = [len(group["params"]) for optimizer in optimizers for group in optimizer.param_groups]
        if looked == self._looked:
            return
        held = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
        network = self._given if self._lent is None else self._lent
        own = [] if network is None else [parameter for parameter in network.parameters() if parameter.requires_grad]
        own = self._router.parameters() if isinstance(self._router, VectorRouter) else own
        there = sum(id(parameter) in held for parameter in own)
        if there < len(own) and (there or self._lends):
            raise InputError(
                f"the optimizer holds {there} of the router's {len(own)} parameters; give it all of balancer.parameters(), or "
                f"leave them out and make a new balancer"
            )
        if there and not self._lends:
            assert self._given is not None
            self._lend(self._given)
        self._looked = looked

    def _lend(self, network: nn.Module) -> None:
        self._lent, self._looked = network, []
        if isinstance(self._router, NetworkRouter):
            self._router.lend(network)

    @property
    def _lends(self) -> bool:
        return self._lent is not None or (isinstance(self._router, VectorRouter) and bool(self._router.parameters()))

    def attach(self, objective: Objective) -> None:
        """Finds the module whose output the router looks at, if it was given by its name."""
        if isinstance(self._features, str):
            self._listen(find_module(objective.model, self._features))

    def begin(self) -> None:
        """Forgets features of evaluations between the steps."""
        if self._representation is not None:
            self._representation.begin()

    @property
    def looks_elsewhere(self) -> bool:
        """Whether it takes the double loop."""
        return self.double_loop

    def companion(self) -> Companion | None:
        """The shares with their graph, where gradients flow through the features."""
        return self._companion

    # -- a step

    def decide(self, observation: Observation) -> Tensor:
        """∂(total)/∂ℓ ``[k]`` of the tasks present."""
        observation.check_memory(self, self._first)
        router = self._known_router()
        own = router.parameters() if isinstance(router, VectorRouter) else []
        if own and len(own[0]) != len(observation.tasks):
            raise InputError(
                f"parameters({len(own[0])}) were asked of this router, and there are {len(observation.tasks)} tasks"
            )
        if self.lr == "model" and not self._lends and not self._pace.groups:
            raise InputError('lr="model" takes the learning rate of your optimizer; say which: balancer.pace(optimizer)')
        losses = observation.needed("losses").double()
        entries = torch.as_tensor(observation.present, device=losses.device)
        tasks = len(observation.tasks)
        if self.normalize != "none":
            known = losses.new_full((tasks,), torch.nan) if self._first is None else self._first.to(losses.device)
            self._first = reference(known, losses, entries)
        values, slopes = self._normalized(losses, entries)
        shares = router.shares(entries, tasks, observation.processes)
        found = total(
            values,
            shares,
            upper_factor=self.penalty if self._released else 1.0,
            lower_factor=1.0 if self._released else self.penalty,
            weighted=self.tau == "weights",
            smooth=self.smooth,
            division=self.division,
        )
        self._companion = None
        if isinstance(router, NetworkRouter) and self._through:
            # The backward pass of the losses brings W's gradient along.
            self._companion = Companion(router.graph(), found.by_shares, router.parameters())
            self._gradient = None
        else:
            self._gradient = router.gradient(found.by_shares)
        norms = self._double_loop(observation, entries, shares, found.lower_by_shares) if self.double_loop else (None, None)
        if self._lends:
            self._companion = self._lent_companion(router, found.by_shares)
        self.report = LDCReport(found.upper, found.lower, shares, *norms)
        weights = found.by_losses * slopes
        if self.normalize != "log":
            return weights
        # A logarithm that does not exist spoils its neighbours' gaps: the error is to name the task whose it is.
        fine = losses > 0
        return torch.where(fine, torch.where(fine.all(), weights, 1.0), torch.nan)

    def update(self, observation: Observation) -> None:
        """W's step."""
        router = self._known_router()
        gradient = self._gradient
        if self._companion is not None and not self._lends:
            brought = torch.cat(
                [(torch.zeros_like(p) if p.grad is None else p.grad).flatten().double() for p in self._companion.parameters]
            )
            gradient = brought if gradient is None else gradient + brought
        if not self._lends:
            assert gradient is not None
            factor = self._pace.factor() if self.follow else 1.0
            router.step(gradient, self._pace.rate() if isinstance(self.lr, str) else self.lr * factor)
        self._gradient = self._companion = None
        if self.normalize == "log":
            self._steps += 1
            remind_of_epochs(self, self._steps, "losses are still measured by the first ones")

    def end_epoch(self) -> None:
        """The next step's losses are the ℓ_0 of ``normalize="log"``."""
        self._steps = 0
        if self.normalize == "log":
            self._first = None

    # -- state

    def state_dict(self) -> dict[str, Any]:
        """W, what moves it, the reference losses, z where it is kept, and the model's highest learning rates."""
        return {
            "router": None if self._router is None else self._router.state_dict(),
            "first": None if self._first is None else self._first.clone(),
            "solution": None if self._solution is None else dict(self._solution),
            "peaks": self._pace.settle() or None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a saved state.

        Raises:
            InputError: the state belongs to another kind of balancer, or to one with another router, or is damaged; nothing has
                changed.
        """
        read = self.read_state(state)
        if self._router is not None and read["router"] is not None:
            self._router.load_state_dict(read["router"])
        self._first = None if read["first"] is None else read["first"].clone()
        self._solution = None if read["solution"] is None else dict(read["solution"])
        self._pace.load(read["peaks"] or ())

    def read_state(self, state: dict[str, Any], sizes: dict[str, int] | None = None) -> dict[str, Any]:
        """As every balancer; the router reads its own part."""
        sizes = {} if sizes is None else sizes
        kinds: dict[str, Form] = {
            "router": Anything(),
            "first": Maybe(Of(("K",), nan=True, least=0)),
            "solution": Maybe(Named(Of(dtype=None))),
            "peaks": Maybe(Listed(Number(least=0))),
        }
        tasks_known(kinds["first"], self._first, sizes)
        read = read_state("LDCMTL", state, kinds, sizes)
        groups = self._pace.groups
        if read["peaks"] is not None and len(read["peaks"]) != (groups or max(len(read["peaks"]), 1)):
            raise InputError(
                f"the state of LDCMTL must hold the highest learning rates of {groups or 'all'} parameter groups; it holds "
                f"{len(read['peaks'])}"
            )
        kept = self._solution or {}
        for name, value in (read["solution"] or {}).items():
            if name in kept and value.shape != kept[name].shape:
                raise InputError(f'the state of LDCMTL is of another model, with {list(value.shape)} as "{name}"')
        router = self._router
        if router is None and read["router"] is None:
            return read
        if router is None or (read["router"] is None and not isinstance(router, NetworkRouter)):
            raise InputError('the state of LDCMTL must hold what its router keeps as "router"')
        if read["router"] is None:  # saved before the network's features were found
            return {**read, "router": dict.fromkeys(router.state_dict())}
        if isinstance(read["router"], Mapping) and set(read["router"]) != set(router.state_dict()):
            raise InputError("the state given is that of an LDCMTL with another router; make this one with the same options")
        return {**read, "router": router.read_state(read["router"], sizes)}

    def __repr__(self) -> str:
        return (
            f'LDCMTL(penalty={self.penalty}, tau="{self.tau}", normalize="{self.normalize}", formulation="{self.formulation}")'
        )

    # -- parts

    def _normalized(self, losses: Tensor, entries: Tensor) -> tuple[Tensor, Tensor]:
        known = losses
        if self.normalize != "none":
            assert self._first is not None
            known = self._first[entries].to(losses.device)
            if self.normalize == "rescale" and self._released:
                known = known / self._first.nan_to_num(nan=torch.inf).min()
        return normalized(losses, known, self.normalize)

    def _double_loop(
        self, observation: Observation, entries: Tensor, shares: Tensor, lower_by_shares: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Takes λ ∇_W g(W, z_N) away from W's gradient; the norms of ∇_W g at x and at z_N."""
        if not isinstance(observation, ElsewhereObservation):
            raise InputError("double_loop=True evaluates the losses elsewhere, which needs MultiTaskOptimizer, not backward()")
        factor = 1.0 if self._released else self.penalty
        self._solution, there = lower_level_solution(
            observation.elsewhere,
            self._solution if self.warm_start == "solution" else None,
            shares,
            lambda losses: self._normalized(losses, entries)[0],
            steps=self.inner_steps,
            lr=self.inner_lr * factor,
        )
        if not bool(torch.isfinite(there).all()):
            pairs = zip(observation.present, torch.isfinite(there).tolist(), strict=True)
            names = tuple(observation.tasks[position] for position, fine in pairs if not fine)
            raise NonFiniteError(
                f"the lower level of the double loop diverged; lower inner_lr (not finite in step {observation.step}: the loss "
                f"of task {', '.join(names)}; the step was not taken and nothing has changed)",
                tasks=names,
                step=observation.step,
                what="loss",
            )
        if self.warm_start == "model":
            self._solution = None
        router = self._known_router()
        here = router.gradient(lower_by_shares)
        there = router.gradient(lower_slopes(there, shares, self.division))
        self._gradient = (0.0 if self._gradient is None else self._gradient) - factor * there
        return here.norm(), there.norm()

    def _lent_companion(self, router: Router, by_shares: Tensor) -> Companion:
        """What gives W its gradient in the backward pass of the losses, for the optimizer that moves it."""
        with torch.enable_grad():
            terms = [] if self._gradient is None else [router.lent(self._gradient)]
            if isinstance(router, NetworkRouter) and self._through:
                graph = router.graph()
                terms.append((graph * by_shares.to(graph)).sum())
            output = torch.stack([term.to(terms[0]) for term in terms]).sum()
        return Companion(output, torch.ones((), device=output.device), lent=router.parameters())

    def _known_router(self) -> Router:
        if self._router is None:
            raise InputError(
                f'the router looks at features="{self._features}", a module that only MultiTaskOptimizer finds by its name; '
                f"with backward(), give the module itself"
            )
        return self._router

    def _listen(self, module: nn.Module) -> None:
        assert self._make is not None
        self._representation = Representation(module, differentiable=self._through)
        self._router = NetworkRouter(self._make, _OF_NETWORKS[self.activation], self._representation)
        if self._lent is not None:
            self._router.lend(self._lent)


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f'{name} must be one of {", ".join(allowed)}; got "{value}"')


def _start(start: float | Sequence[float] | None, default: float) -> float | tuple[float, float]:
    if start is None or isinstance(start, int | float):
        return default if start is None else float(start)
    if len(start) != 2 or not start[0] <= start[1]:
        raise InputError(f"start must be a number, or the two between which it is drawn; got {start}")
    return float(start[0]), float(start[1])


def _network(router: str | nn.Module, seed: int) -> Callable[[int, int], nn.Module] | None:
    if isinstance(router, nn.Module):
        return lambda channels, tasks: router
    if router == "vector":
        return None

    def make(channels: int, tasks: int) -> nn.Module:
        # From the seed alone: the same in every process, and the caller's random numbers stay as they are.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return mlp_router(channels, tasks) if router == "mlp" else nn.Linear(channels, tasks)

    return make
