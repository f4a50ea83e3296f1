"""Hugging Face's Trainer over the losses of several tasks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from equipoise.balance.base import Balancer
from equipoise.data.mixing import MixedLoaders
from equipoise.errors import InputError, require
from equipoise.integrations.balanced import BalancedLoss
from equipoise.method import MethodSpec
from equipoise.proxy import Proxy
from equipoise.states import Anything, Maybe, Whole, read_state
from equipoise.tasks import Losses

transformers: Any = require("transformers", "hugging-face")
accelerate: Any = require("accelerate", "hugging-face")

__all__ = ["BalancedTrainer"]

_FILE = "balancing.pt"


class BalancedTrainer(transformers.Trainer):  # type: ignore[misc]
    """Hugging Face's Trainer with a balanced loss in place of the model's own.

    Accumulation, clipping, mixed precision, DDP and everything else stay the Trainer's. A checkpoint has one more file,
    ``balancing.pt``, with what balancer, proxy and mixed loaders remember; ``train(resume_from_checkpoint=…)`` takes it up.
    What is logged at each of ``logging_steps`` includes :meth:`~equipoise.step.StepReport.scalars` of that step. An evaluation
    gives ``eval_loss``, the plain sum, and ``eval_loss_TASK`` for each task.

    Args:
        args: as for ``transformers.Trainer``.
        losses: ``losses(model, inputs)`` returns a mapping task → scalar; or that and the outputs that ``compute_metrics`` is
            to see, ``(losses, outputs)``. Means over the batch: the Trainer divides by the number of accumulated batches. The
            model may be wrapped, so call it as a whole.
        balancer: a balancer, a method by name, or a :class:`~equipoise.integrations.BalancedLoss`, which takes further options.
        proxy: as for :class:`~equipoise.integrations.BalancedLoss`.
        options: as for ``transformers.Trainer``. ``train_dataset`` and ``eval_dataset`` may also be what
            :func:`~equipoise.data.zip_loaders` or :func:`~equipoise.data.alternate` returns, whose loaders say their own batch
            sizes and samplers.

    Attributes:
        balanced: the balanced loss.

    Raises:
        InputError: a method that a balanced loss cannot serve, a ``compute_loss_func`` beside ``losses``, or ``losses`` that
            is no function.
    """

    # Losses are means over a batch, whatever the model's own loss would be.
    loss_is_scaled_for_ga = False
    label_names: list[str]

    def __init__(
        self,
        *args: Any,
        losses: Callable[[nn.Module, Any], Losses | tuple[Losses, Any]],
        balancer: BalancedLoss | Balancer | MethodSpec | str | Any,
        proxy: Proxy | str | nn.Module | Iterable[Tensor] | None = None,
        **options: Any,
    ) -> None:
        if not callable(losses):
            raise InputError(f"losses must be a function losses(model, inputs); got {type(losses).__name__}")
        if options.get("compute_loss_func") is not None:
            raise InputError("losses= takes the place of compute_loss_func=; leave that out")
        if isinstance(balancer, BalancedLoss) and proxy is not None:
            raise InputError("a BalancedLoss has a proxy of its own; leave proxy= out")
        self.losses = losses
        self.balanced = balancer if isinstance(balancer, BalancedLoss) else BalancedLoss(balancer, proxy)
        self._begun = copy.deepcopy(self.balanced.state_dict())
        self._epochs = 0
        self._sums: dict[str, tuple[float, int]] = {}
        self._steps: _Steps | None = None
        super().__init__(*args, **options)
        self.model_accepts_loss_kwargs = False  # the same for older versions
        self.add_callback(_Epochs(self))

    def train(self, *args: Any, **options: Any) -> Any:
        """As ``transformers.Trainer.train``; where ``model_init`` makes the model anew, the balancer begins anew, too."""
        self._epochs = 0
        if self.model_init is not None:
            self.balanced.load_state_dict(self._begun)
        return super().train(*args, **options)

    def compute_loss(self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        """The balanced loss; in an evaluation the plain sum.

        Raises:
            InputError: ``losses`` returned something else, or no outputs where they are asked for.
        """
        try:
            found: Any = self.losses(model, inputs)
        except KeyError as error:
            if self.args.remove_unused_columns and isinstance(inputs, Mapping) and error.args and error.args[0] not in inputs:
                raise InputError(
                    f'losses() found no "{error.args[0]}"; the batch holds {", ".join(map(str, inputs))}, and the Trainer '
                    f"keeps no columns that the model's forward() does not take, unless remove_unused_columns=False"
                ) from error
            raise
        both = isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], Mapping)
        found, outputs = found if both else (found, None)
        loss = self.balanced(found)
        if not torch.is_grad_enabled():
            for task, value in self.balanced.values(found).items():
                own = inputs.get(task) if isinstance(inputs, Mapping) else None  # a data set of several
                own = own if isinstance(own, Mapping | list | tuple) else inputs
                rows = transformers.trainer_pt_utils.find_batch_size(own) or 1
                rows = self._fresh(rows) if own is inputs else rows
                total, count = self._sums.get(task, (0.0, 0))
                self._sums[task] = (total + rows * float(value), count + rows)
        if not return_outputs:
            return loss
        if not isinstance(outputs, Mapping):
            several = outputs if isinstance(outputs, list | tuple) else [] if outputs is None else [outputs]
            outputs = {str(place): output for place, output in enumerate(several)}
        return loss, outputs

    def prediction_step(
        self, model: nn.Module, inputs: Any, prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> Any:
        """As ``transformers.Trainer.prediction_step``; there is a loss wherever the labels are."""
        named: list[str] = self.label_names
        here = [name for name in named or ["labels"] if inputs.get(name) is not None]
        self.label_names, self.can_return_loss = here, True
        try:
            found = super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        finally:
            self.label_names = named
        if not prediction_loss_only and isinstance(found[1], tuple) and not found[1]:
            raise InputError("there are no outputs to compute metrics of or to predict; let losses() return (losses, outputs)")
        return found

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **options: Any) -> Any:
        """As ``transformers.Trainer.evaluation_loop``, with the mean loss of each task, over all processes."""
        self._sums = {}
        found = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **options)
        sums: dict[str, tuple[float, int]] = {}
        for own in accelerate.utils.gather_object([self._sums]):
            for task, (total, count) in own.items():
                before = sums.get(task, (0.0, 0))
                sums[task] = (before[0] + total, before[1] + count)
        for task, (total, count) in sums.items():
            if count:
                found.metrics[f"{metric_key_prefix}_loss_{task}"] = total / count
        return found

    def _fresh(self, rows: int) -> int:
        """How many rows of this process's batch do not fill up the last one by repetition, as ``gather_for_metrics`` has it."""
        state = self.accelerator.gradient_state
        if self.accelerator.num_processes == 1 or not state.end_of_dataloader or state.remainder <= 0:
            return rows
        return min(rows, max(0, int(state.remainder) - rows * int(self.accelerator.process_index)))

    def log(self, logs: dict[str, float], *args: Any, **options: Any) -> None:
        """As ``transformers.Trainer.log``; what is logged of the training has the numbers of the last step, too."""
        if "loss" in logs and self.balanced.last is not None:
            logs.update(self.balanced.last.scalars("balancing"))
        super().log(logs, *args, **options)

    def get_train_dataloader(self) -> Any:
        """As ``transformers.Trainer.get_train_dataloader``, also of mixed loaders."""
        if isinstance(self.train_dataset, MixedLoaders):
            self._steps = _Steps(self.train_dataset)
            return DataLoader(self._steps, batch_size=None)
        return super().get_train_dataloader()

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """As ``transformers.Trainer.get_eval_dataloader``, also of mixed loaders."""
        given = self.eval_dataset[eval_dataset] if isinstance(eval_dataset, str) else eval_dataset
        given = self.eval_dataset if given is None else given
        if isinstance(given, MixedLoaders):
            return DataLoader(_Steps(given), batch_size=None)
        return super().get_eval_dataloader(eval_dataset)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save:
            place = None if self._steps is None else self._steps.state_dict()
            state = {"balanced": self.balanced.state_dict(), "epochs": self._epochs, "loaders": place}
            torch.save(state, Path(output_dir) / _FILE)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            path = Path(checkpoint) / _FILE
            if not path.is_file():
                raise InputError(f'"{checkpoint}" has no {_FILE}: no BalancedTrainer saved it, or weights alone; begin anew')
            forms = {"balanced": Anything(), "epochs": Whole(), "loaders": Maybe(Anything())}
            state = read_state("a BalancedTrainer", torch.load(path, map_location="cpu", weights_only=True), forms)
            self.balanced.load_state_dict(state["balanced"])
            self._epochs = state["epochs"]
            if isinstance(self.train_dataset, MixedLoaders) and state["loaders"] is not None:
                self.train_dataset.load_state_dict(state["loaders"])
        super()._load_optimizer_and_scheduler(checkpoint)


class _Epochs(transformers.TrainerCallback):  # type: ignore[misc]
    """Says when epochs are over: at the next one's begin, so that it does not matter when a checkpoint was written."""

    def __init__(self, trainer: BalancedTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(self, *_: Any, **others: Any) -> None:
        self._under_way = False

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        # state.epoch counts no epoch that was cut short, or whose data do not say how long they are.
        over = max(int(state.epoch or 0), self._trainer._epochs + self._under_way)
        self._under_way = True
        while self._trainer._epochs < over:
            self._trainer.balanced.end_epoch()
            self._trainer._epochs += 1


class _Steps(IterableDataset):  # type: ignore[type-arg]
    """Mixed loaders as the Trainer's loader has them; it skips steps that are done by drawing them again."""

    def __init__(self, mixed: MixedLoaders) -> None:
        self.mixed = mixed
        self._begun = mixed.state_dict()

    def __len__(self) -> int:
        return len(self.mixed)

    def __iter__(self) -> Iterator[Any]:
        found = iter(self.mixed)
        self._begun = self.mixed.state_dict()
        return found

    def state_dict(self) -> dict[str, Any]:
        """The loaders' state at the begin of the epoch that is under way."""
        return self._begun if self.mixed.step else self.mixed.state_dict()
