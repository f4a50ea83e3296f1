"""Work on a Ray cluster of two nodes on this machine: the same bits as here, and nodes that are lost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from equipoise.blackbox import minimize
from equipoise.cluster import Ray
from equipoise.errors import InputError
from equipoise.study import Study, find_problem
from equipoise.study.folder import Folder
from equipoise.study.methods import parse_methods
from equipoise.study.plan import plan
from equipoise.study.processes.calls import calls
from equipoise.study.processes.pool import Pool
from tests.gates import Gate, command_line, said_in_the_end
from tests.study.timeless import timeless_records

pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own

TINY = Path(__file__).parents[1] / "study" / "problems" / "tiny.py"
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A head and one more node, of one processor each; and the gate that runs on both wait at."""
    from ray.cluster_utils import Cluster

    gate = Gate(tmp_path_factory.mktemp("gate") / "gate")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, value in (gate.environment | {"RAY_USAGE_STATS_ENABLED": "0"}).items():
            patch.setenv(name, value)  # nodes hand their environment on
        small = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80_000_000}
        made = Cluster(initialize_head=True, head_node_args=small)
        made.gate, made.lost = gate, made.add_node(num_cpus=1, object_store_memory=80_000_000)
        yield made
        made.shutdown()


@pytest.fixture
def ray(cluster: Any) -> Any:
    asked = Ray(cluster.address)
    with asked.connected():
        yield asked


def test_a_study_is_the_local_one_bit_for_bit(cluster: Any, ray: Ray, tmp_path: Path) -> None:
    # What the nodes need of the problem has to travel: here nothing of it is left for them on the disc.
    loose = tmp_path / "loose"
    loose.mkdir()
    text = TINY.read_text().replace("import os\n", "import os\nfrom helper_of_tiny import times\n", 1)
    (loose / "problem_of_nodes.py").write_text(text.replace("10 * errors[1]", "times(errors[1])"))
    (loose / "helper_of_tiny.py").write_text("def times(error):\n    return 10 * error\n")
    problem = find_problem(f"{loose / 'problem_of_nodes.py'}:problem")
    local = Study(problem, "ls,fairgrad", 1, folder=tmp_path / "here", jobs=2, console=QUIET).run()
    shutil.rmtree(loose)
    study = Study(problem, "ls,fairgrad", 1, folder=tmp_path / "there", start=ray, console=QUIET)
    there = study.run()
    assert not there.failures, [path.read_text() for path in there.failures.values()]
    assert not local.failures
    assert timeless_records(tmp_path / "there") == timeless_records(tmp_path / "here")
    assert len(timeless_records(tmp_path / "there")) == 4
    assert study.missing() == ()


def _halved(number: int) -> tuple[float, int]:
    if number < 0:
        raise InputError("it is below zero")
    return number / 2, os.getpid()


def test_calls_and_what_they_raise(ray: Ray) -> None:
    found = dict(calls(_halved, [(3,), (4,)], jobs=1, start=ray))
    assert {number: half for number, (half, _) in found.items()} == {0: 1.5, 1: 2.0}
    assert os.getpid() not in {process for _, process in found.values()}
    with pytest.raises(InputError, match=r"^it is below zero$"):
        list(calls(_halved, [(-1,)], jobs=1, start=ray))


def test_minimize_is_the_local_one_bit_for_bit_and_survives_what_fails(ray: Ray) -> None:
    def f(x: Any) -> list[float]:
        if x[0] > 5.0:
            raise ValueError("too far")
        if x[1] > 5.5:
            os.kill(os.getpid(), signal.SIGKILL)  # on a node as here, a crash of f is none of the node
        return [float(((x - 1) ** 2).sum()), float(((x + 1) ** 2).sum())]

    asked: dict[str, Any] = {"iterations": 4, "samples": 8, "seed": 0, "workers": 2}
    here, there = (minimize(f, np.full(3, 4.0), backend=backend, **asked) for backend in ("processes", ray))
    assert here.failures.counts == there.failures.counts
    assert set(there.failures.counts) == {"exception", "crash"}
    assert here.x.tobytes() == there.x.tobytes()
    assert here.objectives.tobytes() == there.objectives.tobytes()


