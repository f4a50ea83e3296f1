"""All runs, in processes beside each other; what is finished is kept and not run again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from equipoise.errors import InputError
from equipoise.study.files import write_json
from equipoise_papers.figures.hyper_cleaning.settings import Settings
from equipoise_papers.figures.hyper_cleaning.train import Outcome, train

__all__ = ["run"]

_RUNS = ("methods", "seeds")  # settings that say which runs there are, not what a run is


def run(
    settings: Settings,
    source: str,
    data: Path | None,
    folder: Path,
    jobs: int,
    told: Callable[[str], None] = lambda line: None,
) -> list[Outcome]:
    """Runs what is not in the folder yet.

    Args:
        settings: what to run.
        source: which data.
        data: where they lie.
        folder: gets a file a finished run.
        jobs: processes beside each other.
        told: called with a line now and then.

    Raises:
        InputError: the folder holds runs of other settings.
    """
    runs = folder / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    identity = {name: value for name, value in asdict(settings).items() if name not in _RUNS} | {"data": source}
    _check_identity(runs / "settings.json", identity)
    wanted = {runs / f"{method}-{seed}.json": (method, seed) for seed in settings.seeds for method in settings.methods}
    missing = {path: one for path, one in wanted.items() if not path.exists()}
    for path, outcome in _finished(missing, settings, source, data, jobs):
        write_json(path, asdict(outcome))
        scores = ", ".join(f"{task} {value:.1f} %" for task, value in outcome.accuracy.items())
        told(f"{outcome.method}, seed {outcome.seed}: {scores} ({outcome.seconds * 1e3:.0f} ms a step)")
    return [Outcome(**json.loads(path.read_text(encoding="utf-8"))) for path in wanted]


def _finished(
    missing: Mapping[Path, tuple[str, int]], settings: Settings, source: str, data: Path | None, jobs: int
) -> Iterator[tuple[Path, Outcome]]:
    """The runs, one thread each, as they end."""
    if jobs == 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            for path, (method, seed) in missing.items():
                yield path, train(method, seed, settings, source, data)
        finally:
            torch.set_num_threads(threads)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        going = {pool.submit(train, *one, settings, source, data): path for path, one in missing.items()}
        for future in as_completed(going):
            yield going[future], future.result()


def _check_identity(path: Path, identity: dict[str, Any]) -> None:
    written = json.loads(json.dumps(identity))
    if not path.exists():
        write_json(path, written)
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    differing = sorted(name for name in {*before, *written} if before.get(name) != written.get(name))
    if differing:
        raise InputError(
            f"{path.parent} holds runs with another {differing[0]} ({before.get(differing[0])}, now "
            f"{written.get(differing[0])}); choose another folder with --output"
        )
