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
from equipoise.store import write_json, write_whole
from equipoise_papers.figures.asmg_prompt.clip import CLASSES, small_clip, sources, tokenizer

__all__ = ["Settings", "make"]


@dataclass(frozen=True)
class Settings:
    """What is tuned, as in section 4.6.2 with Office-31, but for the model and the images.

    Attributes:
        methods: which; the step size of each, or its first standard deviation, is chosen of three.
        seeds: of A, mini-batches and samples; judged on the test split.
        tuning_seeds: others, by whose average accuracy on the validation split the choice is made.
        iterations: "epochs" of the thesis, one mini-batch a task each.
        samples: N.
        dim: d.
        tokens: of the prompt.
        batch_size: images a task.
        pretraining_steps: of the CLIP.
    """

    methods: tuple[str, ...] = ("asmg", "asmg-ew", "cma-es", "mmes", "es", "bes")
    seeds: tuple[int, ...] = (0, 1, 2)
    tuning_seeds: tuple[int, ...] = (100, 101)
    iterations: int = 200
    samples: int = 20
    dim: int = 256
    tokens: int = 4
    batch_size: int = 64
    pretraining_steps: int = 800


# As many for each method; of those without a step size, the first standard deviation. The middle one is the thesis' (for BES,
# the whole grid is).
_GRIDS: dict[str, tuple[dict[str, Any], ...]] = {
    "asmg": tuple({"step_size": value} for value in (0.25, 0.5, 1.0)),
    "asmg-ew": tuple({"step_size": value} for value in (0.25, 0.5, 1.0)),
    "cma-es": tuple({"std": value} for value in (0.3, 1.0, 3.0)),
    "mmes": tuple({"std": value} for value in (0.3, 1.0, 3.0)),
    "es": tuple({"step_size": value} for value in (0.001, 0.01, 0.1)),
    "bes": tuple({"step_size": value} for value in (0.5, 0.1, 0.01)),
}


def make(settings: Settings, folder: Path, told: Callable[[str], object]) -> str:
    """Writes ``table.md``, ``results.json`` and ``chosen.json``, the options of each method, and returns the table.

    Raises:
        MissingExtraError: transformers, cma or scikit-learn is not installed.
        InputError: settings that leave nothing to do, or that choose and judge by the same seeds.
    """
    if not (settings.methods and settings.seeds and settings.tuning_seeds) or settings.iterations < 1:
        raise InputError("methods, seeds and iterations have to leave something to do")
    if set(settings.seeds) & set(settings.tuning_seeds):
        raise InputError(f"seeds {settings.seeds} and tuning_seeds {settings.tuning_seeds} overlap; choose and judge by others")
    for method in settings.methods:
        if method not in _GRIDS:
            raise InputError(f'there is no black-box optimizer "{method}" in this figure; there are {", ".join(_GRIDS)}')
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
            **options,
        )
        own = prompt.accuracies(found.x, split)
        told(f"{split}, seed {seed}, {method} {options}: {_line(own)}, {prompt.queries} queries, {found.seconds:.1f} s")
        return own

    chosen: dict[str, dict[str, Any]] = {}
    for method in settings.methods:
        scores = [
            float(np.mean([_average(run(method, seed, options, "validation")) for seed in settings.tuning_seeds]))
            for options in _GRIDS[method]
        ]
        chosen[method] = _GRIDS[method][int(np.argmax(scores))]
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
    lines = ["| method | chosen | " + " | ".join(names) + " | average |", "| :-- | :-- |" + " --: |" * (len(names) + 1)]
    for method, runs in results.items():
        options = ", ".join(f"{name} {value:g}" for name, value in chosen.get(method, {}).items())
        columns = [f"{np.mean([run[name] for run in runs]):.2f}" for name in names]
        averages = [_average(run) for run in runs]
        deviation = f" ± {np.std(averages, ddof=1):.2f}" if len(averages) > 1 else ""
        lines.append(f"| {method} | {options} | " + " | ".join(columns) + f" | {np.mean(averages):.2f}{deviation} |")
    return "\n".join(lines) + "\n"
