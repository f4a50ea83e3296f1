"""Families of models with one member per preference, all of one model: what a preference changes, and by which parameters."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equipoise.errors import InputError
from equipoise.modules import find_module
from equipoise.pareto.preferences import Draw
from equipoise.registry import Registry

__all__ = [
    "FAMILIES",
    "ConditionedInput",
    "ConditionedLayers",
    "Family",
    "Hook",
    "Hypernetwork",
    "LinearSubspace",
    "LowRankUpdates",
]

Hook = tuple[str, Callable[[nn.Module, Any, Tensor], Tensor]]
"""The name of a module, and a forward hook that changes what it gives."""
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Family(nn.Module):
    """What a preference changes in a model. Its parameters are those beyond the model's own, which are trained as well.

    Whatever it draws for its start comes from ``generator``. Unless it says otherwise, the members of all preferences are the
    model as it was when training starts.
    """

    lr_factor: float = 1.0
    """How much faster than the model its parameters learn in published settings."""
    draw: Draw = "dirichlet"
    """How published settings draw preferences, see :class:`~equipoise.pareto.Preferences`."""
    alpha: float = 1.0
    balancer: str = "ls"
    """What published settings train it with: a method that takes a preference."""
    freeze: float | None = None
    """After which share of training the model's own parameters stay as they are."""

    def tensors(self, preference: Tensor, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The parameters of a preference's member, by name; those left out are the model's ``own``."""
        return {}

    def hooks(self, preference: Tensor) -> list[Hook]:
        """What changes the outputs of a preference's member's modules."""
        return []

    def penalty(self) -> Tensor | None:
        """What is added to every loss."""
        return None


class Hypernetwork(Family):
    """All parameters come from a network that is given the preference (PHN; Navon et al., ICLR 2021, arXiv 2010.04104).

    θ(p) = θ₀ + H h(p)/√n with θ₀ the model's own parameters, h a network of two hidden layers of n units, and H a matrix of
    P × n, zero at the start. Released code has one output layer per tensor, which is the same, of random start and without
    the root, at a learning rate of 1e-4; its preferences come from Dirichlet(0.2). It costs (n + 1) P parameters, so it is for
    small models.

    Args:
        model: the model.
        tasks: K.
        hidden: n; 100 in released code.
        generator: of the start.
    """

    alpha = 0.2

    def __init__(self, model: nn.Module, tasks: int, *, hidden: int = 100, generator: torch.Generator) -> None:
        super().__init__()
        if hidden < 1:
            raise InputError(f"hidden is {hidden}; it must be at least 1")
        self.body = _network((tasks, hidden, hidden, hidden), generator)
        self.shapes = {name: own.shape for name, own in _trained(model).items()}
        self.output = nn.Parameter(torch.zeros(sum(shape.numel() for shape in self.shapes.values()), hidden, device="cpu"))

    def tensors(self, preference: Tensor, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """θ(p)."""
        moved = self.output @ (self.body(preference) / math.sqrt(self.output.shape[1]))
        parts = moved.split([shape.numel() for shape in self.shapes.values()])
        return {name: own[name] + part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}


class LowRankUpdates(Family):
    """A low-rank update per task on every matrix of the model, mixed by the preference.

    W(p) = W + (scale/r) Σ_k p_k B_k A_k, with W an output × everything else, A_k [r, inputs] and B_k [outputs, r], B_k zero at
    the start; what has one dimension, such as a bias, all members share.

    ``palora`` is PaLoRA (Dimitriadis et al., ICLR 2025, arXiv 2407.08056), with its schedule of preferences and adapters that
    learn K times as fast. In released code the rank of a convolution's update is r times its width, by another reshaping.

    ``lorpman`` is LORPMAN (Chen and Kwok, ICML 2024, arXiv 2407.20734): W stays as it is after a share ``freeze`` of training,
    and the tasks' updates are pushed to be orthogonal to each other. The paper's text could be had in part only, and not the
    formula of its penalty: here it is ``orthogonal`` times the mean over matrices and pairs of tasks of
    ‖A_i A_jᵀ‖²/(‖A_i‖² ‖A_j‖²), which is 0 only where the updates of all pairs are orthogonal.

    Args:
        model: the model.
        tasks: K.
        rank: r.
        scale: of the updates.
        orthogonal: how much the penalty counts; 0 for none.
        freeze: the share of training after which the model's own parameters stay as they are; ``None`` for never.
        generator: of the start.
    """

    draw: Draw = "schedule"

    def __init__(
        self,
        model: nn.Module,
        tasks: int,
        *,
        rank: int = 4,
        scale: float = 1.0,
        orthogonal: float = 0.0,
        freeze: float | None = None,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        if rank < 1:
            raise InputError(f"rank is {rank}; it must be at least 1")
        if not 0 < scale < math.inf or not 0 <= orthogonal < math.inf:
            raise InputError(f"scale must be positive and orthogonal at least 0, both finite; got {scale} and {orthogonal}")
        if freeze is not None and not 0 <= freeze <= 1:
            raise InputError(f"freeze is {freeze}; it is a share of training, from 0 to 1")
        matrices = {name: own for name, own in _trained(model).items() if own.dim() >= 2 and own.numel()}
        if not matrices:
            raise InputError("the model has no trainable matrix, and only matrices have low-rank updates; take another family")
        self.rank, self.scale, self.orthogonal, self.freeze = rank, scale, orthogonal, freeze
        self.lr_factor = float(tasks)
        self.names = tuple(matrices)
        self.first = nn.ParameterList()
        self.second = nn.ParameterList()
        for own in matrices.values():
            outputs, inputs = own.shape[0], own[0].numel()
            self.first.append(nn.Parameter(_uniform((tasks, rank, inputs), inputs, generator)))
            self.second.append(nn.Parameter(torch.zeros(tasks, outputs, rank, device="cpu")))

    def tensors(self, preference: Tensor, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """W(p) of every matrix."""
        found = {}
        for name, first, second in zip(self.names, self.first, self.second, strict=True):
            mixed = (second * preference[:, None, None]).movedim(1, 0).flatten(1) @ first.flatten(0, 1)
            found[name] = own[name] + (self.scale / self.rank) * mixed.view_as(own[name])
        return found

    def penalty(self) -> Tensor | None:
        """Of tasks whose updates overlap."""
        if not self.orthogonal:
            return None
        overlaps = []
        for first in self.first:
            unit = first / first.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None]
            between = torch.einsum("irn,jsn->ijrs", unit, unit).square().sum((2, 3))
            overlaps.append((between.sum() - between.diagonal().sum()) / max(1, len(first) * (len(first) - 1)))
        return self.orthogonal * torch.stack(overlaps).mean()


class LinearSubspace(Family):
    """K models whose parameters are mixed by the preference (PaMaL; Dimitriadis et al., ICML 2023, arXiv 2210.09759).

    θ(p) = Σ_k p_k θ_k, of which the model itself is the first. The others start on their own, as a fresh model would, where
    layers know how (``reset_parameters``), and as copies elsewhere. Running statistics are shared by all. It costs K·P
    parameters. The paper draws several preferences per step; here there is one.

    Args:
        model: the model.
        tasks: K.
        independent: whether the others start on their own; else all start alike, from a pretrained model, say.
        generator: of the start.
    """

    def __init__(self, model: nn.Module, tasks: int, *, independent: bool = True, generator: torch.Generator) -> None:
        super().__init__()
        self.names = tuple(_trained(model))
        self.members = nn.ModuleList()
        for _ in range(tasks - 1):
            other = copy.deepcopy(model)
            if independent:
                _start_again(other, generator)
            own = dict(other.named_parameters())
            self.members.append(nn.ParameterList([own[name] for name in self.names]))

    def tensors(self, preference: Tensor, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """θ(p)."""
        found = {}
        for place, name in enumerate(self.names):
            found[name] = preference[0] * own[name]
            for share, member in zip(preference[1:], self.members, strict=True):
                found[name] = found[name] + share * member[place]  # type: ignore[index]
        return found


class ConditionedInput(Family):
    """The preference is given to the first layer beside its input (COSMOS; Ruchte and Grabocka, ICDM 2021, arXiv 2103.13392).

    A linear layer gets K more inputs, which hold p; of a two-dimensional convolution they are K more planes, made of p by two
    transposed convolutions and stretched to the size of the input, as in released code; an embedding gets K columns that are
    mixed by p. The new weights are zero at the start. Preferences come from Dirichlet(1.2), as in released code. The paper adds
    a penalty on the angle between losses and preference, which is the business of the balancer ``cosmos`` here (λ = 2 in
    released code). Under ``ls`` the members may all become one.

    Args:
        model: the model.
        tasks: K.
        layer: the name of the layer; the first linear, convolutional or embedding layer that the model has, if left out.
        generator: of the start.
    """

    alpha = 1.2
    balancer = "cosmos:penalty=2"

    def __init__(self, model: nn.Module, tasks: int, *, layer: str | None = None, generator: torch.Generator) -> None:
        super().__init__()
        kinds = (nn.Linear, nn.Conv2d, nn.Embedding)
        if layer is None:
            layer = next((name for name, own in model.named_modules() if isinstance(own, kinds) and name), None)
            if layer is None and isinstance(model, kinds):
                layer = ""
        own = model if layer == "" else None if layer is None else find_module(model, layer)
        if layer is None or not isinstance(own, kinds) or getattr(own, "groups", 1) != 1:
            raise InputError(
                f"a preference is given to a linear layer, a Conv2d of one group or an embedding; "
                f"{'the model has none' if own is None else f'{layer!r} is {type(own).__name__}'}; name one by layer="
            )
        self.layer = layer
        self.planes: nn.Module | None = None
        if isinstance(own, nn.Conv2d):
            self.planes = nn.Sequential(
                nn.ConvTranspose2d(tasks, tasks, 4, bias=False),
                nn.ReLU(),
                nn.ConvTranspose2d(tasks, tasks, 6, stride=2, padding=1, bias=False),
                nn.ReLU(),
            )
            _start(self.planes, generator)
            shape: tuple[int, ...] = (own.out_channels, tasks, *own.kernel_size)
        elif isinstance(own, nn.Linear):
            shape = (own.out_features, tasks)
        else:
            shape = (own.embedding_dim, tasks)
        self.weight = nn.Parameter(torch.zeros(shape, device="cpu"))

    def hooks(self, preference: Tensor) -> list[Hook]:
        """What the new inputs add to the layer's output."""
        if self.planes is None:
            return [(self.layer, partial(_added, what=self.weight @ preference))]
        return [(self.layer, partial(_convolved, planes=self.planes(preference[None, :, None, None]), weight=self.weight))]


class ConditionedLayers(Family):
    """The outputs of layers are scaled and shifted by the preference, channel by channel (FiLM; Perez et al., AAAI 2018).

    y ← (1 + γ(p)) y + β(p), with γ and β of all layers from one network of one hidden layer, zero at the start. So networks
    are conditioned on the weights of their losses in You Only Train Once (Dosovitskiy and Djolonga, ICLR 2020), of which the
    text could be had in part only; its networks per layer are one here.

    Args:
        model: the model.
        tasks: K.
        hidden: units of the hidden layer.
        layers: names of linear and convolutional layers; all of the model's, if left out.
        generator: of the start.
    """

    def __init__(
        self, model: nn.Module, tasks: int, *, hidden: int = 64, layers: Sequence[str] | None = None, generator: torch.Generator
    ) -> None:
        super().__init__()
        if hidden < 1:
            raise InputError(f"hidden is {hidden}; it must be at least 1")
        chosen = dict(model.named_modules()) if layers is None else {name: find_module(model, name) for name in layers}
        self.sizes = {name: own.weight.shape[0] for name, own in chosen.items() if isinstance(own, _LAYERS)}
        if layers is not None and len(self.sizes) < len(chosen):
            others = ", ".join(name for name in chosen if name not in self.sizes)
            raise InputError(f"layers names {others}; expected the names of linear and convolutional layers")
        if not self.sizes:
            raise InputError("the model has no linear or convolutional layer whose output could be scaled; take another family")
        self.body = _network((tasks, hidden), generator)
        self.output = nn.Parameter(torch.zeros(2 * sum(self.sizes.values()), hidden, device="cpu"))

    def hooks(self, preference: Tensor) -> list[Hook]:
        """The scaling and shifting."""
        parts = iter((self.output @ F.relu(self.body(preference))).split([size for size in self.sizes.values() for _ in "γβ"]))
        return [(name, partial(_scaled, factor=1 + next(parts), shift=next(parts))) for name in self.sizes]


# -- hooks, as functions that can be pickled with the module that keeps them


def _added(module: nn.Module, given: Any, output: Tensor, *, what: Tensor) -> Tensor:
    return output + what


def _convolved(module: nn.Module, given: Any, output: Tensor, *, planes: Tensor, weight: Tensor) -> Tensor:
    assert isinstance(module, nn.Conv2d)
    added: Tensor = module._conv_forward(F.interpolate(planes, size=given[0].shape[-2:]), weight, None)
    return output + added


def _scaled(module: nn.Module, given: Any, output: Tensor, *, factor: Tensor, shift: Tensor) -> Tensor:
    if isinstance(module, nn.Linear):
        return output * factor + shift
    assert isinstance(module.weight, Tensor)
    shape = (-1, *(1 for _ in module.weight.shape[2:]))
    return output * factor.view(shape) + shift.view(shape)


# -- starts


def _trained(model: nn.Module) -> dict[str, Tensor]:
    return {name: own for name, own in model.named_parameters() if own.requires_grad}


def _uniform(shape: Sequence[int], inputs: int, generator: torch.Generator) -> Tensor:
    """As torch starts a layer of so many inputs."""
    bound = 1 / math.sqrt(inputs)
    return torch.empty(*shape, device="cpu").uniform_(-bound, bound, generator=generator)


def _start(module: nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        for own in module.parameters():
            own.copy_(_uniform(own.shape, max(1, own[0].numel()), generator))


def _network(sizes: Sequence[int], generator: torch.Generator) -> nn.Sequential:
    """Linear layers of these sizes with ReLU in between; a layer's weights and biases start as torch's own."""
    network = nn.Sequential()
    for place, (inputs, outputs) in enumerate(pairwise(sizes)):
        layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
        with torch.no_grad():
            for own in layer.parameters():
                own.copy_(_uniform(own.shape, inputs, generator))
        network.extend([layer, nn.ReLU()] if place < len(sizes) - 2 else [layer])
    return network


def _start_again(model: nn.Module, generator: torch.Generator) -> None:
    """Draws a model's parameters anew where its layers know how; their draws come from the global generator, put back."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=generator, device="cpu")))
        for module in model.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()


FAMILIES: Registry[Callable[..., Family]] = Registry("family of Pareto sets")
"""Families by their names; a function of ``(model, tasks, *, generator)`` and options of its own."""


def lorpman(
    model: nn.Module,
    tasks: int,
    *,
    rank: int = 4,
    scale: float = 1.0,
    orthogonal: float = 1.0,
    freeze: float | None = 0.5,
    generator: torch.Generator,
) -> LowRankUpdates:
    """:class:`LowRankUpdates` as LORPMAN has it."""
    made = LowRankUpdates(model, tasks, rank=rank, scale=scale, orthogonal=orthogonal, freeze=freeze, generator=generator)
    made.draw = "dirichlet"
    made.lr_factor = 1.0
    return made


FAMILIES.add("phn", Hypernetwork, aliases=("hypernetwork",))
FAMILIES.add("cosmos", ConditionedInput)
FAMILIES.add("film", ConditionedLayers, aliases=("yoto",))
FAMILIES.add("palora", LowRankUpdates)
FAMILIES.add("lorpman", lorpman)
FAMILIES.add("pamal", LinearSubspace)
