"""``cost+NAME`` and ``cost(option=value)+NAME``: what is read, what it is called, what is refused."""

import dataclasses
import json
import pickle

import cloudpickle
import pytest

import equipoise as eq
from equipoise.errors import InputError, UnknownMethodError, UnknownOptionError
from equipoise.study import Study, parse_method, parse_methods
from equipoise.study.folder import Folder
from equipoise.study.plan import Run
from equipoise.teleport import COST, DELTAS, OFT, Dense, LoHa, LowRank, PaperFormulation, ReleasedFormulation, Schedule, Search


def label(text):
    return parse_method(text).label


def test_any_method_may_have_a_teleport():
    method = parse_method("cost+fairgrad:alpha=2")
    assert (method.label, method.name) == ("cost+fairgrad:alpha=2", "fairgrad")
    assert isinstance(method.make(0), eq.FairGrad)
    assert isinstance(method.teleport(0), COST)
    assert method.teleport(0) is not method.teleport(0)
    assert parse_method("fairgrad").teleport is None
    assert label("COST + CAGrad : c = 0.2") == "cost+cagrad:c=0.2"


def test_the_word_none_is_a_scaling():
    method = parse_method("cost(scaling=none)+ls")
    assert method.label == "cost(scaling=none)+ls"
    assert not method.teleport(0).search.relative


def test_options_reach_cost():
    cost = parse_method("cost(gamma=0.2,start=3,trigger=weak,history=reset,guard=False)+fairgrad:alpha=2").teleport(0)
    assert cost.search.sought.gamma == 0.2
    assert cost.trigger.name == "weak"
    assert cost.history.name == "reset"
    assert cost.guard is None
    assert cost.schedule == Schedule(start=3)


@pytest.mark.parametrize(
    ("text", "delta"),
    [
        ("cost", COST().delta),
        ("cost(rank=3)", dataclasses.replace(COST().delta, rank=3)),
        ("cost(delta=lowrank,rank=3)", LowRank(rank=3)),
        ("cost(delta=lowrank,vectors=True)", LowRank(vectors=True)),
        ("cost(delta=loha,rank=2,alpha=4.0)", LoHa(rank=2, alpha=4.0)),
        ("cost(delta=OFT,blocks=2)", OFT(blocks=2)),
        ("cost(delta=dense)", Dense()),
    ],
)
def test_deltas(text, delta):
    assert parse_method(f"{text}+ls").teleport(0).delta == delta


def test_the_seed_of_the_run_is_costs_unless_it_has_its_own():
    def first(cost):
        return cost.seed

    assert first(parse_method("cost+rlw").teleport(5)) == 5
    assert parse_method("cost+rlw").make(5).seed == 5
    own = parse_method("cost(seed=0)+rlw")
    assert first(own.teleport(5)) == 0
    assert own.label == "cost(seed=0)+rlw"  # not what cost+rlw is, although 0 is the default
    assert own.options["teleport"]["seed"] == 0
    assert "seed" not in parse_method("cost+rlw").options["teleport"]


GAMMA = COST().search.sought.gamma


@pytest.mark.parametrize(
    ("text", "shortest"),
    [
        ("cost()+ls", "cost+ls"),
        (f"cost(steps={Search().steps},guard=losses,budget={Schedule().budget},optimizer=adam)+ls", "cost+ls"),
        ("cost(guard=False)+ls", "cost(guard=None)+ls"),
        ("cost(guard=True)+ls", "cost(guard=conflict)+ls"),
        ("cost(trigger=majority,fraction=0.25)+ls", "cost(trigger=majority,fraction=0.25)+ls"),
        ("cost(trigger=majority,fraction=0.5)+ls", "cost(trigger=majority)+ls"),
        (f"cost(gamma={GAMMA})+ls", "cost+ls"),  # left out, the formulation decides
        (f"cost(formulation=released,gamma={ReleasedFormulation().gamma})+ls", "cost(formulation=released)+ls"),
        (f"cost(gamma={GAMMA + 1})+ls", f"cost(gamma={GAMMA + 1})+ls"),
        (f"cost(delta=oft,blocks={OFT().blocks})+cagrad:c=0.4", "cost(delta=oft)+cagrad"),
        ("cost(per_epoch=7, start=3, delta=oft)+ls", "cost(per_epoch=7,start=3,delta=oft)+ls"),
    ],
)
def test_labels_leave_out_defaults_and_can_be_read_again(text, shortest):
    assert label(text) == shortest
    assert label(shortest) == shortest
    assert parse_method(shortest).options == parse_method(text).options


