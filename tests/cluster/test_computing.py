"""Where and how runs compute: devices that are counted out, compiled models, half precision; and what a folder remembers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from equipoise.cli import _addressed
from equipoise.cluster import Ray, where
from equipoise.errors import InputError
from equipoise.study import Study, find_problem
from equipoise.study.computing import Computing, computing
from equipoise.study.methods import parse_methods
from equipoise.study.plan import plan
from equipoise.study.processes import pool as pools
from equipoise.study.training import train

TINY = Path(__file__).parents[1] / "study" / "problems" / "tiny.py"
QUIET = Console(quiet=True)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were three GPUs; nothing may compute on them."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.usefixtures("gpus")
def test_devices_are_counted_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert computing("auto").gpus == computing("cuda").gpus == ("0", "1", "2")
    assert computing("cuda:2,0") == Computing("cuda", gpus=("2", "0"))
    assert computing("cpu") == Computing("cpu")
    assert computing(None) == Computing()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-ab,7")  # as Slurm hands them out
    assert computing("cuda:1,2").gpus == ("GPU-ab", "7")
    assert computing("auto", start=Ray(gpus=1)) == Computing("cuda")


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("cuda:3", "finds GPUs 0 to 2 here"),
        ("cuda:1,1", "each of them at most once"),
        ("tpu", "it must be auto, cpu, cuda"),
        ("cuda:", "it must be auto, cpu, cuda"),
        ("", "it must be auto, cpu, cuda"),
    ],
)
def test_other_devices_are_refused(device: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        computing(device)


def test_what_cannot_work_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    problem = find_problem(f"{TINY}:problem")
    assert computing("auto") == Computing("cpu")
    with pytest.raises(InputError, match="torch finds no GPU here"):
        computing("cuda:0")
    with pytest.raises(InputError, match="give --gpus 1 as well"):
        computing("cuda", start=Ray())
    with pytest.raises(InputError, match="Ray gives each run its GPU"):
        computing("cuda:0,1", start=Ray(gpus=1))
    with pytest.raises(InputError, match="cannot be compiled"):
        Study(problem, "ls", 1, folder=tmp_path, compile="eager")
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(InputError, match=r"compile needs a C\+\+ compiler"):
        computing(compile=True)
    with pytest.raises(InputError, match="give --ray as well"):
        where(None, gpus=1)
    for address, said in (("ray://head:10001", "ray job submit"), ("head:6379", "share of one")):
        with pytest.raises(InputError, match=said):
            Ray(address, cpus=1.5)


def test_an_address_may_follow_ray_or_not() -> None:
    assert _addressed(["study", "--ray", "digits"]) == ["study", "--ray=", "digits"]
    assert _addressed(["study", "my.py:problem", "--ray"]) == ["study", "my.py:problem", "--ray="]
    for address in ("head:6379", "auto", "[::1]:6379", "ray://head:10001"):
        assert _addressed(["--ray", address, "--gpus", "1"]) == ["--ray", address, "--gpus", "1"]
    assert where("", gpus=1) == Ray(gpus=1)
    assert where(None) == "auto"


@pytest.mark.usefixtures("gpus")
def test_a_gpu_has_one_run_at_a_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    problem = find_problem(f"{TINY}:problem")
    study = Study(problem, "ls", 3, folder=tmp_path / "study", device="cuda:0,2", console=QUIET)
    with pytest.raises(InputError, match="jobs is 3, and a GPU trains one run at a time"):
        Study(problem, "ls", 3, folder=tmp_path / "other", device="cuda:0,2", jobs=3)
    held: dict[str, str] = {}
    seen: list[str] = []

    class Backwards:
        """Runs end in the order opposite to that in which they began."""

        messages: Any

        def __init__(self, *_: Any) -> None:
            self.messages = self

        def start(self, key: str, payload: Path, log: Path) -> None:
            gpu = environments[-1]["CUDA_VISIBLE_DEVICES"]
            assert gpu not in held.values()
            held[key] = gpu
            log.write_text("it was not meant to run")
            seen.append(gpu)

        def get(self, timeout: float) -> dict[str, Any]:
            key = list(held)[-1]
            del held[key]
            return {"run": key, "exit": 1}

        def close(self) -> None:
            assert not held

    environments: list[dict[str, str]] = []
    monkeypatch.setattr(pools, "launcher", Backwards)
    monkeypatch.setattr(pools, "pack", lambda work, environment, elsewhere: environments.append(environment) or b"")
    with study.folder.locked():
        assert study.computing.at_a_time(study.jobs, lambda: 7) == 2
        study._execute(2, study.missing())
    assert len(seen) == 9
    assert set(seen) == {"0", "2"}


def test_settings_stay_with_the_folder(tmp_path: Path) -> None:
    problem = find_problem("digits")
    first = Study(problem, "ls", 1, folder=tmp_path, device="cpu", amp=True, console=QUIET)
    with first.folder.locked():
        settings = {"epochs": 20, "gramian_every": 10, "lr": [], **first.computing.settings()}
        first.folder.claim_for(first.problem, first.methods, first.seeds, settings)
    assert {name: json.loads((tmp_path / "study.json").read_text())[name] for name in ("device", "compile", "amp")} == {
        "device": "cpu",
        "compile": "",
        "amp": "bfloat16",
    }
    with pytest.raises(InputError, match=r"device 'cpu' there, '' now; amp 'bfloat16' there, '' now"):
        Study(problem, "ls", 1, folder=tmp_path, console=QUIET).run()


def test_a_folder_of_before_goes_on(tmp_path: Path) -> None:
    study = Study(find_problem(f"{TINY}:problem"), "ls", 1, folder=tmp_path, jobs=1, console=QUIET)
    with study.folder.locked():
        study.folder.claim_for(study.problem, study.methods, study.seeds, {"epochs": 3, "gramian_every": 10})
    assert "device" not in json.loads((tmp_path / "study.json").read_text())
    with study.folder.locked():
        settings = {"epochs": 3, "gramian_every": 10, **study.computing.settings()}
        study.folder.claim_for(study.problem, study.methods, study.seeds, settings)
        settings["compile"] = "eager"
        with pytest.raises(InputError, match="compile '' there, 'eager' now"):
            study.folder.claim_for(study.problem, study.methods, study.seeds, settings)


def _trained(problem: Any, method: str = "fairgrad") -> Any:
    (run,) = plan(problem.tasks, parse_methods(method), [0], baselines=False)
    state = torch.get_rng_state()
    try:
        return train(problem, run, epochs=1, gramian_every=0)
    finally:
        torch.set_rng_state(state)


def test_on_the_cpu_named_and_compiled_without_change_the_record_is_the_same() -> None:
    tiny = find_problem(f"{TINY}:problem")
    tiny = dataclasses.replace(tiny, shared=lambda model: model[0])
    plain = _trained(tiny)
    for asked in (Computing("cpu"), Computing(compile="eager")):
        found = _trained(asked.applied(tiny))
        assert found["final"] == plain["final"]
        assert found["history"][0]["weights"] == plain["history"][0]["weights"]
    half = _trained(Computing(amp="bfloat16").applied(tiny))
    assert half["final"] != plain["final"]
    for name, value in plain["final"]["test"].items():
        assert half["final"]["test"][name] == pytest.approx(value, rel=0.1)
    assert Computing().applied(tiny) is tiny


def test_parts_of_a_model_are_compiled_apart_so_that_what_is_shared_is_seen() -> None:
    digits = Computing(compile="eager").applied(find_problem("digits"))
    model, _ = digits.build(0)[:2]
    compiled = {name for name, module in model.named_modules() if module._compiled_call_impl is not None}
    assert "" not in compiled
    assert len(compiled) == 5
    assert set(model.state_dict()) == set(find_problem("digits").build(0)[0].state_dict())


def test_batches_come_to_the_device_and_loaders_stay_what_they_are() -> None:
    tiny = find_problem(f"{TINY}:problem")
    met: list[torch.device] = []

    def evaluate(model: Any, loader: Any) -> Any:
        met.extend(batch["x"].device for batch in loader)
        assert len(loader) == 1
        assert loader.batch_size == 48
        return {}

    placed = Computing("meta").applied(dataclasses.replace(tiny, evaluate=evaluate))
    model, losses = placed.build(0)[:2]
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    batch = next(iter(tiny.data(0)[0]))
    assert losses(model, batch)["near"].device.type == "meta"
    placed.evaluate(model, tiny.data(0)[2])
    assert met == [torch.device("meta")]
