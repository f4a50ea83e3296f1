"""What a saved state may hold, declared entry by entry and checked before anything of it is used.

An object that saves itself names its entries and the :class:`Form` of each. :func:`read_state` holds a state against that and
gives the entries in their normal form, so that loading changes everything or nothing. Shapes are written with letters,
``("K", "P")``: one letter has one size throughout a state.
"""

from __future__ import annotations

import math
import numbers
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from equipoise.errors import InputError

__all__ = [
    "Anything",
    "Fields",
    "Form",
    "Generator",
    "Listed",
    "Maybe",
    "Moments",
    "Named",
    "Number",
    "Of",
    "Switch",
    "Text",
    "Together",
    "Whole",
    "like",
    "read_entry",
    "read_model",
    "read_optimizer",
    "read_state",
    "tasks_known",
]

Sizes = dict[str, int]


class _Unfit(Exception):
    """What was found where something else was expected."""


class Form(ABC):
    """What one entry may be."""

    @abstractmethod
    def read(self, value: Any, sizes: Sizes) -> Any:
        """The value in its normal form. Raises what becomes an InputError: it is of another kind."""


@dataclass(frozen=True)
class Anything(Form):
    """Whatever it is: what a user's own object keeps, a batch."""

    def read(self, value: Any, sizes: Sizes) -> Any:
        """As it is."""
        return value


@dataclass(frozen=True)
class Number(Form):
    """A number, from ``least`` on; a finite one, unless said otherwise."""

    least: float = -math.inf
    finite: bool = True

    def read(self, value: Any, sizes: Sizes) -> float:
        """As a float."""
        real = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not real or (self.finite and not math.isfinite(value)) or value < self.least:
            raise _Unfit(
                f"a {'finite ' if self.finite else ''}number{'' if self.least == -math.inf else f' from {self.least:g} on'}"
            )
        return float(value)


@dataclass(frozen=True)
class Whole(Form):
    """A whole number, from ``least`` on."""

    least: int = 0

    def read(self, value: Any, sizes: Sizes) -> int:
        """As an int."""
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < self.least:
            raise _Unfit(f"a whole number from {self.least} on")
        return int(value)


@dataclass(frozen=True)
class Switch(Form):
    """``True`` or ``False``."""

    def read(self, value: Any, sizes: Sizes) -> bool:
        """As it is."""
        if not isinstance(value, bool):
            raise _Unfit("True or False")
        return value


@dataclass(frozen=True)
class Text(Form):
    """A text, or one of a few."""

    among: tuple[str, ...] = ()

    def read(self, value: Any, sizes: Sizes) -> str:
        """As it is."""
        if not isinstance(value, str) or (self.among and value not in self.among):
            raise _Unfit(f"one of {', '.join(self.among)}" if self.among else "a text")
        return value


@dataclass(frozen=True)
class Of(Form):
    """A dense tensor.

    Attributes:
        shape: sizes, and letters for sizes that a state decides; ``None`` for any shape.
        dtype: its dtype; ``None`` for any real floating-point one.
        least: no entry may be below.
        most: nor above.
        nan: whether entries may be not a number (which often stands for what is not known yet).
        inf: whether they may be infinite.
        cpu: it is worked on there, wherever it was loaded to.
    """

    shape: tuple[int | str, ...] | None = None
    dtype: torch.dtype | None = torch.float64
    least: float = -math.inf
    most: float = math.inf
    nan: bool = False
    inf: bool = False
    cpu: bool = False

    def read(self, value: Any, sizes: Sizes) -> Tensor:
        """Without a graph, on the CPU if it has to be."""
        named = "real" if self.dtype is None else str(self.dtype).removeprefix("torch.")
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.device.type == "meta":
            raise _Unfit(f"a dense {named} tensor")
        if value.dtype != self.dtype if self.dtype is not None else not value.is_floating_point():
            raise _Unfit(f"a {named} tensor")
        if self.shape is not None:
            self._fit(value, sizes)
        value = value.detach()
        if value.is_floating_point() and value.numel():
            bad = (torch.isnan(value) & (not self.nan)) | (torch.isinf(value) & (not self.inf))
            if bool(bad.any()):
                raise _Unfit("finite numbers" if not self.nan else "numbers that are not infinite")
            if self.least > -math.inf or self.most < math.inf:
                known = value.nan_to_num(nan=max(self.least, 0.0), posinf=math.inf, neginf=-math.inf)
                if float(known.min()) < self.least or float(known.max()) > self.most:
                    raise _Unfit(f"numbers from {self.least:g}" + (f" to {self.most:g}" if self.most < math.inf else " on"))
        read: Tensor = value.cpu() if self.cpu else value
        return read

    def _fit(self, value: Tensor, sizes: Sizes) -> None:
        assert self.shape is not None
        found = dict(sizes)
        fits = value.dim() == len(self.shape)
        for size, expected in zip(value.shape, self.shape, strict=False):
            known = found.setdefault(expected, size) if isinstance(expected, str) else expected
            fits = fits and size == known and (size > 0 or expected == "P")
        if not fits:
            letters = [f"{name} = {sizes[name]}" for name in dict.fromkeys(self.shape) if name in sizes]
            shape = f"[{', '.join(map(str, self.shape))}]" + (f" with {', '.join(letters)}" if letters else "")
            raise _Unfit(f"a tensor of the shape {shape}")
        sizes.update(found)


