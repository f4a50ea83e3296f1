"""The state of pycma's objects as arrays, numbers and texts, put back into objects that were made from the options."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["Packing", "restored"]

# What comes from the options, refers back, or is of no use later.
_OWN = frozenset({"opts", "inopts", "inputargs", "logger", "_tell2_args", "_es_opts", "randn", "eigenmethod"})
# A diagonal search changes to the second of these later; anything else is of the same class for good.
_SAMPLERS = frozenset({"GaussStandardConstant", "GaussFullSampler"})
_PLAIN = (bool, int, float, str, bytes, type(None))


class Packing:
    """Packs an object of pycma; arrays that are one object stay one.

    Attributes:
        arrays: copies of all arrays.
    """

    def __init__(self) -> None:
        self.arrays: list[Any] = []
        self._seen: dict[int, int] = {}
        self._held: list[object] = []  # so that no number in _seen is used again

    def __call__(self, value: Any) -> Any:
        """The value as containers of plain values; ``["own"]`` where it is none and stays what it is."""
        if type(value) in _PLAIN:
            return value
        if isinstance(value, np.generic):
            return ["number", self._array(np.asarray(value))]
        if isinstance(value, np.ndarray):
            return ["own"] if value.dtype.hasobject else ["array", self._array(value)]
        if isinstance(value, range):
            return ["range", value.start, value.stop, value.step]
        if type(value) in (list, tuple):
            return [type(value).__name__, *map(self, value)]
        if type(value) is dict:
            return ["dict", *([self(key), self(entry)] for key, entry in value.items())]
        if not type(value).__module__.startswith("cma.") or id(value) in self._seen or isinstance(value, type):
            return ["own"]
        self._seen[id(value)] = -1
        self._held.append(value)
        content = self(dict(value)) if isinstance(value, dict) else self(list(value)) if isinstance(value, list) else None
        parts = {name: self(part) for name, part in vars(value).items() if name not in _OWN}
        return ["object", type(value).__name__, content, parts]

    def _array(self, value: Any) -> int:
        number = self._seen.get(id(value))
        if number is None:
            number = self._seen[id(value)] = len(self.arrays)
            self.arrays.append(value.copy(order="K"))  # products depend on the layout in their last bit
            self._held.append(value)
        return number


def restored(packed: Any, twin: Any, arrays: list[Any]) -> Any:
    """What was packed; objects are those of the twin, changed in place.

    Raises:
        TypeError, ValueError, KeyError, IndexError: it was packed from another kind of object.
    """
    copies: dict[int, Any] = {}

    def array(number: Any) -> Any:
        if number not in copies:
            if not (isinstance(arrays[number], np.ndarray) and arrays[number].dtype.kind in "fiub"):
                raise TypeError("an array holds no numbers")
            copies[number] = arrays[number].copy(order="K")
        return copies[number]

    def back(packed: Any, twin: Any) -> Any:
        if not isinstance(packed, list):
            return packed
        kind, *rest = packed
        if kind == "own":
            return twin
        if kind == "array":
            found = array(rest[0])
            if isinstance(twin, np.ndarray) and found.ndim != twin.ndim and found.ndim * twin.ndim:  # numbers stand for vectors
                raise ValueError(f"an array has {found.ndim} dimensions in place of {twin.ndim}")
            return found
        if kind == "number":
            return array(rest[0])[()]
        if kind == "range":
            return range(*rest)
        if kind in ("list", "tuple"):
            beside = twin if isinstance(twin, list | tuple) else ()
            entries = [back(own, beside[place] if place < len(beside) else None) for place, own in enumerate(rest)]
            return entries if kind == "list" else tuple(entries)
        if kind == "dict":
            keys = [back(key, None) for key, _ in rest]
            there = twin if isinstance(twin, dict) else {}
            return {key: back(own, there.get(key)) for key, (_, own) in zip(keys, rest, strict=True)}
        name, content, parts = rest
        if kind != "object" or not type(twin).__module__.startswith("cma."):
            raise TypeError(f"there is a part of kind {kind} where pycma has none")
        if type(twin).__name__ != name:
            if not {type(twin).__name__, name} <= _SAMPLERS:
                raise TypeError(f"there is a {name} where pycma has a {type(twin).__name__}")
            import cma.sampler

            twin = getattr(cma.sampler, name)(2)
        if isinstance(twin, dict | list):
            fresh = back(content, twin)
            twin.clear()
            twin.update(fresh) if isinstance(twin, dict) else twin.extend(fresh)
        own = vars(twin)
        for part in set(own) - set(parts) - _OWN:
            del own[part]
        for part, value in parts.items():
            fresh = back(value, own.get(part))
            if part in own and not _alike(fresh, own[part]):
                raise TypeError(f"{part} is a {type(fresh).__name__} where pycma has a {type(own[part]).__name__}")
            own[part] = fresh
        # Solutions are found by the hash of their bytes, which is another in every process.
        if isinstance(solutions := own.get("_unhashed_keys"), dict):
            hashes = {key: twin.key(solution) for key, solution in solutions.items()}
            for name in {"data", "data_with_same_key", "_unhashed_keys"} & set(own):
                own[name] = {hashes.get(key, key): entry for key, entry in own[name].items()}
        return twin

    if not isinstance(packed, list) or packed[:1] != ["object"]:
        raise TypeError("it is no object")
    return back(packed, twin)


def _alike(one: Any, other: Any) -> bool:
    """Whether one may be in the place of the other; pycma itself has numbers for arrays and nothing for either."""
    names = {type(one).__name__, type(other).__name__}
    if one is None or other is None or len(names) == 1 or names <= _SAMPLERS:
        return True
    numbers = (bool, int, float, np.generic, np.ndarray, list, tuple)
    return isinstance(one, numbers) and isinstance(other, numbers)
