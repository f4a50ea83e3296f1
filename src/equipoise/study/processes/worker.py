"""What happens inside the process of one run: load, train, write the record.

Also the program of a freshly started process: ``python -m equipoise.lifeline 0 equipoise.study.processes.worker PAYLOAD``, with
the lifeline as standard input and messages going to standard output.

What runs need travels as a pickle, which can run any code. So it never lies in a folder of results, which may come from
anywhere, but in a temporary one that nobody else may enter, and is read only if this user's own processes wrote it.
"""

from __future__ import annotations

import json
import os
import pickle
import stat
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from equipoise.cluster import dumped_for_nodes
from equipoise.errors import InputError
from equipoise.lifeline import hold_on

__all__ = ["THREADS", "pack", "perform", "say", "unpack_result"]


THREADS = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONIOENCODING": "utf-8:backslashreplace",
}
"""Environment of every process of a study: one thread per run, nothing left to chance in the order of a set, and logs that take
whatever is printed.
"""


def pack(work: dict[str, Any], environment: Mapping[str, str] | None = None, *, elsewhere: bool = False) -> bytes:
    """Packs what a run needs, with what its environment has besides. Functions of scripts, notebooks and loose files travel by
    value; for a machine ``elsewhere`` see :func:`equipoise.cluster.dumped_for_nodes`.
    """
    import cloudpickle

    packed = dumped_for_nodes(work) if elsewhere else cloudpickle.dumps(work)
    # The path comes first and apart: unpickling the rest may already import the user's modules.
    return pickle.dumps((list(sys.path), dict(environment or {}), packed))


def _own(path: Path) -> bytes:
    """What a file holds that this user wrote, and nobody else can have changed.

    Raises:
        InputError: somebody else's file, a link, or one that others may write to.
    """
    number = os.open(
        path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    )
    with open(number, "rb") as file:
        about = os.fstat(number)
        mine = not hasattr(os, "getuid") or about.st_uid == os.getuid()
        if not stat.S_ISREG(about.st_mode) or not mine or (os.name == "posix" and about.st_mode & 0o022):
            raise InputError(f'"{path}" was not written by this user alone, and unpickling it could run anything')
        return file.read()


def say(descriptor: int, **message: Any) -> None:
    """Sends one line to the study; short enough to arrive in one piece however many processes share the pipe.

    (A pipe keeps lines of up to 4096 bytes whole: a hundred numbers and more.)
    """
    os.write(descriptor, (json.dumps(message) + "\n").encode())


def perform(payload: Path, messages: int, target: Path | None = None) -> int:
    """Trains one run and writes its record, or calls a function and writes its result.

    Args:
        payload: what :func:`pack` made of ``problem``, ``run``, ``epochs``, ``gramian_every``, ``record`` (the path) and
            ``watch`` (names of the validation metrics that are to be told after each epoch); or of ``call`` (a function),
            its ``arguments`` and ``result`` (the path).
        messages: descriptor for the messages ``{"run": key, "epoch": number, "watched": [values]}``.
        target: on another machine than the study's: where record or result is written in place of what the payload says.

    Returns:
        0 if record or result was written, 1 after an error, whose traceback is on standard error.
    """
    try:
        import torch

        from equipoise.store import write_json, write_whole

        torch.set_num_threads(1)
        path, environment, packed = pickle.loads(_own(payload))
        os.environ.update(environment)  # torch looks for GPUs when it first needs one
        payload.unlink(missing_ok=True)  # a study that is killed should leave nothing behind
        # Elsewhere the study's folders may be there as well, on a shared disc, but what is installed comes first.
        sys.path[:] = path if target is None else [*sys.path, *(place for place in path if place not in sys.path)]
        work = pickle.loads(packed)
        if "call" in work:
            write_whole(target or Path(work["result"]), _called(work), private=True)
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
        write_json(target or Path(work["record"]), record | {"alone": work["alone"]})
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
    *_, packed = pickle.loads(_own(path))
    result = pickle.loads(packed)
    if "error" in result:
        raise result["error"]
    return result["value"]


def prepare(arguments: Sequence[str]) -> None:
    """Imports what takes long, while the process that started this one is watched."""
    import torch  # noqa: F401


def main(lifeline: int, arguments: Sequence[str]) -> NoReturn:
    """Carries out the run of a freshly started process."""
    messages = os.dup(1)
    os.dup2(2, 1)  # what the run prints goes to its log, with its errors
    own = os.dup(lifeline)
    if os.name == "posix":
        hold_on(own)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os._exit(perform(Path(arguments[0]), messages, Path(arguments[1]) if len(arguments) > 1 else None))
