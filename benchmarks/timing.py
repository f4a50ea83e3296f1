"""Timing things side by side: everybody runs once a round, and ratios are taken within rounds.

What is measured is processor time of the whole process, so what other programs take from the machine does not count as
anybody's. With one thread and a quiet machine it is the time on the clock.
"""

from __future__ import annotations

import gc
import signal
import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import process_time
from types import FrameType

__all__ = ["Times", "race", "time_limit"]

Run = Callable[[int], object]


@dataclass
class Times:
    """Seconds per call of everybody in a race, by round.

    Attributes:
        seconds: for each name, round → seconds. Who is slow leaves the race early, so rounds may be missing.
        failed: why somebody has no times.
    """

    seconds: dict[str, dict[int, float]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def median(self, name: str) -> float:
        """Median seconds per call."""
        return statistics.median(self.seconds[name].values())

    def rounds(self, name: str) -> int:
        """In how many rounds somebody ran."""
        return len(self.seconds.get(name, {}))

    def ratios(self, name: str, other: str) -> list[float]:
        """Time of one over that of the other, in each round that both ran in."""
        mine, theirs = self.seconds[name], self.seconds[other]
        return [mine[turn] / theirs[turn] for turn in mine if turn in theirs]

    def ratio(self, name: str, other: str) -> float:
        """Median of :meth:`ratios`."""
        return statistics.median(self.ratios(name, other))

    def spread(self, name: str, other: str) -> float:
        """Half the range between the quartiles of :meth:`ratios`, relative to their median."""
        ratios = self.ratios(name, other)
        if len(ratios) < 4:
            return (max(ratios) - min(ratios)) / 2 / statistics.median(ratios)
        lower, middle, upper = statistics.quantiles(ratios, n=4)
        return (upper - lower) / 2 / middle


def race(
    runs: Mapping[str, Run], *, seconds: float, rounds: int = 200, warm_up: int = 2, sample: float = 0.0, limit: float = 30.0
) -> Times:
    """Times everybody in turn, A B C A B C …, starting with another one each round.

    Args:
        runs: by name, what to time; called with the index of the round.
        seconds: a round that starts after so long is not run, but for the first.
        rounds: the most rounds to run.
        warm_up: calls before the first round. Who needs more than a tenth of ``seconds`` for one is called once only, and
            who needs more than half of them has had its only round with that.
        sample: what takes less than this is called several times in a row, and the time divided.
        limit: who takes longer than this for one call is given up.

    Returns:
        The times. Somebody who has used up an equal share of ``seconds`` sits out the rounds that remain.
    """
    times = Times({name: {} for name in runs})
    calls: dict[str, int] = {}
    spent: dict[str, float] = {}
    for name, run in runs.items():
        taken = 0.0
        try:
            for turn in range(max(warm_up, 1)):
                with time_limit(limit):
                    taken = _timed(run, turn, 1)
                if taken > seconds / 10:
                    break
        except TimeoutError:
            times.failed[name] = f"> {limit:.0f} s"
            continue
        if taken > seconds / 2:
            # Too slow to warm up for: this was its only round.
            times.seconds[name][0] = taken
            continue
        calls[name], spent[name] = max(1, round(sample / max(taken, 1e-7))), 0.0
    gc.collect()
    gc.freeze()
    names = list(calls)
    start = process_time()
    for turn in range(rounds):
        if turn and process_time() - start > seconds:
            break
        gc.collect()
        shift = turn % len(names) if names else 0
        for name in names[shift:] + names[:shift]:
            if turn >= 3 and spent[name] > seconds / 4 and spent[name] > 2 * min(spent.values()):
                continue
            if turn and spent[name] > seconds:
                continue
            try:
                with time_limit(limit):
                    taken = _timed(runs[name], turn, calls[name])
            except TimeoutError:
                times.failed[name] = f"> {limit:.0f} s"
                spent[name] = 2 * seconds
                continue
            spent[name] += taken
            times.seconds[name][turn] = taken / calls[name]
    gc.unfreeze()
    return times


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises ``TimeoutError`` in the body when it has run for so long, at the next step of the interpreter."""

    def ring(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, ring)
    # Not a timer of processor time: while one runs, the clock that is measured with advances by whole ticks only.
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _timed(run: Run, turn: int, calls: int) -> float:
    start = process_time()
    for _ in range(calls):
        run(turn)
    return process_time() - start
