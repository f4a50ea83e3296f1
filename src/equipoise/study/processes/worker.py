"""What happens inside the process of one run: load, train, write the record.

Also the program of a freshly started process: ``python -m equipoise.study.processes.worker PAYLOAD``, with the lifeline as
standard input and messages going to standard output.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

__all__ = ["THREADS", "hold_on", "pack", "perform", "say", "unpack_result"]


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


THREADS = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
}
"""Environment of every process of a study: one thread per run, and nothing left to chance in the order of a set."""


def pack(work: dict[str, Any]) -> bytes:
    """Packs what a run needs. Functions of scripts, notebooks and loose files travel by value."""
    import cloudpickle

    # The path comes first and apart: unpickling the rest may already import the user's modules.
    return pickle.dumps((list(sys.path), cloudpickle.dumps(work)))


def say(descriptor: int, **message: Any) -> None:
    """Sends one line to the study; short enough to arrive in one piece however many processes share the pipe.

    (A pipe keeps lines of up to 4096 bytes whole: a hundred numbers and more.)
    """
    os.write(descriptor, (json.dumps(message) + "\n").encode())


def perform(payload: Path, messages: int) -> int:
    """Trains one run and writes its record, or calls a function and writes its result.

    Args:
        payload: what :func:`pack` made of ``problem``, ``run``, ``epochs``, ``gramian_every``, ``record`` (the path) and
            ``watch`` (names of the validation metrics that are to be told after each epoch); or of ``call`` (a function),
            its ``arguments`` and ``result`` (the path).
        messages: descriptor for the messages ``{"run": key, "epoch": number, "watched": [values]}``.

    Returns:
        0 if record or result was written, 1 after an error, whose traceback is on standard error.
    """
    try:
        import torch

        from equipoise.store import write_json, write_whole

        torch.set_num_threads(1)
        path, packed = pickle.loads(payload.read_bytes())
        sys.path[:] = path
        work = pickle.loads(packed)
        if "call" in work:
            write_whole(Path(work["result"]), _called(work))
            return 0
        from equipoise.study.training import train

        run = work["run"]
        record = train(
            work["problem"],
            run,
            epochs=work["epochs"],
            gramian_every=work["gramian_every"],
            finished_epoch=lambda epoch, validation: say(
                messages, run=run.key, epoch=epoch, watched=[(validation or {}).get(name) for name in work["watch"]]
            ),
        )
        write_json(Path(work["record"]), record)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _called(work: dict[str, Any]) -> bytes:
    """The packed result of a call, or the error that it raised on purpose."""
    from equipoise.errors import EquipoiseError

    try:
        return pack({"value": work["call"](*work["arguments"])})
    except EquipoiseError as error:
        traceback.print_exc()
        return pack({"error": error})


def unpack_result(path: Path) -> Any:
    """The result of a call that was written by :func:`perform`. Raises EquipoiseError: that the call raised."""
    _, packed = pickle.loads(path.read_bytes())
    result = pickle.loads(packed)
    if "error" in result:
        raise result["error"]
    return result["value"]


def main() -> None:
    """Entry point of a freshly started process."""
    from equipoise.study.processes.worker import hold_on

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the study decides when runs end
    messages = os.dup(1)
    os.dup2(2, 1)  # what the run prints goes to its log, with its errors
    lifeline = os.dup(0)
    hold_on(lifeline)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os._exit(perform(Path(sys.argv[1]), messages))


if __name__ == "__main__":
    main()
