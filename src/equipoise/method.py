"""A method as a value: a balancer, its options and the teleport on top of it, and how that is read and written as text."""

from __future__ import annotations

import ast
import copy
import math
import numbers
import re
import warnings
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from equipoise.errors import InputError, UnknownMethodError, near_misses
from equipoise.registry import folded

if TYPE_CHECKING:
    from equipoise.balance.base import Balancer
    from equipoise.optimizer import Teleport
    from equipoise.teleport import COST

__all__ = [
    "MethodSpec",
    "Nested",
    "as_teleport",
    "divided",
    "groups_of",
    "make_teleport",
    "proxy_of",
    "read_options",
    "read_value",
    "resolved",
    "seeded",
    "settled",
    "split_outside",
    "written",
    "written_value",
]

_WORDS: dict[str, Any] = {"true": True, "false": False, "inf": math.inf, "-inf": -math.inf, "nan": math.nan}
_OPENING, _CLOSING = "([{", ")]}"
_WORD = r"[A-Za-z_][\w.-]*"
_CALL = re.compile(rf"({_WORD})\s*\((.*)\)", re.DOTALL)


class _Options(Mapping[str, Any]):
    """Options in their order, which nobody can change."""

    def __init__(self, options: Mapping[str, Any], whose: str) -> None:
        if not isinstance(options, Mapping):
            raise InputError(f'the options of "{whose}" are a mapping from names to values; got {options!r}')
        for name in options:
            if not isinstance(name, str) or not name.isidentifier():
                raise InputError(f'an option of "{whose}" has the name {name!r}; a name is a word of letters, digits and _')
        self._values = {name: _frozen(value, name) for name, value in options.items()}

    def __getitem__(self, name: str) -> Any:
        value = self._values[name]
        return copy.deepcopy(value) if isinstance(value, list | dict | set) else value

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(self._values)

    @property
    def key(self) -> frozenset[tuple[str, object]]:
        """What equal options have in common, in whatever order they were given."""
        # As text, for 1, 1.0 and True are equal and yet different options.
        return frozenset(
            (name, value if isinstance(value, Nested) else written_value(value)) for name, value in self._values.items()
        )


