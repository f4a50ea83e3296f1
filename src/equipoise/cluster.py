"""Work on a Ray cluster: what is asked for, the connection, and the program of ours that a node runs. Ray is the scheduler."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

from equipoise.errors import EquipoiseError, InputError, require
from equipoise.store import write_whole
from equipoise.version import __version__

__all__ = ["LOSSES", "Ray", "dumped_for_nodes", "head_gone", "program", "where"]

LOSSES = 3
"""How often the node of one piece of work may be lost before the work counts as failed: it might be what kills them."""
_BREATH, _LOOKS = 5.0, 6
"""Seconds from one look at the head to the next, and how many in a row must fail: a head that is started again may be back."""


@dataclass(frozen=True)
class Ray:
    """Carries work out on a Ray cluster, in place of this machine; needs ``pip install 'equipoise[ray]'``.

    Args:
        address: of the cluster, ``host:port``. Left out, it is the one that is connected already, that ``RAY_ADDRESS`` names or
            that runs on this machine; where there is none, one of this machine alone is started, and ended with the work.
        cpus: that Ray sets aside for each run, or each worker of :func:`~equipoise.blackbox.minimize`. A run computes with one
            thread all the same, as everywhere; more is for loaders that read ahead in processes.
        gpus: likewise; a run sees no other than its own. A half lets two runs share one.
    """

    address: str = ""
    cpus: float = 1.0
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.address.startswith("ray://"):
            raise InputError(
                f'"{self.address}" is an address of Ray Client, which tells nothing while a run goes on; start this on a '
                "machine of the cluster (host:6379), or hand it in with: ray job submit"
            )
        for name, value in (("cpus", self.cpus), ("gpus", self.gpus)):
            if not (math.isfinite(value) and value >= 0) or (value > 1 and value != int(value)):
                raise InputError(f"{name} is {value:g}; give a whole number, or a share of one between 0 and 1")
        if not self.cpus and not self.gpus:
            raise InputError("cpus and gpus are both 0, so that Ray would start everything at once; give cpus=1")

    @contextlib.contextmanager
    def connected(self) -> Iterator[Any]:
        """Gives the module ``ray``, connected; within another ``with`` block, or a program of one's own, that connection."""
        ray = require("ray", "ray")
        if ray.is_initialized():
            there = ray.get_runtime_context().gcs_address
            if ":" in self.address and self.address != there:
                raise InputError(f'this process is connected to the cluster "{there}" already, not to "{self.address}"')
            yield ray
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # of a cluster that is started here: nobody agreed to that
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # that a later Ray will not hide GPUs from work without any
                ray.init(address=self.address or None, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
        except Exception as error:
            what = f'no Ray cluster answers at "{self.address}"' if self.address else "no Ray cluster can be joined or started"
            raise EquipoiseError(f"{what} ({' '.join(str(error).split())[:200]}); look at it with: ray status") from error
        try:
            yield ray
        finally:
            ray.shutdown()

    def at_a_time(self) -> int:
        """How many pieces of work the cluster has room for now. Raises InputError: no node is large enough for one."""
        nodes = [node["Resources"] for node in require("ray", "ray").nodes() if node["Alive"]]
        asked = {"CPU": self.cpus, "GPU": self.gpus}
        room = sum(min(int(node.get(name, 0) / need) for name, need in asked.items() if need) for node in nodes)
        if not room:
            largest = ", ".join(f"{node.get('CPU', 0):g} and {node.get('GPU', 0):g}" for node in nodes)
            raise InputError(
                f"no node of the cluster has {self.cpus:g} CPUs and {self.gpus:g} GPUs (there are {largest}); ask for less "
                "with cpus and gpus, or say how many are to wait for larger nodes with jobs"
            )
        return room


def where(address: str | None, cpus: float | None = None, gpus: float | None = None) -> Ray | str:
    """What a command line asks for: the cluster at an address (empty for the one that is found), or this machine."""
    if address is not None:
        return Ray(address, 1.0 if cpus is None else cpus, 0.0 if gpus is None else gpus)
    if cpus is not None or gpus is not None:
        raise InputError("--cpus and --gpus are what a run gets on a Ray cluster; give --ray as well, or leave them out")
    return "auto"


def dumped_for_nodes(value: Any) -> bytes:
    """Pickles a value for a machine that has no modules but installed ones: all others travel by value as well, if they can."""
    import cloudpickle

    known = {"equipoise", *sys.stdlib_module_names, *packages_distributions(), *cloudpickle.list_registry_pickle_by_value()}
    loose = [
        module
        for name, module in list(sys.modules.items())  # one module may be there under two names
        if not {name, name.partition(".")[0]} & known and getattr(module, "__file__", None) and module.__name__ == name
    ]
    for module in loose:
        cloudpickle.register_pickle_by_value(module)
    try:
        return bytes(cloudpickle.dumps(value))
    except Exception:
        # Whatever a module's variables raise, such as a lock. On a shared disk the module can be imported all the same, and
        # what is wrong with the value itself is raised below, without the modules.
        pass
    finally:
        for module in loose:
            cloudpickle.unregister_pickle_by_value(module)
    return bytes(cloudpickle.dumps(value))


def head_gone(address: str, ended: threading.Event) -> str:
    """Why the head of a cluster, ``host:port``, cannot be reached, as soon as that is so; nothing once it has ended."""
    host, _, port = address.rpartition(":")
    failed = 0
    while not ended.wait(_BREATH):
        try:
            socket.create_connection((host.strip("[]"), int(port)), _BREATH).close()
            failed = 0
        except OSError as error:
            failed += 1
            if failed == _LOOKS:
                return str(error.strerror or error)
    return ""


def program(module: str, payload: bytes, environment: Mapping[str, str], folder: str, version: str) -> Iterator[dict[str, Any]]:
    """Runs a program of ours (see :mod:`equipoise.lifeline`) on a node, in a process of its own as on one machine.

    It is given the paths of the payload and of the file for its result, this environment beside that of the node, and the
    folder to work in if the node has it; nothing else is written.

    Yields:
        What it says, one dictionary per line; at last ``{"exit": code, "output": bytes, "content": bytes | None}``.
    """
    if version != __version__:
        raise EquipoiseError(
            f"a node of the cluster has equipoise {__version__}, and {version} asks; install one version on all"
        )
    with tempfile.TemporaryDirectory(prefix="equipoise-", ignore_cleanup_errors=True) as temporary:
        packed, result, log = (Path(temporary) / name for name in ("payload", "result", "log"))
        write_whole(packed, payload, private=True)
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "equipoise.lifeline", "0", module, str(packed), str(result)],
                stdin=subprocess.PIPE,  # nothing is ever sent: it is the lifeline
                stdout=subprocess.PIPE,
                stderr=output,
                env={**os.environ, **environment},
                cwd=folder if Path(folder).is_dir() else None,
                start_new_session=True,
            )
        with process:
            try:
                assert process.stdout is not None
                for line in process.stdout:  # Ray sends to what it iterates over, so not "yield from map(…)"
                    yield json.loads(line)
                code = process.wait()
            finally:
                if process.poll() is None:  # what it has started, such as a loader's processes, goes with it
                    os.killpg(process.pid, signal.SIGKILL) if hasattr(os, "killpg") else process.kill()
        yield {"exit": code, "output": log.read_bytes(), "content": result.read_bytes() if result.exists() else None}
