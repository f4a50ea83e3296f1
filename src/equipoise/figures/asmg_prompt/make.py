"""Trains and freezes the CLIP, tunes prompts by every method at equal queries, and tabulates test accuracies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from equipoise.blackbox import minimize
from equipoise.blackbox.prompts import BlackBoxPrompt, Clip, PromptTask, cached_features
from equipoise.errors import InputError
from equipoise.figures.asmg_prompt.small_clip import small_clip, tokenizer
from equipoise.figures.asmg_prompt.sources import CLASSES, sources
from equipoise.study.files import write_json, write_whole

__all__ = ["Settings", "make"]


@dataclass(frozen=True)
class Settings:
    """What is tuned, as in section 4.6.2 with Office-31, but for the model and the images.

    Attributes:
        methods: which; step sizes are those of the thesis.
        seeds: of A, mini-batches and samples.
        iterations: "epochs" of the thesis, one mini-batch a task each.
        samples: N.
        dim: d.
        tokens: of the prompt.
        batch_size: images a task.
        pretraining_steps: of the CLIP.
    """

    methods: tuple[str, ...] = ("asmg", "asmg-ew", "cma-es", "mmes", "es", "bes")
    seeds: tuple[int, ...] = (0, 1, 2)
    iterations: int = 200
    samples: int = 20
    dim: int = 256
    tokens: int = 4
    batch_size: int = 64
    pretraining_steps: int = 800


_STEP_SIZES: dict[str, dict[str, Any]] = {
    "asmg": {"step_size": 0.5},
    "asmg-ew": {"step_size": 0.5},
    "es": {"step_size": 0.01},
    "bes": {"step_size": 0.1},  # of the thesis' grid 0.5, 0.1, 0.01
}


def make(settings: Settings, folder: Path, told: Callable[[str], object]) -> str:
    """Writes ``table.md`` and ``results.json`` and returns the table.

    Raises:
        MissingExtraError: transformers, cma or scikit-learn is not installed.
        InputError: settings that leave nothing to do.
    """
    if not settings.methods or not settings.seeds or settings.iterations < 1:
        raise InputError("methods, seeds and iterations have to leave something to do")
    images = sources()
    clip = Clip(small_clip(images, steps=settings.pretraining_steps, told=told), tokenizer(), CLASSES)
    fingerprint = clip.fingerprint()
    tasks = []
    for source in images:
        features = {
            split: cached_features(
                lambda pixels=pixels: clip.image_features(pixels),  # type: ignore[misc]
                folder / "features",
                [fingerprint, pixels],
            )
            for split, pixels in source.pixels.items()
        }
        tasks.append(PromptTask(source.name, features, source.labels))
    # The last row of an iteration of BES is its mean, so that it takes fewer iterations with the same number of queries.
    budget = settings.iterations * settings.samples
    results: dict[str, list[dict[str, float]]] = {}
    names = [task.name for task in tasks]
    blank = BlackBoxPrompt(clip, tasks, tokens=settings.tokens, dim=settings.dim, batch_size=settings.batch_size)
    zero_shot = blank.accuracies_of(clip.scores_of(clip.zero_shot_features(), blank.inputs("test")), "test")
    results["zero-shot"] = [zero_shot]
    told(f"zero-shot: {_line(zero_shot)}")
    for seed in settings.seeds:
        for method in settings.methods:
            prompt = BlackBoxPrompt(
                clip,
                tasks,
                tokens=settings.tokens,
                dim=settings.dim,
                batch_size=settings.batch_size,
                seed=seed,
                budget=budget,
            )
            found = minimize(
                prompt,
                np.zeros(settings.dim),
                method,
                evaluations=budget,
                batched=True,
                samples=settings.samples,
                seed=np.random.default_rng([seed, 3]),
                **_STEP_SIZES.get(method, {}),
            )
            own = prompt.accuracies(found.x, "test")
            results.setdefault(method, []).append(own)
            told(f"seed {seed}, {method}: {_line(own)}, {prompt.queries} queries, {found.seconds:.1f} s")
    write_json(folder / "results.json", results)
    text = _table(results, names)
    write_whole(folder / "table.md", text)
    return text


def _line(accuracies: dict[str, float]) -> str:
    values = ", ".join(f"{name} {value:.1f}" for name, value in accuracies.items())
    return f"{values}, average {np.mean(list(accuracies.values())):.2f} %"


def _table(results: dict[str, list[dict[str, float]]], names: Sequence[str]) -> str:
    lines = ["| method | " + " | ".join(names) + " | average |", "| :-- |" + " --: |" * (len(names) + 1)]
    for method, runs in results.items():
        columns = [f"{np.mean([run[name] for run in runs]):.2f}" for name in names]
        averages = [np.mean(list(run.values())) for run in runs]
        deviation = f" ± {np.std(averages, ddof=1):.2f}" if len(averages) > 1 else ""
        lines.append(f"| {method} | " + " | ".join(columns) + f" | {np.mean(averages):.2f}{deviation} |")
    return "\n".join(lines) + "\n"