@dataclass(frozen=True)
class Moments(Of):
    """Adam's state of a vector ``[3, K]``: first moments, second moments and step counts, the latter two from 0 on."""

    def read(self, value: Any, sizes: Sizes) -> Tensor:
        """As any tensor."""
        read: Tensor = super().read(value, sizes)
        if float(read[1:].min()) < 0:
            raise _Unfit("second moments and step counts from 0 on")
        return read


@dataclass(frozen=True)
class Maybe(Form):
    """``None`` before there is anything; entries of one group are ``None`` together."""

    kind: Form
    group: str = ""

    def read(self, value: Any, sizes: Sizes) -> Any:
        """``None``, or what the kind reads."""
        return None if value is None else self.kind.read(value, sizes)


@dataclass(frozen=True)
class Listed(Form):
    """Entries of one kind, as a tuple."""

    kind: Form
    count: int | None = None
    apart: bool = False
    """Whether letters have sizes of their own in each entry."""

    def read(self, value: Any, sizes: Sizes) -> tuple[Any, ...]:
        """As a tuple."""
        if not isinstance(value, list | tuple) or (self.count is not None and len(value) != self.count):
            raise _Unfit("a list" if self.count is None else f"a list of {self.count}")
        return tuple(self.kind.read(entry, dict(sizes) if self.apart else sizes) for entry in value)


@dataclass(frozen=True)
class Named(Form):
    """Entries of one kind by names, each with sizes of its own."""

    kind: Form
    among: tuple[str, ...] = ()

    def read(self, value: Any, sizes: Sizes) -> dict[str, Any]:
        """As a dictionary."""
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            raise _Unfit("a mapping from names")
        for name in value:
            if self.among and name not in self.among:
                raise _Unfit(f"names among {', '.join(self.among)}")
        return {name: self.kind.read(entry, dict(sizes)) for name, entry in value.items()}


@dataclass(frozen=True)
class Together(Form):
    """Several entries of a tuple, each of its own kind."""

    kinds: tuple[Form, ...]

    def read(self, value: Any, sizes: Sizes) -> tuple[Any, ...]:
        """As a tuple."""
        if not isinstance(value, list | tuple) or len(value) != len(self.kinds):
            raise _Unfit(f"a list of {len(self.kinds)}")
        return tuple(kind.read(entry, sizes) for kind, entry in zip(self.kinds, value, strict=True))


@dataclass(frozen=True)
class Fields(Form):
    """A state inside another."""

    kinds: Mapping[str, Form]

    def read(self, value: Any, sizes: Sizes) -> dict[str, Any]:
        """As a dictionary."""
        if not isinstance(value, Mapping) or set(value) != set(self.kinds):
            raise _Unfit(f"a mapping of {', '.join(self.kinds)}")
        return {name: kind.read(value[name], sizes) for name, kind in self.kinds.items()}


@dataclass(frozen=True)
class Generator(Form):
    """The state of a generator of random numbers, of torch (of this device) or of NumPy (of this class)."""

    of: Any = "cpu"

    def read(self, value: Any, sizes: Sizes) -> Any:
        """Such that the generator takes it; torch's on the CPU, wherever it was loaded to."""
        if not isinstance(self.of, str):
            twin = type(self.of)()
            try:
                twin.state = value
            except Exception:
                raise _Unfit(f"the state of a {type(self.of).__name__}") from None
            if value["state"].keys() != twin.state["state"].keys():
                raise _Unfit(f"the state of a {type(self.of).__name__}")
            return value
        value = value.cpu() if isinstance(value, Tensor) and value.device.type != "meta" else value
        try:
            torch.Generator(self.of).set_state(value)
        except (TypeError, RuntimeError, AttributeError):
            raise _Unfit("the state of a torch.Generator") from None
        return value


