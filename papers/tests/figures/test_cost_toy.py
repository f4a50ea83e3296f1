import json
import math

import numpy as np
import pytest
from matplotlib.image import imread

from equipoise.cli import main
from equipoise.errors import InputError
from equipoise_papers.figures.cost_toy.make import make
from equipoise_papers.figures.cost_toy.pictures import path
from equipoise_papers.figures.cost_toy.run import CostToyTrajectories, Trajectory, outcomes, run, settled
from equipoise_papers.figures.cost_toy.settings import CostToySettings, Teleporting
from equipoise_papers.figures.cost_toy.teleporter import CostToyAttempt
from equipoise_papers.toys import ParetoCurve, TwoTasks

# On the set, in a valley, and on the set where the tasks always conflict.
NEAR = ((0.0, -8.3), (5.0, 4.0), (3.0, -8.3))
EAGER = Teleporting(start_step=3, cooldown=10, inner_steps=8, check_every=5)


@pytest.fixture(scope="module")
def short():
    return run(CostToySettings(balancers=("ls", "mgda"), starts=NEAR, seeds=(0, 1), steps=105, teleporting=EAGER))


def test_positions_are_recorded_from_the_start_to_the_last_step(short):
    assert short.steps.tolist() == [*range(0, 101, 10), 105]
    assert short.positions.shape == (12, 2 * 3 * 3, 2)
    for number, row in enumerate(short.rows):
        assert short.positions[0, number].tolist() == list(NEAR[row.start])
    assert short.rows_of("mgda", 1, teleporting=True) == [
        number for number, row in enumerate(short.rows) if row.balancer == "mgda" and row.start == 1 and row.seed is not None
    ]


def test_seeds_differ_and_are_repeated(short):
    again = run(short.settings)
    np.testing.assert_array_equal(short.positions, again.positions)
    first, second = short.rows_of("mgda", 2, teleporting=True)
    assert {attempt.row for attempt in short.attempts} >= {first, second}
    assert np.abs(short.positions[-1, first] - short.positions[-1, second]).max() > 1e-6


def test_attempts_keep_to_the_schedule():
    cost = Teleporting(start_step=20, stop_step=70, cooldown=15, inner_steps=3)
    trajectories = run(CostToySettings(balancers=("mgda",), starts=(NEAR[2],), seeds=(0, 1, 2), steps=100, teleporting=cost))
    for row in trajectories.rows_of("mgda", 0, teleporting=True):
        steps = [attempt.step for attempt in trajectories.attempts if attempt.row == row]
        assert len(steps) > 1
        assert steps[0] >= 20
        assert steps[-1] < 70
        assert min(np.diff(steps)) >= 15


def test_a_refused_teleport_moves_nothing_and_backs_off():
    strict = Teleporting(start_step=0, cooldown=4, inner_steps=8, guard=True, tolerance=1e-9)
    settings = CostToySettings(balancers=("mgda",), starts=(NEAR[2],), seeds=(0,), steps=60, teleporting=strict, record_every=1)
    trajectories = run(settings)
    (alone,) = trajectories.rows_of("mgda", 0, teleporting=False)
    (guarded,) = trajectories.rows_of("mgda", 0, teleporting=True)
    np.testing.assert_array_equal(trajectories.positions[:, alone], trajectories.positions[:, guarded])
    assert len(trajectories.attempts) > 1
    assert not any(attempt.accepted for attempt in trajectories.attempts)
    waits = np.diff([attempt.step for attempt in trajectories.attempts])
    assert (waits >= 8 * 2.0 ** np.arange(len(waits))).all()


def made_up(positions, attempts=(), seeds=(0, 1, 2), balancer="ls"):
    """Trajectories of one balancer from one start: alone, then the seeds; positions ``[T, 1 + seeds, 2]``."""
    rows = tuple(Trajectory(balancer, 0, seed) for seed in (None, *seeds))
    settings = CostToySettings(
        balancers=(balancer,), starts=((0.0, 0.0),), seeds=seeds, steps=len(positions) - 1, record_every=1
    )
    return CostToyTrajectories(settings, rows, np.arange(len(positions)), np.asarray(positions, dtype=float), tuple(attempts))


def attempt(row, step, accepted=True):
    return CostToyAttempt(row, step, (0.0, 0.0), (1.0, 1.0), 0.0, 0.5, 0.1, "" if accepted else "no")


def test_only_who_is_on_the_set_at_the_end_counts():
    level = ParetoCurve(TwoTasks()).points[700, 1]
    on, off = (0.0, level), (0.0, 0.0)
    #       alone, leaves it, comes back, gets there
    rows = [[off, off, off, off], [off, on, on, off], [off, on, off, on], [off, off, off, on], [off, off, on, on]]
    rows = [*rows[:2], [off, off, off, off], rows[4]]
    rows[2][1] = on
    rows[2][3] = on
    trajectories = made_up(
        np.asarray(rows).transpose(1, 0, 2), [attempt(2, 0), attempt(3, 0), attempt(3, 1, accepted=False), attempt(3, 2)]
    )
    since, ever = settled(trajectories)
    assert since == [None, None, 3, 2]
    assert ever == [False, True, True, True]
    (outcome,) = outcomes(trajectories)
    assert (outcome.runs, outcome.alone, outcome.with_cost, outcome.left) == (3, 0, 2, 1)
    assert (outcome.steps_alone, outcome.steps_with_cost) == (None, 2.5)
    assert (outcome.accepted, outcome.attempted) == (3, 4)
    assert outcome.needed == 1


