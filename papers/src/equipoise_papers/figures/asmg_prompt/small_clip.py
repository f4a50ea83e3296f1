"""A CLIP of two layers a tower, trained from scratch on captioned digits; afterwards it is frozen and only queried."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from equipoise.errors import require
from equipoise_papers.figures.asmg_prompt.sources import CLASSES, Source

__all__ = ["small_clip", "tokenizer"]

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
    transformers = require("transformers", "prompts")
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(f"{letter}</w>" for letter in letters), _BEGIN, _END]
    return transformers.CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[])


def small_clip(sources: list[Source], *, seed: int = 0, steps: int = 400, told: Callable[[str], object] = print) -> Any:
    """Trains the model by CLIP's contrastive loss on random captions of random images of the pretraining part.

    Args:
        sources: of images.
        seed: of weights, batches and captions.
        steps: of Adam, with 96 images each.
        told: takes a line now and then.

    Returns:
        A ``transformers.CLIPModel``.
    """
    transformers = require("transformers", "prompts")
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
