"""Importing the library is quick and needs torch and numpy alone."""

from __future__ import annotations

import subprocess
import sys

HEAVY = "matplotlib sklearn scipy rich typer jinja2 torchjd cloudpickle pandas"


def test_import_brings_nothing_but_torch_and_numpy() -> None:
    code = (
        "import sys, torch, numpy\n"
        "before = set(sys.modules)\n"
        "import equipoise\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        f"print(sorted(new & set({HEAVY!r}.split())))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


def test_everything_public_exists_and_is_documented() -> None:
    import equipoise as eq

    for name in eq.__all__:
        thing = getattr(eq, name)
        if callable(thing) or isinstance(thing, type):
            assert thing.__doc__, f"{name} has no docstring"
