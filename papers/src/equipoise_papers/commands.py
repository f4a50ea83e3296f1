"""Commands whose options are the fields of a settings dataclass, so that name, default and help of each are written once.

Nothing here imports torch, nor do the modules of settings: ``equipoise figure --help`` answers at once.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import typer

from equipoise.errors import InputError
from equipoise.registry import Registry

__all__ = ["Command", "Commands", "Told", "methods_read", "numbers", "option", "silent"]

Told = Callable[[str], object]
"""Takes a line on what was done."""

S = TypeVar("S")


def silent(line: str) -> None:
    """Tells nothing."""


_LETTERS = {"seeds": "s", "methods": "m", "method": "m", "balancers": "b", "networks": "n", "epochs": "e", "jobs": "j"}
"""Short forms, the same in all commands."""


def option(default: Any, *, read: Callable[[str], Any] | None = None, shown: str | None = None, hidden: bool = False) -> Any:
    """A field of a settings dataclass whose option cannot be derived from its type.

    Args:
        default: of the field.
        read: makes the value of what is typed.
        shown: the default as it would be typed.
        hidden: the field is no option.
    """
    about = {"read": read, "shown": shown, "hidden": hidden}
    return field(default=default, metadata=about)


def numbers(text: str, name: str, kind: type[int] | type[float] = int) -> tuple[Any, ...]:
    """Reads ``"10,50,100"``.

    Args:
        text: what was typed.
        name: of the option, for the message.
        kind: of the numbers.

    Raises:
        InputError: an entry is no number of that kind.

    Example:
        >>> numbers("10,50", "samples")
        (10, 50)
    """
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        raise InputError(f'{name} is "{text}"; expected {what} with commas between, such as 10,50') from None


def methods_read(text: str) -> tuple[str, ...]:
    """Reads methods as studies name them; options of a method may have commas of their own."""
    from equipoise.study.methods import parse_methods

    return tuple(method.label for method in parse_methods(text))


def _seeds(text: str) -> tuple[int, ...]:
    from equipoise.study.plan import parse_seeds

    return tuple(parse_seeds(text))


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        name: on the command line.
        settings: the dataclass of its options.
        summary: what it does, in one line.
        work: the function that does it, as ``"package.module:function"``; imported when the command is called.
        quick: field → value under ``--quick``; without any there is no such option.
    """

    name: str
    settings: type
    summary: str
    work: str
    quick: Mapping[str, object]

    def run(self, *arguments: object) -> str:
        """Calls the function."""
        module, _, function = self.work.partition(":")
        text: str = getattr(importlib.import_module(module), function)(*arguments)
        return text


class Commands:
    """Commands of one kind. Every package below one has a command, registered where its ``settings`` are declared.

    Args:
        kind: what one is called, such as ``"figure"``.
        package: that has the packages.
        help: what the commands do, in one line.
        work: module and function in each package that do it, such as ``"make:make"``.
        output: folder that a command writes to unless ``--output`` says otherwise, with ``{}`` for its name; without one,
            the function gets no folder.
    """

    def __init__(self, kind: str, package: str, help: str, *, work: str, output: str = "") -> None:
        self.package = package
        self.help = help
        self.output = output
        self._work = work
        self._known: Registry[Command] = Registry(kind, fill=self._scan, owner=lambda command: command.settings.__module__)

    def __iter__(self) -> Iterator[Command]:
        """All commands, by their names."""
        return iter(sorted(self._known, key=lambda command: command.name))

    def add(self, summary: str, *, quick: Mapping[str, object] | None = None) -> Callable[[type[S]], type[S]]:
        """Decorates a settings dataclass: its package becomes a command, which has the package's name.

        Args:
            summary: what the command does, in one line.
            quick: field → value under ``--quick``.
        """

        def add(settings: type[S]) -> type[S]:
            package = settings.__module__.rpartition(".")[0]
            name = package.rpartition(".")[2].replace("_", "-")
            self._known.add(name, Command(name, settings, summary, f"{package}.{self._work}", dict(quick or {})))
            return settings

        return add

    def app(self) -> typer.Typer:
        """The commands as a part of the command line."""
        app = typer.Typer(help=self.help, no_args_is_help=True, rich_markup_mode=None)
        app.callback()(lambda: None)
        for command in self:
            app.command(command.name, help=command.summary)(self._function(command))
        return app

    def _scan(self) -> None:
        for module in pkgutil.iter_modules(importlib.import_module(self.package).__path__):
            if module.ispkg:
                importlib.import_module(f"{self.package}.{module.name}.settings")

    def _function(self, command: Command) -> Callable[..., None]:
        found = {one.name: one for one in _options(command.settings)}
        parameters = [one.parameter() for one in found.values()]
        if self.output:
            declared = typer.Option("--output", "-o", help="Folder that everything is written to.")
            parameters.insert(0, _parameter("output", Annotated[Path, declared], Path(self.output.format(command.name))))
        if command.quick:
            same = " ".join(f"--{name.replace('_', '-')} {found[name].text(value)}" for name, value in command.quick.items())
            declared = typer.Option("--quick", help=f"A quick look: {same}.")
            parameters.append(_parameter("quick", Annotated[bool, declared], False))

        def call(**typed: Any) -> None:
            values = {name: one.read(typed[name]) for name, one in found.items()}
            if typed.get("quick"):
                values |= command.quick
            arguments = [_made(command.settings, values)]
            if self.output:
                arguments.append(typed["output"])
            typer.echo(command.run(*arguments, lambda line: typer.echo(line, err=True)).rstrip())
            if self.output:
                typer.echo(f"\nEverything is in {typed['output']}.")

        call.__name__ = command.name.replace("-", "_")
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return call


