"""One changed line in other people's trainers: they take the steps that a plain loop takes, stop, and go on."""

from __future__ import annotations

import csv
import doctest
import importlib
import inspect
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import equipoise as eq
from equipoise.data import zip_loaders
from equipoise.integrations import BalancedLoss, BalancedModule, BalancedTrainer, BalancingCallback, accelerate_loss
from tests import problems
from tests.integration.processes import Pool
from tests.integration.scenarios import State, share, state
from tests.teleport.helpers import eager_cost

ACCUMULATE, EPOCHS, CLIP, LR = 2, 2, 2.6, 0.05  # some steps are clipped

pytestmark = [pytest.mark.filterwarnings("ignore")]  # the trainers' own


def seeded() -> problems.Heads:
    torch.manual_seed(5)
    return problems.Heads()


def batches() -> list[problems.Batch]:
    return [problems.batch(8, seed=seed) for seed in range(4)]


def tools() -> tuple[eq.Balancer, eq.Proxy]:
    return eq.balancer("nash-mtl"), eq.Proxy("last", memory=0.5, audit=0)


def alone(clip: float | None = CLIP) -> State:
    """What every trainer is to do."""
    model, (balancer, proxy) = seeded(), tools()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9)
    for _ in range(EPOCHS):
        for place, batch in enumerate(batches()):
            loss = eq.balanced_loss(problems.losses(model, batch), balancer, proxy)
            (loss / ACCUMULATE).backward()
            if (place + 1) % ACCUMULATE == 0:
                if clip:
                    nn.utils.clip_grad_norm_(model.parameters(), clip)
                optimizer.step()
                optimizer.zero_grad()
    return state(model)


def agree(found: State, expected: State, *, exactly: bool = False) -> None:
    for name, value in expected.items():
        assert torch.equal(found[name], value) if exactly else torch.allclose(found[name], value, atol=2e-5), name


