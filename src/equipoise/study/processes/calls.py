"""Calls of a function, several at a time, each in a process of its own."""

from __future__ import annotations

import queue
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from equipoise.cluster import Ray
from equipoise.errors import EquipoiseError
from equipoise.store import write_whole, writing
from equipoise.study.processes.launchers import launcher
from equipoise.study.processes.worker import pack, unpack_result

__all__ = ["calls"]


def calls(
    function: Callable[..., Any],
    arguments: Sequence[tuple[Any, ...]],
    jobs: int,
    *,
    preload: Sequence[str] = (),
    start: str | Ray = "auto",
) -> Iterator[tuple[int, Any]]:
    """Calls a function once for each tuple of arguments, with one thread per call and so many processes at a time.

    The script that asks for it is not imported again, so it needs no ``if __name__ == "__main__"``; functions of scripts and
    notebooks will do. With ``jobs=1`` the calls are made here, one after the other, unless ``start`` is a cluster. Processes
    find ``preload`` imported.

    Yields:
        The position of a call among ``arguments``, and its result, as calls end.

    Raises:
        EquipoiseError: what a call raised, or that its process failed. Calls that have not ended are given up.

    Example:
        >>> sorted(calls(pow, [(2, 3), (3, 2)], jobs=2))
        [(0, 8), (1, 9)]
    """
    elsewhere = isinstance(start, Ray)
    if jobs == 1 and not elsewhere:
        yield from _here(function, arguments)
        return
    with writing("a temporary folder"):
        temporary = tempfile.TemporaryDirectory(prefix="equipoise-", ignore_cleanup_errors=True)
    with temporary:
        folder = Path(temporary.name)
        processes = launcher(start, ("torch", *preload), folder / "processes.log")
        try:
            waiting, running = deque(range(len(arguments))), 0
            while waiting or running:
                while waiting and running < jobs:
                    number = waiting.popleft()
                    payload, result = folder / f"{number}.pickle", folder / f"{number}.result"
                    work = {"call": function, "arguments": arguments[number], "result": str(result)}
                    write_whole(payload, pack(work, elsewhere=elsewhere), private=True)
                    processes.start(str(number), payload, folder / f"{number}.log")
                    running += 1
                try:
                    message = processes.messages.get(timeout=1)  # with a limit, because Ctrl-C is not heard everywhere without
                except queue.Empty:
                    continue
                if "lost" in message:
                    raise EquipoiseError(f"{message['lost']}:\n{_text(folder / 'processes.log')}")
                running -= 1
                number = int(message["run"])
                result = folder / f"{number}.result"
                if content := message.get("content"):
                    write_whole(result, content, private=True)
                if not result.exists():
                    raise EquipoiseError(
                        f"a process ended with exit code {message['exit']} and no result:\n{_text(folder / f'{number}.log')}"
                    )
                yield number, unpack_result(result)
                result.unlink()
        finally:
            processes.close()


def _here(function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
    """The calls in this process; with one thread, so that results are those of processes."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for number, one in enumerate(arguments):
            yield number, function(*one)
    finally:
        torch.set_num_threads(threads)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").strip() if path.exists() else ""
