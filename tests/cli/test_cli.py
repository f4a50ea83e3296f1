import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from tests.distributions import install

from equipoise.balance.registry import methods
from equipoise.cli import main
from equipoise.errors import InputError
from equipoise.study import Results, parse_methods
from equipoise.study.problems import PROBLEMS
from equipoise.version import __version__

TINY = Path(__file__).parents[1] / "study" / "problems" / "tiny.py"


def fails(capsys, *arguments):
    """Runs the command line, which must fail with one line; returns that line."""
    assert main([str(argument) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"equipoise {__version__}\n"


def test_help_does_not_wait_for_torch():
    code = "import sys\nfrom equipoise.cli import main\nmain(['--help'])\nprint('\\n', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert "Compare methods over seeds" in done.stdout
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "equipoise.commands" in loaded
    assert not loaded & {"torch", "numpy", "rich.console", "matplotlib", "equipoise.balance"}


def test_a_command_of_another_distribution(capsys, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    hello = "def hello(name: str) -> None:\n    'Greet somebody.'\n    print('hello', name)\n"
    install(tmp_path, "far-hello", "[equipoise.commands]\nhello = far_hello:hello\n", far_hello=hello)
    install(tmp_path, "far-broken", "[equipoise.commands]\nbroken = far_broken:run\nstudy = far_hello:hello\n")
    assert main(["hello", "you"]) == 0
    assert capsys.readouterr().out == "hello you\n"
    assert 'the command "broken" of far-broken cannot be loaded: No module named' in fails(capsys, "broken")
    assert main(["--help"]) == 0
    out, err = capsys.readouterr()
    assert "Greet somebody." in out
    assert "Compare methods over seeds" in out  # the library's own commands stay its own
    assert [line.partition(" of ")[0] for line in err.splitlines()] == [
        'equipoise: the command "broken"',
        'equipoise: the command "study"',
    ]
    assert main(["study", "--help"]) == 0
    assert "Compare methods over seeds" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["reproduce", "figure", "example", "data"])
def test_commands_of_the_papers_say_in_one_line_how_to_get_them(capsys, monkeypatch, command):
    monkeypatch.setattr("equipoise.cli.entry_points", lambda group: ())
    assert "pip install ./papers" in fails(capsys, command, "cost-table1", "--dry-run")


def test_problems_of_the_papers_say_in_one_line_how_to_get_them(capsys, monkeypatch):
    monkeypatch.setattr("equipoise.registry.entry_points", lambda group: ())
    if "scenes" in PROBLEMS:  # other tests may have asked for it
        PROBLEMS.remove("scenes")
    assert "pip install ./papers" in fails(capsys, "study", "scenes", "--methods", "ls")


def test_methods_lists_every_method_with_its_cost_options_and_paper(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    assert main(["methods"]) == 0
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines()]
    for info in methods():
        own = next(line for line in lines if line[:1] == [info.name])
        assert own[1] in ("losses", "gramian", "gradients")
        assert info.summary in out
        assert info.paper in out
        assert all(option in out for option in info.options)


def test_one_method_and_those_of_one_need(capsys):
    info = next(info for info in methods() if info.name == "cagrad")
    assert main(["methods", "CAGrad"]) == 0
    out = capsys.readouterr().out
    for said in (info.summary, info.paper, info.price, info.promise, info.serves, info.caveats, "option c=0.4"):
        assert said in out  # on one line, for nothing here is a terminal
    assert main(["methods", "--needs", "losses", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in listed] == [info.name for info in methods() if info.cost == "losses"]
    assert all(one["needs"] == "losses" for one in listed)
    known = {info.name: dict(info.options) for info in methods()}
    assert all(one["options"] == known[one["name"]] for one in listed if one["name"] in ("stch", "famo", "si"))
    assert main(["methods", "--json"]) == 0
    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert set(listed) > {info.name for info in methods()}
    assert listed["forum"]["needs"] == "bilevel"
    assert main(["methods", "--needs", "bilevel"]) == 0
    out = capsys.readouterr().out
    assert "forum" in out
    assert "fairgrad" not in out
    assert main(["methods", "forum", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == listed["forum"]
    assert 'no method "cagard". Did you mean "cagrad"' in fails(capsys, "methods", "cagard")
    assert '--needs is "loses"; it must be one of' in fails(capsys, "methods", "--needs", "loses")
    assert "give one of them" in fails(capsys, "methods", "cagrad", "--needs", "losses")


def test_lists_of_commands_are_not_cut(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "..." not in out.replace("[ARGS]...", "")
    assert "…" not in out
    for said in ("single-task training as the baseline.", "its options and its paper.", "with the numbers behind it"):
        assert said in " ".join(out.split())
    assert "--install-completion" in out


def test_completion_and_python_m(monkeypatch, capsys):
    monkeypatch.setenv("_EQUIPOISE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "equipoise meth")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert main([]) == 0
    assert capsys.readouterr().out.split() == ["methods"]
    monkeypatch.delenv("_EQUIPOISE_COMPLETE")
    monkeypatch.setattr(sys, "argv", ["__main__.py", "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("equipoise", run_name="__main__")
    assert not ended.value.code
    assert capsys.readouterr().out == f"equipoise {__version__}\n"


@pytest.mark.usefixtures("one_template")
def test_study_of_a_users_own_problem_and_its_report(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    folder = tmp_path / "study"
    arguments = ["study", f"{TINY}:problem", "--methods", "ls,fairgrad:alpha=2", "--seeds", "0,3", "--epochs", "2"]
    assert main([*arguments, "--jobs", "2", "--output", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert "8 runs of 2 epochs; 8 to do, 2 at a time" in err
    for said in ("single-task", "fairgrad:alpha=2", "Δm", "test split", f"Report: {folder / 'report.html'}"):
        assert said in out
    assert json.loads((folder / "study.json").read_text())["seeds"] == [0, 3]

    (folder / "report.html").unlink()
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda place: opened.append(place) or len(opened) == 1)
    assert main(["report", str(folder), "--open"]) == 0
    assert (folder / "report.html").exists()
    assert opened == [(folder / "report.html").as_uri()]
    again, err = capsys.readouterr()
    assert out.strip().splitlines()[-1] in again
    assert err == ""
    monkeypatch.delenv("COLUMNS")
    assert main(["report", str(folder), "--open"]) == 0  # no browser now
    piped, err = capsys.readouterr()
    assert "No browser could be opened" in err
    # Into a file or another program every column goes, however many there are.
    assert all(metric.name in piped for metric in Results(folder).metrics)
    assert "too narrow" not in piped

    assert "(epochs 2 there, 5 now)" in fails(capsys, *arguments[:-1], "5", "--folder", folder)


def test_all_methods_are_those_of_the_registry(capsys, monkeypatch):
    """Teleports are asked for by name; a study of everything has none."""
    asked = []

    def study(problem, methods, *arguments, **options):
        asked.extend(parse_methods(methods))
        raise InputError("enough")

    monkeypatch.setattr("equipoise.study.Study", study)
    assert "enough" in fails(capsys, "study", "digits", "--methods", "all")
    # The heads of that problem have two layers, and it gives no targets for methods that need linear ones.
    served = [info.name for info in methods() if not getattr(info.cls, "needs_targets", False)]
    assert [method.label for method in asked] == served
    assert all(method.teleport is None for method in asked)


@pytest.mark.usefixtures("one_template")
def test_a_failed_run_gives_a_failed_study(capsys, tmp_path):
    folder = tmp_path / "study"
    arguments = ["study", f"{TINY}:failing", "--methods", "ls", "--seeds", "0-1", "--jobs", "2", "--folder", str(folder)]
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert "FAILED: RuntimeError: the disk with the data is gone" in err
    assert str(folder / "failed" / "ls-seed1.txt") in err
    assert "single-task" in out  # what did finish is reported


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["digts"], 'there is no problem "digts". Did you mean "digits" or'),
        (["digits", "--methods", "ls,cagard"], 'no method "cagard". Did you mean "cagrad"'),
        (["digits", "--methods", "cagrad:d=1"], 'method "cagrad" has no option "d"'),
        (["digits", "--methods", "ls,cost(gama=1)+ls"], 'COST has no option "gama". Did you mean "gamma"?'),
        (["digits", "--seeds", "x"], "seeds is 'x'; give a count"),
        (["digits", "--epochs", "0"], "epochs is 0; it must be at least 1"),
        (["digits", "--jobs", "0"], "jobs is 0; it must be at least 1"),
        (["absent.py:problem"], 'there is no file "absent.py"'),
    ],
)
def test_wrong_arguments_give_one_line_and_run_nothing(capsys, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert said in fails(capsys, "study", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_report_of_something_else(capsys, tmp_path):
    assert "is not the folder of a study" in fails(capsys, "report", tmp_path)


def test_unknown_command(capsys):
    assert main(["studdy"]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("package", ["typer", "rich", "matplotlib", "jinja2", "cloudpickle"])
def test_missing_extra_gives_one_line(capsys, monkeypatch, package):
    code = f"import sys; sys.modules[{package!r}] = None; from equipoise.cli import main; sys.exit(main(['methods']))"
    if package != "typer":
        # The same in this process is faster; only the first has to be seen from the outside.
        for module in [name for name in sys.modules if name.startswith(("equipoise.study", package))]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, package, None)
        err = fails(capsys, "methods")
    else:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        err = done.stderr
    assert err.count("\n") == 1
    assert f'"{package}" is needed' in err
    assert 'pip install "equipoise[study]"' in err
