import math
from pathlib import Path

import pytest
from rich.console import Console
from tests.study.attempts import COST, attempt

from equipoise.store import write_json
from equipoise.study import Study, find_problem
from equipoise.study.pictures import PICTURES
from equipoise.study.records import SCHEMA

TINY = Path(__file__).parent / "problems" / "tiny.py"


@pytest.fixture(scope="session")
def tiny_path():
    return TINY


@pytest.fixture(scope="session")
def tiny():
    return find_problem(f"{TINY}:problem")


@pytest.fixture
def quiet():
    return Console(quiet=True)


@pytest.fixture
def one_picture(monkeypatch):
    """Reports have the first picture alone, for tests of their words: that all are drawn is tested in ``test_report.py``."""
    monkeypatch.setattr("equipoise.study.report.write.PICTURES", PICTURES[:1])
    monkeypatch.setattr("equipoise.study.report.write.TELEPORT_PICTURES", ())


@pytest.fixture(scope="session")
def finished(tmp_path_factory, templates, tiny):
    """A finished study of two methods and two seeds, and its folder; tests only read it."""
    folder = tmp_path_factory.mktemp("finished") / "study"
    study = Study(tiny, "ls,fairgrad", 2, folder=folder, jobs=2, gramian_every=2, console=Console(quiet=True))
    with templates.used():
        return study.run(), folder


@pytest.fixture(scope="session")
def teleported(tmp_path_factory, templates, tiny):
    """As ``finished``, of a method with and without teleports; with seed 1 tasks never conflict."""
    folder = tmp_path_factory.mktemp("teleported") / "study"
    study = Study(tiny, f"ls,{COST}+ls", 2, folder=folder, jobs=2, gramian_every=1, console=Console(quiet=True))
    with templates.used():
        return study.run(), folder


@pytest.fixture
def made_up(tmp_path):
    """Writes the folder of a study that never was, of any size, with numbers that can be told apart.

    Methods with a plus sign in their label teleport: as often as ``attempts`` says, every third attempt refused.
    """

    def write(methods=("ls", "fairgrad"), seeds=(0, 1, 2), tasks=("near", "far"), epochs=5, spread=1.0, attempts=9, **changes):
        write_json(
            tmp_path / "study.json",
            {
                "schema": SCHEMA,
                "problem": {
                    "name": "made-up",
                    "tasks": tasks,
                    "metrics": [
                        {"name": task, "task": task, "higher_is_better": bool(k % 2), "unit": "%" * (k % 2), "label": task}
                        for k, task in enumerate(tasks)
                    ],
                    "options": {"width": 3},
                },
                "epochs": epochs,
                "gramian_every": 10,
                "methods": {method: {"name": method, "options": {}} for method in methods},
                "seeds": seeds,
            },
        )
        for seed in seeds:
            for task in tasks:
                record = _record(f"stl:{task}", seed, (task,), epochs, 1.0 + 0.02 * seed, task)
                write_json(tmp_path / "runs" / f"stl~{task}-seed{seed}.json", record | changes.get("baseline", {}))
            for place, method in enumerate(methods):
                level = 1.1 + 0.1 * place + 0.05 * spread * ((seed * 7 + place * 3) % 5 - 2)
                record = _record(method, seed, tasks, epochs, level, None)
                if "+" in method:
                    record["run"]["options"] = {"teleport": {}}
                    record["teleports"] = [attempt(number, seed, tasks, level) for number in range(attempts)]
                write_json(tmp_path / "runs" / f"{place}-seed{seed}.json", record | changes.get("runs", {}))
        return tmp_path

    return write


def _cosines(tasks):
    return [[math.cos(a - b) for a in range(tasks)] for b in range(tasks)]


def _record(method, seed, tasks, epochs, level, alone):
    values = dict.fromkeys(tasks, level * 10)
    history = [
        {
            "epoch": epoch,
            "steps": 3,
            "losses": {task: level * (k + 1) / epoch for k, task in enumerate(tasks)},
            "weights": {task: level + k for k, task in enumerate(tasks)},
            "conflicts": None
            if alone
            else {
                "steps": 3,
                "any": min(1.0, 0.3 * level + 0.05 * epoch),
                "smallest": 0.1 * level,
                "tasks": {task: {"conflicts": 0.2, "cosine": 0.1, "norm": 1.0} for task in tasks},
            }
            | (
                {"cosines": [[math.cos(a - b) for a in range(len(tasks))] for b in range(len(tasks))]}
                if epoch == epochs
                else {}
            ),
            "seconds": 0.05 * level * epoch,
            "validation": values,
            "test": values,
        }
        for epoch in range(1, epochs + 1)
    ]
    return {
        "schema": SCHEMA,
        "run": {"method": method, "name": method, "options": {}, "task": alone, "seed": seed},
        "problem": "made-up",
        "epochs": epochs,
        "final": {"validation": values, "test": values},
        "seconds_a_step": {"median": 0.01 * level, "mean": 0.011 * level, "steps": 3 * epochs},
        "memory_mb": {"base": 200.0, "training": 300.0 * level, "process": 400.0},
        "parameters": 10,
        "wall_seconds": 1.5,
        "began": "2024-01-01T00:00:00+0000",
        "versions": {"equipoise": "0", "python": "3", "torch": "2", "numpy": "2", "platform": "x"},
        "history": history,
        "points": None
        if alone
        else {
            "step": list(range(3 * epochs)),
            "epoch": [1 + step // 3 for step in range(3 * epochs)],
            "loss": [level / (1 + step) for step in range(3 * epochs)],
            "cosine": [math.sin(step + seed) for step in range(3 * epochs)],
            "scales": dict.fromkeys(tasks, 2.0),
        },
        "teleports": [],
        "alone": True,
        "complete": True,
    }
