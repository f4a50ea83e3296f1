"""Labels of methods where there is little room for them."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable

from equipoise.method import divided, split_outside

__all__ = ["distinct", "shortened", "without_teleport", "wrapped"]


def distinct(labels: Iterable[str]) -> dict[str, str]:
    """Label → the label without what it has in common with the others that teleport on top of the same balancer.

    A study of one option then shows that option, however many others are the same throughout.

    Example:
        >>> distinct(["ls", "cost(start=3,gamma=0.1)+ls", "cost(start=3,gamma=0.2)+ls", "cost(start=3)+si"]).values()
        dict_values(['ls', 'cost(…,gamma=0.1)+ls', 'cost(…,gamma=0.2)+ls', 'cost(start=3)+si'])
    """
    labels = tuple(labels)
    options = {label: _options(label) for label in labels}
    shown = {}
    for label in labels:
        alike = [options[other] for other in labels if options[other] and without_teleport(other) == without_teleport(label)]
        common = [option for option in options[label] if all(option in other for other in alike)]
        if len(alike) < 2 or not common or any(_bare(other) == without_teleport(label) for other in labels):
            shown[label] = label
            continue
        kept = ["…", *(option for option in options[label] if option not in common)]
        shown[label] = f"{label.partition('(')[0]}({','.join(kept)})+{without_teleport(label)}"
    return shown


def without_teleport(label: str) -> str:
    """What is left of a label without its teleport; empty if it has none.

    Example:
        >>> without_teleport("cost(gamma=0.2)+fairgrad:alpha=2"), without_teleport("ls")
        ('fairgrad:alpha=2', '')
    """
    before, balancer = divided(label)
    return balancer if before else ""


def shortened(name: str, width: int) -> str:
    """A name in one line; of one that teleports the options of the teleport are cut first, so that the method is still seen.

    Example:
        >>> shortened("cost(budget=None,per_epoch=2)+fairgrad", 30), shortened("a balancer of mine", 10)
        ('cost(budget=None,…)+fairgrad', 'a balance…')
    """
    if len(name) <= width:
        return name
    before, balancer = divided(name)
    start, bracket, options = before.partition("(")
    if bracket:
        kept: list[str] = []
        for option in options.removesuffix(")").split(","):
            if len(f"{start}({','.join([*kept, option])},…)+{balancer}") > width:
                break
            kept.append(option)
        name = f"{start}({','.join([*kept, '…'])})+{balancer}"
    return name if len(name) <= width else name[: width - 1] + "…"


def wrapped(name: str, width: int) -> str:
    r"""A name in at most two lines, broken where its options begin or between words; what is longer still is cut.

    Example:
        >>> wrapped("cagrad:c=0.2,rescale=True", 22)
        'cagrad:c=0.2,\nrescale=True'
        >>> wrapped("fairgrad", 22)
        'fairgrad'
        >>> wrapped("cost(budget=None,per_epoch=2,check_every=10)+fairgrad", 22)
        'cost(budget=None,…)\n+fairgrad'
    """
    lines = _lines(name, width)
    if len(lines) > 2:
        lines = _lines(shortened(name, 2 * width), width)
    if len(lines) > 2 and without_teleport(name):
        before, balancer = divided(name)
        lines = [shortened(f"{before}+", width + 1).removesuffix("+"), shortened(f"+{balancer}", width)]
    missing = len(name.replace(" ", "")) - len("".join(lines[:2]).replace(" ", ""))
    cut = missing > 0 and "…" not in "".join(lines[:2])
    return "\n".join(lines[:2])[: -1 if cut else None] + ("…" if cut else "")


def _options(label: str) -> list[str]:
    """What stands in the parentheses of a label's teleport."""
    _, bracket, options = divided(label)[0].partition("(")
    return split_outside(options.removesuffix(")"), ",") if bracket else []


def _bare(label: str) -> str:
    """The balancer of a label whose teleport has no options; empty for others."""
    return "" if _options(label) else without_teleport(label)


def _lines(name: str, width: int) -> list[str]:
    # Spaces after punctuation, and before a plus sign, are where a line may end; they are taken out again.
    broken = re.sub(r"(?<=[,:])(?=\S)|(?<=\S)(?=\+)", "\0 ", name)
    return [line.replace("\0 ", "").replace("\0", "") for line in textwrap.wrap(broken, width)]
