"""What the prompt is put into: the interface, and a plain callable behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from equipoise.blackbox.arrays import Array, read_array
from equipoise.errors import InputError

__all__ = ["CallableModel", "PromptModel"]


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
