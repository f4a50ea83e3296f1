"""BayesAgg-MTL: Bayesian uncertainty for gradient aggregation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from equipoise.balance.base import GradientBalancer, Observation
from equipoise.balance.bayesagg.likelihoods import (
    Gaussian,
    Likelihood,
    SquaredError,
    find_head,
    likelihood_of,
    multiple_of,
    parameters_of,
    with_bias,
)
from equipoise.balance.bayesagg.moments import aggregate, drawn_moments, squared_error_moments
from equipoise.balance.mixins import FeaturesObservation, OnFeatures
from equipoise.balance.per_task import PerTask, remind_of_epochs
from equipoise.balance.registry import register
from equipoise.distributed import Processes
from equipoise.errors import InputError, near_misses
from equipoise.modules import find_part
from equipoise.objective import Objective
from equipoise.states import Anything, Named, Number, Of, Together, Whole

__all__ = ["BayesAggMTL"]

Targets = Callable[[Any], Mapping[str, Tensor]]


class _Task(NamedTuple):
    """What a task brings to a step."""

    name: str
    likelihood: Likelihood
    inputs: Tensor
    targets: Tensor
    outputs: int
    evidence: Gaussian
    multiple: float | None


class _Learned(NamedTuple):
    """What a step teaches, if it is taken."""

    evidence: dict[str, Gaussian]
    multiples: dict[str, float]
    generator: Tensor | None


@register(
    "bayesagg-mtl",
    summary="features' gradients as random variables, averaged by their inverse variance",
    paper="Achituve et al., Bayesian Uncertainty for Gradient Aggregation in Multi-Task Learning, ICML 2024",
    price="1 backward of the encoder, K of the heads",
    promise="every sample and feature follows the tasks whose gradient there is known best",
    serves="linear heads on one encoder, squared errors or cross-entropies, few classes, enough data for a posterior",
    caveats="linear heads only; needs `features`, `heads`, `targets` and `end_epoch()`; no drop-in; remembers",
    adds_up_to="1 at each feature of each sample; the plain sum in the first `warm_up` epochs",
    checked="the released code's numbers, draws, equations",
)
class BayesAggMTL(OnFeatures, GradientBalancer):
    """Treats the tasks' gradients by the shared features h as random, because the parameters of their heads are uncertain.

    **Posterior.** The parameters w̃ of a task's head, a linear layer on h̃ = (h, 1), have the prior N(0, γI). A batch multiplies
    their density by its likelihood: exactly a Gaussian for squared errors (precision Λ += Σ h̃h̃ᵀ/σ²), and for classes one to
    second order at the head's present parameters, which makes the posterior's mean that of one Newton step
    (:class:`~equipoise.balance.bayesagg.likelihoods.CrossEntropy`). What the batches of an epoch say together with the prior
    is the prior of every step of the next epoch, to which the step's own batch is added.

    **Moments.** With the posterior N(m, S) of a step, the gradient g_n = ∂ℓ_n/∂h of each sample has a mean μ and, entry by
    entry, a variance. For squared errors, g = 2 (w̃ᵀh̃ − y) w has both in closed form
    (:func:`~equipoise.balance.bayesagg.moments.squared_error_moments`), else both are taken from draws of the parameters.

    **Aggregation.** With v = max(Var, 1e-8)^power, sample n's features get (1/N) Σ_k μ_k/v_k / Σ_k 1/v_k, entry by entry, and
    one backward pass takes that through the encoder. A loss in other units, c times as large, counts c^(1 − 2·power) times as
    much. Heads get their own task's gradient. In the first epochs (``warm_up``)
    the features get the plain sum of the tasks' gradients.

    The losses may be any positive multiples of means over the batch: of squared errors, of cross-entropies (``F.cross_entropy``
    without options) or binary ones. Which of them, the targets say: floating point, integers or booleans. By what multiple, and
    whether at all, is read off the gradients in every step, so that a loss of another kind is refused.

    From the released code (github.com/ssi-research/BayesAgg_MTL) this differs in that

    - squared errors take the head's bias into the posterior; the code leaves it out (give a head without one for the same);
    - for classes, what an epoch says is expanded at the parameters and features of each of its batches, at no cost in memory;
      the code keeps all features of an epoch, and expands there where the head is at the beginning of the next;
    - a task with several outputs is one task, whose gradient is the mean over its outputs; the code counts each output as a
      task of its own, for squared errors and yes-or-no answers;
    - work is in float64, and in the features' precision for the draws; the code works in float32 and repairs matrices.

    γ and power are worth a search. The code's experiments, with ten thousands of samples, had γ = 0.0005 or 0.005 and powers
    of 0.3 (squared errors), 0.1 (classes) and 0.0005 (yes-or-no answers: next to the plain mean of the posterior's gradients),
    after 1 to 10 epochs of warm-up; its class draws 512 times. Where data are few, a small γ draws the posterior towards 0 and
    a large one leaves it wide, and both make its mean gradient another than the head's: on 1,400 handwritten digits with four
    heads, as on 300 patients with three, 0.1 with small powers was best, and the plain sum was still as good or better. The
    code standardises targets; so should you, for γ and σ² to mean something.

    It needs :class:`~equipoise.MultiTaskOptimizer`, which then takes gradients at the output of ``features`` by itself, and
    one batch per step that has all its tasks in every process.

    **Mind.** It is given the model's parts and the targets (``features``, ``heads``, ``targets``; studies take them from the
    problem), and applies only where heads are linear. Loud losses stay loud below ``power`` 0.5, above it quiet ones lead. Call
    ``end_epoch()``, or it stays with the sum, which was as good on small data. One batch per step, no drop-in. It remembers.
    The posterior takes a matrix of a head's parameters squared per output, and tasks with classes take draws.

    Args:
        features: the module, or its dotted name in the model, whose output h ``[N, m]`` all heads are given as it is.
        heads: task → its ``nn.Linear``, or its dotted name.
        targets: ``targets(batch)`` gives task → what the head is to say, for each of the N samples: floating-point ``[N]`` or
            ``[N, C]``, integer ``[N]``, or boolean as floating-point ones. Those of tasks without a loss are not looked at.
        gamma: γ, the prior's variance.
        power: of the variance in v, from 0 (no uncertainty) to 1 (all of it): one for all tasks, or one per task in their order
            or by name.
        noise: σ² of squared errors: one for all tasks, or one per task.
        samples: how many draws.
        warm_up: how many epochs begin with the plain sum. Epochs end where ``end_epoch()`` is called.
        steps_per_epoch: or every so many steps.
        seed: of the draws, which come from a generator of the balancer's own. Under ``torch.distributed`` every process must
            use the same seed.

    Raises:
        InputError: an argument that cannot be used; at the optimizer's construction, parts that the model lacks or a head
            that is not linear; in a step, losses or targets that are not those of the heads.

    Example:
        >>> import equipoise as eq
        >>> encoder = nn.Sequential(nn.Linear(4, 8), nn.Tanh())
        >>> model = nn.ModuleDict({"encoder": encoder, "age": nn.Linear(8, 1), "kind": nn.Linear(8, 3)})
        >>> def losses(model, batch):
        ...     h = model["encoder"](batch["x"])
        ...     return {
        ...         "age": nn.functional.mse_loss(model["age"](h).squeeze(1), batch["age"]),
        ...         "kind": nn.functional.cross_entropy(model["kind"](h), batch["kind"]),
        ...     }
        >>> balancer = BayesAggMTL("encoder", {"age": "age", "kind": "kind"}, lambda batch: batch)
        >>> mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), torch.optim.Adam(model.parameters(), 1e-3), balancer)
        >>> batch = {"x": torch.randn(32, 4), "age": torch.randn(32), "kind": torch.randint(3, (32,))}
        >>> for epoch in range(2):
        ...     _ = mtl.step(batch)
        ...     mtl.end_epoch()
        >>> balancer.posterior("age").mean().shape  # eight weights and the bias
        torch.Size([1, 9, 1])
    """

    stateful: ClassVar = {
        "epochs": Whole(),
        "steps": Whole(),
        "known": Named(Together((Of(("B", "D", "D")), Of(("B", "D", "R"))))),
        "sums": Named(Together((Of(("B", "D", "D")), Of(("B", "D", "R"))))),
        "multiples": Named(Number(0.0)),
        "generator": Anything(),
    }
    decides_purely = True
    needs_targets = True

    def __init__(
        self,
        features: nn.Module | str | None = None,
        heads: Mapping[str, nn.Module | str] | None = None,
        targets: Targets | None = None,
        *,
        gamma: float = 0.1,
        power: float | list[float] | Mapping[str, float] = 0.1,
        noise: float | list[float] | Mapping[str, float] = 1.0,
        samples: int = 512,
        warm_up: int = 1,
        steps_per_epoch: int | None = None,
        seed: int = 0,
    ) -> None:
        if not 0 < gamma < float("inf"):
            raise InputError(f"gamma, the prior's variance, must be positive and finite; got {gamma}")
        self._power = PerTask("power", power, least=0.0)
        self._noise = PerTask("noise", noise, least=0.0)
        if 0.0 in self._noise.values:
            raise InputError(f"noise, the variance of squared errors' targets, must be positive; got {noise}")
        if samples < 2:
            raise InputError(f"samples must be at least 2, for there is no variance otherwise; got {samples}")
        if warm_up < 0:
            raise InputError(f"warm_up must be a number of epochs from 0 on; got {warm_up}")
        if steps_per_epoch is not None and steps_per_epoch < 1:
            raise InputError(f"steps_per_epoch must be at least 1; got {steps_per_epoch}")
        self.gamma = gamma
        self.samples = samples
        self.warm_up = warm_up
        self.steps_per_epoch = steps_per_epoch
        self.epochs = 0
        self.steps = 0
        # Natural parameters by task, as plain pairs, which any way of saving can hold.
        self.known: dict[str, tuple[Tensor, ...]] = {}
        self.sums: dict[str, tuple[Tensor, ...]] = {}
        self.multiples: dict[str, float] = {}
        self.generator = torch.Generator().manual_seed(seed)
        self._features: nn.Module | str | None = None
        self._heads: dict[str, nn.Module | str] = {}
        self._targets: Targets | None = None
        self._found: nn.Module | None = None
        self._linear: dict[str, nn.Linear] = {}
        self._learned: _Learned | None = None
        self.take_parts(features, heads, targets)

    # -- the model

    @property
    def lacks_parts(self) -> bool:
        """Whether it has not been told yet where features and heads are and what gives the targets."""
        return self._features is None or not self._heads or self._targets is None

    @property
    def features_module(self) -> nn.Module | None:
        """The module whose output the heads are given; known once attached."""
        return self._found

    def take_parts(
        self,
        features: nn.Module | str | None = None,
        heads: Mapping[str, nn.Module | str] | None = None,
        targets: Targets | None = None,
    ) -> None:
        """Says where features and heads are and what gives the targets; what was said before stands.

        Raises:
            InputError: something that is no module and no name, or targets that are no function.
        """
        if self._features is None and features is not None:
            if not isinstance(features, nn.Module | str):
                raise InputError(f"features must be a module or its name in the model; got {type(features).__name__}")
            self._features = features
        if not self._heads and heads is not None:
            if not isinstance(heads, Mapping | nn.ModuleDict) or not heads:
                raise InputError(f"heads must be a mapping task → nn.Linear or its name in the model; got {heads!r}")
            for task, head in heads.items():
                if not isinstance(head, nn.Module | str):
                    raise InputError(f'the head of task "{task}" must be a module or its name; got {type(head).__name__}')
            self._heads = {str(task): head for task, head in heads.items()}
        if self._targets is None and targets is not None:
            if not callable(targets):
                raise InputError(
                    f"targets must be a function that gives a batch's targets by task; got {type(targets).__name__}"
                )
            self._targets = targets

    def attach(self, objective: Objective) -> None:
        """Finds the parts in the model."""
        if self.lacks_parts:
            raise InputError(
                "BayesAggMTL looks at the heads' parameters, features and targets, and must know all three: "
                'BayesAggMTL(features="encoder", heads={"task": "heads.task", …}, targets=lambda batch: {"task": tensor, …})'
            )
        assert self._features is not None
        model = objective.model
        found = find_part(model, self._features, "features")
        linear = {task: find_head(model, head, task) for task, head in self._heads.items()}
        if objective.tasks.known:
            for task in objective.tasks.names:
                self._head(task, linear)
        self._found, self._linear = found, linear

    def posterior(self, task: str) -> Gaussian:
        """The posterior of a head's parameters after the last epoch, in natural parameters and float64.

        Its mean (bias last) is what the released code predicts with where errors are squared: ``[1, D, C]``. For classes the
        parameters are those of all classes in a row, ``[1, CD, 1]``, for yes-or-no answers ``[C, D, 1]``.

        Raises:
            InputError: no epoch has ended that held this task.
        """
        if task not in self.known:
            raise InputError(f'no epoch with task "{task}" is over yet.{near_misses(task, self.known)}')
        return Gaussian(*self.known[task])

    # -- a step

    def begin(self) -> None:
        """The next evaluation is a step's."""
        self._learned = None

    def decide(self, observation: Observation) -> Tensor:
        """Direction ``[F]`` of the features."""
        warming = self.epochs < self.warm_up
        if not isinstance(observation, FeaturesObservation):
            if warming:
                return observation.needed("gradients").sum(0)
            raise InputError("BayesAggMTL decides in the steps of MultiTaskOptimizer, which shows it features and batch")
        tasks = self._read(observation)
        multiples = {task.name: task.multiple for task in tasks if task.multiple is not None}
        generator = torch.Generator()
        generator.set_state(self.generator.get_state())
        if warming:
            direction = observation.needed("gradients").sum(0)
        else:
            means, variances = self._moments(tasks, multiples, generator)
            powers = means.new_tensor(self._power.of_present(observation))
            direction = (aggregate(means, variances, powers) / means.shape[1]).flatten()
        state = None if warming else generator.get_state()
        self._learned = _Learned({task.name: task.evidence for task in tasks}, multiples, state)
        return direction

    def update(self, observation: Observation) -> None:
        """Adds what the batch says to the epoch's."""
        learned, self._learned = self._learned, None
        if learned is None:
            return
        sums = dict(self.sums)
        for name, own in learned.evidence.items():
            sums[name] = tuple(own.beside(sums[name]) + own) if name in sums else tuple(own)
        self.sums = sums
        self.multiples = self.multiples | learned.multiples
        if learned.generator is not None:
            self.generator.set_state(learned.generator)
        self.steps += 1
        if self.steps_per_epoch is not None and self.steps >= self.steps_per_epoch:
            self._turn()
        else:
            remind_of_epochs(self, self.steps, "its prior is still that of the last one")

    def end_epoch(self) -> None:
        """Makes what the epoch said the prior of the next, unless the epochs' length is fixed."""
        if self.steps_per_epoch is None:
            self._turn()

    def read_state(self, state: dict[str, Any], sizes: dict[str, int] | None = None) -> dict[str, Any]:
        """As every balancer; what is known must be of the heads, and have their size where that is known."""
        read = super().read_state(state, sizes)
        for part in ("known", "sums", "multiples"):
            for task, value in read[part].items():
                head = self._linear.get(task)
                inside = 0 if head is None else head.in_features + (head.bias is not None)
                fits = part == "multiples" or head is None or value[0].shape[-1] in (inside, inside * head.out_features)
                if (self._heads and task not in self._heads) or not fits:
                    raise InputError(f'the state of BayesAggMTL has "{part}" of task "{task}", which is of no head here')
        if (read["steps"] > 0) != bool(read["sums"]):
            raise InputError("the state of BayesAggMTL does not fit together: steps of an epoch, and nothing that they said")
        return read

    def __repr__(self) -> str:
        return f"BayesAggMTL(gamma={self.gamma}, power={self._power}, noise={self._noise}, samples={self.samples})"

    # -- parts

    def _turn(self) -> None:
        if not self.sums:
            return
        ended = {name: Gaussian(*own) for name, own in self.sums.items()}
        # A task that this epoch did not hold keeps what is known of it.
        self.known = self.known | {name: tuple(self._prior(own) + own) for name, own in ended.items()}
        self.sums, self.steps = {}, 0
        self.epochs += 1

    def _prior(self, like: Gaussian) -> Gaussian:
        return Gaussian.spherical(like.precision.shape[-1], self.gamma, like)

    def _read(self, observation: FeaturesObservation) -> list[_Task]:
        """Checks what the step's batch and model say, and puts it into the form that the mathematics needs."""
        assert self._targets is not None
        features = observation.features
        if features.dim() != 2:
            raise InputError(f"BayesAggMTL needs features of the shape [samples, features]; got {list(features.shape)}")
        given = self._targets(observation.batch)
        if not isinstance(given, Mapping):
            raise InputError(f"targets(batch) must give a mapping task → tensor; it gave {type(given).__name__}")
        noise = self._noise.of_present(observation)
        epsilon = torch.finfo(features.dtype).eps
        tasks = []
        for place, position in enumerate(observation.present):
            name = observation.tasks[position]
            head = self._head(name, self._linear)
            if head.in_features != features.shape[1]:
                raise InputError(
                    f'the head of task "{name}" takes {head.in_features} features; the features module gave {features.shape[1]}'
                )
            if name not in given:
                raise InputError(f'targets(batch) gave nothing for task "{name}", although it has a loss')
            likelihood, targets = likelihood_of(name, given[name], len(features), head.out_features, noise[place])
            targets = targets.to(features.device)
            inputs = with_bias(features.double(), head)
            row = observation.needed("gradients")[place].view_as(features)
            multiple = multiple_of(name, head, likelihood, inputs, targets, row, epsilon)
            evidence = likelihood.evidence(inputs, targets, parameters_of(head))
            for learned in (self.known.get(name), self.sums.get(name)):
                if learned is not None and [part.shape for part in learned] != [part.shape for part in evidence]:
                    raise InputError(
                        f'the head of task "{name}" or the kind of its targets is not what this BayesAggMTL has learned from; '
                        "make a new one for another problem"
                    )
            tasks.append(_Task(name, likelihood, inputs, targets, head.out_features, evidence, multiple))
        return self._joint(tasks, observation.processes)

    def _joint(self, tasks: list[_Task], processes: Processes) -> list[_Task]:
        """With what all processes' samples say."""
        if processes.count == 1:
            return tasks
        parts = [part for task in tasks for part in task.evidence]
        together = processes.sum(torch.cat([part.flatten() for part in parts]))
        pieces = together.split([part.numel() for part in parts])
        shaped = [piece.view_as(part) for piece, part in zip(pieces, parts, strict=True)]
        pairs = zip(shaped[::2], shaped[1::2], strict=True)
        return [task._replace(evidence=Gaussian(*pair)) for task, pair in zip(tasks, pairs, strict=True)]

    def _moments(self, tasks: list[_Task], multiples: Mapping[str, float], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Means and variances ``[k, N, m]`` of the samples' gradients, of the losses as they are."""
        means, variances = [], []
        for task in tasks:
            own = task.evidence
            prior = own.beside(self.known[task.name]) if task.name in self.known else self._prior(own)
            posterior = prior + own
            width = self._linear[task.name].in_features
            if isinstance(task.likelihood, SquaredError):
                mean, variance = squared_error_moments(posterior, task.inputs, task.targets, width)
            else:
                mean, variance = self._drawn(task, posterior, width, generator)
            multiple = multiples.get(task.name, self.multiples.get(task.name, 1.0))
            means.append(multiple * mean)
            variances.append(multiple**2 * variance)
        return torch.stack(means), torch.stack(variances)

    def _drawn(self, task: _Task, posterior: Gaussian, width: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        weight = self._linear[task.name].weight
        # Half the digits would do for numbers that are random; not half of those.
        dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
        size = task.inputs.shape[1]
        noise = torch.randn(self.samples, *posterior.precision.shape[:2], generator=generator, dtype=dtype, device="cpu")
        draws = posterior.draw(noise.to(weight.device, torch.float64)).reshape(self.samples, task.outputs, size).to(dtype)
        center = posterior.mean().reshape(task.outputs, size).to(dtype)
        mean, variance = drawn_moments(task.likelihood, draws, center, task.inputs.to(dtype), task.targets, width)
        return mean.double(), variance.double()

    def _head(self, task: str, heads: Mapping[str, nn.Linear]) -> nn.Linear:
        if task not in heads:
            raise InputError(f'there is no head for task "{task}".{near_misses(task, heads)} Heads: {", ".join(heads)}')
        return heads[task]
