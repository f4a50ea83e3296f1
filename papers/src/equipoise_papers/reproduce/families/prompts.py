"""A prompt for several tasks, tuned by queries alone: the thesis' Table 4.1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from equipoise.blackbox import minimize
from equipoise.data.office import read_office
from equipoise.errors import InputError
from equipoise_papers.clip import Clip, load_clip, office_tasks
from equipoise_papers.prompts import BlackBoxPrompt
from equipoise_papers.reproduce.cost import Workload
from equipoise_papers.reproduce.families.office import DATA, SOURCES, write_sample
from equipoise_papers.reproduce.recipe import Recipe, RecipeRow, Setting, hyper
from equipoise_papers.reproduce.runs_part import RunsPart

__all__ = ["RECIPES", "PromptPart"]

_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "asmg": {"lr": 0.5, "covariance": "printed", "scaling": "none"},
    "asmg-ew": {"lr": 0.5, "covariance": "printed"},
    "es": {"lr": 0.01},
    "bes": {"lr": 0.01},
    "cma-es": {},
    "mmes": {},
}
"""Section 4.6.2; BES' step size is the smallest of the thesis' grid, which does not say what was chosen."""
_METHODS = {"ES": "es", "BES": "bes", "MMES": "mmes", "CMA-ES": "cma-es", "ASMG-EW": "asmg-ew", "ASMG": "asmg"}
_SAMPLES = {"office31": 20, "officehome": 40}


@dataclass(frozen=True)
class PromptPart(RunsPart):
    """Prompts of four tokens for a frozen CLIP, the image features encoded once and kept."""

    kind: str
    name: str
    table: str
    rows: tuple[RecipeRow, ...]
    workload: Workload
    network: str
    hyperparameters: Mapping[str, str]
    open_choices: tuple[str, ...] = ()
    baselines: bool = False
    subfolder: str = ""

    def identity(self, setting: Setting) -> dict[str, Any]:
        return {"smoke": setting.smoke, "clip": setting.extra.get("clip", "")}

    def write_sample(self, folder: Path) -> Path:
        return write_sample(self.kind)(folder)

    def run(self, setting: Setting, row: RecipeRow, seed: int, epochs: int | None, folder: Path) -> dict[str, float]:
        """Tunes a prompt; ``epochs`` are mini-batches per task here, 200 in the thesis."""
        clip, tasks = _prepared(
            self.kind, setting.folder(), setting.extra.get("clip", ""), setting.smoke, folder, setting.device
        )
        method, _, dimension = row.method.partition(":")
        if method == "zero-shot":
            prompt = BlackBoxPrompt(clip, tasks, tokens=4)
            return _named(prompt.accuracies_of(clip.scores_of(clip.zero_shot_features(), prompt.inputs("test")), "test"))
        dim, samples = int(dimension), 4 if setting.smoke else _SAMPLES[self.kind]
        budget = (200 if epochs is None else epochs) * samples
        prompt = BlackBoxPrompt(clip, tasks, tokens=4, dim=dim, batch_size=64, seed=seed, budget=budget)
        found = minimize(
            prompt,
            np.zeros(dim),
            method,
            evaluations=budget,
            batched=True,
            samples=samples,
            seed=np.random.default_rng([seed, 3]),
            **_OPTIONS[method],
        )
        return _named(prompt.accuracies(found.x, "test"))


def _named(accuracies: Mapping[str, float]) -> dict[str, float]:
    return {f"{task} accuracy": value for task, value in accuracies.items()}


@lru_cache(maxsize=2)
def _prepared(kind: str, data: Path, source: str, smoke: bool, folder: Path, device: str) -> tuple[Any, Any]:
    """The CLIP and the tasks, read and encoded once a process."""
    found = read_office(data, SOURCES[kind])
    classes = [name.replace("_", " ") for name in found[0].classes]
    if smoke:
        from equipoise_papers.figures.asmg_prompt.clip import small_clip, sources, tokenizer

        clip, size = Clip(small_clip(sources(), steps=1).to(device), tokenizer(), ["one", "two"]), 16
    elif not source:
        raise InputError(
            "this needs a CLIP; give --clip FOLDER, a folder in the format of transformers (config.json, weights, tokenizer), "
            "or --clip open_clip:RN50-quickgelu:FILE, the thesis' with ResNet-50, from OpenAI's weights"
        )
    else:
        clip, size = load_clip(source, classes, device), 224
    cache = None if smoke else folder / "features"
    return clip, office_tasks(found, clip, cache=cache, size=size)


def _part(kind: str, name: str) -> PromptPart:
    table = f"thesis-table4.1-{kind}"
    classes, count = (31, 3) if kind == "office31" else (65, 4)
    made = (
        RecipeRow("Zero-shot", "zero-shot"),
        *(RecipeRow(f"{name} d={d}", f"{method}:{d}") for d in (256, 512, 1024) for name, method in _METHODS.items()),
    )
    return PromptPart(
        kind,
        name,
        table,
        made,
        # Texts of every class under every prompt; images are encoded once.
        Workload(gigaflops=6.0, batch=classes * _SAMPLES[kind], steps=1, epochs=200, tasks=count, evaluated=0, forward=True),
        "a frozen CLIP, a prompt of 4 tokens p = A v",
        hyper(
            iterations="200, in each a mini-batch of 64 images per task",
            population=_SAMPLES[kind],
            learning_rate="0.5 for ASMG and ASMG-EW, 0.01 for ES and BES",
            initial="μ = 0, Σ = I",
            reported="after the last iteration",
        ),
        (
            "The thesis' CLIP has a ResNet-50 image encoder: --clip open_clip:RN50-quickgelu:FILE. Any other can be given, "
            "of transformers or a function of one's own, and its accuracies are not comparable.",
            "ASMG is Algorithm 3 with A.2.5 as printed; the library's own default for Σ and the weights is another.",
            "BES' step size was chosen from 0.5, 0.1 and 0.01, and which one is not said; here it is 0.01.",
            "The split is 60/20/20 at random.",
            "An epoch of --epochs is an iteration: a mini-batch per task, and a population of prompts.",
        ),
        subfolder=kind,
    )


RECIPES = (
    Recipe(
        "thesis-table4.1",
        "Thesis, Table 4.1",
        "A prompt tuned by queries alone, on Office-31 and Office-Home",
        f"two folders in one: office31/, {DATA['office31']}; officehome/, {DATA['officehome']}",
        (_part("office31", "office31"), _part("officehome", "officehome")),
        family="prompts",
    ),
)
