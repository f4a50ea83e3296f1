"""What a checkpoint remembers of how a search was called, in words that can be compared and shown."""

from __future__ import annotations

import functools
import types
from hashlib import sha256
from typing import Any

import numpy as np

__all__ = ["worded"]

_DEPTH = 5  # of functions that hold functions


def worded(value: object, depth: int = _DEPTH) -> str:
    """An option's value as text that is the same for the same value in another process.

    A function is told by its name and a digest of its code, defaults and closure; what it reads from its module is not
    followed, and another version of Python compiles other code. A callable object or partial is told by its class and what
    it holds. Of a random generator only the kind is told, as its state travels with the optimizer.

    Example:
        >>> worded(0.5), worded(np.ones(2)), worded(len)
        ('0.5', '[1.0, 1.0]', 'builtins.len')
        >>> worded(lambda t: 1 / (t + 1)) == worded(lambda t: 1 / (t + 2))
        False
    """
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        return repr(value.tolist())
    if isinstance(value, np.random.Generator) or depth == 0:
        return type(value).__name__
    if isinstance(value, np.generic):
        return repr(value.item())
    inner = functools.partial(worded, depth=depth - 1)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(inner, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {inner(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, set | frozenset):  # in an order of their own in each process
        return "{" + ", ".join(sorted(map(inner, value))) + "}"
    if isinstance(value, functools.partial):
        return f"partial({inner(value.func)}, {inner(value.args)}, {inner(value.keywords)})"
    if isinstance(value, types.MethodType):
        return f"{inner(value.__func__)} of {inner(value.__self__)}"
    if isinstance(value, types.FunctionType):
        held = [_held(cell) for cell in value.__closure__ or ()]
        digest = _digest(_code(value.__code__) + inner([value.__defaults__, value.__kwdefaults__, *held]))
        return f"{value.__module__}.{value.__qualname__} ({digest})"
    if isinstance(value, types.BuiltinFunctionType | type | np.ufunc):
        return f"{getattr(value, '__module__', None) or type(value).__name__}.{getattr(value, '__qualname__', value.__name__)}"
    # The repr that an object has by default is its address.
    if type(value).__repr__ is object.__repr__:
        return f"{type(value).__module__}.{type(value).__qualname__} ({_digest(inner(getattr(value, '__dict__', {})))})"
    return repr(value)


def _code(code: types.CodeType) -> str:
    constants = [_code(own) if isinstance(own, types.CodeType) else worded(own) for own in code.co_consts]
    return f"{code.co_code.hex()} {constants} {code.co_names} {code.co_varnames}"


def _held(cell: Any) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # a variable that has no value yet
        return None


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:8]
