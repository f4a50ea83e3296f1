"""CoBa: convergence balancer, by the slopes of validation losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, get_args

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from equipoise.balance.base import LossBalancer, Observation, as_numbers
from equipoise.balance.registry import register
from equipoise.errors import InputError
from equipoise.states import Listed, Maybe, Of, Switch, Text, Whole

__all__ = ["CoBa", "CoBaFormulation"]

CoBaFormulation = Literal["paper", "released"]


@register(
    "coba",
    summary="by slopes of validation losses: more weight for slow tasks, less for one that diverges",
    paper="Gong et al., CoBa: Convergence Balancer for Multitask Finetuning of Large Language Models, EMNLP 2024",
    price="1 backward; a forward per validation batch",
    promise="validation losses that converge at an even pace; a task that overfits loses weight",
    serves="fine-tuning a language model on many tasks, at the price of plain fine-tuning",
    caveats="equal weights for `warmup` looks; give it validation losses, or it takes those of training",
    adds_up_to="1",
    checked="numbers of the released code, slopes by least squares",
)
class CoBa(LossBalancer):
    """Weighs tasks by how their validation losses converge, looked at in t = 1, 2, … (Gong et al., 2024).

    With α_i(t) the least-squares slope of task i's last N validation losses, each relative to the task's first:

        RCS_i = softmax_i(K α_i(t)/Σ_j |α_j(t)|),    ACS_i = softmax_i(−N α_i(t)/Σ_{s = t−N+1…t} |α_i(s)|),
        DF = min(t softmax_t(−τ t α_max(t)/Σ_{s ≤ t} |α_max(s)|), 1),    weights DF·RCS + (1 − DF)·ACS,

    α_max being the largest slope of all tasks and s starting where the warm-up ends. While all converge, DF is near 1 and slow
    tasks get more; once one diverges, ACS takes its weight away. Weights are 1/K during the warm-up; those of a batch that
    lacks tasks are scaled to add up to 1.

    Say what the validation losses are with :meth:`validated`, after as many steps as you like (in the paper after each, on one
    validation batch). If you never do, the training losses of the steps take their place, as in studies. It then does not
    see overfitting.

    The paper's text was not available; this follows its authors' released code (MFTCoder) and a public summary of the
    equations. ``formulation="released"`` is what the code does: α_max is the slope of the largest loss, DF has no bound,
    weights are w = softmax(K (DF·RCS + (1 − DF)·ACS)), or (1 − 1/10) w + 1/(10 K) where one of them is below 1/(10 K), and ACS
    has the last N − W + 1 slopes.

    Memory: N losses and slopes per task, and one number per look.

    Args:
        window: N; 200 in released code, which advises 2 to 5 times the number of validation batches.
        warmup: W; 100 in released code, which advises the number of validation batches.
        tau: τ; 5 in paper and code.
        formulation: ``"paper"`` or ``"released"``.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> balancer = CoBa(window=3, warmup=3)
        >>> for step in range(4):
        ...     balancer.validated([1 - 0.2 * step, 1 - 0.1 * step])
        >>> balancer.weights([1.0, 1.0])
        tensor([0.3392, 0.6608], dtype=torch.float64)
    """

    depends_on_losses = False
    decides_purely = True
    stateful: ClassVar = {
        "names": Maybe(Listed(Text())),
        "told": Switch(),
        "first": Maybe(Of(("K",), cpu=True), "memory"),
        "history": Maybe(Of(("N", "K"), cpu=True), "memory"),
        "slopes": Maybe(Of(("M", "K"), cpu=True), "slopes"),
        "largest": Maybe(Of(("T",), cpu=True), "slopes"),
        "shares": Maybe(Of(("K",), least=0, most=1, cpu=True), "slopes"),
        "looks": Whole(),
    }

    def __init__(self, window: int = 200, warmup: int = 100, tau: float = 5.0, formulation: CoBaFormulation = "paper") -> None:
        for name, value, least in (("window", window, 2), ("warmup", warmup, 2)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(f"{name} must be a whole number of at least {least}; got {value}")
        if not 0 <= tau < float("inf"):
            raise InputError(f"tau must be finite and at least 0; got {tau}")
        if formulation not in get_args(CoBaFormulation):
            raise InputError(f'formulation must be "paper" or "released"; got "{formulation}"')
        self.window, self.warmup, self.tau, self.formulation = window, warmup, float(tau), formulation
        self._forget()
        self.names: tuple[str, ...] | None = None
        self.told = False

    def _forget(self) -> None:
        self.first: Tensor | None = None
        self.history: Tensor | None = None
        self.slopes: Tensor | None = None
        self.largest: Tensor | None = None
        self.shares: Tensor | None = None
        self.looks = 0

    def validated(self, losses: Mapping[str, Tensor | float] | Tensor | ArrayLike) -> None:
        """Takes a look at validation losses. From the first on, training losses no longer stand for them.

        Args:
            losses: of all K tasks, by name or in the tasks' order; in several processes the same numbers everywhere.

        Raises:
            InputError: not finite, or of other tasks than before; nothing has changed.
        """
        names = self.names
        if isinstance(losses, Mapping):
            names = tuple(losses) if names is None else names
            if set(losses) != set(names):
                raise InputError(f"validation losses of {', '.join(losses)} were given; expected {', '.join(names)}")
            losses = [float(losses[name]) for name in names]
        values = as_numbers(losses, "validation losses", 1).detach().to("cpu", torch.float64)
        if not bool(torch.isfinite(values).all()):
            raise InputError(f"validation losses must be finite; got {values.tolist()}")
        if self.told and self.first is not None and len(self.first) != len(values):
            raise InputError(f"{len(values)} validation losses were given; before, there were {len(self.first)}")
        if not self.told:
            self._forget()
        self.names, self.told = names, True
        self._look(values)

    def decide(self, observation: Observation) -> Tensor:
        """Weights of the tasks present; they add up to 1."""
        observation.check_memory(self, self.first)
        count = len(observation.tasks)
        shares = torch.full((count,), 1 / count, dtype=torch.float64, device="cpu") if self.shares is None else self.shares
        if self.names is not None and self.names != observation.tasks:
            if set(self.names) != set(observation.tasks):
                raise InputError(
                    f"validation losses were of {', '.join(self.names)}; the tasks are {', '.join(observation.tasks)}"
                )
            shares = shares[[self.names.index(name) for name in observation.tasks]]
        shares = observation.of_present(shares)
        total = shares.sum()
        return shares / total if bool(total > 0) else torch.full_like(shares, 1 / len(shares))

    def update(self, observation: Observation) -> None:
        """Looks at the training losses, unless there are validation losses."""
        if not self.told:
            losses = torch.full((len(observation.tasks),), torch.nan, dtype=torch.float64, device="cpu")
            losses[list(observation.present)] = observation.needed("losses").detach().to("cpu", torch.float64)
            self._look(losses)

    def _look(self, losses: Tensor) -> None:
        """Losses ``[K]``; NaN where unknown, which counts as unchanged."""
        first = torch.zeros_like(losses) if self.first is None else self.first
        self.first = torch.where(first == 0, losses.abs().nan_to_num(nan=0.0), first)
        row = losses / torch.where(self.first == 0, 1.0, self.first)
        row = torch.where(torch.isfinite(row), row, 1.0 if self.history is None else self.history[-1])[None]
        self.history = row if self.history is None else torch.cat([self.history, row])[-self.window :]
        self.looks += 1
        if self.looks < self.warmup:
            return
        released = self.formulation == "released"
        slopes = _slopes(self.history)
        top = _slopes(self.history.amax(1, keepdim=True))[0] if released else slopes.max()
        self.slopes = slopes[None] if self.slopes is None else torch.cat([self.slopes, slopes[None]])[-self._kept :]
        self.largest = top[None] if self.largest is None else torch.cat([self.largest, top[None]])
        relative = torch.softmax(len(slopes) * _share(slopes, slopes.abs().sum()), 0)
        absolute = torch.softmax(-len(self.slopes) * _share(slopes, self.slopes.abs().sum(0)), 0)
        times = len(self.largest)
        factor = times * torch.softmax(-self.tau * times * _share(self.largest, self.largest.abs().sum()), 0)[-1]
        if not released:
            factor = factor.clamp(max=1.0)
        shares = factor * relative + (1 - factor) * absolute
        if released:
            shares, least = torch.softmax(len(shares) * shares, 0), 0.1 / len(shares)
            if bool((shares < least).any()):
                shares = 0.9 * shares + least
        self.shares = shares

    @property
    def _kept(self) -> int:
        """How many slopes ACS looks at."""
        return max(self.window - self.warmup + 1, 1) if self.formulation == "released" else self.window

    def read_state(self, state: dict[str, Any], sizes: dict[str, int] | None = None) -> dict[str, Any]:
        """As every balancer; histories must be as long as so many looks make them."""
        read = super().read_state(state, sizes)
        weighed = max(read["looks"] - self.warmup + 1, 0)
        lengths = {"history": min(read["looks"], self.window), "slopes": min(weighed, self._kept), "largest": weighed}
        for name, length in lengths.items():
            if (0 if read[name] is None else len(read[name])) != length:
                raise InputError(f"the state of CoBa does not fit together: {read['looks']} looks make a {name} of {length}")
        if read["names"] is not None and read["first"] is not None and len(read["names"]) != len(read["first"]):
            raise InputError("the state of CoBa does not fit together: its names are not those of its losses")
        return read

    def __repr__(self) -> str:
        return f'CoBa(window={self.window}, warmup={self.warmup}, tau={self.tau}, formulation="{self.formulation}")'


def _share(values: Tensor, total: Tensor) -> Tensor:
    """0 where all is 0."""
    return torch.where(total > 0, values / torch.where(total > 0, total, 1.0), 0.0)


def _slopes(rows: Tensor) -> Tensor:
    """Least-squares slopes ``[K]`` of rows ``[N, K]`` over 0 … N − 1; 0 of one row."""
    times = torch.arange(len(rows), dtype=torch.float64, device="cpu")[:, None] - (len(rows) - 1) / 2
    return (times * (rows - rows.mean(0))).sum(0) / times.square().sum().clamp(min=1e-300)
