"""A CLIP of transformers as a black box: prompts in, class scores out; and adapters of its features."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equipoise.blackbox.arrays import Array, read_array
from equipoise.errors import InputError, require

__all__ = ["TEMPLATE", "CallableModel", "Clip", "PromptModel"]


class PromptModel(Protocol):
    """A model that can be asked for class scores under given prompts, and for nothing else.

    Attributes:
        embedding_size: E, entries of a token's embedding.
        embedding_std: σ_e, standard deviation of the entries of the model's word embeddings.
    """

    embedding_size: int
    embedding_std: float

    def scores(self, prompts: Array, inputs: list[Any]) -> list[Array]:
        """Class scores (logits) of images under each prompt.

        Args:
            prompts: token embeddings [B, tokens, E].
            inputs: for each task, what it gives the model for n images.

        Returns:
            For each task [B, n, C].
        """
        ...


class CallableModel:
    """A function from prompt embeddings and inputs to class scores: what a served model is.

    Args:
        function: from prompts [B, tokens, E] and a task's inputs for n images to scores [B, n, C].
        embedding_size: E.
        embedding_std: σ_e of the served model, if it is known.

    Example:
        >>> import numpy as np
        >>> model = CallableModel(lambda prompts, images: prompts.sum(axis=1) @ images.T[None].repeat(3, 1), 3)
        >>> model.embedding_size
        3
    """

    def __init__(self, function: Callable[[Array, Any], Any], embedding_size: int, embedding_std: float = 1.0) -> None:
        if embedding_size < 1 or not embedding_std > 0:
            raise InputError(f"embedding_size is {embedding_size} and embedding_std {embedding_std}; both have to be positive")
        self._function = function
        self.embedding_size = embedding_size
        self.embedding_std = float(embedding_std)

    def scores(self, prompts: Array, inputs: list[Any]) -> list[Array]:
        """Class scores; see :class:`PromptModel`.

        Raises:
            InputError: the function returned another shape.
        """
        answers = []
        for rows in inputs:
            scores = read_array(self._function(prompts, rows), "what the model returned")
            if scores.ndim != 3 or scores.shape[:2] != (len(prompts), len(rows)):
                raise InputError(
                    f"the model returned scores of shape {scores.shape} for {len(prompts)} prompts and {len(rows)} images; "
                    f"expected [{len(prompts)}, {len(rows)}, classes]"
                )
            answers.append(np.ascontiguousarray(scores))
        return answers


TEMPLATE = "a photo of a {class}"


class Clip:
    """A CLIP with frozen encoders that classifies images by the similarity to a text for each class.

    A text is [begin] p_1 … p_tokens {class name} [end], with p the prompt's token embeddings; the score of class y is
    exp(logit scale) · cos(h_image(x), h_text(p; y)). The prompt takes its place in the output of the token embedding, so
    positions, causal mask and pooling are those of the model.

    Args:
        model: a ``transformers.CLIPModel``; put into evaluation mode.
        tokenizer: from a text to token ids with begin and end, as ``transformers.CLIPTokenizer`` gives by
            ``tokenizer(text)["input_ids"]``.
        classes: names, in the order of the labels.
        texts_at_once: how many texts go through the text encoder together.

    Raises:
        InputError: fewer than two classes.

    Attributes:
        embedding_size: E.
        embedding_std: σ_e.
    """

    def __init__(self, model: Any, tokenizer: Any, classes: Sequence[str], *, texts_at_once: int = 512) -> None:
        if len(classes) < 2:
            raise InputError(f"{len(classes)} classes were given; classification needs at least two")
        self.model = model.eval()
        self.classes = tuple(classes)
        self._tokenizer = tokenizer
        self._texts_at_once = max(texts_at_once, len(classes))
        self._embedding = model.text_model.get_input_embeddings()
        self._device = self._embedding.weight.device
        self._longest = int(model.config.text_config.max_position_embeddings)
        self.embedding_size = int(self._embedding.weight.shape[1])
        self.embedding_std = float(self._embedding.weight.detach().float().std())
        self._class_ids: dict[int, Tensor] = {}

    @classmethod
    def from_pretrained(cls, source: str | Path, classes: Sequence[str], **options: Any) -> Clip:
        """Loads model and tokenizer from a local folder or the user's cache of Hugging Face; nothing is downloaded.

        Raises:
            MissingExtraError: transformers is not installed.
            InputError: the model is not there.
        """
        transformers = require("transformers", "prompts")
        try:
            model = transformers.CLIPModel.from_pretrained(str(source), local_files_only=True)
            tokenizer = transformers.CLIPTokenizer.from_pretrained(str(source), local_files_only=True)
        except OSError as error:
            raise InputError(
                f'no CLIP in "{source}" ({str(error).splitlines()[0]}); give a folder of save_pretrained(), or download '
                "the model into the cache first"
            ) from error
        return cls(model, tokenizer, classes, **options)

    @torch.no_grad()
    def image_features(self, pixels: Tensor | NDArray[np.float32], *, images_at_once: int = 256) -> NDArray[np.float32]:
        """Features of length 1 [n, F] of prepared images [n, 3, H, W]."""
        images = torch.as_tensor(pixels)
        parts = []
        for part in images.split(images_at_once):
            features = _pooled(self.model.get_image_features(pixel_values=part.to(self._device)))
            parts.append(torch.nn.functional.normalize(features.float(), dim=-1).cpu())
        return torch.cat(parts).numpy()

    @torch.no_grad()
    def text_features(self, prompts: Array) -> Tensor:
        """Features of length 1 [B, C, F] of all classes under prompts [B, tokens, E]."""
        count, tokens = prompts.shape[:2]
        ids = self._ids(tokens)
        own = torch.as_tensor(prompts, dtype=self._embedding.weight.dtype, device=self._device)
        parts = []
        for part in own.split(max(1, self._texts_at_once // len(self.classes))):
            placed = part.repeat_interleave(len(self.classes), dim=0)

            def put(_module: Any, _inputs: Any, out: Tensor, placed: Tensor = placed) -> Tensor:
                return torch.cat([out[:, :1], placed, out[:, 1 + placed.shape[1] :]], dim=1)

            handle = self._embedding.register_forward_hook(put)
            try:
                features = _pooled(self.model.get_text_features(input_ids=ids.repeat(len(part), 1)))
            finally:
                handle.remove()
            parts.append(torch.nn.functional.normalize(features.float(), dim=-1))
        return torch.cat(parts).view(count, len(self.classes), -1)

    @torch.no_grad()
    def zero_shot_features(self, template: str = TEMPLATE) -> Tensor:
        """Features of length 1 [1, C, F] of the classes under a handwritten prompt with ``{class}`` in it."""
        ids = self._padded([self._read(template.replace("{class}", name)) for name in self.classes])
        features = _pooled(self.model.get_text_features(input_ids=ids))
        return torch.nn.functional.normalize(features.float(), dim=-1)[None]

    def scores(self, prompts: Array, inputs: list[Any]) -> list[Array]:
        """Class scores; see :class:`PromptModel`. The texts are encoded once for all tasks."""
        return self.scores_of(self.text_features(prompts), inputs)

    @torch.no_grad()
    def scores_of(self, texts: Tensor, inputs: list[Any]) -> list[Array]:
        """Class scores [B, n, C] of image features under given text features, for each task."""
        scale = self.model.logit_scale.exp().float()
        return [
            (scale * torch.einsum("nf,bcf->bnc", torch.as_tensor(rows, device=self._device), texts)).double().cpu().numpy()
            for rows in inputs
        ]

    def fingerprint(self) -> str:
        """A digest of the image encoder's weights, by which cached features are told apart."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            if name.startswith(("vision_model", "visual_projection")):
                digest.update(name.encode())
                digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    def _ids(self, tokens: int) -> Tensor:
        """Token ids [C, length] with placeholders where the prompt goes."""
        if tokens not in self._class_ids:
            rows = []
            for name in self.classes:
                begin, *rest = self._read(name)
                rows.append([begin] + [rest[0]] * tokens + rest)
            self._class_ids[tokens] = self._padded(rows)
        return self._class_ids[tokens]

    def _read(self, text: str) -> list[int]:
        return [int(token) for token in self._tokenizer(text)["input_ids"]]

    def _padded(self, rows: list[list[int]]) -> Tensor:
        length = max(map(len, rows))
        if length > self._longest:
            raise InputError(f"a text has {length} tokens with its prompt, the model takes {self._longest}; use fewer")
        # The end token pads, too: what is pooled is its first occurrence, and what follows cannot be seen from there.
        return torch.tensor([row + [row[-1]] * (length - len(row)) for row in rows], device=self._device)


def _pooled(output: Any) -> Tensor:
    """The features; newer versions of transformers wrap them."""
    return output if isinstance(output, Tensor) else output.pooler_output
