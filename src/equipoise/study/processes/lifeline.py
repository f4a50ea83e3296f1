"""A pipe that nobody writes to. When the study's process ends, however it ends, everyone reading it sees the end."""

from __future__ import annotations

import os
import signal
import threading

__all__ = ["hold_on"]


def hold_on(descriptor: int) -> None:
    """Ends this process, and the process group it leads, as soon as the other end of the pipe is gone.

    Args:
        descriptor: the end of the pipe to read from; its other end is held by the study alone.
    """

    def watch() -> None:
        while os.read(descriptor, 1024):
            pass
        if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)  # processes that the run started, such as those of a DataLoader, go with it
        os._exit(1)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