def test_what_the_cluster_cannot_hold_is_refused(ray: Ray, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no node of the cluster has 3 CPUs and 0 GPUs \(there are 1 and 0, 1 and 0\)"):
        Study(find_problem(f"{TINY}:problem"), "ls", 1, folder=tmp_path, start=Ray(cpus=3), console=QUIET).run()
    with pytest.raises(InputError, match="is connected to the cluster"), Ray("192.0.2.1:6379").connected():
        pass
    assert Ray(cpus=0.5).at_a_time() == 4


def test_a_run_can_be_ended(cluster: Any, ray: Ray, tmp_path: Path) -> None:
    """As a sweep's pruner does."""
    problem, folder = find_problem(f"{TINY}:gated"), Folder(tmp_path / "study")
    arrived = len(list(cluster.gate.folder.glob("arrived-*")))
    cluster.gate.allow(0)
    (run,) = plan(problem.tasks, parse_methods("ls"), [0], baselines=False)
    with folder.locked(), Pool(problem, folder, epochs=3, gramian_every=0, start=ray) as pool:
        pool.start(run)
        end = time.monotonic() + 100
        while len(list(cluster.gate.folder.glob("arrived-*"))) == arrived:
            assert time.monotonic() < end, "the run never waited"
            time.sleep(0.05)
        pool.stop(run)
        while (event := pool.wait()) is None:
            assert time.monotonic() < end + 100, "the run never ended"
    assert event.failure.startswith("killed by signal 9")
    assert not folder.finished(run, 3)


def test_a_node_is_lost_and_its_run_is_done_elsewhere(cluster: Any, ray: Ray, tmp_path: Path) -> None:
    problem = find_problem(f"{TINY}:gated")
    waiting = cluster.gate
    before = len(list(waiting.folder.glob("arrived-*")))
    study = Study(problem, "ls", 1, folder=tmp_path / "there", start=ray, console=QUIET)
    waiting.allow(0)
    ran = threading.Thread(target=study.run)
    ran.start()
    try:
        end = time.monotonic() + 100
        while len(list(waiting.folder.glob("arrived-*"))) < before + 2:
            assert time.monotonic() < end, "two runs never waited"
            time.sleep(0.05)
        cluster.remove_node(cluster.lost, allow_graceful=False)
    finally:
        waiting.allow(1000)
        ran.join(200)
    assert not ran.is_alive()
    Study(problem, "ls", 1, folder=tmp_path / "here", jobs=2, console=QUIET).run()
    assert timeless_records(tmp_path / "there") == timeless_records(tmp_path / "here")
    assert len(timeless_records(tmp_path / "there")) == 3


def test_the_head_is_lost_and_the_folder_is_gone_on_with(cluster: Any, tmp_path: Path) -> None:
    """The last test, for nothing is left of the cluster."""
    arrived = len(list(cluster.gate.folder.glob("arrived-*")))
    cluster.gate.allow(arrived + 1)
    options = ["--methods", "ls", "--seeds", "1", "--folder", str(tmp_path / "there"), "--jobs", "1", "--ray", cluster.address]
    command = command_line("study", f"{TINY}:gated", *options)
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        end = time.monotonic() + 150
        while len(list(cluster.gate.folder.glob("arrived-*"))) < arrived + 2:
            assert driver.poll() is None, driver.communicate()[0]
            assert time.monotonic() < end, "the second run never came"
            time.sleep(0.05)
        done = list((tmp_path / "there" / "runs").glob("*.json"))
        assert len(done) == 1
        written = done[0].stat().st_mtime_ns
        cluster.remove_node(cluster.head_node, allow_graceful=False)
        said = said_in_the_end(driver, 150)
    finally:
        driver.kill()
    assert driver.returncode == 2, said
    assert "does not answer any more" in said, said
    cluster.gate.allow(1000)
    problem = find_problem(f"{TINY}:gated")
    Study(problem, "ls", 1, folder=tmp_path / "there", jobs=2, console=QUIET).run()
    Study(problem, "ls", 1, folder=tmp_path / "here", jobs=2, console=QUIET).run()
    assert done[0].stat().st_mtime_ns == written
    assert timeless_records(tmp_path / "there") == timeless_records(tmp_path / "here")
    assert len(timeless_records(tmp_path / "there")) == 3
