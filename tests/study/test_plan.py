import pytest

from equipoise.errors import InputError
from equipoise.study import parse_methods
from equipoise.study.plan import Run, parse_seeds, plan


def test_baselines_come_first_and_once_a_task_and_seed():
    runs = plan(["a", "b"], parse_methods("ls,si"), [0, 4])
    assert [str(run) for run in runs] == [
        "stl:a seed 0",
        "stl:b seed 0",
        "stl:a seed 4",
        "stl:b seed 4",
        "ls seed 0",
        "si seed 0",
        "ls seed 4",
        "si seed 4",
    ]


def test_file_names_are_plain_and_differ():
    methods = parse_methods(
        [
            ("a/b", "ls"),
            ("a b", "ls"),
            ("a-b", "ls"),
            ("ä" * 300, "ls"),
            ("cagrad:c=0.2", "cagrad:c=0.2"),
            ("A-B", "si"),
            ("a:b", "si"),
            ("a~b", "si"),
        ]
    )
    runs = plan(["a", "x:y", "x-y"], methods, [0, 1])
    keys = [run.key for run in runs]
    assert len({key.lower() for key in keys}) == len(keys)
    assert all(len(key) < 120 and key.isascii() and "/" not in key and " " not in key for key in keys)
    assert all(f"-seed{run.seed}" in run.key for run in runs)  # however long the label is
    assert Run(1, method=parse_methods("cagrad:c=0.2")[0]).key == "cagrad~c=0.2-seed1"


@pytest.mark.parametrize(
    ("given", "seeds"),
    [
        (3, (0, 1, 2)),
        ("3", (0, 1, 2)),
        ("5-9", (5, 6, 7, 8, 9)),
        ("1,4,7", (1, 4, 7)),
        ("7,", (7,)),
        ("1,3-5,4", (1, 3, 4, 5)),
        ([2, 2, 1], (2, 1)),
        (range(2), (0, 1)),
    ],
)
def test_seeds(given, seeds):
    assert parse_seeds(given) == seeds


@pytest.mark.parametrize("given", [0, -1, "0", "", "three", "5-", "9-5", "1;2", [], [-1], [1.5], True, "1,x"])
def test_bad_seeds(given):
    with pytest.raises(InputError, match="seeds is"):
        parse_seeds(given)
