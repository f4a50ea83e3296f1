"""What a step reports as numbers, and the tools that they are written to."""

from __future__ import annotations

import copy
import csv
import importlib
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import equipoise as eq
import equipoise.integrations
from equipoise.errors import InputError, MissingExtraError
from equipoise.integrations import CSVLogger, MLflowLogger, StepLogger, TensorBoardLogger, WandbLogger
from equipoise.step import StepReport
from equipoise.teleport import Schedule
from tests import problems


def trained(balancer: Any = "fairgrad", steps: int = 1, **options: Any) -> eq.MultiTaskOptimizer:
    torch.manual_seed(5)
    model = problems.Heads()
    objective = eq.Objective(model, problems.losses)
    mtl = eq.MultiTaskOptimizer(objective, torch.optim.SGD(model.parameters(), 0.05), balancer, **options)
    for seed in range(steps):
        mtl.step(problems.batch(8, seed=seed))
    return mtl


def last(mtl: eq.MultiTaskOptimizer) -> StepReport:
    assert mtl.last is not None
    return mtl.last


class Listing(StepLogger):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.found: list[tuple[int, dict[str, float]]] = []

    def write(self, scalars: Any, step: int) -> None:
        self.found.append((step, dict(scalars)))


# -- numbers


def test_scalars_are_those_of_the_gradients() -> None:
    mtl = trained()
    report = last(mtl)
    # Once more by plain autograd, at the point before the step.
    torch.manual_seed(5)
    model = problems.Heads()
    losses = problems.losses(model, problems.batch(8, seed=0))
    shared = [p for p in model.parameters() if all(g is not None for g in gradients(losses, p))]
    rows = torch.stack([torch.cat([gradients(losses, p)[k].flatten() for p in shared]) for k in range(len(losses))]).double()
    mean = rows.mean(0)
    expected = {f"loss/{task}": float(loss.detach()) for task, loss in losses.items()}
    for k, task in enumerate(losses):
        expected |= {f"norm/{task}": float(rows[k].norm())}
        expected |= {f"cosine/{task}": float(rows[k] @ mean / rows[k].norm() / mean.norm())}
    expected |= {"mean_norm": float(mean.norm()), "conflict_share": float(((rows @ mean) < 0).double().mean()), "skipped": 0.0}
    found = report.scalars()
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-5)
    assert set(found) - set(expected) == {"pareto_distance", *(f"weight/{task}" for task in losses)}
    assert report.scalars("a") == report.scalars("a/") == {f"a/{name}": value for name, value in found.items()}


def gradients(losses: Any, parameter: Any) -> list[Any]:
    return [torch.autograd.grad(loss, parameter, retain_graph=True, allow_unused=True)[0] for loss in losses.values()]


@pytest.mark.parametrize("batches", [1, 3])
def test_methods_that_keep_rows_report_norms_and_cosines(batches: int) -> None:
    held = [problems.batch(4 + seed, seed=seed) for seed in range(batches)]
    both = [trained(balancer, steps=0) for balancer in ("graddrop", "fairgrad")]  # the second forms a Gramian
    for mtl in both:
        mtl.step(*held)
    rows, gramian = map(last, both)
    assert rows.gramian is None
    left, right = rows.scalars(), gramian.scalars()
    same = {name for name in right if not name.startswith("weight/")}
    assert {name for name in left if name.startswith(("norm/", "cosine/"))}
    assert {name: left[name] for name in same} == pytest.approx({name: right[name] for name in same}, abs=1e-6)
    assert pickle.loads(pickle.dumps(rows)).losses.equal(rows.losses)
    assert copy.deepcopy(rows).rows is None


def test_rows_are_there_until_the_next_step_and_then_nobody_is_told_of_others() -> None:
    mtl = trained("graddrop")
    first, known = last(mtl), last(trained("graddrop"))
    assert known.norms is None  # its rows went with its optimizer
    mtl.step(problems.batch(8, seed=1))
    assert first.norms is first.cosines is first.conflicts is None
    assert last(mtl).norms is not None


def test_a_scaler_does_not_show() -> None:
    plain, scaled = trained("graddrop"), trained("graddrop", scaler=torch.amp.GradScaler("cpu", growth_interval=1))
    assert last(scaled).scalars() == pytest.approx(last(plain).scalars(), rel=1e-4)