def elastic(rank: int, count: int) -> None:
    """What ``torchrun`` sets."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511", "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "here"}


# -- Lightning


def test_lightning_keeps_the_place_of_mixed_loaders(tmp_path: Path) -> None:
    import lightning.pytorch as pl

    seen: list[dict[str, list[int]]] = []

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 1)

        def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
            seen.append({name: rows.tolist() for name, rows in batch.items()})
            return sum(self.layer(rows.float()[:, None]).square().mean() for rows in batch.values())  # type: ignore[return-value]

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 1e-4)

    def run(steps: int, resume: Path | None = None) -> pl.Trainer:
        off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
        trainer = pl.Trainer(max_steps=steps, max_epochs=9, accelerator="cpu", **dict.fromkeys(off, False))
        loaders = {"a": DataLoader(range(12), 2, shuffle=True), "b": DataLoader(range(5), 2, shuffle=True)}  # type: ignore[arg-type]
        trainer.fit(Module(), zip_loaders(loaders, seed=3), ckpt_path=resume)
        return trainer

    run(10)  # the second of epochs of 6 steps
    whole = seen[:]
    seen.clear()
    run(4).save_checkpoint(tmp_path / "four.ckpt")
    run(10, tmp_path / "four.ckpt")
    assert seen == whole


def lightning(
    folder: str,
    rank: int = 0,
    count: int = 1,
    *,
    epochs: int = EPOCHS,
    resume: str | None = None,
    manual: bool = False,
    **options: Any,
) -> State:
    import lightning.pytorch as pl
    from lightning.pytorch.plugins.environments import TorchElasticEnvironment

    class Module(BalancedModule):
        def __init__(self) -> None:
            balancer, proxy = tools()
            if manual:
                super().__init__(balancer, proxy, clip=CLIP, accumulate=ACCUMULATE, teleport=eager_cost())
            else:
                super().__init__(balancer, proxy)
            self.automatic_optimization = not manual
            self.model = seeded()

        def losses(self, batch: problems.Batch) -> dict[str, Tensor]:
            return problems.losses(self.model, batch)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=LR, momentum=0.9)

    spread = {} if count == 1 else {"strategy": "ddp", "devices": count, "plugins": [TorchElasticEnvironment()]}
    trains = {} if manual else {"accumulate_grad_batches": ACCUMULATE, "gradient_clip_val": CLIP}
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary", "use_distributed_sampler")
    given = dict.fromkeys(off, False) | {"default_root_dir": folder} | trains | spread | options
    trainer = pl.Trainer(accelerator="cpu", max_epochs=epochs, **given)  # type: ignore[arg-type]
    module = Module()
    data = DataLoader([share(batch, rank, count) for batch in batches()], batch_size=None)  # type: ignore[arg-type]
    trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    assert trainer.global_step == epochs * len(batches()) // ACCUMULATE
    if resume is None and count == 1:
        trainer.save_checkpoint(Path(folder) / "last.ckpt")
    return state(module.model)


def stepped() -> State:
    """What manual optimization is to do."""
    model, (balancer, proxy) = seeded(), tools()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9)
    objective = eq.Objective(model, problems.losses)
    mtl = eq.MultiTaskOptimizer(objective, optimizer, balancer, proxy=proxy, clip=CLIP, teleport=eager_cost())
    for _ in range(EPOCHS):
        for place in range(0, len(batches()), ACCUMULATE):
            mtl.step(*batches()[place : place + ACCUMULATE])
    assert mtl.teleport is not None
    return state(model)


def test_lightning(tmp_path: Path) -> None:
    agree(lightning(str(tmp_path)), alone())
    lightning(str(tmp_path), epochs=1)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    agree(lightning(str(tmp_path), resume=str(tmp_path / "last.ckpt")), lightning(str(tmp_path)), exactly=True)
    del saved["callbacks"]["BalancingCallback"]
    torch.save(saved, tmp_path / "other.ckpt")
    with pytest.warns(UserWarning, match=r"other\.ckpt\" has no state of BalancingCallback, so the balancer begins anew"):
        lightning(str(tmp_path), resume=str(tmp_path / "other.ckpt"))


def test_lightning_manual(tmp_path: Path) -> None:
    whole = lightning(str(tmp_path), manual=True)
    agree(whole, stepped(), exactly=True)
    lightning(str(tmp_path), manual=True, epochs=1)
    agree(lightning(str(tmp_path), manual=True, resume=str(tmp_path / "last.ckpt")), whole, exactly=True)


def lightning_spread(rank: int, count: int, folder: str) -> tuple[State, State]:
    elastic(rank, count)
    return lightning(folder, rank, count), lightning(folder, rank, count, manual=True)


def test_lightning_on_two_processes(pool: Pool, tmp_path: Path) -> None:
    for automatic, manual in pool.run(lightning_spread, str(tmp_path)):
        agree(automatic, alone())
        agree(manual, stepped())
    pool.close()  # other tests find fresh processes


def test_lightning_counts_epochs_logs_and_stops_early(tmp_path: Path) -> None:
    """From a checkpoint written between validation and the end of an epoch, in bfloat16."""
    import lightning.pytorch as pl
    from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
    from lightning.pytorch.loggers import CSVLogger

    class Module(BalancedModule):
        def __init__(self) -> None:
            super().__init__("dwa")
            self.model = seeded()

        def losses(self, batch: problems.Batch) -> dict[str, Tensor]:
            return problems.losses(self.model, batch)

        def validation_step(self, batch: problems.Batch, batch_idx: int) -> None:
            self.log("val", float(self.current_epoch))  # gets worse

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    def fit(epochs: int, *callbacks: Any, resume: str | None = None) -> tuple[Module, pl.Trainer]:
        trainer = pl.Trainer(
            accelerator="cpu",
            precision="bf16-mixed",
            max_epochs=epochs,
            log_every_n_steps=2,
            callbacks=list(callbacks),
            logger=CSVLogger(tmp_path, flush_logs_every_n_steps=1),
            enable_checkpointing=bool(callbacks),
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        data = DataLoader(batches(), batch_size=None)  # type: ignore[arg-type]
        module = Module()
        trainer.fit(module, data, data, ckpt_path=resume)
        return module, trainer

    keep = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=False)
    module, trainer = fit(9, EarlyStopping("val", patience=3), keep)
    assert trainer.current_epoch == 4  # the first was the best
    assert len({float(weight) for weight in module.report.weights}) > 1  # type: ignore[union-attr]
    again, _ = fit(4, resume=str(tmp_path / "epoch=1.ckpt"))
    agree(state(again), state(module), exactly=True)
    with (Path(trainer.logger.log_dir) / "metrics.csv").open() as file:  # type: ignore[union-attr, arg-type]
        logged = [row for row in csv.DictReader(file) if row["balancing/weight/t0"]]
    assert [int(row["step"]) for row in logged] == list(range(1, 16, 2))
    assert float(logged[-1]["balancing/loss/t1"]) == pytest.approx(float(module.report.losses[1]))  # type: ignore[union-attr]


def test_lightning_counts_steps_of_several_batches_and_forgets_what_waited(tmp_path: Path) -> None:
    import lightning.pytorch as pl
    from lightning.pytorch.loggers import CSVLogger

    seen: list[problems.Batch] = []

    class Module(BalancedModule):
        def __init__(self) -> None:
            super().__init__("fairgrad", accumulate=3)
            self.automatic_optimization = False
            self.model = seeded()

        def losses(self, batch: problems.Batch) -> dict[str, Tensor]:
            seen.append(batch)
            return problems.losses(self.model, batch)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    class Break(pl.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            if module._waiting:
                raise OSError("out of disk")

    def fit(*callbacks: pl.Callback) -> Any:
        off = ("enable_checkpointing", "enable_progress_bar", "enable_model_summary")
        logger = CSVLogger(tmp_path)
        trainer = pl.Trainer(
            accelerator="cpu", max_epochs=2, logger=logger, callbacks=list(callbacks), **dict.fromkeys(off, False)
        )
        trainer.fit(module, DataLoader(batches(), batch_size=None))  # type: ignore[arg-type]
        return Path(logger.log_dir) / "metrics.csv"

    module = Module()
    with pytest.raises(eq.InputError, match=r"needs a Trainer and a BalancingCallback"):
        module.training_step(batches()[0], 0)
    with pytest.raises(OSError, match="out of disk"):
        fit(Break())
    assert not seen
    with fit(BalancingCallback(every=3)).open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == [6]  # steps are taken in the batches 2, 3, 6 and 7
    assert len(seen) == 8


def test_what_lightning_cannot_do_is_said_before_the_first_step() -> None:
    import lightning.pytorch as pl

    def begin(method: str, automatic: bool = True, **options: Any) -> None:
        module = BalancedModule(method, **options)
        module.automatic_optimization = automatic
        module.begin_balancing()

    for method in ("graddrop", "famo", "cost+fairgrad"):
        with pytest.raises(eq.InputError, match=r"cannot be used in automatic optimization; set self\.automatic_optimization"):
            begin(method)
    for automatic, option in ((True, "clip"), (True, "batched"), (False, "heads")):
        with pytest.raises(eq.InputError, match=f"{option}= is of no use in {'automatic' if automatic else 'manual'}"):
            begin("fairgrad", automatic, **{option: 1})
    with pytest.raises(eq.InputError, match="accumulate_grad_batches="):
        begin("fairgrad", accumulate=2)
    with pytest.raises(eq.errors.UnknownOptionError, match='Did you mean "shared"'):
        begin("fairgrad", sharde="encoder")
    for option in ("shared", "proxy"):
        with pytest.raises(eq.InputError, match=r'no module "encodr"'):
            begin("fairgrad", **{option: "encodr"})
    with pytest.raises(eq.InputError, match=r"must define losses\(batch\)"):
        BalancedModule("fairgrad").losses(None)
    with pytest.raises(eq.InputError, match="LightningModule is no BalancedModule"):
        BalancingCallback().on_train_start(None, pl.LightningModule())


@pytest.mark.parametrize("name", ["lightning", "hugging_face"])
def test_examples_in_docstrings(name: str) -> None:
    module = importlib.import_module(f"equipoise.integrations.{name}")
    assert doctest.testmod(module) == (0, inspect.getsource(module).count(">>> "))


# -- Hugging Face


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heads = seeded()

    def forward(self, inputs: Tensor, **others: Any) -> dict[str, Tensor]:
        # For such a signature the Trainer would leave accumulated losses as they are.
        return {f"t{k}": out for k, out in enumerate(self.heads(inputs))}


def losses_of(model: nn.Module, inputs: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    outputs = model(inputs["inputs"])
    targets = inputs["targets"]
    return {t: problems.SCALES[k] * (o - targets[:, k]).square().mean() for k, (t, o) in enumerate(outputs.items())}, outputs


def hugging_face(folder: str, count: int = 1, *, resume: bool = False) -> State:
    import transformers

    balancer, proxy = tools()
    arguments = transformers.TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=8 // count,
        per_device_eval_batch_size=2,  # of 6 rows: a second of two processes repeats rows in the last step
        gradient_accumulation_steps=ACCUMULATE,
        num_train_epochs=EPOCHS,
        max_grad_norm=CLIP,
        learning_rate=LR,
        lr_scheduler_type="constant",
        optim="sgd",
        optim_args="momentum=0.9",
        save_strategy="epoch" if count == 1 else "no",
        report_to="none",
        use_cpu=True,
        remove_unused_columns=False,
        label_names=["targets"],
        disable_tqdm=True,
        logging_strategy="no",
        ddp_backend="gloo" if count > 1 else None,
    )
    inputs, targets = (torch.cat(parts) for parts in zip(*batches(), strict=True))
    rows = [{"inputs": x, "targets": y} for x, y in zip(inputs, targets, strict=True)]

    class InOrder(BalancedTrainer):  # type: ignore[misc]
        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(rows)

    model = Model()
    trainer = InOrder(
        model, arguments, losses=losses_of, balancer=balancer, proxy=proxy, train_dataset=rows, eval_dataset=rows[:6]
    )
    trainer.train(resume_from_checkpoint=str(Path(folder) / "checkpoint-2") if resume else None)
    found = trainer.evaluate()
    with torch.no_grad():
        expected = problems.losses(model.heads, (inputs[:6], targets[:6]))
    assert all(found[f"eval_loss_{task}"] == pytest.approx(float(loss), rel=1e-5) for task, loss in expected.items())
    assert found["eval_loss"] == pytest.approx(float(sum(expected.values())), rel=1e-5)
    assert trainer.predict(rows[:8]).label_ids.shape == (8, 3)
    return state(model.heads)


def test_hugging_face(tmp_path: Path) -> None:
    whole = hugging_face(str(tmp_path))
    agree(whole, alone())
    agree(hugging_face(str(tmp_path), resume=True), whole, exactly=True)


def test_hugging_face_goes_on_in_several_data_sets(tmp_path: Path) -> None:
    import transformers

    def losses(model: nn.Module, batch: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
        return {task: (model(own["x"])[task] - own["y"]).square().mean() for task, own in batch.items()}

    def train(resume: int = 0) -> State:
        sets = {
            f"t{k}": [{"x": x, "y": y[k]} for x, y in zip(*problems.batch(size, seed=k), strict=True)]
            for k, size in enumerate((8, 6, 2))
        }
        loaders = {task: DataLoader(own, 2, shuffle=True) for task, own in sets.items()}  # type: ignore[arg-type]
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path),
            num_train_epochs=3,
            learning_rate=LR,
            save_steps=2,
            logging_steps=4,
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        )
        model = Model()
        mixed = zip_loaders(loaders, weights="proportional", seed=2)
        balanced = BalancedLoss("dwa", tasks=mixed.names)
        trainer = BalancedTrainer(model, arguments, losses=losses, balancer=balanced, train_dataset=mixed, eval_dataset=mixed)
        trainer.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{resume}") if resume else None)
        assert "balancing/weight/t0" in trainer.state.log_history[0]
        assert trainer.evaluate()["eval_loss_t2"] > 0
        return state(model)

    whole = train()
    for stop in (10, 8):  # within an epoch, whose steps are 4, and at the end of one
        agree(train(stop), whole, exactly=True)


def test_hugging_face_means_of_several_data_sets_are_over_the_rows_of_each(tmp_path: Path) -> None:
    import transformers

    rows = {"t0": torch.arange(4.0), "t1": torch.tensor([0.0, 0.0, 9.0])}
    mixed = zip_loaders({task: DataLoader(values, 2) for task, values in rows.items()}, seed=0)  # type: ignore[arg-type]
    arguments = transformers.TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True)
    model = Model()

    def losses(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {task: own["x"].mean() for task, own in batch.items()}

    named = [{task: {"texts": "", "x": values} for task, values in batch.items()} for batch in mixed]
    trainer = BalancedTrainer(model, arguments, losses=losses, balancer="fairgrad")
    with torch.no_grad():
        for batch in named:
            trainer.compute_loss(model, batch)
    assert {task: total / count for task, (total, count) in trainer._sums.items()} == {"t0": 1.5, "t1": 3.0}


def test_hugging_face_counts_passes_of_data_without_a_length_and_begins_anew_with_the_model(tmp_path: Path) -> None:
    import transformers

    class Stream(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
        def __iter__(self) -> Any:
            return iter([{"inputs": x, "targets": y} for x, y in zip(*problems.batch(16), strict=True)])

    ended: list[int] = []

    class Counting(BalancedLoss):
        def end_epoch(self) -> None:
            ended.append(trainer.state.global_step)

    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), max_steps=6, learning_rate=LR, remove_unused_columns=False, report_to="none", use_cpu=True
    )
    trainer = BalancedTrainer(
        args=arguments, losses=losses_of, balancer=Counting(*tools()), train_dataset=Stream(), model_init=Model
    )
    found = []
    for _ in range(2):
        trainer.train()
        found.append(state(trainer.model.heads))
    assert ended == [2, 4] * 2
    agree(found[1], found[0], exactly=True)


def test_what_hugging_face_cannot_do_is_said_in_one_line(tmp_path: Path) -> None:
    import transformers

    arguments = transformers.TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True)
    trainer = BalancedTrainer(Model(), arguments, losses=losses_of, balancer="fairgrad")
    with pytest.raises(eq.InputError, match=r"has no balancing\.pt"):
        trainer._load_optimizer_and_scheduler(str(tmp_path))
    for options, said in (({"proxy": "last"}, "leave proxy= out"), ({"compute_loss_func": print}, "leave that out")):
        with pytest.raises(eq.InputError, match=said):
            BalancedTrainer(Model(), arguments, losses=losses_of, balancer=BalancedLoss("fairgrad"), **options)
    with torch.no_grad():  # and this is none of it: a first column that is no tensor
        trainer.compute_loss(trainer.model, {"texts": ["a"], "inputs": batches()[0][0], "targets": batches()[0][1]})
    assert trainer._sums["t0"][1] == 8
    with pytest.raises(eq.InputError, match=r'found no "targets"; the batch holds inputs, .* remove_unused_columns'):
        trainer.compute_loss(trainer.model, {"inputs": batches()[0][0]})
    trainer.losses = lambda *_: torch.ones(())
    with pytest.raises(eq.InputError, match="and not their sum"):
        trainer.compute_loss(trainer.model, {})


def hugging_face_spread(rank: int, count: int, folder: str) -> State:
    elastic(rank, count)
    return hugging_face(folder, count)


def test_hugging_face_on_two_processes(pool: Pool, tmp_path: Path) -> None:
    for found in pool.run(hugging_face_spread, str(tmp_path)):
        agree(found, alone())
    pool.close()


# -- Accelerate


def accelerate(folder: str, rank: int = 0, count: int = 1, *, resume: bool = False) -> State:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(True)
    GradientState._reset_state()  # a Trainer before has left its loader
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=ACCUMULATE)
    plain, balanced = seeded(), accelerate_loss(accelerator, *tools())
    model, optimizer = accelerator.prepare(plain, torch.optim.SGD(plain.parameters(), lr=LR, momentum=0.9))
    if resume:
        accelerator.load_state(folder)
    for epoch in range(int(resume), EPOCHS):
        for batch in batches():
            with accelerator.accumulate(model):
                losses = problems.losses(model, share(batch, rank, count))
                accelerator.backward(balanced(losses))
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), CLIP)
                optimizer.step()
                optimizer.zero_grad()
        if epoch == 0 and count == 1:
            accelerator.save_state(folder)
    AcceleratorState._reset_state(True)
    return state(plain)


def test_accelerate(tmp_path: Path) -> None:
    whole = accelerate(str(tmp_path))
    agree(whole, alone())
    agree(accelerate(str(tmp_path), resume=True), whole, exactly=True)


def accelerate_spread(rank: int, count: int, folder: str) -> State:
    elastic(rank, count)
    return accelerate(folder, rank, count)


def test_accelerate_on_two_processes(pool: Pool, tmp_path: Path) -> None:
    for found in pool.run(accelerate_spread, str(tmp_path)):
        agree(found, alone())
    pool.close()
