"""What runs in a worker process. Started as a file, so that nothing of the library is imported but what the function needs."""

from __future__ import annotations

import os
import pickle
import sys
from multiprocessing.connection import Connection


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
        except Exception as error:
            writer.send(f"{type(error).__name__}: {error}")
            return
        writer.send("")
        while True:
            points = reader.recv()
            try:
                value, problem = function(points), ""
                if hasattr(value, "detach"):
                    value = value.detach().cpu().numpy()
            except Exception as error:
                value, problem = None, f"{type(error).__name__}: {error}"
            try:
                writer.send((value, problem))
            except (pickle.PicklingError, TypeError, AttributeError) as error:
                writer.send((None, f"what f returned cannot be sent: {error}"))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return


if __name__ == "__main__":
    main()