def test_audits_and_teleports_are_in_the_numbers_whenever_they_happen() -> None:
    log = Listing(every=1000)
    mtl = trained("cost+fairgrad", steps=0, proxy=eq.Proxy("last", audit=2))
    mtl.teleport = eq.COST(trigger="always", schedule=Schedule(start=0, cooldown=0)) if mtl.teleport is None else mtl.teleport
    for seed in range(5):
        mtl.step(problems.batch(8, seed=seed))
        log(last(mtl))
    steps = {step for step, _ in log.found}
    assert {0, 2, 4} <= steps
    assert all({"balancing/audit/direction", "balancing/audit/weights"} <= set(dict(log.found)[step]) for step in (2, 4))
    event = type("Event", (), {"accepted": True, "sigma": 0.5, "distance": None})()
    found = StepReport(("a",), torch.ones(1), teleport=event, fixed={"kl": torch.tensor(2.0)}).scalars()
    assert found == {"loss/a": 1.0, "skipped": 0.0, "fixed/kl": 2.0, "teleport/accepted": 1.0, "teleport/sigma": 0.5}


def test_a_step_without_labels_and_a_balanced_loss() -> None:
    assert StepReport((), torch.zeros(0), skipped=True).scalars() == {"skipped": 1.0}
    loss = eq.balanced_loss(problems.losses(problems.Heads(), problems.batch(8)), eq.FairGrad())
    log = Listing()
    log(loss.report)  # type: ignore[attr-defined]
    assert "balancing/conflict_share" in log.found[0][1]


# -- which steps, and where


def test_every_so_many_steps() -> None:
    log = Listing(every=3, prefix="")
    for step in range(8):
        log(StepReport(("a",), torch.ones(1), step=step))
    log(StepReport(("a",), torch.ones(1)), step=9)
    assert [step for step, _ in log.found] == [0, 3, 6, 9]
    for wrong in (0, True, 1.5):
        with pytest.raises(InputError, match="every must be a number of steps from 1 on"):
            Listing(every=wrong)
    with pytest.raises(InputError, match=r"a logger writes the report of a step: mtl.last.*got None"):
        log(None)  # type: ignore[arg-type]


def test_one_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    for rank in (0, 1):
        monkeypatch.setattr("torch.distributed.get_rank", lambda rank=rank: rank)
        with CSVLogger(tmp_path / f"{rank}.csv") as log:
            log(StepReport(("a",), torch.ones(1)))
    assert [path.name for path in tmp_path.iterdir()] == ["0.csv"]


# -- the tools


