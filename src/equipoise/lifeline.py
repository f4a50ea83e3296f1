"""The program of a process that must not outlive the one that started it, not even while it still imports.

``python -m equipoise.lifeline DESCRIPTOR MODULE ARGUMENT…`` watches the pipe whose reading end has that number from its very
first moment, imports the module and calls its ``main`` with the arguments. The pipe's other end is held by the process that
started this one; nothing is ever sent.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator

__all__ = ["hold_on", "holding_on"]


def hold_on(descriptor: int) -> None:
    """Ends this process, and the process group it leads, as soon as the other end of the pipe is gone.

    Args:
        descriptor: the end of the pipe to read from; its other end is held by the study alone.
    """

    def watch() -> None:
        while os.read(descriptor, 1024):
            pass
        _end()

    threading.Thread(target=watch, name="lifeline", daemon=True).start()


@contextlib.contextmanager
def holding_on(descriptor: int) -> Iterator[None]:
    """The same for a while; afterwards there is no thread that a fork would lose."""
    stopped, stop = os.pipe()

    def watch() -> None:
        while stopped not in (ready := select.select([descriptor, stopped], [], [])[0]):
            if ready and not os.read(descriptor, 1024):
                _end()

    thread = threading.Thread(target=watch, name="lifeline", daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.write(stop, b"\0")
        thread.join()
        os.close(stopped)
        os.close(stop)


def _end() -> None:
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)  # processes that the run started, such as those of a DataLoader, go with it
    os._exit(1)


def main() -> None:
    """Imports the program and hands over to it, which goes on watching in its own way."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the study decides when runs end
    descriptor, module, arguments = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    if os.name == "posix":
        with holding_on(descriptor):
            program = importlib.import_module(module)
            program.prepare(arguments)
    else:
        hold_on(os.dup(descriptor))  # elsewhere nothing waits for a pipe and something else at once, nor forks
        program = importlib.import_module(module)
        program.prepare(arguments)
    program.main(descriptor, arguments)


if __name__ == "__main__":
    main()
