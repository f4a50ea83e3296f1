"""Whether options are what a constructor's annotations say, whoever gave them: a text, or a caller in Python.

Ranges are the constructors' own business; kinds are not, for a comparison with a word, or with a number that is not a number,
ends in a raw TypeError at best and trains wrongly at worst.
"""

from __future__ import annotations

import functools
import inspect
import math
import numbers
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from equipoise.errors import EquipoiseError, InputError

__all__ = ["checked", "kinds_of", "self_checking"]

_C = TypeVar("_C", bound=type)
_PLAIN = (bool, int, float, str, list, tuple, dict, type(None))


@functools.cache
def kinds_of(made: Any) -> dict[str, Any]:
    """The annotation of each argument of a class or function that can be made sense of; others are missing.

    Example:
        >>> def make(c: float = 0.4, weights: list[float] | None = None, other=3): ...
        >>> kinds_of(make)
        {'c': <class 'float'>, 'weights': list[float] | None}
    """
    source = made
    if isinstance(made, type):
        source = next(vars(base)["__init__"] for base in made.__mro__ if "__init__" in vars(base))
    module = vars(sys.modules[source.__module__]) if source.__module__ in sys.modules else {}
    found = {}
    for name, own in inspect.signature(made).parameters.items():
        kind = own.annotation
        if isinstance(kind, str):
            try:
                kind = eval(kind, dict(module))  # the library's own source, or that of whoever registered it
            except Exception:
                continue  # imported for type checkers alone
        if isinstance(kind, str) or kind is own.empty or own.kind in (own.VAR_POSITIONAL, own.VAR_KEYWORD):
            continue
        if own.default is own.empty or _fits(own.default, kind):  # else nobody means what the annotation says
            found[name] = kind
    return found


def checked(kinds: Mapping[str, Any], given: Mapping[str, Any], whose: str) -> dict[str, Any]:
    """The options, each of the kind that its annotation says; a whole number written as 20.0 or 2e1 becomes one.

    Args:
        kinds: option → annotation, see :func:`kinds_of`; options without one are left as they are.
        given: option → value.
        whose: what has the options, for the message.

    Raises:
        InputError: an option of another kind, or that is not a number.

    Example:
        >>> checked({"every": int, "c": float}, {"every": 2.0, "c": 1}, "method")
        {'every': 2, 'c': 1}
        >>> checked({"every": int}, {"every": 2.5}, 'method "nash-mtl"')
        Traceback (most recent call last):
            ...
        equipoise.errors.InputError: the option "every" of method "nash-mtl" must be a whole number; got 2.5
    """
    return {name: _checked(name, value, kinds[name], whose) if name in kinds else value for name, value in given.items()}


def self_checking(cls: _C, whose: str) -> _C:
    """Has a class check its own arguments, however it is called; what its constructor says itself comes first."""
    init: Any = vars(cls).get("__init__") or cls.__init__  # type: ignore[misc]
    if hasattr(init, "__checking__"):
        return cls
    signature = inspect.signature(init)

    @functools.wraps(init)
    def checking(self: Any, *given: Any, **named: Any) -> None:
        try:
            bound = signature.bind(self, *given, **named)
        except TypeError:
            init(self, *given, **named)  # says what is missing or too much, as Python does
            raise
        kinds = kinds_of(cls)
        refused: InputError | None = None
        for name, value in bound.arguments.items():
            if name in kinds:
                try:
                    bound.arguments[name] = _checked(name, value, kinds[name], whose)
                except InputError as error:
                    refused = refused or error
        try:
            init(*bound.args, **bound.kwargs)
        except EquipoiseError:
            raise
        except Exception:
            if refused is None:
                raise
        if refused is not None:
            raise refused

    checking.__checking__ = True  # type: ignore[attr-defined]
    cls.__init__ = checking  # type: ignore[misc]
    return cls


def _checked(name: str, value: Any, kind: Any, whose: str) -> Any:
    if _fits(value, kind):
        return value
    # Whole numbers that are written as others are.
    if isinstance(value, float) and value.is_integer() and _fits(int(value), kind):
        return int(value)
    raise InputError(f'the option "{name}" of {whose} must be {_words(kind)}; got {_shown(value)}')


def _fits(value: Any, kind: Any) -> bool:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any or isinstance(kind, TypeVar):
        return not isinstance(value, float) or not math.isnan(value)
    if kind is None or kind is type(None):
        return value is None
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in arguments)
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in arguments)
    if kind is bool:
        return isinstance(value, bool)
    if kind is int:
        if isinstance(value, (*_PLAIN, numbers.Integral)):
            return isinstance(value, numbers.Integral) and not isinstance(value, bool) and abs(int(value)) < 2**63
        return _like_a_number(value)
    if kind is float:
        if isinstance(value, (*_PLAIN, numbers.Real)):
            return isinstance(value, numbers.Real) and not isinstance(value, bool) and _holds(value)
        return _like_a_number(value)
    if kind is str:
        return isinstance(value, str)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        if isinstance(value, _PLAIN):
            inner = arguments[1] if len(arguments) == 2 else Any
            return isinstance(value, dict) and all(_fits(one, inner) for one in value.values())
        return True
    if origin is not None and isinstance(origin, type) and issubclass(origin, Sequence):
        if isinstance(value, _PLAIN):
            inner = arguments[0] if arguments else Any
            return isinstance(value, list | tuple) and all(_fits(one, inner) for one in value)
        return True
    if origin is Callable or (isinstance(origin, type) and not isinstance(value, _PLAIN)):
        return callable(value) or not isinstance(value, _PLAIN)
    if isinstance(kind, type) and kind is not object:
        return isinstance(value, kind) or not isinstance(value, _PLAIN)
    return not isinstance(value, float) or not math.isnan(value)


def _holds(value: Any) -> bool:
    try:
        return not math.isnan(float(value))
    except OverflowError:
        return False


def _like_a_number(value: Any) -> bool:
    """A tensor or array of one number, say."""
    return hasattr(value, "__float__") or hasattr(value, "__index__")


def _words(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        said = list(dict.fromkeys(_words(one) for one in arguments))
        return said[0] if len(said) == 1 else f"{', '.join(said[:-1])} or {said[-1]}"
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}" if len(arguments) > 1 else str(arguments[0])
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "a mapping from names" + (f" to {_words(arguments[1]).removeprefix('a ')}s" if arguments else "")
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return "a list" + (f" of {_words(arguments[0]).removeprefix('a ')}s" if arguments else "")
    if kind is None or kind is type(None):
        return "none"
    plain = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}
    return plain.get(kind) or f"a {getattr(kind, '__name__', kind)}"


def _shown(value: Any) -> str:
    text = str(value) if isinstance(value, float) else repr(value)
    return text if len(text) <= 80 else text[:79] + "…"
