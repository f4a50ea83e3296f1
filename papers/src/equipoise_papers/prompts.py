"""Black-box multi-task prompt tuning (thesis, section 4.6.2): one prompt for all tasks of a model that can only be queried."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from equipoise.blackbox.arrays import Array, read_array
from equipoise.data.office import SPLITS, split_indices
from equipoise.errors import EquipoiseError, InputError

__all__ = ["SPLITS", "BlackBoxPrompt", "CallableModel", "PromptModel", "PromptTask", "QueryBudgetError", "split_indices"]


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


@dataclass(frozen=True)
class PromptTask:
    """One source of images, all of which are described by the same class names.

    Attributes:
        name: of the source.
        inputs: split → what the model gets for each image: features [n, F] for a CLIP; for a callable, anything that an array
            of row numbers indexes.
        labels: split → class of each image [n], integers from 0.
    """

    name: str
    inputs: Mapping[str, NDArray[np.generic]]
    labels: Mapping[str, NDArray[np.int64]]

    def __post_init__(self) -> None:
        for split, labels in self.labels.items():
            if split not in self.inputs or len(self.inputs[split]) != len(labels) or not len(labels):
                given = len(self.inputs[split]) if split in self.inputs else "no"
                raise InputError(
                    f'task "{self.name}" has {given} inputs and {len(labels)} labels in split "{split}"; give equally many, '
                    "and at least one"
                )
        if "train" not in self.labels:
            raise InputError(f'task "{self.name}" has no split "train"; it has {", ".join(self.labels) or "none"}')


class QueryBudgetError(EquipoiseError, RuntimeError):
    """More queries were asked for than the budget allows; none of them was sent."""


class BlackBoxPrompt:
    """Losses of all tasks as a function of v, from which the shared prompt is made (thesis, eq. 4.25).

    p = A v with a fixed A [tokens · E, d], entries drawn from N(0, (σ_e/√d)²), σ_e the standard deviation of the model's word
    embeddings. Called with points [N, d], it draws one mini-batch per task and returns the mean cross-entropies [N, m] of the N
    prompts on it: a batched function for :func:`equipoise.blackbox.minimize` or any ask/tell loop.

    A query is one prompt sent to the model with the mini-batches of all tasks.

    Args:
        model: a :class:`PromptModel`: ``equipoise_papers.clip.Clip``, :class:`CallableModel`, or the user's own.
        tasks: m ≥ 1 of them, with the same classes.
        tokens: of the prompt.
        dim: d, entries of v.
        batch_size: images of a mini-batch; all, if there are fewer or it is ``None``.
        seed: of A and, with the number of the call, of the mini-batches.
        budget: most queries of training; ``None`` for no limit. Evaluating accuracies is counted apart and not limited.

    Raises:
        InputError: an argument that cannot be used.
        QueryBudgetError: at a call that would exceed the budget.

    Attributes:
        queries: prompts sent for training.
        evaluation_queries: prompts sent by :meth:`accuracies`.

    Example:
        >>> import numpy as np
        >>> from equipoise_papers.prompts import CallableModel
        >>> rng = np.random.default_rng(0)
        >>> images, labels = rng.normal(size=(40, 3)), np.arange(40) % 3
        >>> task = PromptTask("toy", {"train": images}, {"train": labels})
        >>> model = CallableModel(lambda p, x: np.einsum("bc,nc->bnc", p.sum(1), x), embedding_size=3)
        >>> prompt = BlackBoxPrompt(model, [task], tokens=2, dim=5, seed=0)
        >>> prompt(rng.normal(size=(4, 5))).shape, prompt.queries
        ((4, 1), 4)
    """

    def __init__(
        self,
        model: PromptModel,
        tasks: Sequence[PromptTask],
        *,
        tokens: int = 4,
        dim: int = 256,
        batch_size: int | None = 64,
        seed: int = 0,
        budget: int | None = None,
    ) -> None:
        for name, value in (("tokens", tokens), ("dim", dim), ("batch_size", batch_size), ("budget", budget)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InputError(f"{name} is {value!r}; give a whole number of at least 1")
        if not tasks:
            raise InputError("no tasks were given; a prompt is tuned on at least one")
        self.model = model
        self.tasks = tuple(tasks)
        self.tokens = tokens
        self.dim = dim
        self.budget = budget
        self.queries = 0
        self.evaluation_queries = 0
        self._batch_size = batch_size
        self._seed = seed
        self._calls = 0
        size = tokens * model.embedding_size
        deviation = model.embedding_std / np.sqrt(dim)
        self.projection: Array = np.random.default_rng([seed, 0]).normal(0.0, deviation, (size, dim))

    def prompts(self, points: object) -> Array:
        """The token embeddings [N, tokens, E] of points [N, d], or [1, tokens, E] of one point [d].

        Raises:
            InputError: the points do not have d entries.
        """
        rows = np.atleast_2d(read_array(points, "points"))
        if rows.ndim != 2 or rows.shape[1] != self.dim:
            raise InputError(f"points has shape {rows.shape}; expected [N, {self.dim}], as dim is {self.dim}")
        return (rows @ self.projection.T).reshape(len(rows), self.tokens, self.model.embedding_size)

    def __call__(self, points: object) -> Array:
        """Mean cross-entropies [N, m] of the prompts on one new mini-batch per task."""
        prompts = self.prompts(points)
        if self.budget is not None and self.queries + len(prompts) > self.budget:
            raise QueryBudgetError(
                f"{len(prompts)} queries were asked for, and {self.budget - self.queries} of {self.budget} are left; "
                "give minimize() evaluations= within the budget"
            )
        # Known by the number of the call alone, so that a resumed search sees the batches it would have seen.
        rng = np.random.default_rng([self._seed, 1, self._calls])
        self._calls += 1
        self.queries += len(prompts)
        inputs: list[Any] = []
        labels = []
        for task in self.tasks:
            count = len(task.labels["train"])
            size = count if self._batch_size is None else min(self._batch_size, count)
            rows = rng.choice(count, size, replace=False)
            inputs.append(task.inputs["train"][rows])
            labels.append(task.labels["train"][rows])
        scores = self.model.scores(prompts, inputs)
        return np.stack([_cross_entropy(own, truth) for own, truth in zip(scores, labels, strict=True)], axis=1)

    def accuracies(self, point: object, split: str = "test") -> dict[str, float]:
        """Percentage of images of a split that are classified correctly under the prompt of v [d], for each task."""
        self.evaluation_queries += 1
        return self.accuracies_of(self.model.scores(self.prompts(point), self.inputs(split)), split)

    def inputs(self, split: str) -> list[Any]:
        """What all images of a split give the model, for each task.

        Raises:
            InputError: a task has no such split.
        """
        for task in self.tasks:
            if split not in task.inputs:
                raise InputError(f'task "{task.name}" has no split "{split}"; it has {", ".join(task.inputs)}')
        return [task.inputs[split] for task in self.tasks]

    def accuracies_of(self, scores: list[Array], split: str) -> dict[str, float]:
        """Percentage of correct images for scores [1, n, C] per task, such as those of a handwritten prompt."""
        return {
            task.name: 100.0 * float((own[0].argmax(axis=-1) == task.labels[split]).mean())
            for task, own in zip(self.tasks, scores, strict=True)
        }

    def state_dict(self) -> dict[str, int]:
        """Counters: with them a resumed search sees the mini-batches that it would have seen."""
        return {"calls": self._calls, "queries": self.queries, "evaluation_queries": self.evaluation_queries}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continues from saved counters."""
        self._calls = state["calls"]
        self.queries = state["queries"]
        self.evaluation_queries = state["evaluation_queries"]


def _cross_entropy(scores: Array, labels: NDArray[np.int64]) -> Array:
    """Mean over images of -log softmax at the label: [B, n, C] → [B]."""
    shifted = scores - scores.max(axis=-1, keepdims=True)
    normalizer = np.log(np.exp(shifted).sum(axis=-1))
    picked = np.take_along_axis(shifted, np.asarray(labels)[None, :, None].astype(np.int64), axis=-1)[..., 0]
    losses: Array = (normalizer - picked).mean(axis=-1)
    return losses