def read(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_csv_is_continued_and_holds_any_name(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "log.csv"
    name = 'a, "b"\n'
    for step in (0, 1):
        with CSVLogger(path, prefix="p") as log:
            log(StepReport((name,), torch.tensor([0.1 + step], dtype=torch.float64), step=step))
    assert read(path) == [
        ["step", "name", "value"],
        ["0", f"p/loss/{name}", "0.1"],
        ["0", "p/skipped", "0.0"],
        ["1", f"p/loss/{name}", "1.1"],
        ["1", "p/skipped", "0.0"],
    ]
    (tmp_path / "other.csv").write_text("epoch,loss\n")
    for other in (tmp_path / "other.csv", tmp_path):
        with pytest.raises(InputError, match="is no log of CSVLogger"):
            CSVLogger(other)
    (tmp_path / "file").write_text("")
    with pytest.raises(eq.errors.StorageError, match="cannot be written"):
        CSVLogger(tmp_path / "file" / "log.csv").write({"a": 1.0}, 0)


def test_nothing_is_imported_before_it_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in sys.modules if name.startswith("equipoise.integrations")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("tensorboard", "wandb", "mlflow", "lightning.pytorch", "transformers", "accelerate"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it raises
    logged(importlib.import_module("equipoise.integrations").CSVLogger(tmp_path / "log.csv"))
    assert len(read(tmp_path / "log.csv")) > 3


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_what_is_missing_is_said_in_one_line(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    make: Any = {"tensorboard": lambda: TensorBoardLogger(tmp_path), "wandb": WandbLogger, "mlflow": MLflowLogger}[name]
    with pytest.raises(MissingExtraError, match=rf'pip install "equipoise\[{name}\]"'):
        make()


@pytest.mark.parametrize(
    ("adapter", "name", "extra"),
    [("BalancedModule", "lightning.pytorch", "lightning"), ("BalancedTrainer", "transformers", "hugging-face")],
)
def test_a_trainer_that_is_missing_is_said_in_one_line(
    adapter: str, name: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, f"equipoise.integrations.{extra.replace('-', '_')}", raising=False)
    assert adapter in dir(equipoise.integrations)
    with pytest.raises(MissingExtraError, match=rf'pip install "equipoise\[{extra}\]"'):
        getattr(equipoise.integrations, adapter)


def logged(log: StepLogger, steps: int = 3) -> StepReport:
    mtl = trained(steps=0)
    with log:
        for seed in range(steps):
            mtl.step(problems.batch(8, seed=seed))
            log(last(mtl))
    return last(mtl)


@pytest.mark.filterwarnings("ignore")
def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    report = logged(TensorBoardLogger(tmp_path, every=2))
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    scalars = report.scalars("balancing")
    assert set(events.Tags()["scalars"]) == set(scalars)
    for name, value in scalars.items():
        assert [event.step for event in events.Scalars(name)] == [0, 2]
        assert events.Scalars(name)[-1].value == pytest.approx(value, rel=1e-6)


def test_a_writer_of_ones_own_stays_open() -> None:
    class Writer:
        found: list[tuple[str, float, int]] = []  # noqa: RUF012

        def add_scalar(self, name: str, value: float, step: int) -> None:
            self.found.append((name, value, step))

    report = logged(TensorBoardLogger(Writer()), steps=1)
    assert Writer.found == [(name, value, 0) for name, value in report.scalars("balancing").items()]


class Run:
    """A run of Weights & Biases as far as it is used; and MLflow."""

    def __init__(self, **options: Any) -> None:
        self.options, self.metrics, self.rows, self.finished = options, [], [], False  # type: ignore[var-annotated]

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        self.metrics.append((name, step_metric))

    def log(self, data: dict[str, Any]) -> None:
        self.rows.append(data)

    def finish(self) -> None:
        self.finished = True


def test_wandb_with_a_step_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Run] = []
    fake: Any = type(sys)("wandb")
    fake.init = lambda **options: made.append(Run(**options)) or made[-1]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    report = logged(WandbLogger(every=2, project="p", mode="offline"))
    assert len(made) == 1
    assert (made[0].options, made[0].finished) == ({"project": "p", "mode": "offline"}, True)
    assert made[0].metrics == [("balancing/*", "balancing/step")]
    assert [row["balancing/step"] for row in made[0].rows] == [0, 2]
    assert made[0].rows[-1] == {**report.scalars("balancing"), "balancing/step": 2}
    own = Run()
    logged(WandbLogger(own), steps=1)
    assert (len(own.rows), own.finished) == (1, False)
    with pytest.raises(InputError, match="a run was given, so project cannot be set"):
        WandbLogger(own, project="p")
    with pytest.raises(InputError, match="prefix must not be empty"):
        WandbLogger(own, prefix="/")


@pytest.mark.filterwarnings("ignore")
def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logged(WandbLogger(mode="offline", dir=str(tmp_path), project="p", settings={"console": "off"}))
    (stored,) = tmp_path.rglob("run-*.wandb")
    assert b"balancing/conflict_share" in stored.read_bytes()


def test_mlflow_as_far_as_names_and_runs_go(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    run: Any = type("Active", (), {"info": type("Info", (), {"run_id": "r1"})})
    fake: Any = type(sys)("mlflow")
    fake.active_run = lambda: None
    fake.start_run = lambda: calls.append("start") or run
    fake.end_run = lambda: calls.append("end")
    fake.log_metrics = lambda metrics, step, run_id: calls.append((metrics, step, run_id))
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    with MLflowLogger(prefix="") as log:
        log.write({"loss/a:b": 1.0, "loss/ä": 2.0}, 4)
        with pytest.raises(InputError, match='MLflow cannot tell "loss/a=b" from another name'):
            log.write({"loss/a:b": 1.0, "loss/a=b": 2.0}, 5)
    assert calls == ["start", ({"loss/a_b": 1.0, "loss/_": 2.0}, 4, "r1"), "end"]
    fake.active_run = lambda: run
    with MLflowLogger() as log:
        log.write({"x": 1.0}, 0)
    assert calls[3:] == [({"x": 1.0}, 0, "r1")]


@pytest.mark.filterwarnings("ignore")
def test_mlflow_in_a_local_store(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'runs.db'}")
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("e", artifact_location=str(tmp_path / "artifacts")))
    report = logged(MLflowLogger(every=2))
    (run,) = mlflow.search_runs(output_format="list")
    assert run.data.metrics == pytest.approx(report.scalars("balancing"))
    assert run.info.status == "FINISHED"
