"""Trains and freezes the CLIP, tunes prompts by every method at equal queries, and tabulates test accuracies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from equipoise.blackbox import minimize
from equipoise.markdown import table
from equipoise.store import write_json, write_whole
from equipoise_papers.clip import Clip, cached_features
from equipoise_papers.commands import Told, silent
from equipoise_papers.figures.asmg_prompt.clip import CLASSES, small_clip, sources, tokenizer
from equipoise_papers.figures.asmg_prompt.settings import GRIDS, ASMGPromptSettings
from equipoise_papers.prompts import BlackBoxPrompt, PromptTask
from equipoise_papers.tables import mean_and_spread

__all__ = ["make"]


def make(settings: ASMGPromptSettings, folder: Path, told: Told = silent) -> str:
    """Writes ``table.md``, ``results.json`` and ``chosen.json``, the options of each method, and returns the table.

    Raises:
        MissingExtraError: transformers, cma or scikit-learn is not installed.
    """
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

    def run(method: str, seed: int, options: dict[str, Any], split: str) -> dict[str, float]:
        prompt = BlackBoxPrompt(
            clip, tasks, tokens=settings.tokens, dim=settings.dim, batch_size=settings.batch_size, seed=seed, budget=budget
        )
        found = minimize(
            prompt,
            np.zeros(settings.dim),
            method.removesuffix("-printed"),
            evaluations=budget,
            batched=True,
            samples=settings.samples,
            seed=np.random.default_rng([seed, 3]),
            **options,
        )
        own = prompt.accuracies(found.x, split)
        told(f"{split}, seed {seed}, {method} {options}: {_line(own)}, {prompt.queries} queries, {found.seconds:.1f} s")
        return own

    chosen: dict[str, dict[str, Any]] = {}
    for method in settings.methods:
        scores = [
            float(np.mean([_average(run(method, seed, options, "validation")) for seed in settings.tuning_seeds]))
            for options in GRIDS[method]
        ]
        chosen[method] = GRIDS[method][int(np.argmax(scores))]
    for seed in settings.seeds:
        for method in settings.methods:
            results.setdefault(method, []).append(run(method, seed, chosen[method], "test"))
    write_json(folder / "results.json", results)
    write_json(folder / "chosen.json", chosen)
    text = _table(results, names, chosen)
    write_whole(folder / "table.md", text)
    return text


def _average(accuracies: dict[str, float]) -> float:
    return float(np.mean(list(accuracies.values())))


def _line(accuracies: dict[str, float]) -> str:
    values = ", ".join(f"{name} {value:.1f}" for name, value in accuracies.items())
    return f"{values}, average {_average(accuracies):.2f} %"


def _table(results: dict[str, list[dict[str, float]]], names: Sequence[str], chosen: dict[str, dict[str, Any]]) -> str:
    rows = []
    for method, runs in results.items():
        options = ", ".join(f"{name} {value:g}" for name, value in chosen.get(method, {}).items() if not isinstance(value, str))
        columns = [f"{np.mean([run[name] for run in runs]):.2f}" for name in names]
        averages = [_average(run) for run in runs]
        rows.append([method, options, *columns, mean_and_spread(averages, 2)])
    return table(["method", "chosen", *names, "average"], rows, left=2) + "\n"