@dataclass(frozen=True, eq=False)
class Nested:
    """A value that has options of its own, written ``name(option=value,…)``.

    Attributes:
        name: the word before the brackets.
        options: what stands in them.

    Example:
        >>> str(Nested("majority", {"fraction": 0.6}))
        'majority(fraction=0.6)'
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(_WORD, self.name):
            raise InputError(f"{self.name!r} is no name for something with options; a name is a word such as majority")
        object.__setattr__(self, "options", _Options(self.options, self.name))

    def __str__(self) -> str:
        return f"{self.name}({written(self.options.items())})" if self.options else self.name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Nested) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[object, ...]:
        assert isinstance(self.options, _Options)
        return self.name, self.options.key


@dataclass(frozen=True, eq=False, init=False)
class MethodSpec:
    """A method as a value: a balancer's name and options, the teleport on top of it, and where its Gramian is taken.

    Text is ``[teleport+]balancer[@proxy]`` or ``[groups+]balancer[@proxy]``. The balancer is ``name`` or
    ``name:option=value,option=value``, the teleport ``cost`` or ``cost(option=value,…)``, and the groups of tasks that take
    turns ``conflict-groups`` or ``affinity-groups``, with options or without. A value is a Python literal, a word, or
    ``word(option=value,…)`` for what has options
    of its own. The proxy is ``last``, ``features``, ``auto``, a module's dotted name …, with the options of
    :class:`~equipoise.Proxy` in brackets: ``fairgrad:alpha=2@last(memory=0.5)``. ``str()`` gives the shortest text, from which
    :meth:`parse` reads an equal value. Whether there is such a method, and whether it takes these options, is seen when it is
    made.

    Attributes:
        name: of the balancer; case does not matter, nor whether words are joined by ``-`` or ``_``.
        options: those that are given, by name; order makes no difference.
        teleport: its name and options, or ``None``; given as text, it is read.
        proxy: the source of the proxy Gramian and its options, or ``None`` for the exact one; given as text, it is read.
        groups: the schedule of groups of tasks and its options, or ``None``; given as text, it is read.

    Raises:
        InputError: a name or a value that cannot be written as text, or a teleport beside groups.

    Example:
        >>> spec = MethodSpec.parse("COST(start=3, trigger=majority(fraction=0.6)) + FairGrad : alpha = 2")
        >>> spec.name, spec.options["alpha"], spec.teleport.options["start"]
        ('fairgrad', 2, 3)
        >>> print(spec)
        cost(start=3,trigger=majority(fraction=0.6))+fairgrad:alpha=2
        >>> spec == MethodSpec("fairgrad", {"alpha": 2}, "cost(trigger=majority(fraction=0.6),start=3)")
        True
    """

    name: str
    options: Mapping[str, Any]
    teleport: Nested | None
    proxy: Nested | None
    groups: Nested | None

    def __init__(
        self,
        name: str,
        options: Mapping[str, Any] | None = None,
        teleport: Nested | str | None = None,
        proxy: Nested | str | None = None,
        groups: Nested | str | None = None,
    ) -> None:
        if teleport is not None and groups is not None:
            raise InputError(f'a method has a teleport or groups of tasks; got "{teleport}" and "{groups}"')
        if not isinstance(name, str) or not name.strip() or re.search(r"""[,:+=|@()\[\]{}'"\n]""", name):
            raise InputError(f"{name!r} is no name of a method; a name is a word such as fairgrad")
        object.__setattr__(self, "name", folded(name))
        object.__setattr__(self, "options", _Options({} if options is None else options, name))
        object.__setattr__(self, "teleport", None if teleport is None else as_teleport(teleport))
        object.__setattr__(self, "proxy", None if proxy is None else _as_proxy(proxy))
        object.__setattr__(self, "groups", None if groups is None else as_teleport(groups))

    @classmethod
    def parse(cls, text: str | MethodSpec) -> MethodSpec:
        """Reads ``"cost+fairgrad:alpha=2"``; a value that is one already stays as it is.

        Raises:
            InputError: text of another form; the message says which part.
        """
        if isinstance(text, MethodSpec):
            return text
        if not isinstance(text, str):
            raise InputError(f'a method is a text such as "cagrad:c=0.2"; got {text!r}')
        before, balancer = divided(text.strip())
        *parts, proxy = split_outside(balancer, "@")
        balancer = "@".join(parts) if parts else proxy
        if folded(balancer.partition("(")[0]) in ("cost", ""):
            if not text.strip():
                raise InputError('a method is a text such as "cagrad:c=0.2"; got nothing')
            raise InputError(f'"{text}": COST goes on top of a method; write "cost+fairgrad" or "cost(gamma=0.2)+fairgrad"')
        name, _, rest = balancer.partition(":")
        if match := _CALL.fullmatch(name.strip()):
            raise InputError(f'"{text}": the options of a method stand behind a colon; write "{match[1]}:{match[2]}"')
        options = read_options(rest, text)
        top = Nested(*_read_call(before, text)) if before else None
        place = "groups" if top is not None and top.name.endswith("-groups") else "teleport"
        return cls(name, options, proxy=proxy if parts else None, **{place: top})

    @classmethod
    def parse_all(cls, text: str) -> tuple[MethodSpec, ...]:
        """Reads a list such as ``"ls,cagrad:c=0.2,rescale=True,si"``: a part ``option=value`` belongs to the method before it.

        Example:
            >>> print(*MethodSpec.parse_all("ls, cost(start=3,stop=9)+cagrad:c=0.2,rescale=True, si"))
            ls cost(start=3,stop=9)+cagrad:c=0.2,rescale=True si
        """
        entries: list[str] = []
        for part in filter(None, (part.strip() for part in split_outside(text, ","))):
            option, *value = split_outside(part, "=")
            if entries and value and len(split_outside(option, ":")) == 1:
                entries[-1] += ("," if len(split_outside(entries[-1], ":")) > 1 else ":") + part
            else:
                entries.append(part)
        return tuple(cls.parse(entry) for entry in entries)

    @property
    def balancer(self) -> MethodSpec:
        """The same without its teleport, its groups and its proxy."""
        bare = self.teleport is None and self.groups is None and self.proxy is None
        return self if bare else MethodSpec(self.name, self.options)

    def __str__(self) -> str:
        before = f"{top}+" if (top := self.teleport or self.groups) is not None else ""
        options = f":{written(self.options.items())}" if self.options else ""
        return before + self.name + options + ("" if self.proxy is None else f"@{self.proxy}")

    def __repr__(self) -> str:
        return f"MethodSpec.parse({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MethodSpec) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[object, ...]:
        assert isinstance(self.options, _Options)
        return self.name, self.options.key, self.teleport, self.proxy, self.groups

    def make(self, seed: int | None = None) -> tuple[Balancer, Teleport | None]:
        """A fresh balancer and a fresh teleport.

        Args:
            seed: for what has an option ``seed`` that the text does not set; left out, its own default.

        Raises:
            UnknownMethodError: there is no such balancer or teleport; near misses are suggested.
            UnknownOptionError: it has no such option; near misses are suggested.
            InputError: a value that it refuses.

        Example:
            >>> balancer, teleport = MethodSpec.parse("fairgrad:alpha=2").make()
            >>> balancer, teleport
            (FairGrad(alpha=2.0), None)
        """
        from equipoise.balance.registry import method

        info = method(self.name)
        teleport = None if self.teleport is None else make_teleport(self.teleport, seed)
        return info.make(**seeded(settled(self.options), info.options, seed)), teleport


def as_teleport(teleport: Nested | str) -> Nested:
    """Reads ``"cost(start=3)"``; what is read already stays as it is.

    Raises:
        InputError: text of another form, or neither text nor a teleport.
    """
    if isinstance(teleport, str):
        teleport = Nested(*_read_call(teleport, teleport))
    if not isinstance(teleport, Nested):
        raise InputError(f'the teleport of a method is a text such as "cost(start=3)"; got {teleport!r}')
    return Nested(folded(teleport.name), teleport.options)


def _as_proxy(proxy: Nested | str) -> Nested:
    if isinstance(proxy, str):
        match = re.fullmatch(rf"\s*({_WORD})\s*(?:\((.*)\))?\s*", proxy, re.DOTALL)
        if match is None or not _balanced(match[2] or ""):
            raise InputError(f'the proxy of a method is a word such as "last" or "last(layers=2,memory=0.5)"; got "{proxy}"')
        proxy = Nested(match[1], read_options(match[2] or "", proxy))
    if not isinstance(proxy, Nested):
        raise InputError(f'the proxy of a method is a text such as "last(memory=0.5)"; got {proxy!r}')
    return proxy


def proxy_of(method: Any, given: Any = None) -> Any:
    """The proxy that a method's text or value names, or the one that was given beside it; refuses both."""
    named = MethodSpec.parse(method).proxy if isinstance(method, str | MethodSpec) else None
    if named is not None and given is not None:
        raise InputError(f'"{method}" names a proxy, and proxy= gives another; leave one of them out')
    return given if named is None else named


def groups_of(method: Any, given: Any = None) -> Any:
    """The groups that a method's text or value names, or those that were given beside it; refuses both."""
    named = MethodSpec.parse(method).groups if isinstance(method, str | MethodSpec) else None
    if named is not None and given is not None:
        raise InputError(f'"{method}" names groups, and groups= gives others; leave one of them out')
    return given if named is None else named


def make_teleport(teleport: Nested, seed: int | None = None) -> COST:
    """A fresh teleport.

    Args:
        teleport: its name and options.
        seed: for one whose text does not set it; left out, its own default.

    Raises:
        UnknownMethodError: there is no such teleport; near misses are suggested.
        UnknownOptionError: it has no such option; near misses are suggested.
        InputError: a value that it refuses.
    """
    from equipoise.teleport.text import cost_of

    if teleport.name != "cost":
        raise UnknownMethodError(
            f'there is no teleport "{teleport.name}".{near_misses(teleport.name, ["cost"])} Only "cost" can stand before a '
            '"+", as in "cost+fairgrad"'
        )
    return cost_of(seeded(settled(teleport.options), ("seed",), seed))


def resolved(method: Any, teleport: Teleport | None = None) -> tuple[Balancer, Teleport | None]:
    """What somebody names as a method, made: the one place where text becomes a balancer and a teleport.

    Args:
        method: text, a :class:`MethodSpec`, or what :func:`~equipoise.balance.as_balancer` takes.
        teleport: one that was given beside it.

    Raises:
        InputError: both bring a teleport; or see :meth:`MethodSpec.make`.
    """
    if not isinstance(method, str | MethodSpec):
        from equipoise.balance.coerce import as_balancer

        return as_balancer(method), teleport
    spec = MethodSpec.parse(method)
    if spec.teleport is not None and teleport is not None:
        raise InputError(f'"{spec}" has a teleport, and teleport= gives another; leave one of them out')
    balancer, own = spec.make()
    return balancer, own if teleport is None else teleport


def settled(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as constructors take them: the word ``none`` is ``None``."""
    made: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, Nested):
            made[name] = Nested(value.name, settled(value.options))
        else:
            made[name] = None if isinstance(value, str) and value.lower() == "none" else value
    return made


def seeded(given: Mapping[str, Any], known: Container[str], seed: int | None) -> dict[str, Any]:
    """Options with the run's seed, where there is such an option and nobody set it."""
    return dict(given) if seed is None or "seed" in given or "seed" not in known else {**given, "seed": seed}


# -- text


def divided(text: str) -> tuple[str, str]:
    """Divides a method into what stands before its ``+`` and the balancer; the first is empty where there is no ``+``.

    Example:
        >>> divided("cost(gamma=0.2)+fairgrad:alpha=2"), divided("ls"), divided("mine:limit=1e+3")
        (('cost(gamma=0.2)', 'fairgrad:alpha=2'), ('', 'ls'), ('', 'mine:limit=1e+3'))
    """
    first, *others = split_outside(text, "+")
    # A plus sign behind the colon belongs to a balancer's option.
    if not others or len(split_outside(first, ":")) > 1:
        return "", text
    return first.strip(), "+".join(others).strip()


def read_options(text: str, whole: str, kind: str = "method") -> dict[str, Any]:
    """Reads ``option=value,option=value``.

    Args:
        text: the options; see :func:`read_value` for the values.
        whole: what they are a part of, for the error message.
        kind: what that is, for the error message.

    Raises:
        InputError: a part that is not of that form, or an option that is given twice.

    Example:
        >>> read_options("c=0.2, weights=[1,2], history=reset, delta=oft(blocks=2)", "")
        {'c': 0.2, 'weights': [1, 2], 'history': 'reset', 'delta': Nested(name='oft', options={'blocks': 2})}
    """
    read: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in split_outside(text, ","))):
        option, equals, value = (piece.strip() for piece in part.partition("="))
        if not option.isidentifier() or not equals or not value:
            raise InputError(f'"{part}" in the {kind} "{whole}" is not of the form option=value')
        if option in read:
            raise InputError(f'the {kind} "{whole}" gives the option "{option}" twice')
        read[option] = read_value(value, whole)
    return read


