"""RotoGrad: gradient homogenisation by rotated features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from equipoise.balance.base import GramianBalancer, Observation
from equipoise.balance.mixins import OnFeatures
from equipoise.balance.registry import register
from equipoise.balance.rotograd.rotations import Rotations
from equipoise.balance.vector_adam import vector_adam, vector_adam_state
from equipoise.errors import InputError
from equipoise.modules import find_part
from equipoise.objective import Objective
from equipoise.states import Listed, Maybe, Moments, Of, Text

__all__ = ["RotoGrad", "rotation_gradients"]

_EPSILON = 1e-30


@register(
    "rotograd",
    summary="a learned rotation of the features before each head turns gradients towards each other",
    paper="Javaloy and Valera, RotoGrad: Gradient Homogenization in Multitask Learning, ICLR 2022",
    price="1 backward of the encoder, K of the heads; K rotations",
    promise="the features' gradients have equal norms, and turn towards their mean while training",
    serves="one encoder whose output all heads start from, with tasks in conflict there",
    caveats="needs `features` and `heads`; save the rotations with the model; no drop-in; remembers",
    adds_up_to="no fixed sum: each task's features get a gradient of one norm C",
    checked="autograd of the rotation loss and of the features' gradients, equations",
)
class RotoGrad(OnFeatures, GramianBalancer):
    """Rotates the shared features z before each head, r_k = R_k z, and gives all tasks' feature gradients one norm.

    **Directions** (Javaloy and Valera, 2022, section 3.2). With U_k = G_k/‖G_k‖ the unit gradient of task k by z over the
    batch ``[N, m]`` and V = (1/K) Σ_k U_k held fixed, every R_k ∈ SO(m) descends −Σ_n ⟨R_kᵀ g̃_nk, v_n⟩ with g̃_k = ∂L_k/∂r_k
    held fixed as well: the sum of the inner products of task k's gradients with the common direction, sample by sample. By the
    chain rule R_kᵀ g̃_k is the row G_k = ∂L_k/∂z, and along R_k exp(A) the derivative by the skew-symmetric A at 0 is that of
    −⟨A, G_kᵀV⟩ (:func:`rotation_gradients`), so that nothing is differentiated for it. R_k takes a step of an Adam of its
    own in these coordinates. Where the encoder has come to rest between conflicting tasks their gradients cancel, and there
    is no common direction left to turn to: a ``lr`` with which the rotations are there first is what helps.

    **Norms** (section 3.1). z gets Σ_k w_k G_k with w_k = C/‖G_k‖, C = Σ_k α_k ‖G_k‖, and α_k in proportion to ‖G_k‖ over the
    norm that it had at the start, Σ_k α_k = 1. One backward pass takes that through the encoder. Heads get their own task's
    gradient.

    **The rotations belong to the model.** While attached, the heads see rotated features in every evaluation, also after
    training. ``rotations`` holds them (a module, whose ``state_dict`` is all that has to be kept beside the model's), the
    balancer's own state has them to the bit, and a copy or pickle of the whole model takes them along. To use a trained
    model elsewhere: ``Rotations(tasks, size)``, ``load_state_dict``, ``hook(heads)``. :meth:`detach` takes them off.

    Where this departs from the paper and its code (github.com/adrianjav/rotograd):

    - the code descends the squared distance of g̃_k and R_k v, v scaled to the norm of the mean gradient: the same up to a
      factor where all channels are rotated;
    - Adam's ε is next to nothing (1e-30), so that the units of the losses do not matter;
    - steps are taken from where R_k is, in a frame that turns with it, and not in one chart at the identity;
    - the learning rate of the rotations does not decay by itself, which the paper's convergence argument asks for; set
      ``lr`` on the way.

    Tasks that a batch lacks keep their rotation. It needs :class:`~equipoise.MultiTaskOptimizer`, which then takes
    gradients at the output of ``features`` by itself, and one batch per step.

    **Mind.** It is given the model's parts (``features``, ``heads``; studies take them from the problem). The rotations belong
    to the model, so save them with it. One batch per step, no drop-in. It has a learning rate of its own. It remembers. The K
    rotations are matrices of the features' size.

    Args:
        features: the module, or its dotted name in the model, whose output z all heads start from: one tensor.
        heads: task → the module, or its dotted name, that is given z as its first argument, as it is.
        rotations: made by you, for a model or loss function that calls ``rotations(z, "task")`` itself; in place of ``heads``.
        lr: of Adam on the rotations, an angle per step.
        size: how many of the features' channels are rotated; all if left out.
        dim: where the features have their channels; see :class:`Rotations`.
        norms: ``False`` leaves the tasks' gradients as long as they are (the paper's rotations alone; all weights 1).
        burn_in: after so many steps, the norms "at the start" are taken again; 20 in the released code.
        start: ``"identity"`` or ``"random"`` rotations.
        seed: of random ones.

    Raises:
        InputError: an argument that cannot be used, or, at the optimizer's construction, parts that the model lacks.

    Example:
        >>> import equipoise as eq
        >>> model = nn.ModuleDict({"encoder": nn.Linear(4, 8), "near": nn.Linear(8, 1), "far": nn.Linear(8, 1)})
        >>> def losses(model, batch):
        ...     z = model["encoder"](batch)
        ...     return {"near": model["near"](z).square().mean(), "far": (model["far"](z) - 3).square().mean()}
        >>> balancer = eq.RotoGrad(features="encoder", heads={"near": "near", "far": "far"})
        >>> mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), torch.optim.Adam(model.parameters(), 1e-3), balancer)
        >>> _ = mtl.step(torch.randn(16, 4))
        >>> balancer.rotations.matrices.shape
        torch.Size([2, 8, 8])
    """

    stateful: ClassVar = {
        "rotated_tasks": Maybe(Listed(Text())),
        "matrices": Maybe(Of(("T", "m", "m"))),
        "moments": Maybe(Moments((3, "T", "m", "m")), "memory"),
        "first_norms": Maybe(Of(("T",), nan=True, least=0, cpu=True), "memory"),
        "seen": Maybe(Of(("T",), torch.int64, least=0, cpu=True), "memory"),
    }
    decides_purely = True

    def __init__(
        self,
        features: nn.Module | str | None = None,
        heads: Mapping[str, nn.Module | str] | None = None,
        rotations: Rotations | None = None,
        *,
        lr: float = 5e-4,
        size: int | None = None,
        dim: int = 1,
        norms: bool = True,
        burn_in: int = 0,
        start: Literal["identity", "random"] = "identity",
        seed: int = 0,
    ) -> None:
        if not 0 <= lr < float("inf"):
            raise InputError(f"lr must be finite and at least 0; got {lr}")
        if burn_in < 0:
            raise InputError(f"burn_in must be a number of steps from 0 on; got {burn_in}")
        if rotations is not None and not isinstance(rotations, Rotations):
            raise InputError(f"rotations must be equipoise.balance.rotograd.Rotations; got {type(rotations).__name__}")
        if rotations is not None and heads is not None:
            raise InputError("give heads, which are then rotated for you, or rotations, which you call; not both")
        Rotations(["any"], size, dim=dim, start=start)  # refuses bad values now
        self.lr = lr
        self.norms = norms
        self.burn_in = burn_in
        self.rotations = rotations
        self._settings: dict[str, Any] = {"size": size, "dim": dim, "start": start, "seed": seed}
        self._features: nn.Module | str | None = None
        self._heads: dict[str, nn.Module | str] | None = None
        self._found: nn.Module | None = None
        self._handles: list[RemovableHandle] = []
        self._shape: torch.Size | None = None
        self.moments: Tensor | None = None
        self.first_norms: Tensor | None = None
        self.seen: Tensor | None = None
        self.take_parts(features, heads)

    # -- the model

    @property
    def lacks_parts(self) -> bool:
        """Whether it has not been told yet where features and heads are."""
        return self._features is None or self.rotations is None

    @property
    def features_module(self) -> nn.Module | None:
        """The module whose output is rotated; known once attached."""
        return self._found

    def take_parts(self, features: nn.Module | str | None = None, heads: Mapping[str, nn.Module | str] | None = None) -> None:
        """Says where features and heads are; what was said before stands.

        Raises:
            InputError: something that is no module and no name.
        """
        if self._features is None and features is not None:
            if not isinstance(features, nn.Module | str):
                raise InputError(f"features must be a module or its name in the model; got {type(features).__name__}")
            self._features = features
        if self.rotations is None and heads is not None:
            if not isinstance(heads, Mapping | nn.ModuleDict) or not heads:
                raise InputError(f"heads must be a mapping task → module or its name in the model; got {heads!r}")
            self._heads = {str(task): module for task, module in heads.items()}
            for task, module in self._heads.items():
                if not isinstance(module, nn.Module | str):
                    raise InputError(f'the head of task "{task}" must be a module or its name; got {type(module).__name__}')
            self.rotations = Rotations(list(self._heads), **self._settings)

    def attach(self, objective: Objective) -> None:
        """Finds the parts in the model and rotates what the heads are given."""
        if self._features is None or self.rotations is None:
            raise InputError(
                "RotoGrad rotates the features before the heads and must know both: "
                'RotoGrad(features="encoder", heads={"task": "heads.task", …}), modules or their names in the model'
            )
        model = objective.model
        features = find_part(model, self._features, "features")
        heads = {task: find_part(model, part, f'the head of task "{task}"') for task, part in (self._heads or {}).items()}
        if objective.tasks.known:
            for task in objective.tasks.names:
                self.rotations.position(task)
        self.detach()
        self._handles = self.rotations.hook(heads)
        self._handles.append(features.register_forward_hook(_Notice(self)))
        self._found = features

    def detach(self) -> None:
        """Takes the rotations off the model: from now on its heads see the features as they are."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._found = None

    def begin(self) -> None:
        """The next evaluation is a step's."""
        if self.rotations is not None:
            self._shape = None
            self.rotations.listen()

    def saw(self, output: Any) -> None:
        """What the features module gave."""
        assert self.rotations is not None
        if not isinstance(output, Tensor):
            raise InputError(f"the features module must give one tensor; it gave {type(output).__name__}")
        self._shape = output.shape
        self.rotations.saw(output)

    # -- a step

    def solve(self, gramian: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weights from one Gramian ``[K, K]`` of feature gradients, with the norms at the start that were seen, if any were."""
        norms = np.sqrt(np.clip(gramian.diagonal(), 0, None))
        first = self.first_norms
        if first is None:
            return self._weights(norms, norms)
        if len(first) != len(norms):
            raise InputError(f"this RotoGrad has learned from {len(first)} tasks; the Gramian has {len(norms)}")
        return self._weights(norms, first.numpy())

    def decide(self, observation: Observation) -> Tensor:
        """Weights ``[k]`` of the tasks present."""
        assert self.rotations is not None
        self.rotations.stop()
        entries = self._entries(observation)
        for position in entries.tolist():
            # Another process may have been the one that saw the task.
            if self.rotations.tasks[position] not in self.rotations.met and observation.processes.count == 1:
                raise InputError(
                    f'nothing was rotated for task "{self.rotations.tasks[position]}" in this step, although it has a loss; '
                    "its head must be run on the features"
                )
        norms = observation.needed("gramian").diagonal().clamp(min=0).sqrt()
        return torch.from_numpy(self._weights(norms.numpy(), self._reference(norms, entries).numpy()))

    def update(self, observation: Observation) -> None:
        """The rotations' step."""
        assert self.rotations is not None
        assert self._shape is not None
        entries = self._entries(observation)
        norms = observation.needed("gramian").diagonal().clamp(min=0).sqrt()
        rows = observation.needed("gradients").view(-1, *self._shape)
        matrices = self.rotations.matrices
        assert matrices is not None
        size = matrices.shape[-1]
        slopes = rotation_gradients(rows, norms, size, self.rotations.dim)
        slopes = observation.processes.sum(slopes.to(torch.float64)).to(matrices)
        moments = vector_adam_state(torch.zeros_like(matrices)) if self.moments is None else self.moments.to(matrices.device)
        skew, moments = vector_adam(
            torch.zeros_like(matrices), slopes, moments, entries.to(matrices.device), lr=self.lr, epsilon=_EPSILON
        )
        count = len(self.rotations.tasks)
        first = (
            torch.full((count,), torch.nan, dtype=torch.float64, device="cpu") if self.first_norms is None else self.first_norms
        )
        seen = torch.zeros(count, dtype=torch.int64, device="cpu") if self.seen is None else self.seen
        first = first.index_copy(0, entries, self._reference(norms, entries))
        self.rotations.turn(skew)
        self.moments, self.first_norms = moments, first
        self.seen = seen.index_add(0, entries, torch.ones_like(entries))

    # -- state

    @property
    def rotated_tasks(self) -> list[str] | None:
        """The tasks that have a rotation."""
        return None if self.rotations is None else list(self.rotations.tasks)

    @property
    def matrices(self) -> Tensor | None:
        """The rotations ``[K, m, m]``, once known."""
        return None if self.rotations is None else self.rotations.matrices

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a saved state.

        Raises:
            InputError: the state belongs to another kind of balancer, or to rotations for other tasks or of another size.
        """
        read = self.read_state(state)
        if read["rotated_tasks"] is not None:
            assert self.rotations is not None
            saved = read["matrices"]
            if saved is not None:
                device = saved.device if self.rotations.matrices is None else self.rotations.matrices.device
                self.rotations.matrices = saved.to(device, copy=True)
            elif self.rotations.size is None:
                self.rotations.matrices = None
        for name in ("moments", "first_norms", "seen"):
            setattr(self, name, None if read[name] is None else read[name].clone())

    def read_state(self, state: dict[str, Any], sizes: dict[str, int] | None = None) -> dict[str, Any]:
        """As every balancer; the rotations must be those of its heads, and rotations."""
        read = super().read_state(state, sizes)
        if read["rotated_tasks"] is None:
            if any(read[name] is not None for name in ("matrices", "moments", "seen")):
                raise InputError("the state of RotoGrad holds rotations without the tasks that they are of")
            return read
        named = ", ".join(read["rotated_tasks"])
        if self.rotations is None or list(self.rotations.tasks) != list(read["rotated_tasks"]):
            here = "none" if self.rotations is None else ", ".join(self.rotations.tasks)
            raise InputError(f"the state has rotations for {named}; this RotoGrad has {here}: give it the same heads")
        saved, size = read["matrices"], self.rotations.size
        if saved is None and (size is not None or read["moments"] is not None):
            raise InputError("the state of RotoGrad lacks its rotations")
        if saved is not None:
            if len(saved) != len(self.rotations.tasks):
                raise InputError(f"the state has {len(saved)} rotations for {len(self.rotations.tasks)} tasks")
            if size is not None and saved.shape[-1] != size:
                raise InputError(f"the state has rotations of {saved.shape[-1]} channels; this RotoGrad rotates {size}")
            if (
                float((saved @ saved.mT - torch.eye(saved.shape[-1], dtype=saved.dtype, device=saved.device)).abs().max())
                > 1e-3
            ):
                raise InputError("the state of RotoGrad holds matrices that are no rotations")
        return read

    def __repr__(self) -> str:
        return f"RotoGrad(lr={self.lr}, norms={self.norms})"

    # -- parts

    def _entries(self, observation: Observation) -> Tensor:
        """Positions of the tasks present among the rotations."""
        assert self.rotations is not None
        return torch.tensor([self.rotations.position(observation.tasks[place]) for place in observation.present], device="cpu")

    def _reference(self, norms: Tensor, entries: Tensor) -> Tensor:
        """‖G_k‖ at the start ``[k]``, which may be now."""
        if self.first_norms is None or self.seen is None:
            return norms
        known, seen = self.first_norms[entries], self.seen[entries]
        now = torch.isnan(known) | (known == 0) | ((seen == self.burn_in) & (norms > 0))
        return torch.where(now, norms, known)

    def _weights(self, norms: NDArray[np.float64], first: NDArray[np.float64]) -> NDArray[np.float64]:
        if not self.norms:
            return np.ones(len(norms))
        # A gradient that vanishes next to the others has no direction to speak of.
        moving = norms > 1e-30 * norms.max()
        safe = np.where(moving, norms, 1.0)
        ratios = np.where(moving, safe / np.where(moving & (first > 0), first, safe), 0.0)
        total = ratios.sum()
        shares = ratios / total if total > 0 else ratios
        common = float((shares * norms).sum())
        return np.where(moving, common / safe, 0.0)


class _Notice:
    """The hook behind the features module."""

    def __init__(self, balancer: RotoGrad) -> None:
        self.balancer = balancer

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self.balancer.saw(output)


def rotation_gradients(rows: Tensor, norms: Tensor, size: int, dim: int = 1) -> Tensor:
    """Derivatives of the rotations' losses by the lower entries of A_k in R_k exp(A_k), at A_k = 0.

    The loss of R_k is −Σ_n ⟨R_kᵀ g̃_nk, v_n⟩ with V the mean of the tasks' gradients scaled to unit norm; g̃_k and V are held
    fixed. With S_k = G_kᵀV it changes by −⟨A_k, S_k⟩ to first order, whose derivative by A_ij (= −A_ji) is S_ji − S_ij. It
    depends on the gradients by the features as they were before the rotation, and on nothing else.

    Args:
        rows: gradients of the k tasks by the features, ``[k, N, …, m, …]``.
        norms: their norms ``[k]``, over the samples of all processes.
        size: how many of the channels are rotated.
        dim: where the features (without the k) have their channels.

    Returns:
        ``[k, size, size]``, skew-symmetric; 0 for a task whose gradient vanishes or is the only one.

    Example:
        >>> rows = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])  # one sample, two tasks at a right angle
        >>> rotation_gradients(rows, torch.ones(2), 2)[0]
        tensor([[ 0.0000, -0.5000],
                [ 0.5000,  0.0000]])
    """
    inverse = torch.where(norms > 0, 1 / torch.where(norms > 0, norms, 1), 0.0).to(rows)
    channels = rows.movedim(dim + 1 if dim >= 0 else dim, -1)[..., :size].flatten(1, -2)
    common = torch.einsum("k,knm->nm", inverse / len(rows), channels)
    products = channels.mT @ common
    slopes = products.mT - products
    if len(rows) == 1:
        return torch.zeros_like(slopes)
    # Adam knows no size: where gradients agree, it would make steps out of rounding.
    sizes = channels.norm(dim=1)[:, :, None] * common.norm(dim=0)
    rounding = 16 * torch.finfo(rows.dtype).eps * (sizes + sizes.mT)
    return torch.where(slopes.abs() > rounding, slopes, 0)
