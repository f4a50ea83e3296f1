"""Tests the wheels from outside the checkout, as somebody who has only pip would: ``make dist-test``.

Two environments in a folder whose name has a space: the library alone (torch and numpy, no extra), and what studies need with
the papers' laboratory. Both get the wheels of ``dist/`` in the versions that ``constraints.txt`` pins.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("typer", "matplotlib", "scipy", "sklearn", "cma", "optuna")

ALONE = f"""
import importlib.metadata
import importlib.util
import pathlib

import torch

import equipoise as eq

assert "site-packages" in eq.__file__, eq.__file__
assert importlib.metadata.version("equipoise") == eq.__version__
assert (pathlib.Path(eq.__file__).parent / "py.typed").is_file()
for extra in {EXTRAS}:
    assert importlib.util.find_spec(extra) is None, f"{{extra}} comes with the library"
shared = torch.nn.Linear(3, 3)
heads = torch.nn.ModuleDict({{task: torch.nn.Linear(3, 1) for task in ("a", "b")}})
tried = []
for info in eq.methods():
    try:
        balancer = eq.balancer(info.name)
        for _ in range(2):
            features = torch.tanh(shared(torch.randn(8, 3)))
            losses = {{task: (head(features) - 1.0).square().mean() for task, head in heads.items()}}
            loss = eq.balanced_loss(losses, balancer)
            loss.backward()
            assert loss.isfinite(), info.name
    except eq.InputError:
        continue  # needs the gradients themselves, further batches or parts of a model
    tried.append(info.name)
assert len(tried) > 20, tried
print(f"library alone: {{eq.__version__}} with torch {{torch.__version__}}, {{len(tried)}} methods")
"""


def main() -> None:
    """Says what was tested, or ends with status 1 and what was printed."""
    wheels = {name: next(iter((ROOT / "dist").glob(f"{name}-*.whl")), None) for name in ("equipoise", "equipoise_papers")}
    if None in wheels.values():
        sys.exit("there are no wheels in dist/: make dist")
    with tempfile.TemporaryDirectory(prefix="away from home ") as name:
        away = Path(name)
        alone = environment(away / "alone", [str(wheels["equipoise"])])
        print(run(alone / "python", "-c", ALONE, cwd=away), end="")
        said = run(alone / "equipoise", "study", "digits", cwd=away, status=2)
        assert 'pip install "equipoise[study]"' in said, said
        print(f"an extra missing: {said}", end="")

        whole = environment(away / "whole", [f"{wheels['equipoise']}[study]", str(wheels["equipoise_papers"])])
        study = ("study", "digits", "--methods", "ls,fairgrad", "--seeds", "2", "--epochs", "1", "--output", "results")
        run(whole / "equipoise", *study, cwd=away)
        assert (away / "results" / "report.html").stat().st_size > 100_000
        again = run(whole / "equipoise", *study, cwd=away)
        assert "nothing to do" in again or "0 to do" in again, again
        for command in (["figure", "--help"], ["reproduce", "--list"], ["example", "--help"], ["methods"], ["--version"]):
            run(whole / "equipoise", *command, cwd=away)
        rows = run(whole / "equipoise", "reproduce", "ldc-table6", "--dry-run", "--data", away, cwd=away)
        assert "fairgrad" in rows.casefold(), rows
        run(whole / "equipoise", "init", "mine.py", cwd=away)
        run(whole / "equipoise", "study", "mine.py:problem", "--methods", "ls", "--seeds", "1", "--epochs", "1", cwd=away)
        print("with studies and papers: study, report, resumption, figures, recipes, a problem of one's own")


def environment(folder: Path, wanted: list[str]) -> Path:
    """Makes an empty environment with these wheels in it; its folder of programs."""
    venv.create(folder, with_pip=True)
    programs = folder / ("Scripts" if sys.platform == "win32" else "bin")
    pip = (programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*pip, "-c", ROOT / "constraints.txt", *wanted, cwd=folder)
    return programs


def run(*command: str | Path, cwd: Path, status: int = 0) -> str:
    """What a command prints, with nothing of the checkout in its environment."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    typed = [str(part) for part in command]
    ended = subprocess.run(typed, cwd=cwd, env=kept, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if ended.returncode != status:
        sys.exit(f"{' '.join(typed)}\nended with status {ended.returncode}:\n{ended.stdout}")
    return ended.stdout


if __name__ == "__main__":
    main()
