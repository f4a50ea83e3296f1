"""Every error that equipoise raises on purpose, and the helpers that word them.

All of them derive from :class:`EquipoiseError`, and each also from the built-in exception that a caller would expect, so
that ``except ValueError`` keeps working. Messages are one line: what was given, what was expected, what to do.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import os
import sys
from collections.abc import Iterable, Mapping
from types import ModuleType

__all__ = [
    "DataSetError",
    "EquipoiseError",
    "InputError",
    "MissingExtraError",
    "NonFiniteError",
    "StorageError",
    "UnknownMethodError",
    "UnknownOptionError",
    "UnknownTaskError",
    "near_misses",
    "refuse_unknown_options",
    "require",
]


class EquipoiseError(Exception):
    """Base class of all errors raised by equipoise."""


class InputError(EquipoiseError, ValueError):
    """An argument that cannot be used as it was given."""


class DataSetError(InputError):
    """Files of a data set that are missing, or that are not what their layout says; the message says where to get them."""


class UnknownTaskError(InputError):
    """A task name that was neither declared nor seen in the first step."""


class UnknownMethodError(InputError):
    """A balancing method that is not in the registry."""


class UnknownOptionError(InputError):
    """An option that the chosen method does not have."""


class NonFiniteError(EquipoiseError, ArithmeticError):
    """A loss or a gradient was infinite or not a number; nothing had been changed when this was raised.

    Attributes:
        tasks: names of the tasks whose loss or gradient is not finite.
        step: index of the step, counted from 0, that was not taken.
        what: ``"loss"`` or ``"gradient"``; ``"weight"`` or ``"direction"`` where a balancer's answer was not finite.
    """

    def __init__(self, message: str, *, tasks: tuple[str, ...], step: int, what: str) -> None:
        super().__init__(message)
        self.tasks = tasks
        self.step = step
        self.what = what


_REMEDIES = {
    errno.ENOSPC: "free some space and start again",
    errno.EDQUOT: "free some space and start again",
    errno.EFBIG: "allow larger files, or give another folder",
    errno.EACCES: "give a folder that you may write to",
    errno.EPERM: "give a folder that you may write to",
    errno.EROFS: "give a folder that you may write to",
    errno.ENOTDIR: "a part of the path is a file; give another",
    errno.ELOOP: "a link stands in the way; take it away, or give another folder",
}


class StorageError(EquipoiseError, OSError):
    """A file or folder that cannot be written: no space, no permission, a file in the place of a folder.

    Args:
        path: what was to be written.
        why: what the operating system, or a library that writes, said.
    """

    def __init__(self, path: str | os.PathLike[str], why: BaseException) -> None:
        number = why.errno if isinstance(why, OSError) else None
        said = (why.strerror if isinstance(why, OSError) else None) or " ".join(str(why).split()) or type(why).__name__
        remedy = _REMEDIES.get(number or 0, "give another folder")
        super().__init__(f'"{os.fspath(path)}" cannot be written ({said}); {remedy}')
        self.errno = number


class MissingExtraError(EquipoiseError, ImportError):
    """A feature needs a package that is not installed; the message names the extra to install."""


def near_misses(word: str, possibilities: Iterable[str]) -> str:
    """Words the suggestion at the end of an error message.

    Args:
        word: what was given.
        possibilities: what would have been accepted.

    Returns:
        A sentence with a leading space, or an empty string when nothing is similar.

    Example:
        >>> near_misses("fairgard", ["fairgrad", "famo", "mgda"])
        ' Did you mean "fairgrad"?'
        >>> near_misses("xyz", ["fairgrad"])
        ''
    """
    close = difflib.get_close_matches(word.lower(), list(possibilities), n=3, cutoff=0.5)
    quoted = " or ".join(f'"{name}"' for name in close)
    return f" Did you mean {quoted}?" if close else ""


def refuse_unknown_options(method: str, given: Iterable[str], options: Mapping[str, object]) -> None:
    """Raises if a method is given an option that it does not have.

    Args:
        method: its name.
        given: names of options.
        options: those that it has.

    Raises:
        UnknownOptionError: there is no such option; near misses are suggested.

    Example:
        >>> refuse_unknown_options("fairgrad", ["alhpa"], {"alpha": 1.0})
        Traceback (most recent call last):
            ...
        equipoise.errors.UnknownOptionError: method "fairgrad" has no option "alhpa". Did you mean "alpha"? Its options: alpha
    """
    for option in given:
        if option not in options:
            has = f"Its options: {', '.join(options)}" if options else "It has none"
            raise UnknownOptionError(f'method "{method}" has no option "{option}".{near_misses(option, options)} {has}')


def require(module: str, extra: str, distribution: str = "equipoise") -> ModuleType:
    """Imports an optional dependency or says which extra brings it.

    Args:
        module: dotted name of the module to import.
        extra: the extra that installs it.
        distribution: whose extra that is.

    Returns:
        The imported module.

    Raises:
        MissingExtraError: the module cannot be imported.

    Example:
        >>> require("json", "study").__name__
        'json'
    """
    package = module.partition(".")[0]
    try:
        return _imported(module, package)
    except Exception as error:  # what is broken, or built for other versions, raises anything
        said = " ".join(str(error).split()) or type(error).__name__
        raise MissingExtraError(
            f'"{package}" is needed for this and cannot be imported ({said}); '
            f'install it with: pip install "{distribution}[{extra}]"'
        ) from error


def _imported(module: str, package: str) -> ModuleType:
    # Pictures are drawn without a backend, and one that is not there, as a notebook leaves in the environment of what it
    # starts, must not keep matplotlib from being imported.
    backend = os.environ.get("MPLBACKEND") if package == "matplotlib" and package not in sys.modules else None
    try:
        return importlib.import_module(module)
    except ValueError:
        if backend is None:
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == package]:
            del sys.modules[name]  # half of it has been imported
        del os.environ["MPLBACKEND"]
        try:
            return importlib.import_module(module)
        finally:
            os.environ["MPLBACKEND"] = backend
