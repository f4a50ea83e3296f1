"""What runs in a worker process. Started as a file, so that nothing of the library is imported but what the function needs."""

from __future__ import annotations

import os
import pickle
import sys
from multiprocessing.connection import Connection
from typing import Any


def told(error: BaseException) -> str:
    """An error in one line."""
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = ""
    return f"{type(error).__name__}: {text}"


def detached(value: Any) -> Any:
    """The value, torch tensors without their graph, which cannot travel."""
    if hasattr(value, "detach"):
        return value.detach().cpu()
    return [detached(entry) for entry in value] if isinstance(value, list | tuple) else value


def main() -> None:
    """Receives the function, then answers points until the other end closes."""
    reader = Connection(int(sys.argv[1]), writable=False)
    writer = Connection(int(sys.argv[2]), readable=False)
    try:
        path, folder = reader.recv()
        sys.path[:] = path
        os.chdir(folder)
        try:
            function = pickle.loads(reader.recv_bytes())
        except KeyboardInterrupt:
            return
        except BaseException as error:
            writer.send(told(error))
            return
        writer.send("")
        while True:
            points = reader.recv()
            try:
                value, problem = detached(function(points)), ""
            except KeyboardInterrupt:
                return
            except BaseException as error:
                value, problem = None, told(error)
            try:
                packed = pickle.dumps((value, problem))
            except Exception as error:
                packed = pickle.dumps((None, f"what f returned cannot be sent: {told(error)}"))
            writer.send_bytes(packed)
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return


if __name__ == "__main__":
    main()
