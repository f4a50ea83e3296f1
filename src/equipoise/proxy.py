"""Proxy: a Gramian that costs a fraction of the exact one, with a memory, and audits that say how good it is."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from equipoise.engine.proxy import Features, LastLayers, NamedWeights, ProxySource
from equipoise.errors import InputError, UnknownOptionError, near_misses
from equipoise.method import Nested
from equipoise.modules import find_module
from equipoise.states import Form, Listed, Maybe, Named, Number, Of, Text, Whole, read_state

__all__ = ["Audit", "Proxy", "as_proxy", "kept_source", "same_source"]


@dataclass(frozen=True)
class Audit:
    """What an exact Gramian of the same batch says of the proxy.

    Attributes:
        step: index of the step.
        source: where the proxy looked.
        direction: cosine between the direction with the proxy's weights and the exact one.
        weights: cosine between the two weight vectors.
    """

    step: int
    source: str
    direction: float
    weights: float


class Proxy:
    """Estimates the Gramian from a part of what the tasks share, in place of one backward pass per task.

    The heads are differentiated once, as in plain training, down to where the tasks' graphs meet. What the tasks' gradients of
    a few shared weights are to each other is then taken in closed form: for a linear map with inputs a and output gradients
    δ_k, task k's gradient is δ_kᵀa, of which a random sketch δ_kᵀ(a S) with ``columns`` columns is enough. One backward pass
    of the weighted gradients takes them through the rest.

    The result is the Gramian up to a factor, which is that of the last audit.

    Args:
        source: where to look. ``"last"``: the shared layer that ran last, together with all layers that write to the
            same residual stream; ``"last 2"``, ``"last 3"`` …: that many layers that ran last; ``"features"``: the activations
            at which the tasks part; ``"auto"``: the cheapest of these that reaches ``at_least`` in the first audits; a module,
            its dotted name, or a list of parameters; or an :class:`~equipoise.engine.proxy.ProxySource` such as
            ``LastLayers(1, stream=False)``.
        columns: of the sketch. A layer with no more inputs than that is taken exactly.
        memory: share of the average over earlier steps, from 0 (none) to below 1. Correlations are averaged as they are and
            norms by their logarithms, so a task is followed whatever its scale.
        audit: form the exact Gramian every so many steps, from the first one on, and use it in that step; 0 never. Left out,
            every 10 K steps, and at least 100, which costs at most a tenth of plain training.
        at_least: the cosine of directions below which an audit warns.
        fall_back: go on with the next better source after an audit below ``at_least``: more layers, then the exact Gramian.

    Raises:
        InputError: an argument that cannot be used.

    Example:
        >>> Proxy("last", memory=0.5)
        Proxy("last", memory=0.5)
    """

    def __init__(
        self,
        source: str | nn.Module | ProxySource | Iterable[Tensor] = "last",
        *,
        columns: int = 64,
        memory: float = 0.0,
        audit: int | None = None,
        at_least: float = 0.9,
        fall_back: bool = False,
    ) -> None:
        if columns < 1:
            raise InputError(f"columns must be a whole number from 1 on; got {columns}")
        if not 0 <= memory < 1:
            raise InputError(f"memory must be at least 0 and less than 1; got {memory}")
        if audit is not None and audit < 0:
            raise InputError(f"audit must be a number of steps, or 0 for none; got {audit}")
        if not isinstance(source, str | nn.Module | ProxySource):
            source = list(source)
            if not source or not all(isinstance(entry, Tensor) for entry in source):
                raise InputError("proxy must be a name, a module or a list of parameters; got a list of something else")
        self.source = source
        self.columns = columns
        self.memory = memory
        self.audit = audit
        self.at_least = at_least
        self.fall_back = fall_back
        self.chosen: str | None = None
        self.factor = 1.0
        self.steps = 0
        self._trials: dict[str, list[float]] = {}
        self._correlations: Tensor | None = None
        self._norms: Tensor | None = None
        self._seen: Tensor | None = None
        self._model: nn.Module | None = None
        self._sources: dict[str, ProxySource] = {}

    def attach(self, model: nn.Module | None) -> None:
        """Finds a module that was given by its name.

        Raises:
            InputError: the model has no such module, or there is no model to look in.
        """
        self._model = model
        self.look()

    @property
    def name(self) -> str:
        """Where it looks now, in words."""
        if self.chosen is not None:
            return self.chosen
        if isinstance(self.source, str):
            return self.source
        return f"{len(self.source)} parameters" if isinstance(self.source, list) else type(self.source).__name__

    @property
    def named(self) -> list[Tensor]:
        """The weights that the user names."""
        source = None if self.choosing else self.look()
        return source.given if isinstance(source, NamedWeights) else []

    def look(self, name: str | None = None) -> ProxySource | None:
        """Where it looks now, or the source of a name; ``None`` for the exact Gramian."""
        source = name or self.chosen or self.source
        if isinstance(source, str):
            if source not in self._sources and source not in ("exact", "auto"):
                self._sources[source] = self._named(source)
            return self._sources.get(source)
        if isinstance(source, ProxySource):
            return source
        return NamedWeights(source.parameters() if isinstance(source, nn.Module) else source)

    def _named(self, source: str) -> ProxySource:
        if source == "features":
            return Features()
        word, _, count = source.partition(" ")
        if word == "last" and (not count or count.isdigit()):
            return LastLayers(int(count or 1))
        if self._model is None:
            raise InputError(
                f'proxy="{source}" is neither "last", "last 2", "features", "auto" nor "exact"; a module is found by its name '
                f"by MultiTaskOptimizer only, so give the module itself"
            )
        return NamedWeights(find_module(self._model, source).parameters())

    # -- choice and audits

    @property
    def choosing(self) -> bool:
        """Whether the source is still to be chosen."""
        return self.source == "auto" and self.chosen is None

    def due(self, tasks: int) -> bool:
        """Whether the next step forms the exact Gramian."""
        if self.choosing or self.name == "exact":
            return True
        every = max(100, 10 * tasks) if self.audit is None else self.audit
        return every > 0 and self.steps % every == 0

    def candidates(self) -> tuple[str, ...]:
        """What ``"auto"`` chooses among, the cheapest first."""
        return ("features", "last", "last 2", "last 3")

    def tried(self, cosines: Mapping[str, float]) -> None:
        """Takes in the cosines of the candidates' directions on one batch; chooses after the third."""
        for name, cosine in cosines.items():
            self._trials.setdefault(name, []).append(cosine)
        if all(len(found) >= 3 for found in self._trials.values()):
            means = {name: sum(found) / len(found) for name, found in self._trials.items()}
            good = [name for name in self.candidates() if means.get(name, -1.0) >= self.at_least]
            self.chosen = good[0] if good else "exact"

    def better(self) -> None:
        """Goes on with the next better source."""
        order = ("features", "last", "last 2", "last 3", "exact")
        place = order.index(self.name) if self.name in order else 0
        self.chosen = order[min(place + 1, len(order) - 1)]
        self._correlations = self._norms = self._seen = None

    # -- memory

    def blend(self, gramian: Tensor, present: Sequence[int], tasks: int) -> Tensor:
        """The estimate for the tasks present, from this step's proxy ``[k, k]`` and those before."""
        self.steps += 1
        if not self.memory:
            return gramian * self.factor
        if self._correlations is None or self._norms is None or self._seen is None:
            self._correlations = torch.zeros(tasks, tasks, dtype=torch.float64, device="cpu")
            self._norms = torch.zeros(tasks, dtype=torch.float64, device="cpu")
            self._seen = torch.zeros(tasks, tasks, dtype=torch.bool, device="cpu")
        norms = gramian.diagonal().clamp(min=0).sqrt()
        scale = torch.where(norms > 0, norms, 1.0)
        correlations = gramian / torch.outer(scale, scale)
        index = torch.tensor(list(present), device="cpu")
        block = (index[:, None], index[None, :])
        alive = norms > 0
        both = torch.outer(alive, alive)
        seen, old = self._seen[block], self._correlations[block]
        mixed = torch.where(seen, self.memory * old + (1 - self.memory) * correlations, correlations)
        logs = scale.log()
        known = seen.diagonal()
        mixed_logs = torch.where(known, self.memory * self._norms[index] + (1 - self.memory) * logs, logs)
        self._correlations[block] = torch.where(both, mixed, old)
        self._norms[index] = torch.where(alive, mixed_logs, self._norms[index])
        self._seen[block] = seen | both
        size = torch.where(alive, mixed_logs.exp(), 0.0)
        return _positive(mixed) * torch.outer(size, size) * self.factor

    # -- state

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides how it continues."""
        copies = {name: None if value is None else value.clone() for name, value in self._tensors().items()}
        trials = {name: list(found) for name, found in self._trials.items()}
        return {"chosen": self.chosen, "factor": self.factor, "steps": self.steps, "trials": trials, **copies}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from a saved state.

        Raises:
            InputError: it is no state of a proxy.
        """
        read = self.read_state(state)
        self.chosen, self.factor, self.steps = read["chosen"], read["factor"], read["steps"]
        self._trials = {name: list(found) for name, found in read["trials"].items()}
        for name in self._tensors():
            setattr(self, f"_{name}", None if read[name] is None else read[name].clone())

    def read_state(self, state: Mapping[str, Any], sizes: dict[str, int] | None = None) -> dict[str, Any]:
        """A state as it is loaded; changes nothing. Raises InputError: it is none, or of another number of tasks."""
        kinds: dict[str, Form] = {
            "chosen": Maybe(Text()),
            "factor": Number(0.0),
            "steps": Whole(),
            "trials": Named(Listed(Number(finite=False))),
            "correlations": Maybe(Of(("K", "K"), cpu=True), "memory"),
            "norms": Maybe(Of(("K",), cpu=True), "memory"),
            "seen": Maybe(Of(("K", "K"), torch.bool, cpu=True), "memory"),
        }
        read = read_state("a proxy", state, kinds, sizes)
        known = self.candidates()
        for name in (*read["trials"], *([] if read["chosen"] in (None, "exact") else [read["chosen"]])):
            if name not in known:
                raise InputError(f'the state of a proxy names a source "{name}"; the sources are {", ".join(known)} and exact')
        if len({read[name] is None for name in self._tensors()}) > 1:
            raise InputError("the state of a proxy holds a part of its memory only")
        return read

    def _tensors(self) -> dict[str, Tensor | None]:
        return {"correlations": self._correlations, "norms": self._norms, "seen": self._seen}

    def __repr__(self) -> str:
        shown = f'"{self.source}"' if isinstance(self.source, str) else self.name
        return f"Proxy({shown}" + (f", memory={self.memory}" if self.memory else "") + ")"


