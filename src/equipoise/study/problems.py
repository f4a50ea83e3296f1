"""The problems of digits, and what a user types for one: a name, ``path/to/file.py:name`` or ``package.module:name``."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equipoise.data.digits import digits, digits_pair
from equipoise.errors import EquipoiseError, InputError, near_misses, refuse_unknown_options
from equipoise.method import read_options, settled
from equipoise.metrics import Metric
from equipoise.nets import DigitsNet
from equipoise.options import checked, kinds_of
from equipoise.registry import Registry, folded
from equipoise.study.equations import burgers_problem, poisson_problem
from equipoise.study.problem import Built, Problem, Splits
from equipoise.study.qm9 import qm9_problem

__all__ = ["PROBLEMS", "digits_pair_problem", "digits_problem", "find_problem", "problems"]


def digits_problem() -> Problem:
    """Two digits on one canvas: which (twice), their sum, and the ratio of their ink.

    Classes are learned by cross-entropy and judged by accuracy, numbers by squared error and judged by mean absolute
    error; Adam 1e-3, batches of 128, 20 epochs.

    Example:
        >>> [metric.heading for metric in digits_problem().metrics]
        ['left accuracy (%) ↑', 'right accuracy (%) ↑', 'sum error ↓', 'ink error ↓']
    """
    return Problem(
        name="digits",
        tasks=("left", "right", "sum", "ink"),
        metrics=(
            Metric("left", "left", higher_is_better=True, unit="%", label="left accuracy"),
            Metric("right", "right", higher_is_better=True, unit="%", label="right accuracy"),
            Metric("sum", "sum", higher_is_better=False, label="sum error"),
            Metric("ink", "ink", higher_is_better=False, label="ink error"),
        ),
        build=_build,
        data=_data,
        evaluate=_evaluate,
        optimizer=_optimizer,
        parts=_parts,
        epochs=20,
        options={"batch_size": 128, "optimizer": "Adam, 1e-3"},
        preload=("sklearn.datasets",),
    )


def digits_pair_problem() -> Problem:
    """Two digits that hide each other: which are they? After MultiMNIST, see :func:`equipoise.data.digits_pair`.

    Learned by cross-entropy and judged by accuracy; Adam 1e-3, batches of 128, 20 epochs.

    Example:
        >>> [metric.heading for metric in digits_pair_problem().metrics]
        ['left accuracy (%) ↑', 'right accuracy (%) ↑']
    """
    four = digits_problem()
    return replace(
        four,
        name="digits-pair",
        tasks=four.tasks[:2],
        metrics=four.metrics[:2],
        build=_build_pair,
        data=_data_of_pairs,
        options={**four.options, "canvas": 10},
    )


def _build(seed: int) -> Built:
    return DigitsNet(), _losses


def _build_pair(seed: int) -> Built:
    return DigitsNet(10, ("left", "right")), _losses


def _data_of_pairs(seed: int) -> Splits:
    return Splits(*digits_pair().loaders(seed))


def _losses(model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    out = model(batch["image"])
    kinds: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "left": F.cross_entropy,
        "right": F.cross_entropy,
        "sum": F.mse_loss,
        "ink": F.mse_loss,
    }
    return {task: kinds[task](own, batch[task]) for task, own in out.items()}


def _optimizer(model: nn.Module) -> torch.optim.Optimizer:
    # One fused kernel: for a network this small the plain loop over tensors is a sixth of the whole step.
    return torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)


def _parts(model: nn.Module) -> dict[str, Any]:
    return {"features": model.encoder, "heads": dict(cast(nn.ModuleDict, model.heads))}


def _data(seed: int) -> Splits:
    return Splits(*digits().loaders(seed))


def _evaluate(model: nn.Module, loader: Iterable[Any]) -> dict[str, float]:
    totals: dict[str, float] = {}
    rows = 0
    for batch in loader:
        rows += len(batch["image"])
        for task, own in model(batch["image"]).items():
            if task in ("left", "right"):
                judged = float((own.argmax(1) == batch[task]).sum()) * 100
            else:
                judged = float((own - batch[task]).abs().double().sum())
            totals[task] = totals.get(task, 0.0) + judged
    return {task: total / rows for task, total in totals.items()}


_T = TypeVar("_T")

PROBLEMS: Registry[object] = Registry(
    "problem",
    group="equipoise.problems",
    read=lambda name, thing: thing,  # what it is, is seen when it is asked for: that may take long
    owner=lambda thing: getattr(thing, "__qualname__", None) or getattr(thing, "name", repr(thing)),
    error=InputError,
    hint="; for one of your own give path/to/file.py:name or package.module:name",
)
"""Problems by name, or functions that make them."""

PROBLEMS.add("digits", digits_problem)
PROBLEMS.add("digits-pair", digits_pair_problem)
PROBLEMS.add("qm9", qm9_problem)
PROBLEMS.add("poisson", poisson_problem)
PROBLEMS.add("burgers", burgers_problem)
_OF_THE_PAPERS = ("scenes", "scenes-mtan", "scenes-streets")


def problems() -> tuple[str, ...]:
    """Names of the problems that come with the library, then of those that other distributions bring."""
    return PROBLEMS.known()


def find_problem(where: str) -> Problem:
    """Finds a problem by what a user typed.

    Args:
        where: a problem's name: of the library, or of a distribution that brings one by an entry point of the group
            ``equipoise.problems``, which names a :class:`Problem` or a function that returns one; or
            ``path/to/file.py:name`` or ``package.module:name``, where ``name`` is likewise one of these (``problem`` if
            left out). A function's arguments stand behind a colon, as a method's options do: ``qm9:train=2000,test=500``.

    Raises:
        InputError: there is no such problem, file, module or name, or it is no problem; or an option that it does not take.

    Example:
        >>> find_problem("digits").tasks
        ('left', 'right', 'sum', 'ink')
    """
    divided = re.search(r":(?=\s*[A-Za-z_]\w*\s*=)", where)
    options = read_options(where[divided.end() :], where, "problem") if divided else {}
    where = where[: divided.start()] if divided else where
    source, colon, name = where.rpartition(":")
    if not colon or name.endswith(".py"):
        source, name = where, "problem"
    if source.endswith(".py"):
        module = _from_file(Path(source))
    elif colon:
        try:
            module = _imported(source)
        except InputError as error:
            if folded(source) in problems():
                raise InputError(f'"{where}" names no option; write "{source}:option=value", or "{source}" alone') from error
            raise
    else:
        if folded(where) in _OF_THE_PAPERS and folded(where) not in problems():
            raise InputError(
                f'the problem "{where}" comes with equipoise-papers, which is not installed; '
                "from a clone of the repository: pip install ./papers"
            )
        return _taken(PROBLEMS.find(where), where, options)
    if not hasattr(module, name):
        names = [key for key, value in vars(module).items() if isinstance(value, Problem)] or list(vars(module))
        raise InputError(f'"{source}" defines no "{name}".{near_misses(name, names)}')
    return _taken(getattr(module, name), f'{name}" in "{source}', options)


def _taken(found: object, what: str, options: Mapping[str, Any]) -> Problem:
    """The problem that was found, or that the function found returns."""
    known = inspect.signature(found).parameters if callable(found) else {}
    refuse_unknown_options(what, options, known, "problem")
    if callable(found):
        found = found(**checked(kinds_of(found), settled(options), f'problem "{what}"'))
    if not isinstance(found, Problem):
        raise InputError(
            f'"{what}" is a {type(found).__name__}; expected an equipoise.study.Problem or a function without arguments '
            "that returns one"
        )
    return found


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f'there is no file "{path}" to take the problem from')
    # As for a script: what lies beside the file can be imported by it.
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return _loading(str(path), lambda: _executed(path))


def _executed(path: Path) -> ModuleType:
    name = f"equipoise_problem_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look the module up while it is being executed
    spec.loader.exec_module(module)
    # Nobody else can import a module of this name, so its functions travel to the runs by value.
    import cloudpickle

    cloudpickle.register_pickle_by_value(module)
    return module


def _imported(name: str) -> ModuleType:
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    return _loading(name, lambda: importlib.import_module(name))


def _loading(what: str, load: Callable[[], _T]) -> _T:
    try:
        return load()
    except EquipoiseError:
        raise
    except Exception as error:
        raise InputError(f'"{what}" cannot be loaded: {type(error).__name__}: {error}') from error
