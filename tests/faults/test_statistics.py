"""Statistics of numbers of any size: no overflow, no underflow, and one diverged run does not take a report down."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest

from equipoise.metrics import Comparison, ConflictTally, Metric, average_metric, delta_m, mean_rank, paired_comparison, spread
from equipoise.metrics.metric import mean
from equipoise.study import LastEpochs, Results
from equipoise.study.report import write_report
from equipoise.study.report.content import content
from equipoise.study.report.words import brief, verdict
from equipoise.study.results import discrepancy
from tests.study.conftest import made_up  # noqa: F401

ERROR = Metric("error", "a", higher_is_better=False)
SIZES = (1e-300, 1e-200, 1e-100, 1.0, 1e100, 1e200, 1e300)


@pytest.mark.parametrize("size", SIZES)
def test_a_spread_scales_with_its_values(size) -> None:
    own, unit = spread([1 * size, 2 * size, 4 * size]), spread([1.0, 2.0, 4.0])
    assert own.mean == pytest.approx(unit.mean * size, rel=1e-12)
    assert own.std == pytest.approx(unit.std * size, rel=1e-12)


def test_a_spread_of_the_largest_numbers() -> None:
    assert spread([1e308, 1.5e308]).mean == 1.25e308
    assert spread([1.7e308, -1.7e308]).mean == 0
    assert spread([1e200, 2e200]).std == pytest.approx(1e200 / math.sqrt(2))
    assert spread([5e-324, 5e-324]).std == 0


def test_numbers_of_usual_size_keep_their_bits() -> None:
    values = np.random.default_rng(0).normal(size=7).tolist()
    center = math.fsum(values) / 7
    std = math.sqrt(math.fsum((value - center) ** 2 for value in values) / 6)
    assert (spread(values).mean, spread(values).std) == (center, std)


@pytest.mark.parametrize("values", [[math.nan, 1.0], [math.inf, 1.0], [math.inf, -math.inf]])
def test_values_that_are_not_finite_have_no_spread(values) -> None:
    assert math.isnan(spread(values).mean)
    assert math.isnan(spread(values).std)
    assert math.isnan(mean(values)) or mean(values) == math.inf


def test_huge_and_tiny_numbers_are_short_in_tables() -> None:
    assert spread([1e200, 2e200]).text(2) == "1.5e+200 ± 7.07e+199"
    assert spread([2e-30, 4e-30]).text(6) == "3e−30 ± 1.41e-30"
    assert spread([0.0001, 0.0003]).text(1) == "0.0 ± 0.0"  # what rounding leaves of a difference stays nothing


@pytest.mark.parametrize("size", SIZES)
def test_a_paired_comparison_does_not_ask_for_the_unit(size) -> None:
    one, other = [3.0, 4.0, 6.0], [1.0, 1.5, 3.5]
    plain, scaled = paired_comparison(one, other), paired_comparison([v * size for v in one], [v * size for v in other])
    assert scaled.p == pytest.approx(plain.p, rel=1e-9)
    assert scaled.difference == pytest.approx(plain.difference * size, rel=1e-12)


def test_differences_larger_than_any_number_are_tested_all_the_same() -> None:
    assert paired_comparison([1.7e308, 1.6e308], [-1.7e308, -1.5e308]).p == pytest.approx(
        paired_comparison([1.7, 1.6], [-1.7, -1.5]).p
    )


def test_identical_results_are_called_so() -> None:
    same = paired_comparison([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert same.identical
    assert verdict(same, 1.0, "ls") == "identical to ls on every seed"
    assert brief(same, 1.0) == "identical"
    alike = paired_comparison([1.0, 2.0, 3.0], [2.0, 1.0, 3.0])  # a mean difference of zero is another thing
    assert not alike.identical
    assert brief(alike, alike.p) == "p = 1.00"
    assert not Comparison(0.0, math.nan, 1, math.nan).identical


def test_identical_runs_in_a_report(made_up) -> None:  # noqa: F811
    folder = made_up(methods=("ls", "twin"))
    for seed in range(3):
        record = json.loads((folder / "runs" / f"0-seed{seed}.json").read_text())
        record["run"] |= {"method": "twin", "name": "twin"}
        (folder / "runs" / f"1-seed{seed}.json").write_text(json.dumps(record))
    said = content(Results(folder))
    assert [row.verdict for row in said.rows if row.name == "twin"] == ["identical"]


def test_summaries() -> None:
    assert delta_m({"error": 1.7e308}, {"error": -1.7e308}, [ERROR]) == pytest.approx(200.0)
    two = [ERROR, Metric("other", "a", higher_is_better=False)]
    assert delta_m({"error": 1e306, "other": 1e306}, {"error": 1.0, "other": 1.0}, two) == pytest.approx(1e308)
    assert math.isnan(delta_m({"error": math.inf}, {"error": 1.0}, [ERROR]))
    assert average_metric({"error": 1.5e308, "other": 1.5e308}, two) == 1.5e308
    ranks = mean_rank({"a": {"error": 1e308}, "b": {"error": math.nan}, "c": {"error": math.inf}}, [ERROR])
    assert ranks == {"a": 1.0, "b": 2.5, "c": 2.5}
    history = [{"validation": None, "test": {"error": 1.5e308}}] * 2
    assert LastEpochs(2).final(history)["test"] == {"error": 1.5e308}


@pytest.mark.parametrize("size", SIZES)
def test_the_discrepancy_of_losses_scales(size) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        own = discrepancy([[1 * size, 3 * size], [2 * size, 4 * size]])
    assert own is not None
    assert [own.mean, own.deviation, own.lowest, own.highest] == pytest.approx([2.5 * size, size, 1.5 * size, 3.5 * size])


@pytest.mark.parametrize("size", SIZES)
def test_conflicts_do_not_depend_on_scale(size) -> None:
    tally, unit = ConflictTally(["a", "b"]), ConflictTally(["a", "b"])
    gramian = np.array([[4.0, -1.0], [-1.0, 0.5]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tally.add(gramian * size)
        unit.add(gramian)
    own, plain = tally.summary(), unit.summary()
    assert own["cosines"] == plain["cosines"]
    for task in ("a", "b"):
        assert own["tasks"][task]["cosine"] == pytest.approx(plain["tasks"][task]["cosine"])
        assert own["tasks"][task]["norm"] == pytest.approx(plain["tasks"][task]["norm"] * math.sqrt(size))


def test_a_gramian_that_is_not_finite_is_left_out() -> None:
    tally = ConflictTally(["a", "b"])
    tally.add([[np.inf, 0.0], [0.0, 1.0]])
    tally.add([[np.nan, 0.0], [0.0, 1.0]])
    assert tally.summary() is None


@pytest.mark.parametrize("value", [1e200, None])
def test_one_diverged_run_does_not_take_the_report_down(made_up, value) -> None:  # noqa: F811
    folder = made_up(seeds=(0, 1), epochs=2)
    path = folder / "runs" / "1-seed0.json"
    record = json.loads(path.read_text())
    for entry in record["history"]:
        entry["losses"] = dict.fromkeys(entry["losses"], value)
        entry["weights"] = dict.fromkeys(entry["weights"], value)
    record["final"]["test"] = dict.fromkeys(record["final"]["test"], value)
    path.write_text(json.dumps(record))
    results = Results(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a picture of such numbers may be left out, with a warning
        markdown, _ = write_report(results)
    assert not results.unread
    assert "fairgrad" in markdown.read_text()