def _positive(correlations: Tensor) -> Tensor:
    """The nearest that inner products can be: pairs of tasks that were seen at different times need not fit together."""
    unit = torch.eye(len(correlations), dtype=correlations.dtype, device="cpu")
    if not int(torch.linalg.cholesky_ex(correlations + 1e-9 * unit)[1]):
        return correlations
    values, vectors = torch.linalg.eigh(correlations)
    found: Tensor = (vectors * values.clamp(min=0)) @ vectors.T
    before, after = correlations.diagonal().clamp(min=0).sqrt(), found.diagonal().sqrt()
    factors = torch.where(after > 0, before / after.clamp(min=torch.finfo(after.dtype).tiny), 0.0)
    return found.mul_(torch.outer(factors, factors))


def kept_source(given: Any) -> Any:
    """What a proxy is asked for with, such that it can be looked at twice: parameters as a list."""
    return given if given is None or isinstance(given, str | nn.Module | Nested | Proxy | ProxySource) else list(given)


def same_source(given: Any, before: Any) -> bool:
    """Whether a proxy is asked for as it was before: by an equal name, the same module, or the same parameters."""
    if isinstance(given, str) or isinstance(before, str):
        return isinstance(given, str) and isinstance(before, str) and given == before
    if isinstance(given, Sequence) and isinstance(before, Sequence):
        return len(given) == len(before) and all(a is b for a, b in zip(given, before, strict=True))
    return given is before


def as_proxy(given: Proxy | Nested | ProxySource | str | nn.Module | Iterable[Tensor] | None) -> Proxy | None:
    """Takes a :class:`Proxy`, or what it is made from; ``None`` and ``"exact"`` mean the exact Gramian.

    Raises:
        InputError: it cannot be made from that.
    """
    if isinstance(given, Nested):
        options = dict(given.options)
        layers = options.pop("layers", None)
        known = inspect.signature(Proxy).parameters.keys() - {"source"} | {"layers"}
        for option in options:
            if option not in known:
                raise UnknownOptionError(
                    f'a proxy has no option "{option}".{near_misses(option, sorted(known))} Its options: '
                    f"{', '.join(sorted(known))}"
                )
        given = Proxy(given.name if layers is None else f"{given.name} {layers}", **options)
    if given is None or (isinstance(given, str) and given == "exact"):
        return None
    return given if isinstance(given, Proxy) else Proxy(given)
