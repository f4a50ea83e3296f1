"""From problem, methods and seeds to runs: the single-task baselines first, then every method, seed by seed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from equipoise.errors import InputError
from equipoise.study.methods import Method

__all__ = ["BASELINE", "Run", "dealt", "key_of", "parse_part", "parse_seeds", "plan"]

BASELINE = "stl"


@dataclass(frozen=True)
class Run:
    """One training: a method and a seed, or one task alone and a seed.

    Attributes:
        seed: of parameters, order of batches and the balancer.
        method: what combines the tasks; ``None`` for a single-task baseline.
        task: the one task that a baseline trains; ``None`` for a method.
        lr: of the optimizer; ``None`` for the problem's own. What a method brings counts where it is left out.
    """

    seed: int
    method: Method | None = None
    task: str | None = None
    lr: float | None = None

    def __post_init__(self) -> None:
        if self.lr is None and self.method is not None and self.method.lr is not None:
            object.__setattr__(self, "lr", self.method.lr)

    @property
    def label(self) -> str:
        """The method's label, or ``stl:task`` for a baseline."""
        return self.method.label if self.method else f"{BASELINE}:{self.task}"

    @property
    def key(self) -> str:
        """Names the run's files: readable, free of characters that file systems dislike, and different for each run."""
        return key_of(self.label, self.seed, self.lr)

    def __str__(self) -> str:
        return f"{self.label} seed {self.seed}" + ("" if self.lr is None else f" lr {self.lr:g}")


def key_of(label: str, seed: int, lr: float | None = None) -> str:
    """The name of the files of a label's run of a seed, at a learning rate where it is not the problem's own."""
    suffix = ("" if lr is None else f",lr={lr:g}") + f"-seed{seed}"
    name = label + suffix
    # The tilde stands for a colon and nothing else; what had to be changed beyond that is told apart by a hash, and
    # so are capitals, because on some systems they do not tell file names apart.
    plain = re.sub(r"[^a-z0-9._=+,:-]+", "-", name)
    if len(plain) > 80:  # the seed stays readable
        plain = plain[: 80 - len(suffix)].rstrip("-") + suffix
    plain = plain.replace(":", "~")
    return plain if plain == name.replace(":", "~") else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def plan(tasks: Sequence[str], methods: Iterable[Method], seeds: Iterable[int], *, baselines: bool = True) -> tuple[Run, ...]:
    """All runs of a study: one per method and seed and, with ``baselines``, one per task and seed that all methods share.

    Example:
        >>> [str(run) for run in plan(["left", "ink"], [], [0])]
        ['stl:left seed 0', 'stl:ink seed 0']
    """
    methods, seeds = tuple(methods), tuple(seeds)
    alone = [Run(seed, task=task) for seed in seeds for task in tasks] if baselines else []
    return (*alone, *(Run(seed, method=method) for seed in seeds for method in methods))


def parse_part(part: str) -> tuple[int, int]:
    """Reads which part of a study, and of how many: ``"2/4"``. Raises InputError: another form, or no such part."""
    found = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", part)
    number, parts = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= number <= parts:
        raise InputError(f'part is "{part}"; it must be such as 2/4, the second part of four, and parts count from 1')
    return number, parts


def dealt(runs: Sequence[Run], part: tuple[int, int]) -> tuple[Run, ...]:
    """The runs of a part: dealt by a digest of their keys, so that machines deal alike and no part has the slow method alone.

    Example:
        >>> runs = plan(["left", "ink"], [], range(2))
        >>> [[str(run) for run in dealt(runs, (number, 2))] for number in (1, 2)]
        [['stl:left seed 0', 'stl:ink seed 0'], ['stl:left seed 1', 'stl:ink seed 1']]
    """
    number, parts = part
    order = sorted(runs, key=lambda run: hashlib.sha256(run.key.encode()).digest())
    mine = {run.key for run in order[number - 1 :: parts]}
    return tuple(run for run in runs if run.key in mine)


def parse_seeds(seeds: int | str | Iterable[int]) -> tuple[int, ...]:
    """Reads seeds: a count, a range, a list; repetitions are left out.

    Args:
        seeds: ``3`` or ``"3"`` means 0, 1, 2; ``"5-9"`` means 5 to 9; ``"1,4,7"`` those three; ``"7,"`` only 7; a
            sequence of whole numbers stands for itself.

    Raises:
        InputError: none of these.

    Example:
        >>> parse_seeds(3), parse_seeds("5-7"), parse_seeds("1,8-9")
        ((0, 1, 2), (5, 6, 7), (1, 8, 9))
    """
    if isinstance(seeds, bool):
        raise InputError(f"seeds is {seeds}; give a count, a range such as 5-9, or a list such as 1,4,7")
    if isinstance(seeds, int):
        read: list[int] = list(range(seeds))
    elif isinstance(seeds, str):
        read = _read(seeds)
    else:
        read = list(seeds)
    if not read or any(isinstance(seed, bool) or not isinstance(seed, int) or seed < 0 for seed in read):
        raise InputError(f"seeds is {seeds!r}; give a count (3 means 0, 1, 2), a range such as 5-9, or a list such as 1,4,7")
    return tuple(dict.fromkeys(read))


def _read(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    try:
        if len(parts) == 1 and "-" not in text:
            return list(range(int(text)))
        read: list[int] = []
        for part in filter(None, parts):
            first, dash, last = part.partition("-")
            read.extend(range(int(first), int(last) + 1) if dash else [int(first)])
    except ValueError:
        return []
    return read
