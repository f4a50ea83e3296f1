import dataclasses
import json
import pickle

import cloudpickle
import pytest
import torch

import equipoise as eq
from equipoise.errors import InputError, UnknownMethodError, UnknownOptionError
from equipoise.method import MethodSpec, Nested
from equipoise.study import Method, Study, parse_method, parse_methods
from equipoise.study.methods import served, serves
from equipoise.study.plan import Run
from equipoise.study.training import train


def labels(methods):
    return [method.label for method in parse_methods(methods)]


def test_text_with_options():
    method = parse_method(" FairGrad : alpha = 2.0 ")
    assert (method.label, method.name) == ("fairgrad:alpha=2.0", "fairgrad")
    assert method.options["alpha"] == 2.0
    assert method.make(0).alpha == 2.0


def test_commas_separate_methods_and_options():
    assert labels("ls,cagrad:c=0.2,rescale=True,si") == ["ls", "cagrad:c=0.2,rescale=True", "si"]
    assert labels(["ls,si", "mgda"]) == ["ls", "si", "mgda"]
    assert labels("ls:weights=[1,2,3,4],si") == ["ls:weights=[1, 2, 3, 4]", "si"]


def test_the_same_method_counts_once():
    assert labels("cagrad,CAGrad,cagrad:c=0.4") == ["cagrad"]
    assert labels("nash-mtl,nash_mtl") == ["nash-mtl"]


def test_near_misses_are_suggested():
    with pytest.raises(UnknownMethodError, match=r'no method "fairgard".* "fairgrad"'):
        parse_methods("ls,fairgard")
    with pytest.raises(UnknownOptionError, match=r'"fairgrad" has no option "alfa".* "alpha"'):
        parse_methods("ls,fairgrad:alfa=2")


@pytest.mark.parametrize("text", ["fairgrad:alpha", "fairgrad:=2", "fairgrad:alpha="])
def test_option_without_value(text):
    with pytest.raises(InputError, match="option=value"):
        parse_method(text)


def test_a_value_that_the_method_refuses_is_refused_before_anything_runs():
    with pytest.raises(InputError):
        parse_method("fairgrad:alpha=-1")


def test_nothing_to_compare():
    with pytest.raises(InputError, match="at least one method"):
        parse_methods("")


def test_random_methods_get_the_seed_of_the_run_unless_they_have_their_own():
    assert parse_method("rlw").make(5).seed == 5
    assert "seed" not in parse_method("rlw").options
    own = parse_method("rlw:seed=3")
    assert own.make(5).seed == 3
    assert own.label == "rlw:seed=3"
    assert own.options["seed"] == 3


class Mine(eq.balance.LossBalancer):
    def __init__(self, power=1.0):
        self.power = power

    def weights(self, losses):
        return losses**self.power


def test_balancers_of_ones_own():
    instance = Mine(2.0)
    methods = parse_methods(["ls", ("mine", Mine), ("two", instance), ("three", lambda seed: Mine(seed)), instance])
    assert [method.label for method in methods] == ["ls", "mine", "two", "three", "Mine()"]
    assert methods[1].make(7).power == 1.0
    assert methods[2].make(7).power == 2.0
    assert methods[2].make(7) is not instance  # runs do not share state
    assert methods[3].make(7).power == 7
    assert labels({"a": "cagrad:c=0.2", "b": Mine}) == ["a", "b"]


def test_what_is_no_method():
    with pytest.raises(InputError, match="expected a balancer or a function"):
        parse_methods([("x", 3)])
    with pytest.raises(InputError, match='"stl:near" is taken'):
        parse_methods([("stl:near", Mine)])
    with pytest.raises(InputError, match="a method is a text"):
        parse_methods([3])


def test_methods_travel_to_other_processes():
    for method in parse_methods(["cagrad:c=0.2", ("mine", lambda seed: Mine(seed))]):
        arrived = pickle.loads(cloudpickle.dumps(method))
        assert isinstance(arrived, Method)
        assert arrived.label == method.label
        assert repr(arrived.make(1)) == repr(method.make(1))


def test_aggregators_of_torchjd():
    aggregation = pytest.importorskip("torchjd.aggregation")
    aggregator = aggregation.Mean()
    (method,) = parse_methods([("mean", aggregator)])
    made = method.make(0)
    assert isinstance(made, aggregation.Mean)
    assert made is not aggregator


def test_methods_as_values():
    spec = MethodSpec("cagrad", {"c": 0.2, "rescale": False}, "cost(start=3)")
    (method,) = parse_methods([spec])
    assert method.label == "cost(start=3)+cagrad:c=0.2"
    assert method.spec == MethodSpec.parse(method.label)  # what says nothing is left out
    assert [own.label for own in parse_methods({"mine": spec})] == ["mine"]
    assert parse_methods([("mine", "ls", Nested("cost", {"start": 3}))])[0].options["teleport"]["start"] == 3
    assert parse_method("rlw:seed=0").label == "rlw:seed=0"  # not what rlw is: that has the seed of the run


def test_nested_options():
    method = parse_method("consmtl:aggregator=cagrad(c=0.2)")
    assert method.label == "consmtl:aggregator=cagrad(c=0.2)"
    assert method.make(0).aggregator.c == 0.2
    assert json.loads(json.dumps(method.options))["aggregator"] == "cagrad(c=0.2)"
    (weighted,) = parse_methods("moml:balancer=cagrad(c=0.2)")
    assert weighted.label == "moml:balancer=cagrad(c=0.2)"


def test_what_a_problem_can_serve(tiny):
    rotograd, bayesagg = parse_methods("rotograd,bayesagg-mtl")
    assert serves(tiny, parse_method("cost+ls")) is None
    assert serves(tiny, parse_method("modo")) is None
    assert 'method "rotograd" acts on parts of the model, and problem "tiny"' in serves(tiny, rotograd)
    parts = dataclasses.replace(tiny, parts=lambda model: {})
    assert serves(parts, rotograd) is None
    assert "targets=lambda batch" in serves(parts, bayesagg)
    whole = dataclasses.replace(parts, targets=lambda batch: {})
    assert serves(whole, bayesagg) is None
    everything = {info.name for info in eq.methods()}
    assert {method.label for method in served(whole)} == everything
    assert {method.label for method in served(parts)} == everything - {"bayesagg-mtl"}
    assert {method.label for method in served(tiny)} == everything - {"bayesagg-mtl", "rotograd"}
    with pytest.raises(InputError, match="acts on parts of the model"):
        Study(tiny, "ls,rotograd")


def test_groups_of_tasks_take_turns_in_a_run(tiny):
    state = torch.get_rng_state()
    for text in ("conflict-groups(refresh=1,threshold=0.0)+ls", "affinity-groups(warm_up=1)+fairgrad"):
        method = parse_method(text)
        assert method.label == text
        record = train(tiny, Run(0, method=method), epochs=1, gramian_every=0)
        assert set(record["history"][0]["losses"]) == set(tiny.tasks)
    torch.set_rng_state(state)  # a run seeds the global generators
    assert parse_method("conflict-groups+ls:weights=None").label == "conflict-groups+ls"
    for wrong, said in (
        ("conflict-groups+forum", "leave out the groups"),
        ("conflict-groups(refresh=0)+ls", "refresh"),
        ("colour-groups+ls", "no groups"),
    ):
        with pytest.raises(InputError, match=said):
            parse_method(wrong)
    with pytest.raises(InputError, match="no teleport"):
        parse_methods([("mine", "conflict-groups+ls", "cost")])