def read_value(text: str, whole: str = "") -> Any:
    """Reads one value: a Python literal, ``word(option=value,…)``, a list, or else a word, which is text without quotes.

    Example:
        >>> read_value("1e-3"), read_value("TRUE"), read_value("'a, b'"), read_value("weights/best.pt")
        (0.001, True, 'a, b', 'weights/best.pt')
        >>> read_value("[body.0, 'a, b', 2]")
        ['body.0', 'a, b', 2]
    """
    text = text.strip()
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "1if" is a word, whatever Python's grammar thinks of it
            value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        pass
    else:
        return value if _plain(value) else text
    if text.startswith("[") and text.endswith("]") and _balanced(text[1:-1]):
        entries = [read_value(entry, whole or text) for entry in split_outside(text[1:-1], ",") if entry.strip()]
        if _plain(entries):
            return entries
    match = _CALL.fullmatch(text)
    return Nested(match[1], read_options(match[2], whole or text)) if match and _balanced(match[2]) else text


def written(options: Iterable[tuple[str, Any]]) -> str:
    """The text from which :func:`read_options` reads these options."""
    return ",".join(f"{option}={written_value(value)}" for option, value in options)


def written_value(value: Any) -> str:
    """The shortest text from which :func:`read_value` reads this value.

    Example:
        >>> written_value("keep"), written_value("1"), written_value([0.5, 1.5]), written_value(None)
        ('keep', "'1'", '[0.5, 1.5]', 'None')
    """
    if isinstance(value, str):
        return value if _is_word(value) else repr(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return str(value) if isinstance(value, Nested) else _literal(value)


def split_outside(text: str, separator: str) -> list[str]:
    """Splits at separators outside brackets and quotes, so that a value may be a list or have options of its own.

    Example:
        >>> split_outside("ls:weights=[1,2],si", ",")
        ['ls:weights=[1,2]', 'si']
    """
    parts, depth, place = [""], 0, 0
    while place < len(text):
        end = _end_of_quotes(text, place)
        character = text[place:end]
        depth += (character in _OPENING) - (character in _CLOSING)
        if character == separator and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
        place = end
    return parts


def _end_of_quotes(text: str, place: int) -> int:
    """Where a text in quotes that begins here ends; the next character if none does."""
    quote = text[place]
    if quote not in "'\"" or text[:place].rstrip()[-1:] not in ("", *"=,:" + _OPENING):
        return place + 1  # an apostrophe within a word
    end = place + 1
    while end < len(text) and text[end] != quote:
        end += 2 if text[end] == "\\" else 1
    return end + 1 if end < len(text) else place + 1


def _balanced(text: str) -> bool:
    depth = place = 0
    while place < len(text):
        end = _end_of_quotes(text, place)
        depth += (text[place:end] in _OPENING) - (text[place:end] in _CLOSING)
        if depth < 0:
            return False
        place = end
    return depth == 0


def _is_word(text: str) -> bool:
    """Whether a text without quotes is read as itself."""
    if not text or text != text.strip() or any(sign in text for sign in "'\"\\\n\r"):
        return False
    if not _balanced(text) or len(split_outside(text, ",")) > 1:
        return False
    try:
        return isinstance(read := read_value(text), str) and read == text
    except InputError:
        return False


def _plain(value: Any, inside: bool = False) -> bool:
    """Whether a value is of the kinds that options have."""
    if isinstance(value, list | tuple):
        return all(_plain(entry, True) for entry in value)
    if isinstance(value, dict):
        return all(_plain(key, True) and _plain(entry, True) for key, entry in value.items())
    return value is None or (isinstance(value, bool | int | float | str) and not (inside and value != value))


def _literal(value: Any) -> str:
    """As ``repr``, with infinities that Python reads again."""
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, tuple):
        return f"({', '.join(map(_literal, value))}{',' * (len(value) == 1)})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_literal(key)}: {_literal(entry)}' for key, entry in value.items())}}}"
    if isinstance(value, float) and math.isinf(value):
        return "1e999" if value > 0 else "-1e999"
    return repr(value)


def _frozen(value: Any, name: str) -> Any:
    """A copy of a value of an option, if it can be written as text."""
    if isinstance(value, Nested):
        return value if value.options else value.name
    # NumPy's numbers, and members of enumerations, are printed otherwise than what they are equal to.
    kinds: tuple[tuple[type, Callable[[Any], Any]], ...] = (
        (bool, bool),
        (numbers.Integral, int),
        (numbers.Real, float),
        (str, str),
    )
    for kind, plain in kinds:
        if isinstance(value, kind):
            value = plain(value)
            break
    if not _plain(value):
        raise InputError(f'the option "{name}" is {value!r}, which cannot be written as text; make the balancer and pass that')
    return copy.deepcopy(value)


def _read_call(text: str, whole: str) -> tuple[str, dict[str, Any]]:
    """Reads ``name`` or ``name(option=value,…)``."""
    match = re.fullmatch(r"\s*([^()]*?)\s*(?:\((.*)\))?\s*", text, re.DOTALL)
    if match is None or not _balanced(match[2] or ""):
        raise InputError(f'"{whole}" cannot be read; write "cost" or "cost(option=value,option=value)" before the "+"')
    return folded(match[1]), read_options(match[2] or "", whole)
