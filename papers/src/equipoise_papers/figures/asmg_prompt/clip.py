"""A CLIP of two layers per tower, trained from scratch on captioned digits of three sources and then frozen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from equipoise.errors import require
from equipoise_papers.commands import Told, silent
from equipoise_papers.prompts import split_indices

__all__ = ["CLASSES", "SOURCES", "DigitSource", "small_clip", "sources", "tokenizer"]

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SOURCES = ("plain", "inverted", "noisy")
_SPLIT_SEED = 20261124


@dataclass(frozen=True)
class DigitSource:
    """A source's images [n, 3, 16, 16] and labels [n], the part on which the CLIP is trained apart from that for tasks.

    Attributes:
        name: of the source.
        pretraining: images and labels that only the CLIP's training sees.
        pixels: of the task, split → images.
        labels: of the task, split → classes.
    """

    name: str
    pretraining: tuple[NDArray[np.float32], NDArray[np.int64]]
    pixels: dict[str, NDArray[np.float32]]
    labels: dict[str, NDArray[np.int64]]


def sources() -> list[DigitSource]:
    """The 1,797 digits are split first, 600 for training the CLIP and the others 60/20/20 for the tasks; always the same."""
    bundled = require("sklearn.datasets", "study").load_digits()
    images = np.asarray(bundled.images, dtype=np.float32) / 16.0
    labels = np.asarray(bundled.target, dtype=np.int64)
    rng = np.random.default_rng(_SPLIT_SEED)
    order = rng.permutation(len(images))
    first, rest = order[:600], order[600:]
    found = []
    for name in SOURCES:
        seen = {
            "plain": images,
            "inverted": 1.0 - images,
            "noisy": np.clip(images + rng.normal(0.0, 0.35, images.shape), 0.0, 1.0).astype(np.float32),
        }[name]
        enlarged = np.kron(seen, np.ones((2, 2), dtype=np.float32))[:, None] * 2.0 - 1.0
        pixels = np.repeat(enlarged, 3, axis=1).astype(np.float32)
        splits = {split: rest[rows] for split, rows in split_indices(len(rest), _SPLIT_SEED).items()}
        found.append(
            DigitSource(
                name,
                (pixels[first], labels[first]),
                {split: pixels[rows] for split, rows in splits.items()},
                {split: labels[rows] for split, rows in splits.items()},
            )
        )
    return found


# How captions of each source speak. As on the web, "a photo of a" is what plain pictures are called; others are called what
# they are. So the handwritten prompt suits one source, and a prompt that suits all three has to be found.
_CAPTIONS = {
    "plain": ("a photo of a {}", "a picture of a {}", "a clean {}", "a photo of the number {}"),
    "inverted": ("a negative of a {}", "a dark {}", "an inverted image of a {}", "{} in negative"),
    "noisy": ("a noisy scan of a {}", "a bad image of a {}", "a grainy {}", "{} with noise"),
}
_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"


def tokenizer() -> Any:
    """A CLIP tokenizer of letters: every character is a token."""
    transformers = require("transformers", "clip", "equipoise-papers")
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(f"{letter}</w>" for letter in letters), _BEGIN, _END]
    return transformers.CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[])


def small_clip(sources: list[DigitSource], *, seed: int = 0, steps: int = 400, told: Told = silent) -> Any:
    """Trains the model by CLIP's contrastive loss on random captions of random images of the pretraining part.

    Args:
        sources: of images.
        seed: of weights, batches and captions.
        steps: of Adam, with 96 images each.
        told: takes a line now and then.

    Returns:
        A ``transformers.CLIPModel``.
    """
    transformers = require("transformers", "clip", "equipoise-papers")
    words = tokenizer()
    begin, end = (words.convert_tokens_to_ids(token) for token in (_BEGIN, _END))
    shared = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.CLIPConfig(
        text_config={
            **shared,
            "vocab_size": len(words),
            "max_position_embeddings": 40,
            "bos_token_id": begin,
            "eos_token_id": end,
            "pad_token_id": end,
            "projection_dim": 32,
        },
        vision_config={**shared, "image_size": 16, "patch_size": 4, "projection_dim": 32},
        projection_dim=32,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # transformers initialises from the default generator only; it is put back afterwards
        model = transformers.CLIPModel(config).train()
    pixels = torch.from_numpy(np.concatenate([source.pretraining[0] for source in sources]))
    labels = np.concatenate([source.pretraining[1] for source in sources])
    names = np.repeat([source.name for source in sources], [len(source.pretraining[1]) for source in sources])
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(1, steps + 1):
        rows = rng.choice(len(labels), 96, replace=False)
        captions = [_CAPTIONS[names[row]][rng.integers(4)].format(CLASSES[labels[row]]) for row in rows]
        ids = [words(caption)["input_ids"] for caption in captions]
        longest = max(map(len, ids))
        batch = torch.tensor([own + [end] * (longest - len(own)) for own in ids])
        out = model(input_ids=batch, pixel_values=pixels[rows])
        # Captions of the same class and source are no negatives of each other, whatever their wording.
        same = torch.from_numpy((labels[rows][:, None] == labels[rows]) & (names[rows][:, None] == names[rows])).float()
        truth = same / same.sum(dim=1, keepdim=True)
        loss = torch.nn.functional.cross_entropy(out.logits_per_image, truth)
        loss = (loss + torch.nn.functional.cross_entropy(out.logits_per_text, truth)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            told(f"training the CLIP: step {step} of {steps}, loss {float(loss.detach()):.3f}")
    return model.eval().requires_grad_(False)
