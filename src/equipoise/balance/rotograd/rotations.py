"""Rotations of the shared features, one per task: part of the model wherever it is evaluated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from equipoise.errors import InputError, near_misses
from equipoise.modes import without_autocast
from equipoise.states import Of, read_entry

__all__ = ["Rotations"]


class Rotations(nn.Module):
    """R_k ∈ SO(m) for every task: ``rotations(z, "task")`` is R_k z for features z.

    The matrices are a buffer, ``matrices`` ``[K, m, m]`` in float64; no loss flows into them. They move along geodesics,
    R ← R exp(A) with a skew-symmetric A, so they are orthogonal with determinant +1 at all times, up to rounding.

    Args:
        tasks: names of the tasks, in order.
        size: m, how many channels are rotated; the first ones, while the others pass as they are. All of them if left out,
            which is settled by the first features seen.
        dim: where the features have their channels: 1 for ``[N, m]`` and ``[N, m, height, width]``, -1 for ``[N, T, m]``.
        start: ``"identity"``, or ``"random"`` for a uniformly random rotation per task.
        seed: of random rotations.

    Raises:
        InputError: an argument that cannot be used.

    Example:
        >>> rotations = Rotations(["depth", "label"], size=3, start="random")
        >>> features = torch.randn(5, 3)
        >>> turned = rotations(features, "depth")
        >>> torch.allclose(turned.norm(dim=1), features.norm(dim=1), rtol=1e-5)
        True
    """

    matrices: Tensor | None

    def __init__(
        self,
        tasks: Sequence[str],
        size: int | None = None,
        *,
        dim: int = 1,
        start: Literal["identity", "random"] = "identity",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        if isinstance(tasks, str) or not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise InputError(f"tasks must be names that differ, at least one; got {tasks!r}")
        if size is not None and size < 1:
            raise InputError(f"size must be a number of channels from 1 on; got {size}")
        if dim == 0:
            raise InputError("dim must not be 0, which is that of the samples; channels are at 1 or -1, for example")
        if start not in ("identity", "random"):
            raise InputError(f'start must be "identity" or "random"; got "{start}"')
        self.size = size
        self.dim = dim
        self.start = start
        self.seed = seed
        self.register_buffer("matrices", None if size is None else self._first(size))
        self.met: set[str] = set()
        self._listening = False
        self._features: tuple[int, torch.Size] | None = None

    def forward(self, features: Tensor, task: str) -> Tensor:
        """R_k z, of the same shape and dtype.

        Args:
            features: z ``[N, …, m, …]`` with the channels at ``dim``.
            task: whose rotation.

        Raises:
            InputError: an unknown task, or features of another size.
        """
        position = self.position(task)
        self._check(features, task)
        matrices = self._known(features)
        size = len(matrices[position])
        # In half precision the rotation itself would stretch; rounding its result is all that is lost.
        precise = torch.promote_types(features.dtype, torch.float32)
        with without_autocast(features.device):
            matrix = matrices[position].to(features.device, precise)
            channels = features.movedim(self.dim, -1)
            turned = (channels[..., :size].to(precise) @ matrix.T).to(features.dtype)
            if size < channels.shape[-1]:
                turned = torch.cat([turned, channels[..., size:]], -1)
        return turned.movedim(-1, self.dim)

    def position(self, task: str) -> int:
        """Which of the rotations is a task's.

        Raises:
            InputError: it has none.
        """
        if task not in self.tasks:
            raise InputError(
                f'there is no rotation for task "{task}".{near_misses(task, self.tasks)} There are: {", ".join(self.tasks)}'
            )
        return self.tasks.index(task)

    def hook(self, heads: Mapping[str, nn.Module]) -> list[RemovableHandle]:
        """Rotates the first positional argument of the modules that turn the features into the tasks' outputs, from now on.

        Returns:
            A handle for each; ``handle.remove()`` takes the rotation off again.

        Raises:
            InputError: no module, one for two tasks, one that other rotations sit on, or an unknown task.

        Example:
            >>> head = nn.Linear(3, 1)
            >>> handles = Rotations(["depth"], size=3).hook({"depth": head})
            >>> [handle.remove() for handle in handles]
            [None]
        """
        for task, module in heads.items():
            self.position(task)
            if not isinstance(module, nn.Module):
                raise InputError(f'the head of task "{task}" must be a module; got {type(module).__name__}')
            if any(isinstance(hook, _Rotate) for hook in module._forward_pre_hooks.values()):
                raise InputError(
                    f'the head of task "{task}" is rotated already, by another RotoGrad or as the head of another task; '
                    "detach() the other, or give each task a module of its own"
                )
            if sum(module is other for other in heads.values()) > 1:
                raise InputError(f'the head of task "{task}" is also that of another task; one module has one rotation')
        return [module.register_forward_pre_hook(_Rotate(self, task)) for task, module in heads.items()]

    @torch.no_grad()
    def turn(self, skew: Tensor) -> None:
        """Moves every rotation: R_k ← R_k exp(A_k).

        Args:
            skew: A ``[K, m, m]``, skew-symmetric.
        """
        assert self.matrices is not None
        matrices = self.matrices.double()
        moved = matrices @ torch.linalg.matrix_exp(skew.to(matrices))
        # One step of Newton-Schulz towards the nearest orthogonal matrix, or rounding would add up over the steps.
        moved = 1.5 * moved - 0.5 * moved @ (moved.mT @ moved)
        self.matrices = torch.where((skew != 0).any(-1).any(-1)[:, None, None].to(moved.device), moved, matrices)

    # -- what a step's evaluation does

    def listen(self) -> None:
        """A step begins: notes which tasks were rotated, and insists that it is the features that are."""
        self._listening, self._features = True, None
        self.met = set()

    def stop(self) -> None:
        """The step's losses were evaluated."""
        self._listening, self._features = False, None

    def saw(self, features: Tensor) -> None:
        """The features module gave this."""
        if self._listening:
            self._features = features.data_ptr(), features.shape

    def _check(self, features: Any, task: str) -> None:
        if not isinstance(features, Tensor):
            raise InputError(f'what is rotated for task "{task}" must be one tensor; got {type(features).__name__}')
        if not -features.dim() <= self.dim < features.dim():
            raise InputError(f"features of the shape {list(features.shape)} have no dimension {self.dim} for their channels")
        if self._listening:
            if self._features is not None and self._features != (features.data_ptr(), features.shape):
                raise InputError(
                    f'the head of task "{task}" must be given the output of the features module as it is; it was given '
                    f"something else, of the shape {list(features.shape)}"
                )
            self.met.add(task)

    # -- the matrices

    def _known(self, features: Tensor) -> Tensor:
        channels = features.shape[self.dim]
        if self.matrices is None:
            self.matrices = self._first(channels).to(features.device)
        size = self.matrices.shape[-1]
        if size > channels or (self.size is None and size != channels):
            raise InputError(f"these rotations are of {size} channels; the features have {channels} at dimension {self.dim}")
        return self.matrices

    def _first(self, size: int) -> Tensor:
        with torch.inference_mode(False), torch.no_grad():
            if self.start == "identity":
                return torch.eye(size, dtype=torch.float64, device="cpu").repeat(len(self.tasks), 1, 1)
            generator = torch.Generator().manual_seed(self.seed)
            normal = torch.randn(len(self.tasks), size, size, generator=generator, dtype=torch.float64, device="cpu")
            orthogonal, triangular = torch.linalg.qr(normal)
            # Uniform (Haar) only with the signs of a positive diagonal; then one column decides on the determinant.
            orthogonal = orthogonal * triangular.diagonal(dim1=-2, dim2=-1).sign()[:, None]
            orthogonal[..., 0] *= torch.linalg.det(orthogonal).sign()[:, None]
            uniform: Tensor = orthogonal
            return uniform

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        saved = state_dict.get(prefix + "matrices")
        if saved is not None:
            kind = Of((len(self.tasks), "m" if self.matrices is None else self.matrices.shape[-1], "m"))
            saved = read_entry("Rotations", "matrices", kind, saved)
        if saved is not None and self.matrices is None:
            self.matrices = torch.empty_like(saved)  # of a size that only features would tell
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        """Tasks and size."""
        return f"{', '.join(self.tasks)}; size={self.size if self.matrices is None else self.matrices.shape[-1]}"


class _Rotate:
    """The hook before a head; an object, so that copies of the model have copies of the rotations."""

    def __init__(self, rotations: Rotations, task: str) -> None:
        self.rotations = rotations
        self.task = task

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        if not inputs:
            raise InputError(f'the head of task "{self.task}" must be given the features as its first positional argument')
        return self.rotations(inputs[0], self.task), *inputs[1:]