def test_a_path_is_cut_at_its_teleports(short):
    for row in short.rows_of("mgda", 2, teleporting=True):
        landed = [attempt for attempt in short.attempts if attempt.row == row and attempt.accepted]
        own = path(short, row)
        assert len(own.jumps) == len(landed) > 1
        assert len(own.pieces) == len(landed) + 1
        assert own.start.tolist() == list(NEAR[2])
        np.testing.assert_array_equal(own.end, short.positions[-1, row])
        for number, landing in enumerate(landed):
            assert own.pieces[number][-1].tolist() == list(landing.origin)
            assert own.pieces[number + 1][0].tolist() == list(landing.landing)
        # Between jumps Adam moves by about its learning rate in a step; the first steps after a landing may be longer.
        for piece in own.pieces:
            assert np.abs(np.diff(piece, axis=0)).max() < 0.08


def test_equal_weighting_is_stuck_in_the_valley_and_cost_gets_out():
    """A shortened run of the figure, from beside the valley, with larger steps and a larger γ; not all the way to the set."""
    cost = Teleporting(start_step=400, stop_step=2000, cooldown=200, gamma=1.0, history="reset")
    settings = CostToySettings(balancers=("ls",), starts=((-5.5, 3.0),), seeds=(0, 1), steps=4000, lr=0.005, teleporting=cost)
    trajectories = run(settings)
    (alone,) = trajectories.rows_of("ls", 0, teleporting=False)
    assert trajectories.positions[-1, alone, 1] > 1.0
    for row in trajectories.rows_of("ls", 0, teleporting=True):
        assert trajectories.positions[-1, row] == pytest.approx([0.0, -6.0], abs=0.7)
        assert any(attempt.accepted for attempt in trajectories.attempts if attempt.row == row)


def test_command_writes_pictures_table_and_numbers(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    folder = tmp_path / "new" / "figure"
    arguments = [
        "--output",
        str(folder),
        "--seeds",
        "2",
        "--steps",
        "40",
        "--balancers",
        "ls,nash",
        "--factor",
        "--sign",
        "paper",
    ]
    assert (
        main(
            [
                "figure",
                "cost-toy",
                *arguments,
                "--gamma",
                "0.5",
                "--start-step",
                "5",
                "--stop-step",
                "none",
                "--inner-steps",
                "4",
            ]
        )
        == 0
    )
    out, err = capsys.readouterr()
    assert "40 of 40 steps" in err
    for said in ("nash-mtl", "with COST", "with the paper sign", "with the factor 0.1", "γ = 0.5"):
        assert said in " ".join(out.split())
    names = [
        "cost-toy.png",
        "cost-toy-balancers.png",
        "cost-toy-losses.png",
        "cost-toy-surfaces.png",
        "cost-toy.md",
        "cost-toy.json",
    ]
    assert {path.name for path in folder.iterdir()} == set(names)
    assert str(folder) in out
    for name in names[:4]:
        picture = imread(folder / name)
        assert picture[..., :3].std() > 0.02
    table = (folder / "cost-toy.md").read_text(encoding="utf-8")
    assert len([line for line in table.splitlines() if line.startswith("| ")]) == 2 + 2 * 5 + 2
    content = json.loads((folder / "cost-toy.json").read_text(encoding="utf-8"))
    assert content["settings"]["sign"] == "paper"
    assert content["settings"]["teleporting"]["trigger"] == "dominated"
    assert content["settings"]["teleporting"]["stop_step"] is None
    assert len(content["trajectories"]) == 2 * 5 * 3
    assert all(math.isfinite(coordinate) for entry in content["trajectories"] for coordinate in entry["end"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--balancers", "ls,fairgard"], 'Did you mean "fairgrad"'),
        (["--balancers", "famo"], "cannot run here"),
        (["--balancers", "cost+ls"], 'write "ls"'),
        (["--sign", "plus"], "sign must be released or paper"),
        (["--steps", "0"], "steps must be a whole number of at least 1; got 0"),
        (["--history", "mass"], "history must be one of keep, reuse, reset; got mass"),
        (["--radius", "0"], "radius must be positive"),
        (["--gamma=-1"], "gamma must be at least 0"),
        (["--inner-lr", "0"], "inner_lr must be a positive step size"),
        (["--tolerance", "0"], "tolerance must be"),
        (["--stop-step", "2000"], "leaves nothing after"),
        (["--cooldown", "0"], "cooldown must be a whole number from 1 on"),
        (["--output", "{file}/figure"], "cannot be made"),
    ],
)
def test_bad_input_gets_one_line(arguments, said, capsys, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    arguments = [argument.replace("{file}", str(file)) for argument in arguments]
    if "--output" not in arguments:
        arguments += ["--output", str(tmp_path / "figure")]
    assert main(["figure", "cost-toy", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert said in err


def test_empty_settings_are_refused():
    with pytest.raises(InputError, match="seeds is empty"):
        CostToySettings(seeds=())


def test_make_tells_how_far_it_is_and_returns_the_table(tmp_path):
    told = []
    settings = CostToySettings(balancers=("mgda",), starts=NEAR[:1], seeds=(7,), steps=20, teleporting=EAGER)
    made = make(settings, tmp_path, told.append)
    assert told == ["10 of 20 steps", "20 of 20 steps"]
    assert all(file.stat().st_size > 0 for file in tmp_path.iterdir())
    assert made == (tmp_path / "cost-toy.md").read_text(encoding="utf-8")
    assert made.splitlines()[2].split("|")[3].strip() == "1 of 1"
    assert "guard off" in made