def like(present: Any) -> Form:
    """The kind of what an object holds at present, as far as that tells."""
    if isinstance(present, torch.Generator):
        return Generator(str(present.device))
    if isinstance(present, np.random.Generator):
        return Generator(present.bit_generator)
    if isinstance(present, bool):
        return Switch()
    if isinstance(present, int):
        return Whole(least=-(2**63))
    if isinstance(present, float):
        return Number(finite=False)
    if isinstance(present, str):
        return Text()
    return Anything()


def tasks_known(kind: Form, present: Any, sizes: Sizes) -> None:
    """Notes K where an object remembers something of its tasks already: it cannot go on with another number of them."""
    own = kind.kind if isinstance(kind, Maybe) else kind
    if isinstance(own, Of) and own.shape is not None and "K" in own.shape and isinstance(present, Tensor):
        sizes.setdefault("K", present.shape[own.shape.index("K")])


def read_entry(whose: str, name: str, kind: Form, value: Any, sizes: Sizes | None = None) -> Any:
    """One entry in its normal form.

    Raises:
        InputError: it is of another kind.
    """
    try:
        return kind.read(value, {} if sizes is None else sizes)
    except _Unfit as error:
        raise InputError(f'the state of {whose} must hold {error} as "{name}"; it holds {_short(value)}') from None
    except Exception as error:  # what a hostile object raises when it is looked at
        raise InputError(f'the state of {whose} holds something unreadable as "{name}": {type(error).__name__}') from None


def read_state(whose: str, state: Any, kinds: Mapping[str, Form], sizes: Sizes | None = None) -> dict[str, Any]:
    """The entries of a state in their normal form; changes nothing.

    Args:
        whose: what the state is of, for messages.
        state: the state.
        kinds: what each entry may be.
        sizes: known sizes by letter; those that the state decides are added.

    Raises:
        InputError: entries are missing, of unknown names, of another kind, or do not fit together.

    Example:
        >>> read_state("a Counter", {"steps": 3}, {"steps": Whole()})
        {'steps': 3}
        >>> read_state("a Counter", {"steps": "3"}, {"steps": Whole()})
        Traceback (most recent call last):
            ...
        equipoise.errors.InputError: the state of a Counter must hold a whole number from 0 on as "steps"; it holds '3'
    """
    if not isinstance(state, Mapping):
        raise InputError(f"the state of {whose} must be a mapping; got {type(state).__name__}")
    if set(state) != set(kinds):
        raise InputError(f"{whose} keeps the state {sorted(kinds)}; the one given holds {sorted(map(str, state))}")
    sizes = {} if sizes is None else sizes
    read = {name: read_entry(whose, name, kind, state[name], sizes) for name, kind in kinds.items()}
    groups: dict[str, list[str]] = {}
    for name, kind in kinds.items():
        if isinstance(kind, Maybe) and kind.group:
            groups.setdefault(kind.group, []).append(name)
    for names in groups.values():
        if len({read[name] is None for name in names}) > 1:
            raise InputError(f"the state of {whose} must hold all of {', '.join(names)} or none; it holds some of them")
    return read


def read_model(whose: str, state: Any, present: Mapping[str, Any]) -> Mapping[str, Any]:
    """A model's state, compared with the one it has at present.

    Raises:
        InputError: other names, something that is no tensor in the place of one, other shapes, or numbers of another kind.
    """
    if not isinstance(state, Mapping):
        raise InputError(f"the state of {whose} must be a mapping from names to tensors; got {type(state).__name__}")
    missing, unknown = [name for name in present if name not in state], [str(name) for name in state if name not in present]
    if missing or unknown:
        what = f"lacks {', '.join(missing[:3])}" if missing else f"has {', '.join(unknown[:3])}, which is not there"
        raise InputError(f"the state is of another model than {whose}: it {what}")
    for name, own in present.items():
        value = state[name]
        if not isinstance(own, Tensor) or isinstance(own, UninitializedBuffer | UninitializedParameter):
            continue  # extra state, which only the module itself can read; layers that do not know their size yet
        fits = isinstance(value, Tensor) and value.shape == own.shape and value.layout == own.layout and _there(value)
        if not fits or (value.is_floating_point(), value.is_complex()) != (own.is_floating_point(), own.is_complex()):
            raise InputError(
                f"the state of {whose} must hold a {str(own.dtype).removeprefix('torch.')} tensor of the shape "
                f'{list(own.shape)} as "{name}"; it holds {_short(value)}'
            )
    return state