def test_lists_of_methods():
    def labels(methods):
        return [method.label for method in parse_methods(methods)]

    assert labels("ls,cost(gamma=0.2,start=3)+fairgrad:alpha=2,cost+ls,si") == [
        "ls",
        "cost(gamma=0.2,start=3)+fairgrad:alpha=2",
        "cost+ls",
        "si",
    ]
    assert labels("cost(start=3)+ls,cost+cagrad,c=0.2,rescale=True,si") == [
        "cost(start=3)+ls",
        "cost+cagrad:c=0.2,rescale=True",
        "si",
    ]
    assert labels("cost+ls,COST+ls,cost()+ls") == ["cost+ls"]


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("cost", InputError, 'COST goes on top of a method; write "cost+fairgrad"'),
        ("cost+", InputError, "COST goes on top of a method"),
        ("cost(gamma=0.2)", InputError, "COST goes on top of a method"),
        ("cost(gamma=0.2+ls", InputError, "COST goes on top of a method"),
        ("cots+ls", UnknownMethodError, 'no teleport "cots". Did you mean "cost"?'),
        ("cost+fairgard", UnknownMethodError, 'no method "fairgard". Did you mean "fairgrad"'),
        ("cost+fairgrad:alfa=2", UnknownOptionError, '"fairgrad" has no option "alfa". Did you mean "alpha"?'),
        ("cost(gama=2)+ls", UnknownOptionError, 'COST has no option "gama". Did you mean "gamma"?'),
        ("cost(optimizer=adan)+ls", InputError, 'torch has no optimizer "adan". Did you mean "adam"'),
        ("cost(delta=ofd)+ls", InputError, 'no delta "ofd". Did you mean "oft"?'),
        (
            "cost(delta=lowrank,blocks=2)+ls",
            UnknownOptionError,
            'the option "blocks" belongs to delta=oft, which is not chosen here',
        ),
        ("cost(delta=dense,rank=2)+ls", UnknownOptionError, "belongs to delta=lowrank and delta=loha"),
        ("cost(trigger=dominatd)+ls", InputError, 'no trigger "dominatd". Did you mean "dominated"?'),
        ("cost(gamma=-1)+ls", InputError, "gamma must be at least 0"),
        ("cost(rank=0)+ls", InputError, "rank must be a whole number"),
        ("cost(stop=2,start=3)+ls", InputError, "stop=2 leaves nothing after start=3"),
        ("cost(fraction=0.2)+ls", UnknownOptionError, 'the option "fraction" belongs to trigger=majority, which is not'),
        ("cost(descent=0.2,formulation=paper)+ls", UnknownOptionError, '"descent" belongs to formulation=pareto'),
        ("cost(gamma=abc)+ls", InputError, "must be a number; got 'abc'"),
        ("cost(lr=none)+ls", InputError, 'the option "lr" of COST must be a number or training; got None'),
        ("cost(vectors=2)+ls", InputError, "must be true or false; got 2"),
        ("cost(guard=3)+ls", InputError, "guard must be losses, conflict or none; got 3"),
        ("cost(guard=none,tolerance=0.1)+ls", InputError, "tolerance belongs to the guard"),
        ("cost(formulation=3)+ls", InputError, "the name of a formulation is a text; got 3"),
        ("cost(gamma)+ls", InputError, "not of the form option=value"),
    ],
)
def test_what_is_refused_before_anything_runs(text, error, said):
    with pytest.raises(error) as caught:
        parse_methods(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_plus_sign_in_a_value_is_no_teleport():
    assert label("fairgrad:alpha=1e+1") == "fairgrad:alpha=10.0"


def test_the_folder_tells_methods_with_and_without_teleports_apart(tiny, tmp_path):
    def configured(*texts):
        folder = Folder(tmp_path)
        folder.claim_for(tiny, parse_methods(texts), [0], {"epochs": 1})
        return json.loads((tmp_path / "study.json").read_text())["methods"]

    methods = configured("ls", "cost+ls", "cost(gamma=0.5)+ls", "cost(delta=oft)+ls")
    options = [methods[name]["options"] for name in methods]
    assert all(one != other for place, one in enumerate(options) for other in options[:place])
    assert methods["cost(gamma=0.5)+ls"]["options"]["teleport"]["gamma"] == 0.5
    assert methods["cost+ls"]["options"]["teleport"]["gamma"] == GAMMA  # in force, though nobody said so
    configured(("mine", "cost+ls"))
    with pytest.raises(InputError, match="methods mine options teleport gamma"):
        configured(("mine", "cost(gamma=0.5)+ls"))


def test_teleports_of_ones_own():
    instance = COST(search=Search(formulation=PaperFormulation(gamma=0.7)), delta=Dense())
    methods = parse_methods(
        [
            ("a", "fairgrad", instance),
            ("b", eq.FairGrad(2.0), lambda seed: COST(seed=seed)),
            ("c", eq.FairGrad, COST),
            ("d", "ls", "cost(gamma=0.3)"),
            ("e", "cost(gamma=0.3)+ls"),
            ("f", "ls", None),
        ]
    )
    a, b, c, d, e, f = methods
    assert a.teleport(0) is not instance  # runs do not share state
    assert a.teleport(0).search.sought.gamma == 0.7
    assert b.teleport(7).seed == 7
    assert isinstance(c.teleport(7), COST)
    assert d.options == e.options
    assert d.teleport(1).search.sought.gamma == e.teleport(1).search.sought.gamma == 0.3
    assert [method.options.get("teleport") for method in (a, b, c)] == ["own"] * 3
    assert f.teleport is None
    assert "teleport" not in f.options
    (mapped,) = parse_methods({"mine": (eq.FairGrad, COST)})
    assert isinstance(mapped.teleport(0), COST)
    arrived = pickle.loads(cloudpickle.dumps(a))
    assert repr(arrived.teleport(0)) == repr(instance)


def test_what_is_no_teleport():
    with pytest.raises(InputError, match="expected a COST"):
        parse_methods([("x", "ls", 3)])
    with pytest.raises(InputError, match="two teleports"):
        parse_methods([("x", "cost+ls", COST())])
    with pytest.raises(InputError, match="a method is a text"):
        parse_methods([("x", "ls", COST(), 3)])


def test_files_of_runs_can_be_told_apart():
    texts = ("ls", "cost+ls", "cost(gamma=0.5)+ls", "cost(gamma=0.05)+ls")
    keys = {Run(0, method=parse_method(text)).key for text in texts}
    assert len(keys) == len(texts)
    assert "cost+ls-seed0" in keys
    assert not any(set(key) & set('()/\\:*?"<>| ') for key in keys)


def test_a_study_takes_them(tiny, tmp_path):
    study = Study(tiny, "ls,cost+ls", 1, folder=tmp_path / "study")
    assert [str(run) for run in study.missing()][-2:] == ["ls seed 0", "cost+ls seed 0"]


def test_a_delta_of_ones_own_reaches_a_process_that_has_not_registered_it():
    @dataclasses.dataclass(frozen=True)
    class Own(Dense):
        size: float = 1.0

    DELTAS.add("own", Own)
    try:
        sent = cloudpickle.dumps(parse_method("cost(delta=own,size=2.0)+ls"))
    finally:
        DELTAS.remove("own")
    delta = pickle.loads(sent).teleport(0).delta
    assert (type(delta).__name__, delta.size) == ("Own", 2.0)
