"""From what a user types to a problem: a built-in name, ``path/to/file.py:name`` or ``package.module:name``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

from equipoise.errors import EquipoiseError, InputError, near_misses
from equipoise.study.problem import Problem
from equipoise.study.problems.digits import digits_problem
from equipoise.study.problems.scenes import scenes_problem

__all__ = ["find_problem", "problems"]

_builtin: dict[str, Callable[[], Problem]] = {
    "digits": digits_problem,
    "scenes": scenes_problem,
    "scenes-mtan": partial(scenes_problem, network="segnet-mtan"),
    "scenes-streets": partial(scenes_problem, "streets", size=(64, 128)),
}


def problems() -> tuple[str, ...]:
    """Names of the problems that come with the library."""
    return tuple(_builtin)


def find_problem(where: str) -> Problem:
    """Finds a problem by what a user typed.

    Args:
        where: a built-in name; or ``path/to/file.py:name`` or ``package.module:name``, where ``name`` is a
            :class:`Problem` or a function without arguments that returns one (``problem`` if left out).

    Raises:
        InputError: there is no such problem, file, module or name, or it is no problem.

    Example:
        >>> find_problem("digits").tasks
        ('left', 'right', 'sum', 'ink')
    """
    if where in _builtin:
        return _builtin[where]()
    source, colon, name = where.rpartition(":")
    if not colon or name.endswith(".py"):
        source, name = where, "problem"
    if source.endswith(".py"):
        module = _from_file(Path(source))
    elif colon:
        module = _imported(source)
    else:
        raise InputError(
            f'there is no problem "{where}".{near_misses(where, _builtin)} Known: {", ".join(_builtin)}; for one of '
            "your own give path/to/file.py:name or package.module:name"
        )
    if not hasattr(module, name):
        names = [key for key, value in vars(module).items() if isinstance(value, Problem)] or list(vars(module))
        raise InputError(f'"{source}" defines no "{name}".{near_misses(name, names)}')
    found = getattr(module, name)
    if callable(found):
        found = found()
    if not isinstance(found, Problem):
        raise InputError(
            f'"{name}" in "{source}" is a {type(found).__name__}; expected an equipoise.study.Problem or a function '
            "without arguments that returns one"
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


def _loading(what: str, load: Callable[[], ModuleType]) -> ModuleType:
    try:
        return load()
    except EquipoiseError:
        raise
    except Exception as error:
        raise InputError(f'"{what}" cannot be loaded: {type(error).__name__}: {error}') from error