def read_optimizer(whose: str, state: Any, optimizer: torch.optim.Optimizer, *, finite: bool = False) -> Mapping[str, Any]:
    """A torch optimizer's state, compared with the optimizer; with ``finite``, averages must be finite real numbers.

    Raises:
        InputError: other groups or parameters, options of another kind, or averages of other shapes than the parameters.
    """
    if not isinstance(state, Mapping) or not {"state", "param_groups"} <= set(state):
        raise InputError(f"the state of {whose} must be that of a torch optimizer; got {_short(state)}")
    groups, entries = state["param_groups"], state["state"]
    mine = optimizer.param_groups
    if not isinstance(groups, list | tuple) or len(groups) != len(mine) or not isinstance(entries, Mapping):
        raise InputError(f"the state of {whose} must have {len(mine)} groups of parameters; it is that of another optimizer")
    parameters: dict[Any, Tensor] = {}
    for place, (group, own) in enumerate(zip(groups, mine, strict=True)):
        ids = group.get("params") if isinstance(group, Mapping) else None
        if not isinstance(ids, list | tuple) or len(ids) != len(own["params"]):
            raise InputError(f"group {place} of {whose} has {len(own['params'])} parameters; the state is of another optimizer")
        parameters.update({_key(number): tensor for number, tensor in zip(ids, own["params"], strict=True)})
        for name, value in own.items():
            if name != "params" and (name not in group or not _alike(group[name], value)):
                there = _short(group[name]) if name in group else "nothing"
                raise InputError(f'the state of {whose} must hold something like {_short(value)} as "{name}"; it holds {there}')
    # What else an optimizer keeps per parameter need not have its shape; most of torch's own do.
    others = ("Adafactor", "LBFGS", "Muon")
    strict = type(optimizer).__module__.startswith("torch.optim") and type(optimizer).__name__ not in others
    for number, entry in entries.items():
        tensor = parameters.get(_key(number))
        if tensor is None or not isinstance(entry, Mapping):
            raise InputError(f"the state of {whose} has an entry {_short(number)}, which is of no parameter")
        known = optimizer.state.get(tensor, {})
        for name, value in entry.items():
            own = known.get(name)
            shapes = [own.shape] if isinstance(own, Tensor) else [tensor.shape, torch.Size([]), torch.Size([1])]
            wrong = not isinstance(name, str) or (strict and not isinstance(value, Tensor | numbers.Real | None))
            if isinstance(value, Tensor):
                wrong = wrong or value.layout != torch.strided or not _there(value)
                wrong = wrong or (strict and (value.shape not in shapes or value.is_complex() > tensor.is_complex()))
                wrong = wrong or (finite and not (value.is_floating_point() and bool(torch.isfinite(value).all())))
            if wrong:
                raise InputError(f'the state of {whose} holds {_short(value)} as "{name}" of a parameter {list(tensor.shape)}')
    return state


def _there(value: Tensor) -> bool:
    """Whether a tensor has values, which it has not on the device "meta"."""
    return value.device.type != "meta"


def _key(number: Any) -> Any:
    return number if isinstance(number, int | str) else None


def _alike(given: Any, own: Any) -> bool:
    """Whether an option may stand for another: numbers for numbers, nothing for anything and the other way round."""
    if given is None and isinstance(own, numbers.Real) and not isinstance(own, bool):
        return False
    if own is None:
        return given is None or isinstance(given, bool | float)
    if isinstance(given, float) and math.isnan(given):
        return False
    if given is None or type(given) is type(own):
        pairs = isinstance(own, list | tuple) and given is not None
        return not pairs or (len(given) == len(own) and all(map(_alike, given, own)))
    if isinstance(given, list | tuple) and isinstance(own, list | tuple):
        return len(given) == len(own) and all(map(_alike, given, own))
    real = (numbers.Real, np.number, Tensor)
    one = not isinstance(given, Tensor) or given.numel() == 1
    return one and isinstance(given, real) and isinstance(own, real) and isinstance(given, bool) == isinstance(own, bool)


def _short(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor of the shape {list(value.shape)}"
    text = " ".join(repr(value).split()) if isinstance(value, int | float | str | None) else f"a {type(value).__name__}"
    return text if len(text) <= 40 else text[:37] + "..."
