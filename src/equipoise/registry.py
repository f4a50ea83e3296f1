"""Things of one kind by their names: the library's own, a user's, and those of other distributions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from equipoise.errors import InputError, UnknownMethodError, near_misses

__all__ = ["Registry", "folded"]

T = TypeVar("T")


class Registry(Generic[T]):
    """Names, each with an entry. Case does not matter, nor whether words are joined by ``-`` or ``_``.

    Entries come from three places: what :meth:`add` is given; what ``fill`` adds, called when something is first looked for;
    and the entry points of ``group`` in other distributions. An entry point is imported when its name is looked for, or
    when all entries are. Its import may :meth:`add` the entry; otherwise ``read`` makes one of what it names.

    Args:
        kind: what one entry is called in messages, such as ``"method"``.
        fill: adds the library's own entries.
        group: of entry points.
        read: ``read(name, thing)`` makes an entry of what an entry point names; raises :class:`~equipoise.errors.InputError`
            for a thing of another kind.
        owner: tells whose an entry is. A name can be given a new entry of the same owner, as when a notebook's cell is run
            again.
        error: what to raise for an unknown name.
        hint: what else could be given, for the end of that message.

    Example:
        >>> colors = Registry[int]("color")
        >>> colors.add("dark-red", 1, aliases=("maroon",))
        >>> colors.find("Dark_Red"), colors.find("maroon"), colors.names()
        (1, 1, ('dark-red',))
        >>> colors.find("dark-rot")
        Traceback (most recent call last):
            ...
        equipoise.errors.UnknownMethodError: there is no color "dark-rot". Did you mean "dark-red"? Known: dark-red
    """

    def __init__(
        self,
        kind: str,
        *,
        fill: Callable[[], object] | None = None,
        group: str | None = None,
        read: Callable[[str, object], T] | None = None,
        owner: Callable[[T], object] = repr,
        error: type[InputError] = UnknownMethodError,
        hint: str = "",
    ) -> None:
        self.kind = kind
        self.group = group
        self._fill = fill
        self._read = read
        self._owner = owner
        self._error = error
        self._hint = hint
        self._filled = fill is None
        self._entries: dict[str, T] = {}
        self._names: dict[str, str] = {}
        self._loaded: set[EntryPoint] = set()
        self._warned: set[EntryPoint] = set()

    def add(self, name: str, entry: T, *, aliases: Iterable[str] = ()) -> None:
        """Adds an entry.

        Args:
            name: lower case, words joined by hyphens.
            entry: what it stands for.
            aliases: other names for it.

        Raises:
            InputError: a name is taken by another.
        """
        keys = [folded(key) for key in (name, *aliases)]
        for key in keys:
            taken = self._names.get(key)
            if taken is not None and self._owner(self._entries[taken]) != self._owner(entry):
                raise InputError(f'the {self.kind} name "{key}" is taken by {self._owner(self._entries[taken])}')
        self._entries[keys[0]] = entry
        self._names |= dict.fromkeys(keys, keys[0])

    def remove(self, name: str) -> None:
        """Forgets an entry with all its names; an entry point brings its own back when it is looked for again."""
        key = self._names[folded(name)]
        del self._entries[key]
        self._loaded = {point for point in self._loaded if folded(point.name) != key}
        self._names = {alias: own for alias, own in self._names.items() if own != key}

    def fill(self) -> None:
        """Has the library's own entries added, if they have not been yet."""
        if not self._filled and self._fill is not None:
            self._filled = True  # while it is filled, it may be asked
            try:
                self._fill()
            except BaseException:
                self._filled = False
                raise

    def find(self, name: str) -> T:
        """The entry of a name or an alias.

        Raises:
            InputError: there is none (of the class that the registry was given; near misses are suggested), or the entry
                point of that name cannot be used.
        """
        if not isinstance(name, str):
            raise InputError(f"the name of a {self.kind} is a text; got {name!r}")
        self.fill()
        key = folded(name)
        if key not in self._names:
            points = self._points()
            for point in points:
                if folded(point.name) == key:
                    self._load(point)
            if key not in self._names and self._read is None:
                self._load_all(points)  # what registers itself may have aliases
        if key not in self._names:
            known = sorted({*self._entries, *(folded(point.name) for point in self._points())})
            misses = near_misses(key, {*self._names, *known})
            raise self._error(f'there is no {self.kind} "{name}".{misses} Known: {", ".join(known)}{self._hint}')
        return self._entries[self._names[key]]

    def names(self) -> tuple[str, ...]:
        """All names, without aliases, in the order in which they were added."""
        self.fill()
        self._load_all(self._points())
        return tuple(self._entries)

    def known(self) -> tuple[str, ...]:
        """All names, those of other distributions last and as their entry points have them: nothing of these is imported."""
        self.fill()
        return (*self._entries, *sorted({folded(point.name) for point in self._points()} - self._names.keys()))

    def own(self) -> tuple[T, ...]:
        """The entries that are there already, without looking for other distributions."""
        self.fill()
        return tuple(self._entries.values())

    def __iter__(self) -> Iterator[T]:
        """All entries, in the order in which they were added."""
        return iter([self._entries[name] for name in self.names()])

    def __len__(self) -> int:
        return len(self.names())

    def __contains__(self, name: object) -> bool:
        self.fill()
        if isinstance(name, str) and folded(name) not in self._names:
            self._load_all(self._points())
        return isinstance(name, str) and folded(name) in self._names

    def _points(self) -> list[EntryPoint]:
        if self.group is None:
            return []
        return [point for point in entry_points(group=self.group) if point not in self._loaded]

    def _load(self, point: EntryPoint) -> None:
        """Imports what an entry point names and sees to it that its name is known."""
        source = point.dist.name if point.dist is not None else point.value
        try:
            thing = point.load()
            if self._read is not None:
                self.add(point.name, self._read(point.name, thing))
            elif folded(point.name) not in self._names:
                raise InputError(f'importing "{point.value}" registers no {self.kind} of that name')
        except Exception as error:
            raise InputError(f'the {self.kind} "{point.name}" of {source} cannot be used: {error}') from error
        self._loaded.add(point)

    def _load_all(self, points: Iterable[EntryPoint]) -> None:
        for point in points:
            try:
                self._load(point)
            except InputError as error:
                # One broken distribution must not hide all others; asked for by its name, it raises.
                if point not in self._warned:
                    self._warned.add(point)
                    warnings.warn(str(error), stacklevel=3)


def folded(name: str) -> str:
    """A name as registries compare it.

    Example:
        >>> folded(" Nash_MTL ")
        'nash-mtl'
    """
    return name.strip().lower().replace("_", "-")
