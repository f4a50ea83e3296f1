import math

import pytest

from equipoise.errors import InputError
from equipoise.metrics import delta_m, paired_comparison
from equipoise.study import Results


def test_delta_m_is_against_the_mean_of_the_baselines(made_up):
    results = Results(made_up(seeds=(0, 1, 2)))
    baseline = results.baseline()
    assert baseline["near"].mean == pytest.approx(10.2)
    assert baseline["near"].n == 3
    means = {name: own.mean for name, own in baseline.items()}
    for method in results.methods:
        for seed, drop in results.delta_m(method).items():
            values = {metric.name: results.values(method, metric)[seed] for metric in results.metrics}
            assert drop == pytest.approx(delta_m(values, means, results.metrics))


def test_comparisons_are_paired_by_seed_and_corrected(made_up):
    results = Results(made_up(methods=("ls", "a", "b"), seeds=(0, 1, 2), tasks=("near",)))
    own = list(results.delta_m("ls").values())
    pairs = results.comparisons()
    assert set(pairs) == {"a", "b"}
    plain = {method: paired_comparison(list(results.delta_m(method).values()), own).p for method in pairs}
    smaller, larger = sorted(plain, key=plain.get)
    assert pairs[smaller][1] == pytest.approx(min(1.0, 2 * plain[smaller]))
    assert pairs[larger][1] == pytest.approx(max(plain[larger], pairs[smaller][1]))


def test_reference_is_equal_weighting_if_it_is_there(made_up):
    assert Results(made_up(methods=("x", "ls"))).reference == "ls"
    assert Results(made_up(methods=("x", "y"))).reference == "x"


def test_ranking_and_mean_ranks(made_up):
    results = Results(made_up(methods=("worse", "worst", "best"), tasks=("near",), spread=0.0))
    assert results.ranking() == ("worse", "worst", "best")  # the made-up level rises with the place
    assert results.mean_ranks() == {"worse": 1.0, "worst": 2.0, "best": 3.0}


def test_methods_may_have_different_seeds(made_up):
    folder = made_up(seeds=(0, 1, 2))
    (folder / "runs" / "1-seed2.json").unlink()
    results = Results(folder)
    assert list(results.delta_m("fairgrad")) == [0, 1]
    assert results.comparisons()["fairgrad"][0].n == 2


def test_without_a_baseline_there_is_no_delta_m(made_up):
    folder = made_up(seeds=(0,))
    (folder / "runs" / "stl~far-seed0.json").unlink()
    results = Results(folder)
    assert results.obstacle() == 'there is no finished single-task baseline of task "far"'
    assert results.delta_m("ls") == {}
    assert results.comparisons() == {}
    assert results.ranking() == ("ls", "fairgrad")


def test_zero_baseline_is_said_and_not_divided_by(made_up):
    zero = {"final": {"validation": {}, "test": {"near": 0.0, "far": 0.0}}}
    results = Results(made_up(baseline=zero))
    assert results.obstacle() == 'the single-task baseline of metric "near" is 0'


def test_training_that_went_wrong_ranks_last(made_up):
    folder = made_up(methods=("ls", "a"))
    wrong = made_up(methods=("ls", "a"), runs={"final": {"validation": {}, "test": {"near": None, "far": 1.0}}})
    assert folder == wrong
    results = Results(wrong)
    assert all(math.isnan(drop) for drop in results.delta_m("a").values())
    assert len(results.ranking()) == 2


def test_curves_are_means_over_seeds(made_up):
    results = Results(made_up(seeds=(0, 1), epochs=2, tasks=("near",)))
    records = results.records("ls").values()
    expected = [sum(record["history"][epoch]["losses"]["near"] for record in records) / 2 for epoch in range(2)]
    assert results.curve("ls", "losses", "near") == pytest.approx(expected)
    assert all(math.isnan(value) for value in results.curve("ls", "losses", "absent"))
    assert results.baseline_curve("near", "losses", "near")[0] == pytest.approx(1.01)


def test_unknown_method(made_up):
    with pytest.raises(InputError, match='no run of "x"; it has ls, fairgrad'):
        Results(made_up()).records("x")


def test_real_results(finished):
    """Nothing is made up here: the numbers of the folder are those of the records."""
    results, _ = finished
    for method in results.methods:
        for metric in results.metrics:
            for seed, value in results.values(method, metric).items():
                assert value == results.records(method)[seed]["history"][-1]["test"][metric.name]
