"""How runs compute: on which device, compiled or not, in which precision. What is left out is as the problem has it."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from equipoise.cluster import Ray
from equipoise.errors import InputError
from equipoise.modules import moved
from equipoise.study.problem import Built, Problem

__all__ = ["Computing", "computing"]


@dataclass(frozen=True)
class Computing:
    """What a folder of a study remembers of how its runs compute, and which GPUs there are for them.

    Attributes:
        device: ``"cpu"``, ``"cuda"``, or empty for wherever the problem puts its model.
        compile: the backend of ``torch.compile`` for the problem's models; empty for none.
        amp: the precision of autocast in training; empty for none.
        gpus: of this machine, for a run each, as ``CUDA_VISIBLE_DEVICES`` names them; none on the CPU or where Ray gives them.
    """

    device: str = ""
    compile: str = ""
    amp: str = ""
    gpus: tuple[str, ...] = ()

    def settings(self) -> dict[str, str]:
        """What runs of one folder must have in common."""
        return {"device": self.device, "compile": self.compile, "amp": self.amp}

    def at_a_time(self, jobs: int | None, otherwise: Callable[[], int]) -> int:
        """Runs at a time: one per GPU, or what there is room for if nothing is said. Raises InputError: more than GPUs."""
        if not self.gpus:
            return otherwise() if jobs is None else jobs
        if jobs is not None and jobs > len(self.gpus):
            raise InputError(
                f"jobs is {jobs}, and a GPU trains one run at a time, of which {len(self.gpus)} are to be used; leave jobs "
                f"out, or give at most {len(self.gpus)}"
            )
        return len(self.gpus) if jobs is None else jobs

    def applied(self, problem: Problem) -> Problem:
        """The problem, computed so; itself where nothing is asked for. Raises InputError: its models cannot be compiled."""
        if not any(self.settings().values()):
            return problem
        if self.compile and problem.shared is None and problem.parts is None:
            raise InputError(
                f'the models of problem "{problem.name}" cannot be compiled, for then every loss would seem to reach every '
                "parameter; give the problem shared= or parts=, or leave compile out"
            )

        def placed(batch: Any) -> Any:
            return moved(batch, torch.device(self.device)) if self.device else batch

        def build(seed: int) -> Built:
            model, losses, *rest = problem.build(seed)
            if self.device:
                model.to(self.device)
            # In place, so that names and attributes stay; in parts where the graph has to tell what tasks share.
            parts = None if problem.parts is None or problem.shared is not None else problem.parts(model)
            for module in [model] if parts is None else [parts["features"], *parts["heads"].values()]:
                if self.compile:
                    module.compile(backend=self.compile)
            kind = next((parameter.device.type for parameter in model.parameters()), "cpu")

            def computed(model: nn.Module, batch: Any) -> Any:
                with torch.autocast(kind, dtype=getattr(torch, self.amp)) if self.amp else nullcontext():
                    return losses(model, placed(batch))

            return (model, computed, rest[0]) if rest else (model, computed)

        targets = problem.targets
        return dataclasses.replace(
            problem,
            build=build,
            # In full precision: it is the model that is judged, and what evaluates it need not know of others.
            evaluate=lambda model, loader: problem.evaluate(model, _Placed(loader, placed)),
            targets=None if targets is None else lambda batch: targets(placed(batch)),
        )


class _Placed:
    """A loader whose batches come placed; all else is the loader's own."""

    def __init__(self, loader: Iterable[Any], place: Callable[[Any], Any]) -> None:
        self._loader, self._place = loader, place

    def __iter__(self) -> Iterator[Any]:
        return map(self._place, self._loader)

    def __len__(self) -> int:
        return len(self._loader)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # copies and pickles ask before there is a loader
            raise AttributeError(name)
        return getattr(self._loader, name)


def computing(
    device: str | None = None, *, compile: bool | str = False, amp: bool = False, start: str | Ray = "auto"
) -> Computing:
    """Reads what is asked for, the arguments of a study. Raises InputError: text of another form, or what cannot work here."""
    backend = compile if isinstance(compile, str) else "inductor" if compile else ""
    if device == "auto":
        device = "cuda" if (start.gpus if isinstance(start, Ray) else torch.cuda.is_available()) else "cpu"
    kind, gpus = _on_nodes(device, start) if isinstance(start, Ray) else _here(device)
    if not isinstance(start, Ray):
        on_gpu = kind == "cuda" or (not kind and torch.cuda.is_available())
        known = [os.environ.get("CXX"), "g++", "clang++", "c++", "cl"]
        there = importlib.util.find_spec("triton") if on_gpu else any(name and shutil.which(name) for name in known)
        if backend == "inductor" and not there:
            lacking = "triton" if on_gpu else "a C++ compiler"
            raise InputError(f"compile needs {lacking}, which is not installed here; install it, or leave compile out")
        if amp and on_gpu and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise InputError("amp computes in bfloat16, which this GPU does not have; leave amp out")
    # bfloat16 has float32's range, so that no method has to know of a scale.
    return Computing(kind, backend, "bfloat16" if amp else "", gpus)


def _on_nodes(device: str | None, start: Ray) -> tuple[str, tuple[str, ...]]:
    if device not in (None, "cpu", "cuda"):
        raise InputError(f'device is "{device}", and on a cluster Ray gives each run its GPU; give cuda, with --gpus 1')
    if device == "cuda" and not start.gpus:
        raise InputError('device is "cuda", and runs get no GPU from the cluster; give --gpus 1 as well')
    return device or "", ()


def _here(device: str | None) -> tuple[str, tuple[str, ...]]:
    if device in (None, "cpu"):
        return device or "", ()
    found = re.fullmatch(r"cuda(?::(\d+(?:,\d+)*))?", device or "")
    if found is None:
        raise InputError(f'device is "{device}"; it must be auto, cpu, cuda, or cuda with numbers of GPUs: cuda:0,1')
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        raise InputError(f'device is "{device}", and torch finds no GPU here; give cpu, or auto')
    numbers = [int(number) for number in found[1].split(",")] if found[1] else list(range(count))
    if max(numbers) >= count or len(set(numbers)) < len(numbers):
        raise InputError(f'device is "{device}", and torch finds GPUs 0 to {count - 1} here; give each of them at most once')
    # A run sees its own GPU alone, whatever its problem calls it.
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return "cuda", tuple(visible[number] if number < len(visible) else str(number) for number in numbers)
