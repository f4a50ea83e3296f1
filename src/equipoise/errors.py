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
import warnings
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any, cast

_PASSED_OVER = ("equipoise.", "torch._dynamo.", "contextlib")

__all__ = [
    "DataSetError",
    "EquipoiseError",
    "InputError",
    "MissingExtraError",
    "NonFiniteError",
    "ProcessError",
    "StorageError",
    "UnknownMethodError",
    "UnknownOptionError",
    "UnknownTaskError",
    "described",
    "near_misses",
    "rebuilt",
    "refuse_unknown_options",
    "require",
    "warn_once",
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
        what: ``"loss"`` or ``"gradient"``; ``"weight"`` or ``"direction"`` where a balancer's answer was not finite;
            ``"curvature"`` where a bilevel problem's lower level has no minimum where implicit hypergradients need one.
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


class ProcessError(EquipoiseError, RuntimeError):
    """Under ``torch.distributed``, another process raised an error that is not one of ours.

    It is an instance of the built-in class raised there, too, so that all processes' ``except ValueError`` do the same.
    """

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


def described(error: Exception) -> dict[str, Any]:
    """An error as plain values, for another process; see :func:`rebuilt`."""
    parts = ("tasks", "step", "what") if isinstance(error, NonFiniteError) else ()
    return {
        "classes": [(kind.__module__, kind.__name__) for kind in type(error).__mro__],
        "message": next(iter(str(error).splitlines()), ""),
        "parts": {name: getattr(error, name) for name in parts},
    }


def rebuilt(description: Mapping[str, Any], where: str) -> EquipoiseError:
    """The error that another process raised: of the same class if that is one of ours, else a :class:`ProcessError`.

    Args:
        description: what :func:`described` gave.
        where: which process that was.

    Example:
        >>> error = rebuilt(described(ValueError("no labels")), "process 1")
        >>> error, isinstance(error, ValueError)
        (ProcessError('process 1 raised ValueError: no labels; no process took the step'), True)
    """
    message = description["message"]
    for module, name in description["classes"]:
        if module == __name__:
            kind = globals()[name]
            return cast(EquipoiseError, kind(f"{message} (raised in {where})", **description["parts"]))
    text = f"{where} raised {description['classes'][0][1]}: {message}; no process took the step"
    for module, name in description["classes"]:
        kind = getattr(importlib.import_module(module), name, None) if module in ("builtins", "torch") else None
        if isinstance(kind, type) and issubclass(kind, Exception) and kind is not Exception:
            try:
                return cast(EquipoiseError, type("ProcessError", (ProcessError, kind), {"__module__": __name__})(text))
            except TypeError:  # classes that cannot be combined, or want other arguments
                continue
    return ProcessError(text)


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


def refuse_unknown_options(name: str, given: Iterable[str], options: Mapping[str, object], kind: str = "method") -> None:
    """Raises if a method is given an option that it does not have.

    Args:
        name: its name.
        given: names of options.
        options: those that it has.
        kind: what it is, if not a method.

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
            raise UnknownOptionError(f'{kind} "{name}" has no option "{option}".{near_misses(option, options)} {has}')


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


def warn_once(owner: object, about: str, message: str) -> None:
    """Warns the user's line that called into the library, once per object and subject.

    Args:
        owner: keeps what was said, in its attribute ``_said``.
        about: the subject.
        message: one line: what was met, and what to do.

    Example:
        >>> import warnings
        >>> class Owner: ...
        >>> owner = Owner()
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     for _ in range(3):
        ...         warn_once(owner, "zeros", "all gradients vanish")
        >>> len(caught)
        1
    """
    said: frozenset[str] = getattr(owner, "_said", frozenset())
    if about in said:
        return
    owner._said = said | {about}  # type: ignore[attr-defined]
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).startswith(_PASSED_OVER):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)
