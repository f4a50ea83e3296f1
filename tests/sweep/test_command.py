import sys

import pytest

from equipoise.cli import main


def fails(capsys, *arguments):
    """Runs the command line, which must fail with one line; returns that line."""
    assert main([str(argument) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


@pytest.mark.usefixtures("one_template")
def test_from_the_command_line_and_its_report_again(capsys, tmp_path, tug_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    options = ["--method", "ls", "--sweep", "weights=0.1:1:log", "--budget", "4", "--objectives", "near,far error"]
    options += [
        "--compare",
        "ls,fairgrad",
        "--seeds",
        "0,3",
        "--confirm",
        "2",
        "--jobs",
        "2",
        "--sampler",
        "qmc",
        "--name",
        "mine",
    ]
    assert main(["sweep", f"{tug_path}:problem", *options, "--folder", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    report = tmp_path / "sweeps" / "mine" / "report.html"
    for said in ("Methods against the sweep", "Confirmed trials", "fairgrad", f"Report: {report}"):
        assert said in out
    assert "search: 4 trials of 2 epochs with seed 1000, 2 at a time" in err
    # The first trial is told beforehand, and counts like the others.
    searched = err.partition("search: ")[2].partition("confirmed trials and")[0]
    assert [line[:5] for line in searched.splitlines()[1:]] == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]
    report.unlink()
    assert main(["report", str(report.parent)]) == 0
    assert capsys.readouterr().out == out
    assert report.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["digts"], 'there is no problem "digts". Did you mean "digits" or'),
        (["digits", "--budget", "0"], "budget is 0; it must be a whole number, at least 1"),
        (["digits", "--method", "cagard"], 'no method "cagard". Did you mean "cagrad"'),
        (["digits", "--method", "cagrad", "--sweep", "c=1:0"], 'the range of "c" is 1:0'),
        (["digits", "--method", "cagrad", "--sweep", "d=0:1"], 'method "cagrad" has no option "d"'),
        (["digits", "--objectives", "left acuracy,sum"], 'no metric "left acuracy". Did you mean "left accuracy"'),
        (["digits", "--objectives", "left,sum", "--pruner", "median"], "Optuna cannot prune"),
        (["digits", "--sampler", "nsga"], 'no sampler "nsga". Did you mean "nsga2"?'),
    ],
)
def test_wrong_arguments_give_one_line_and_run_nothing(capsys, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert said in fails(capsys, "sweep", *arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["optuna", "pymoo"])
def test_missing_extra_gives_one_line_and_leaves_the_other_commands(capsys, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    err = fails(capsys, "sweep", "digits")
    assert f'"{package}" is needed' in err
    assert 'pip install "equipoise[sweep]"' in err
    assert main(["methods"]) == 0