@dataclass(frozen=True)
class _Option:
    """A field of a settings dataclass as an option.

    Attributes:
        name: of the field.
        kind: its type; without ``None``, which is ``optional``.
        default: of the field.
        help: what the dataclass says of it.
        optional: whether it can be ``None``, which is typed as ``none``.
        own: how it is read, if not by its type.
        shown: the default as it would be typed, if that does not follow from its value.
    """

    name: str
    kind: Any
    default: Any
    help: str
    optional: bool
    own: Callable[[str], Any] | None
    shown: str | None

    def parameter(self) -> inspect.Parameter:
        flag = self.name.replace("_", "-")
        names = [f"--{flag}/--no-{flag}" if self.kind is bool else f"--{flag}"]
        if self.name in _LETTERS:
            names.append(f"-{_LETTERS[self.name]}")
        help = self.help
        if self.name == "seeds":
            help += ' How many ("3": 0, 1, 2), a range "5-9", a list "1,4".'
        if not self._as_text:
            return _parameter(self.name, Annotated[self.kind, typer.Option(*names, help=help)], self.default)
        metavar = "|".join(get_args(self.kind)) if get_origin(self.kind) is Literal else "TEXT"
        default = None if self.default is None else self.text(self.default) if self.shown is None else self.shown
        return _parameter(self.name, Annotated[str | None, typer.Option(*names, help=help, metavar=metavar)], default)

    @property
    def _as_text(self) -> bool:
        return self.optional or self.own is not None or self.kind not in (bool, int, float, str)

    def text(self, value: Any) -> str:
        """A value as it would be typed."""
        if value is None:
            return "none"
        if self.name == "seeds":
            return str(len(value)) if value == tuple(range(len(value))) else ",".join(map(str, value))
        return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)

    def read(self, typed: Any) -> Any:
        """The field's value from what was typed; ``None`` where nothing was and there is no default."""
        if not self._as_text or typed is None:
            return typed
        if self.optional and typed.lower() == "none":
            return None
        if self.own is not None:
            return self.own(typed)
        if self.name == "seeds":
            return _seeds(typed)
        if get_origin(self.kind) is tuple:
            parts = get_args(self.kind)
            return tuple(typed.split(",")) if parts[0] is str else numbers(typed, self.name, parts[0])
        if self.kind in (int, float):
            if len(read := numbers(typed, self.name, self.kind)) != 1:
                raise InputError(f'{self.name} is "{typed}"; expected one number')
            return read[0]
        return self.kind(typed) if self.kind is Path else typed


def _parameter(name: str, annotation: Any, default: object) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _options(settings: type) -> Iterator[_Option]:
    """The options of a dataclass; those of a field that is a dataclass itself are among them."""
    said = _said(settings)
    for own in fields(settings):
        if own.metadata.get("hidden"):
            continue
        kind, optional = _kind(settings, own)
        if is_dataclass(kind):
            assert isinstance(kind, type)
            yield from _options(kind)
        elif _typable(kind) or own.metadata.get("read"):
            default = own.default if own.default_factory is MISSING else own.default_factory()
            read, shown = own.metadata.get("read"), own.metadata.get("shown")
            yield _Option(own.name, kind, default, said.get(own.name, ""), optional, read, shown)


def _kind(settings: type, own: Field[Any]) -> tuple[Any, bool]:
    """A field's type, and whether it can be ``None`` as well."""
    kind = eval(own.type, vars(sys.modules[settings.__module__])) if isinstance(own.type, str) else own.type
    if get_origin(kind) in (Union, UnionType):
        others = [one for one in get_args(kind) if one is not NoneType]
        return (others[0], True) if len(others) == 1 else (object, True)
    return kind, False


def _typable(kind: Any) -> bool:
    if get_origin(kind) is tuple:
        return all(part in (int, float, str, ...) for part in get_args(kind))
    return get_origin(kind) is Literal or kind in (bool, int, float, str, Path)


def _said(settings: type) -> dict[str, str]:
    """What a dataclass's docstring says of each field."""
    said: dict[str, str] = {}
    name = ""
    _, _, listed = inspect.cleandoc(settings.__doc__ or "").partition("Attributes:\n")
    for line in listed.splitlines():
        if line and not line.startswith(" "):
            break
        found = re.match(r"    (\w+): (.*)", line)
        if found:
            name = found[1]
            said[name] = found[2]
        elif name and line.strip():
            said[name] += " " + line.strip()
    return {name: _plain(text) for name, text in said.items()}


def _plain(text: str) -> str:
    """Without the marks of a docstring, as a sentence."""
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", text).replace("``None``", "none").replace("``", "")
    # Greek letters are symbols and stay as they are.
    return text[:1].upper() + text[1:] if text[:1].isascii() else text


def _made(settings: type, values: Mapping[str, object]) -> Any:
    """The dataclass with those values."""
    own: dict[str, object] = {}
    for one in fields(settings):
        kind = object if one.metadata.get("hidden") else _kind(settings, one)[0]
        if is_dataclass(kind):
            assert isinstance(kind, type)
            own[one.name] = _made(kind, values)
        elif one.name in values:
            own[one.name] = values[one.name]
    return settings(**own)
