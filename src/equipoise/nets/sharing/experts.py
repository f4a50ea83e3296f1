"""Ways to share experts: every task mixes them by a gate of its own (MMoE, CGC, PLE, DSelect-k)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from equipoise.errors import InputError
from equipoise.nets.outputs import module_per_task

__all__ = ["CGC", "PLE", "DSelectK", "MMoE"]


class _Experts(nn.Module):
    """All experts' outputs on the same input, ``[E, N, …]``."""

    def __init__(self, experts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.experts = nn.ModuleList(experts)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.stack([expert(inputs) for expert in self.experts])


def _gate(size: int, experts: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(size, experts, bias=False))


def _mixture(task: str, logits: Tensor, known: Tensor) -> Tensor:
    """Σ_i softmax(logits)_i known_i: logits ``[N, E]``, known ``[E, N, …]``."""
    if logits.shape != (known.shape[1], known.shape[0]):
        raise InputError(
            f'the gate of task "{task}" must give [N, E] = {[known.shape[1], known.shape[0]]}; got {list(logits.shape)}'
        )
    return torch.einsum("ne,en...->n...", logits.softmax(1), known)


class MMoE(nn.Module):
    """Task k's head is given f_k(x) = Σ_i g_k(x)_i expert_i(x), with its own gate g_k(x) = softmax(W_k x).

    The experts are shared, gates and heads belong to their tasks.

    Args:
        experts: modules with outputs of one shape.
        heads: task → module that takes a mixture.
        input_size: how many numbers an input has once it is flattened; for the gates W_k, which have no bias. May be left
            out if gates are given.
        gates: task → module ``x`` → ``[N, E]``, before the softmax; linear ones of the flattened input by default.

    Attributes:
        features: the experts, whose stacked outputs ``[E, N, …]`` all tasks start from; for ``features=``. Each
            head is given a mixture of its own, so that nothing can act between the two for all tasks (``Problem.parts``).
        gates: task → gate.
        heads: task → head.

    Raises:
        InputError: no experts, gates of other tasks than the heads', or neither gates nor an input size.

    Example:
        >>> experts = [nn.Sequential(nn.Linear(4, 8), nn.ReLU()) for _ in range(3)]
        >>> network = MMoE(experts, {"label": nn.Linear(8, 3), "size": nn.Linear(8, 1)}, input_size=4)
        >>> {task: tuple(out.shape) for task, out in network(torch.zeros(5, 4)).items()}
        {'label': (5, 3), 'size': (5, 1)}
    """

    def __init__(
        self,
        experts: Sequence[nn.Module],
        heads: Mapping[str, nn.Module] | nn.ModuleDict,
        *,
        input_size: int | None = None,
        gates: Mapping[str, nn.Module] | nn.ModuleDict | None = None,
    ) -> None:
        super().__init__()
        if not len(experts):
            raise InputError("a mixture needs at least one expert; got none")
        self.features = _Experts(experts)
        self.heads = module_per_task("heads", heads)
        if gates is None:
            if input_size is None or input_size < 1:
                raise InputError(f"MMoE needs input_size, from 1 on, or gates; got input_size={input_size}")
            gates = {task: _gate(input_size, len(experts)) for task in heads}
        if set(gates) != set(heads):
            raise InputError(f"gates must be of the heads' tasks ({', '.join(heads)}); got {', '.join(gates)}")
        self.gates = module_per_task("gates", gates)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Computes every task's output.

        Args:
            inputs: ``[N, …]``.

        Returns:
            Task → output.

        Raises:
            InputError: a gate that does not give one number per expert.
        """
        known = self.features(inputs)
        return {task: head(_mixture(task, self.gates[task](inputs), known)) for task, head in self.heads.items()}


class _Extraction(nn.Module):
    """One level of CGC or PLE: the experts of all tasks and of each, a gate per task and, below other levels, one for all."""

    def __init__(self, shared: Sequence[nn.Module], own: Mapping[str, Sequence[nn.Module]], size: int, *, last: bool) -> None:
        super().__init__()
        self.shared = _Experts(shared)
        self.own = module_per_task("own", {task: _Experts(experts) for task, experts in own.items()})
        self.gates = module_per_task("gates", {task: _gate(size, len(e) + len(shared)) for task, e in own.items()})
        total = len(shared) + sum(map(len, own.values()))
        self.shared_gate = None if last else _gate(size, total)

    def forward(self, inputs: Mapping[str, Tensor], common: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
        known = self.shared(common)
        own = {task: experts(inputs[task]) for task, experts in self.own.items()}
        mixed = {t: _mixture(t, gate(inputs[t]), torch.cat([own[t], known])) for t, gate in self.gates.items()}
        if self.shared_gate is None:
            return mixed, None
        return mixed, _mixture("all", self.shared_gate(common), torch.cat([*own.values(), known]))


class PLE(nn.Module):
    """Progressive layered extraction (Tang et al., RecSys 2020): levels of shared experts and of experts of each task's own.

    At level j task k goes on with a mixture of its own experts and the shared ones, and the shared experts with one of all:

        x_k^j = Σ_i softmax(W_k^j x_k^{j-1})_i e_i,   e_i among own_k^j(x_k^{j-1}) and shared^j(x_s^{j-1});
        x_s^j = Σ_i softmax(W_s^j x_s^{j-1})_i e_i,   e_i among those of all tasks and the shared ones;

    x_k^0 = x_s^0 = x; the last level has no x_s, and head k is given x_k of it. The paper's text could not be had; this follows
    implementations of it that agree (torch-rechub, Merlin). LibMTL's has no W_s and runs the shared experts on each x_k.

    What lies below the last level's gates and mixes into x_s is shared; the gates W_k of the level before the last, and own
    experts, gates and heads of the last, belong to their tasks.

    Args:
        shared: per level its shared experts, at least one; all experts of a level give outputs of one shape.
        own: task → per level its own experts, at least one.
        heads: task → module that takes a mixture.
        input_sizes: per level how many numbers its input has once it is flattened, for its gates, which have no bias.

    Attributes:
        levels: what they consist of: ``shared``, ``own``, ``gates``, ``shared_gate``.
        heads: task → head.

    Raises:
        InputError: levels that do not go together, a level without experts, or heads of other tasks.

    Example:
        >>> def expert(size): return nn.Sequential(nn.Linear(size, 8), nn.ReLU())
        >>> own = {task: [[expert(4)], [expert(8)]] for task in ("label", "size")}
        >>> heads = {"label": nn.Linear(8, 3), "size": nn.Linear(8, 1)}
        >>> network = PLE([[expert(4), expert(4)], [expert(8)]], own, heads, input_sizes=[4, 8])
        >>> {task: tuple(out.shape) for task, out in network(torch.zeros(5, 4)).items()}
        {'label': (5, 3), 'size': (5, 1)}
    """

    def __init__(
        self,
        shared: Sequence[Sequence[nn.Module]],
        own: Mapping[str, Sequence[Sequence[nn.Module]]],
        heads: Mapping[str, nn.Module] | nn.ModuleDict,
        *,
        input_sizes: Sequence[int],
    ) -> None:
        super().__init__()
        if set(own) != set(heads):
            raise InputError(f"own must be of the heads' tasks ({', '.join(heads)}); got {', '.join(own)}")
        counts = {len(shared), len(input_sizes), *map(len, own.values())}
        if len(counts) != 1 or 0 in counts:
            raise InputError(
                f"shared, input_sizes and each task's own have one entry per level, from 1 on; got {len(shared)}, "
                f"{len(input_sizes)} and {', '.join(str(len(levels)) for levels in own.values())}"
            )
        for level, experts in enumerate(shared):
            if not len(experts) or not all(len(levels[level]) for levels in own.values()) or input_sizes[level] < 1:
                raise InputError(
                    f"level {level} needs a shared expert, one of each task's own, and an input size from 1 on; "
                    f"got {len(experts)}, {[len(levels[level]) for levels in own.values()]} and {input_sizes[level]}"
                )
        self.levels = nn.ModuleList(
            _Extraction(experts, {task: own[task][level] for task in heads}, input_sizes[level], last=level == len(shared) - 1)
            for level, experts in enumerate(shared)
        )
        self.heads = module_per_task("heads", heads)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Task → output, for inputs ``[N, …]``."""
        own, common = dict.fromkeys(self.heads, inputs), inputs
        for level in self.levels:
            own, common = level(own, common)
        return {task: head(own[task]) for task, head in self.heads.items()}


class CGC(PLE):
    """Customized gate control (Tang et al., RecSys 2020): one level of :class:`PLE`.

    Task k's head is given Σ_i softmax(W_k x)_i e_i(x), e_i among the shared experts and those of its own; without the latter
    that is :class:`MMoE`.

    Args:
        shared: experts of all tasks, at least one; all experts give outputs of one shape.
        own: task → experts of its own, at least one.
        heads: task → module that takes a mixture.
        input_size: how many numbers an input has once it is flattened, for the gates W_k, which have no bias.

    Attributes:
        features: the shared experts, whose stacked outputs ``[E, N, …]`` all tasks start from; for ``features=``.

    Raises:
        InputError: a task without experts, or heads of other tasks.

    Example:
        >>> own = {task: [nn.Linear(4, 8)] for task in ("label", "size")}
        >>> heads = {"label": nn.Linear(8, 3), "size": nn.Linear(8, 1)}
        >>> network = CGC([nn.Linear(4, 8), nn.Linear(4, 8)], own, heads, input_size=4)
        >>> {task: tuple(out.shape) for task, out in network(torch.zeros(5, 4)).items()}
        {'label': (5, 3), 'size': (5, 1)}
    """

    def __init__(
        self,
        shared: Sequence[nn.Module],
        own: Mapping[str, Sequence[nn.Module]],
        heads: Mapping[str, nn.Module] | nn.ModuleDict,
        *,
        input_size: int,
    ) -> None:
        super().__init__([shared], {task: [experts] for task, experts in own.items()}, heads, input_sizes=[input_size])

    @property
    def features(self) -> nn.Module:
        """The shared experts."""
        return self.levels[0].shared  # type: ignore[return-value]


class _Selection(nn.Module):
    """A gate of DSelect-k: which of E experts each of k selectors takes, and with which weight."""

    codes: Tensor

    def __init__(self, experts: int, k: int, gamma: float, size: int | None) -> None:
        super().__init__()
        digits = max(1, math.ceil(math.log2(experts)))
        self.k, self.gamma, self.digits = k, gamma, digits
        places = torch.arange(experts, device="cpu")[:, None] >> torch.arange(digits - 1, -1, -1, device="cpu")
        self.register_buffer("codes", (places & 1).bool(), persistent=False)
        if size is None:
            self.digit = nn.Parameter(torch.empty(k, digits).uniform_(-gamma / 100, gamma / 100))
            self.share = nn.Parameter(torch.empty(k).uniform_(-0.05, 0.05))
        else:
            self.digits_of, self.shares_of = nn.Linear(size, k * digits), nn.Linear(size, k)
            for layer, bound in ((self.digits_of, gamma / 100), (self.shares_of, 0.05)):
                for parameter in layer.parameters():
                    nn.init.uniform_(parameter, -bound, bound)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Shares ``[n, k]`` and selections ``[n, k, E]``; n is 1 where the gate looks at no input."""
        if hasattr(self, "digit"):
            z, share = self.digit[None], self.share[None]
        else:
            flat = inputs.flatten(1)
            z, share = self.digits_of(flat).unflatten(1, (self.k, self.digits)), self.shares_of(flat)
        t = (z / self.gamma).clamp(-0.5, 0.5)
        step = (0.5 + 1.5 * t - 2 * t**3)[:, :, None]
        return share.softmax(1), torch.where(self.codes, step, 1 - step).prod(3)

    def penalty(self, inputs: Tensor, entropy: float) -> Tensor:
        """Mean over the examples, summed over the selectors."""
        _, selection = self(inputs)
        total: Tensor = -entropy * (selection * (selection + 1e-6).log()).sum((1, 2)).mean()
        if 2**self.digits == len(self.codes):
            return total
        # Where a selector is beyond the experts altogether, a large finite number takes the place of the pole.
        missing: Tensor = (1 / selection.sum(2).clamp_min(1e-6)).sum(1).mean()
        return total + missing


class DSelectK(nn.Module):
    """DSelect-k (Hazimeh et al., NeurIPS 2021, arXiv 2106.03760): each task mixes at most k experts, by a smooth, sparse gate.

    With S(t) = 0 for t ≤ -γ/2, 1 for t ≥ γ/2 and -2t³/γ³ + 3t/(2γ) + 1/2 between, ⌈log₂ E⌉ numbers z choose expert i with
    r(z)_i = Π_d S(z_d) or 1 - S(z_d), as digit d of i is 1 or 0: all of one expert once |z_d| ≥ γ/2. Task k's head is given

        Σ_i Σ_s softmax(α)_s r(z^(s))_i expert_i(x),    s = 1 … k.

    α and z are parameters of the task's (a gate per task) or affine functions of the input (a gate per example). The paper's
    text could not be had beyond its abstract; this follows the released code, start values included.

    Selectors settle on one expert each sooner with an entropy penalty; where E is no power of 2, codes without an expert must
    be made unattractive. :meth:`penalty` gives both. Add it to the losses with a weight of its own, which no balancer changes::

        def losses(model, batch):
            return {…, "gates": model.penalty(batch["x"], entropy=0.1)}
        objective = eq.Objective(model, losses, fixed={"gates": 1.0})

    Args:
        experts: modules with outputs of one shape, at least two; all tasks share them.
        heads: task → module that takes a mixture.
        k: how many experts a task takes at most.
        input_size: how many numbers an input has once it is flattened, for gates per example; left out, a gate per task.
        gamma: γ, how wide the smooth part of S is.

    Attributes:
        features: the experts, whose stacked outputs ``[E, N, …]`` all tasks start from; for ``features=``.
        gates: task → gate.
        heads: task → head.

    Raises:
        InputError: fewer than two experts, k not among 1 … E, an input size below 1, or γ not above 0.

    Example:
        >>> experts = [nn.Sequential(nn.Linear(4, 8), nn.ReLU()) for _ in range(3)]
        >>> network = DSelectK(experts, {"label": nn.Linear(8, 3), "size": nn.Linear(8, 1)}, k=2)
        >>> {task: tuple(out.shape) for task, out in network(torch.zeros(5, 4)).items()}
        {'label': (5, 3), 'size': (5, 1)}
        >>> {task: tuple(weights.shape) for task, weights in network.weights(torch.zeros(5, 4)).items()}
        {'label': (1, 3), 'size': (1, 3)}
    """

    def __init__(
        self,
        experts: Sequence[nn.Module],
        heads: Mapping[str, nn.Module] | nn.ModuleDict,
        *,
        k: int,
        input_size: int | None = None,
        gamma: float = 1.0,
    ) -> None:
        super().__init__()
        count = len(experts)
        if count < 2 or not 1 <= k <= count or (input_size is not None and input_size < 1) or not 0 < gamma < math.inf:
            raise InputError(
                "DSelectK needs two experts or more, k from 1 to their number, input_size from 1 or none, and gamma above 0; "
                f"got {count} experts, k={k}, input_size={input_size}, gamma={gamma}"
            )
        self.features = _Experts(experts)
        self.heads = module_per_task("heads", heads)
        self.gates = module_per_task("gates", {task: _Selection(count, k, gamma, input_size) for task in heads})

    def weights(self, inputs: Tensor) -> dict[str, Tensor]:
        """Task → how much of each expert it takes, ``[N, E]``, or ``[1, E]`` where gates look at no input.

        Rows sum to 1 once no code without an expert is chosen.
        """
        chosen = {task: gate(inputs) for task, gate in self.gates.items()}
        return {task: torch.einsum("nk,nke->ne", share, selection) for task, (share, selection) in chosen.items()}

    def penalty(self, inputs: Tensor, *, entropy: float = 1e-6) -> Tensor:
        """λ Σ_s H(r(z^(s))) + Σ_s 1 / Σ_i r(z^(s))_i, the latter where E is no power of 2; summed over the tasks.

        H(r) = -Σ_i r_i log(r_i + 1e-6). Mean over the examples, where the released code sums.

        Args:
            inputs: ``[N, …]``, those of the forward pass.
            entropy: λ, not negative.

        Raises:
            InputError: a negative λ.
        """
        if not 0 <= entropy < math.inf:
            raise InputError(f"entropy must be a weight that is not negative; got {entropy}")
        return torch.stack([gate.penalty(inputs, entropy) for gate in self.gates.values()]).sum()  # type: ignore[operator]

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Task → output, for inputs ``[N, …]``."""
        known, weights = self.features(inputs), self.weights(inputs)
        return {
            task: head(torch.einsum("ne,en...->n...", weights[task].expand(known.shape[1], -1), known))
            for task, head in self.heads.items()
        }
