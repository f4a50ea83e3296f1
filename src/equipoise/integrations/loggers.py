"""Loggers for TensorBoard, Weights & Biases, MLflow and plain CSV."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from equipoise.errors import InputError, StorageError, require
from equipoise.integrations.base import StepLogger

__all__ = ["CSVLogger", "MLflowLogger", "TensorBoardLogger", "WandbLogger"]


class CSVLogger(StepLogger):
    """A file with one number per line, ``step,name,value``, which never needs another column.

    A file that is there is continued. After a resume from an older checkpoint some steps are in it twice; the later counts:
    ``pandas.read_csv(path).drop_duplicates(["step", "name"], keep="last").pivot(index="step", columns="name")``.

    Args:
        path: the file; its folder is made.
        every: steps from one entry to the next.
        prefix: of all names.

    Raises:
        InputError: there is another file of that name, or ``every`` is no whole number from 1 on.
        StorageError: the file cannot be written; at the first write.
    """

    _HEAD = ("step", "name", "value")

    def __init__(self, path: str | Path, *, every: int = 1, prefix: str = "") -> None:
        super().__init__(every=every, prefix=prefix)
        self.path = Path(path)
        self._file: IO[str] | None = None
        if self.path.exists():
            first = "a folder"
            if self.path.is_file():
                with self.path.open(encoding="utf-8", errors="replace") as file:
                    first = file.readline().strip()
            if first and first != ",".join(self._HEAD):
                raise InputError(
                    f'"{self.path}" is no log of CSVLogger, whose first line is step,name,value; give another path'
                )

    def write(self, scalars: Mapping[str, float], step: int) -> None:
        """Appends a line for each number."""
        try:
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("a", newline="", encoding="utf-8")
                if not self._file.tell():
                    csv.writer(self._file).writerow(self._HEAD)
            csv.writer(self._file).writerows((step, name, repr(value)) for name, value in scalars.items())
            self._file.flush()
        except OSError as error:
            raise StorageError(self.path, error) from error

    def close(self) -> None:
        """Closes the file; a further write opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None


class TensorBoardLogger(StepLogger):
    """Scalars of TensorBoard.

    Args:
        where: a folder, or a ``SummaryWriter`` of your own (any object with ``add_scalar``), which stays open.
        every: steps from one entry to the next.
        prefix: of all names.

    Raises:
        MissingExtraError: tensorboard is not installed.
        InputError: ``every`` is no whole number from 1 on.
    """

    def __init__(self, where: Any, *, every: int = 1, prefix: str = "balancing") -> None:
        super().__init__(every=every, prefix=prefix)
        self._where = where
        self._own = not hasattr(where, "add_scalar")
        self._writer: Any = None if self._own else where
        if self._own:
            require("tensorboard", "tensorboard")

    def write(self, scalars: Mapping[str, float], step: int) -> None:
        """Adds each number as a scalar."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._where))
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Closes the writer that was opened here."""
        if self._own and self._writer is not None:
            self._writer.close()
            self._writer = None


class WandbLogger(StepLogger):
    """Metrics of a run of Weights & Biases; offline, too.

    The step is a metric of its own, ``PREFIX/step``, against which the others are drawn: what you log beside them counts its
    own steps.

    Args:
        run: a run of yours, which stays open; left out, ``wandb.init(**options)`` makes one at the first write.
        every: steps from one entry to the next.
        prefix: of all names; not empty.
        options: for ``wandb.init``, such as ``project="…", mode="offline"``.

    Raises:
        MissingExtraError: wandb is not installed.
        InputError: no prefix, options beside a run, or ``every`` is no whole number from 1 on.
    """

    def __init__(self, run: Any = None, *, every: int = 1, prefix: str = "balancing", **options: Any) -> None:
        super().__init__(every=every, prefix=prefix)
        if not prefix.strip("/"):
            raise InputError("prefix must not be empty: the metrics of this name are drawn against a step of their own")
        if run is not None and options:
            raise InputError(f"a run was given, so {', '.join(options)} cannot be set any more; give one of both")
        self._run, self._own, self._options, self._ready = run, run is None, options, False
        if self._own:
            require("wandb", "wandb")

    def write(self, scalars: Mapping[str, float], step: int) -> None:
        """Logs the numbers with their step."""
        name = f"{self.prefix.rstrip('/')}/step"
        if self._run is None:
            self._run = require("wandb", "wandb").init(**self._options)
        if not self._ready:
            self._run.define_metric(f"{self.prefix.rstrip('/')}/*", step_metric=name)
            self._ready = True
        self._run.log({**scalars, name: step})

    def close(self) -> None:
        """Finishes the run that was made here."""
        if self._own and self._run is not None:
            self._run.finish()
            self._run, self._ready = None, False


class MLflowLogger(StepLogger):
    """Metrics of a run of MLflow.

    MLflow allows letters, digits and ``_-. /`` in names; other characters of a task's name become ``_``.

    Args:
        run_id: of a run of yours; left out, the active one, or a new one that is ended by ``close()``.
        every: steps from one entry to the next.
        prefix: of all names.

    Raises:
        MissingExtraError: mlflow is not installed.
        InputError: ``every`` is no whole number from 1 on; when writing, two names that MLflow cannot tell apart.
    """

    def __init__(self, run_id: str | None = None, *, every: int = 1, prefix: str = "balancing") -> None:
        super().__init__(every=every, prefix=prefix)
        self._mlflow: Any = require("mlflow", "mlflow")
        self._run_id = run_id
        self._own = False

    def write(self, scalars: Mapping[str, float], step: int) -> None:
        """Logs the numbers as metrics."""
        named: dict[str, float] = {}
        for name, value in scalars.items():
            plain = re.sub(r"[^\w\-. /]", "_", name, flags=re.ASCII)
            if plain in named:
                raise InputError(f'MLflow cannot tell "{name}" from another name, for both become "{plain}"; rename a task')
            named[plain] = value
        if self._run_id is None:
            active = self._mlflow.active_run()
            self._own = active is None
            self._run_id = (active or self._mlflow.start_run()).info.run_id
        self._mlflow.log_metrics(named, step=step, run_id=self._run_id)

    def close(self) -> None:
        """Ends the run that was begun here."""
        if self._own:
            self._mlflow.end_run()
            self._run_id, self._own = None, False
