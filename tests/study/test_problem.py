import dataclasses
import sys
from importlib.util import find_spec

import pytest
from tests.distributions import install

from equipoise.errors import InputError
from equipoise.metrics import Metric
from equipoise.study import Problem, find_problem, problems
from equipoise.study.problems import PROBLEMS


def test_built_in():
    for name in problems():
        if name != "qm9" or find_spec("qm9pack") is not None:
            assert find_problem(name).name == name


def test_unknown_names_get_suggestions(tiny_path):
    with pytest.raises(InputError, match=r'no problem "digit".* "digits"'):
        find_problem("digit")
    with pytest.raises(InputError, match=r'defines no "problme".* "problem"'):
        find_problem(f"{tiny_path}:problme")


def test_files_and_modules(tiny_path, tmp_path, monkeypatch):
    assert find_problem(f"{tiny_path}:problem").name == "tiny"
    assert find_problem(str(tiny_path)).name == "tiny"  # "problem" is the name where none is given
    assert find_problem(f"{tiny_path}:gated").name == "tiny"  # a function that makes one
    (tmp_path / "own_module.py").write_text(tiny_path.read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert find_problem("own_module:problem").name == "tiny"


def test_problems_of_other_distributions(tiny_path, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    points = (
        "[equipoise.problems]\nfar-tiny = far_tiny:problem\nfar-int = far_tiny:not_a_problem\nfar-gone = far_gone:problem\n"
    )
    install(tmp_path, "far-tiny", points, far_tiny=tiny_path.read_text(encoding="utf-8"))
    assert problems()[0] == "digits"
    assert {"far-tiny", "far-int", "far-gone"} <= set(problems())
    assert "far_tiny" not in sys.modules  # listing imports nothing
    with pytest.raises(InputError, match=r'no problem "far-tinny"\. Did you mean "far-tiny"'):
        find_problem("far-tinny")
    assert "far_tiny" not in sys.modules
    assert find_problem("Far_Tiny").name == "tiny"
    with pytest.raises(InputError, match='"far-int" is a int; expected an equipoise'):
        find_problem("far-int")
    with pytest.raises(InputError, match='the problem "far-gone" of far-tiny cannot be used: No module named'):
        find_problem("far-gone")
    for name in ("far-tiny", "far-int"):
        PROBLEMS.remove(name)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("absent.py:problem", 'no file "absent.py"'),
        ("absent_module:problem", '"absent_module" cannot be loaded: ModuleNotFoundError'),
        ("{tiny}:not_a_problem", '"not_a_problem" in .* is a int'),
        ("{tiny}:_x", '"_x" in .* is a Tensor'),
    ],
)
def test_what_cannot_be_found(where, message, tiny_path):
    with pytest.raises(InputError, match=message):
        find_problem(where.format(tiny=tiny_path))


def test_a_file_with_an_error(tmp_path):
    path = tmp_path / "wrong.py"
    path.write_text("x = 1 / 0")
    with pytest.raises(InputError, match="cannot be loaded: ZeroDivisionError"):
        find_problem(str(path))


def test_bad_problems(tiny):
    with pytest.raises(InputError, match="no tasks"):
        dataclasses.replace(tiny, tasks=())
    with pytest.raises(InputError, match="no metrics"):
        dataclasses.replace(tiny, metrics=())
    with pytest.raises(InputError, match='the task "near" twice'):
        dataclasses.replace(tiny, tasks=("near", "near", "far"))
    with pytest.raises(InputError, match='the metric "near error" twice'):
        dataclasses.replace(tiny, metrics=(tiny.metrics[0], tiny.metrics[0]))
    with pytest.raises(InputError, match=r'task "nearr", which .* "near"'):
        dataclasses.replace(tiny, metrics=(Metric("x", "nearr", higher_is_better=True),))
    with pytest.raises(InputError, match="epochs=0"):
        dataclasses.replace(tiny, epochs=0)
    assert isinstance(tiny, Problem)
