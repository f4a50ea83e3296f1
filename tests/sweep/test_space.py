import math

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

import equipoise as eq
from equipoise.balance.registry import methods
from equipoise.errors import InputError, UnknownMethodError, UnknownOptionError
from equipoise.sweep import Space
from equipoise.sweep.space import Choices, Range, Weights, read_dimension, read_sweep

TASKS = ("left", "right", "sum", "ink")


def drawn(space, count, sampler="random"):
    """Parameters as Optuna draws them."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3))
    return [study.ask(space.distributions()).params for _ in range(count)]


@pytest.mark.parametrize(
    ("text", "default", "read"),
    [
        ("0:1", 0.4, Range("x", 0.0, 1.0)),
        ("0.1:10:log", 1.0, Range("x", 0.1, 10.0, log=True)),
        ("-2:2", None, Range("x", -2.0, 2.0)),
        ("1:8", 2, Range("x", 1, 8, whole=True)),
        ("1:8", 2.0, Range("x", 1.0, 8.0)),
        ("0:1", False, Range("x", 0.0, 1.0)),
        ("true|false", False, Choices("x", (True, False))),
        ("mass|none|3", None, Choices("x", ("mass", None, 3))),
        ((0.1, 3), None, Range("x", 0.1, 3.0)),
        ((0.1, 3, "log"), None, Range("x", 0.1, 3.0, log=True)),
        ([1, 2], None, Choices("x", (1, 2))),
    ],
)
def test_ranges_and_choices_are_read(text, default, read):
    assert read_dimension("x", text, default) == read


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("1:0", "is 1:0; it must go from a smaller number to a larger one"),
        ("0:1:log", "a logarithmic range must begin above 0"),
        ("0.4", 'the range of "x" is "0.4"; write low:high'),
        ("0:1:lin", "write low:high"),
        ("0:inf", "write low:high"),
        ("a:b", "no number"),
        (":1", "no number"),
        ("0:", "no number"),
        ("a|a", "at least two different"),
        ([3], "at least two different"),
        ((0, 1, 2), "cannot be swept over"),
        (3, "cannot be swept over"),
        ((0, float("nan")), "from a smaller number to a larger one"),
        ([(), {}], "choices must be numbers"),
    ],
)
def test_bad_ranges_are_refused_in_one_line(given, said):
    with pytest.raises(InputError) as raised:
        read_dimension("x", given)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_several_ranges_in_one_text_or_several_texts():
    wanted = {"c": "0:1", "rescale": "true|false"}
    assert read_sweep("c=0:1,rescale=true|false") == read_sweep(["c=0:1", " rescale = true|false "]) == wanted
    assert read_sweep(None) == {}
    nothing = "does not say what to sweep"
    for text, said in (("c", nothing), ("c=", nothing), ("c=0:1,c=0:2", "given twice")):
        with pytest.raises(InputError, match=said):
            read_sweep(text)


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=40))
def test_weights_sum_to_the_number_of_tasks_and_keep_their_ratios(sizes):
    tasks = tuple(f"t{number}" for number in range(len(sizes)))
    values = Weights(tasks).values({f"weights.t{number}": size for number, size in enumerate(sizes)})
    assert math.fsum(values) == pytest.approx(len(sizes), rel=1e-3)
    assert all(value > 0 for value in values)
    for value, size in zip(values, sizes, strict=True):
        assert value / values[0] == pytest.approx(size / sizes[0], rel=2e-3)


def test_log_weights_cover_their_ratio_evenly_in_the_logarithm():
    space = Space("ls", TASKS, "weights=0.01:1:log")
    parameters = drawn(space, 600)
    logs = [math.log10(own["weights.left"]) for own in parameters]
    assert min(logs) >= -2
    assert max(logs) <= 0
    assert sum(logs) / len(logs) == pytest.approx(-1, abs=0.07)  # uniform: standard error 0.024
    ratios = [max(values) / min(values) for values in map(space.weights.values, parameters)]
    assert max(ratios) <= 100.2
    assert max(ratios) > 50


def test_dirichlet_weights_are_uniform_on_the_simplex():
    """For a uniform point of the simplex of K corners, P(w_k / K > t) = (1 − t)^(K − 1)."""
    space = Space("ls", TASKS, "weights=dirichlet")
    shares = [values[0] / 4 for values in map(space.weights.values, drawn(space, 2000))]
    for t in (0.1, 0.25, 0.5):
        share = sum(own > t for own in shares) / len(shares)
        assert share == pytest.approx((1 - t) ** 3, abs=0.04)


def test_equal_weights_are_the_method_without_weights():
    for kind in ("log", "dirichlet", "0.001:1:log"):
        space = Space("ls", TASKS, {"weights": kind})
        assert space.method(space.default()).label == "ls"


def test_a_point_is_the_method_with_its_options():
    space = Space("cost(gamma=0.2)+cagrad:rescale=True", TASKS, "c=0:0.9")
    method = space.method({"c": 0.123456})
    assert method.label == "cost(gamma=0.2)+cagrad:c=0.1235,rescale=True"
    assert method.options["c"] == 0.1235
    assert method.options["rescale"] is True
    assert method.teleport is not None
    assert space.default() == {"c": 0.4}
    assert Space("cagrad", TASKS, "c=0.5:0.9").default() is None
    assert space.method({"c": 0.4}).label == "cost(gamma=0.2)+cagrad:rescale=True"


def test_a_balancer_of_ones_own():
    def make(strength=1.0, weights=None):
        return eq.LS(weights or [strength, strength])

    space = Space(("mine", make), ("a", "b"), {"strength": (0.1, 10, "log")})
    method = space.method({"strength": 2.0})
    assert method.label == "mine:strength=2.0"
    assert method.make(0).weights(losses_of_two()).tolist() == [2, 2]
    assert space.default() == {"strength": 1.0}
    weighted = Space(("mine", make), ("a", "b"), {"weights": "log"})
    assert weighted.method(weighted.default()).make(0).weights(losses_of_two()).tolist() == [1, 1]
    with pytest.raises(UnknownOptionError, match=r'takes no option "strenght"\. Did you mean "strength"'):
        Space(("mine", make), ("a", "b"), {"strenght": (0, 1)})
    with pytest.raises(InputError, match="say which options"):
        Space(("mine", make), ("a", "b"))
    with pytest.raises(InputError, match="the method of a sweep is a text"):
        Space(("mine", 3), ("a", "b"), "c=0:1")


def losses_of_two():
    import torch

    return torch.ones(2)


def by_default(name):
    """What a method is swept over by default, or why it is not."""
    try:
        return Space(name, TASKS)
    except InputError as error:
        return str(error)


def test_every_method_with_something_to_tune_has_default_ranges():
    """What is swept by default can be made at both ends; methods without such options say so."""
    listed = [info for info in methods() if info.cls.__module__.startswith("equipoise.")]
    found = {info.name: by_default(info.name) for info in listed}
    swept = {name: own for name, own in found.items() if isinstance(own, Space)}
    for info in listed:
        if info.name not in swept:
            assert "nothing to sweep by default" in found[info.name]
            assert not any(isinstance(own, float) and own > 0 for key, own in info.options.items() if key != "epsilon")
    assert {"ls", "cagrad", "fairgrad", "famo", "dwa", "uw", "pcd"} <= swept.keys()
    (beta,) = (own for own in swept["pcd"].dimensions if own.name == "beta")
    assert (beta.low, beta.high, beta.log) == (pytest.approx(0.99), pytest.approx(0.9999), False)
    for space in swept.values():
        for parameters in drawn(space, 5):
            space.method(parameters).make(0)


@pytest.mark.parametrize(
    ("method", "sweep", "kind", "said"),
    [
        ("cagard", None, UnknownMethodError, 'no method "cagard". Did you mean "cagrad"'),
        ("cagrad", "d=0:1", UnknownOptionError, 'method "cagrad" has no option "d"'),
        ("fairgrad", "alhpa=0.1:1", UnknownOptionError, 'Did you mean "alpha"?'),
        ("cagrad", "c=-1:1", InputError, '"c" cannot be swept over -1:1: '),
        ("cagrad:c=0.2", "c=0:0.9", InputError, "fixed"),
        ("mgda", None, InputError, "nothing to sweep by default (its options: normalization, power)"),
        ("ls", "weights=0:1", InputError, "write a logarithmic range such as 0.01:1:log"),
        ("ls", "weights=simplex", InputError, '"log" and "dirichlet" will do'),
        ("nash-mtl", "max_norm", InputError, "does not say what to sweep"),
    ],
)
def test_bad_spaces_are_refused_in_one_line(method, sweep, kind, said):
    with pytest.raises(kind) as raised:
        Space(method, TASKS, sweep)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_default_range_stays_within_what_the_method_takes():
    from equipoise.balance.registry import MethodInfo, method
    from equipoise.sweep import space as defaults

    class Averaging(eq.FairGrad):
        def __init__(self, beta=0.9):
            super().__init__()
            if beta > 1:
                raise InputError("beta is a share")

    averaging = MethodInfo("averaging", Averaging, "", "", "gramian", (), {"beta": 0.9})
    assert defaults.default_dimension(averaging, "beta") == Range("beta", 0.09, 1.0, log=True)
    assert defaults.default_dimension(method("uw"), "lr").high == 0.1
    assert defaults.default_dimension(method("cagrad"), "rescale").values == (False, True)
    with pytest.raises(InputError, match='no default range for option "seed"'):
        defaults.default_dimension(method("pcgrad"), "seed")


def test_weights_of_one_task_cannot_be_swept():
    with pytest.raises(InputError, match="at least two"):
        Space("ls", ("only",))


def test_the_learning_rate_and_options_of_teleport_and_proxy_are_swept_too():
    swept = "alpha=0.5:2:log,optimizer.lr=1e-4:1e-2:log,cost.gamma=0.01:1:log,cost.rank=1:8,proxy.memory=0:0.9"
    space = Space("cost(start=3)+fairgrad@last", TASKS, swept)
    assert space.dimensions[1] == Range("optimizer.lr", 1e-4, 1e-2, log=True)
    assert space.dimensions[3].whole  # as the option's own default is
    for parameters in drawn(space, 3):
        method = space.method(parameters)
        assert method.lr == pytest.approx(parameters["optimizer.lr"], rel=1e-3)
        assert method.spec.teleport.options["start"] == 3
        assert method.spec.teleport.options["gamma"] == pytest.approx(parameters["cost.gamma"], rel=1e-3)
        assert method.spec.proxy.options["memory"] == pytest.approx(parameters["proxy.memory"], rel=1e-3)
        assert method.label.endswith(f", lr={method.lr:g}")
    other = Space(("mine", lambda strength: eq.FairGrad(alpha=strength)), TASKS, "strength=1:2,optimizer.lr=0.1|0.2")
    assert other.method({"strength": 1.5, "optimizer.lr": 0.2}).lr == 0.2
    assert Space("ls", TASKS, "weights=log,optimizer.lr=1e-4:1e-2:log").default() is None  # the problem's own rate is not known


@pytest.mark.parametrize(
    ("method", "swept", "said"),
    [
        ("fairgrad", "cost.gamma=0.1:1", "has no such part; sweep one such as"),
        ("fairgrad", "proxy.memory=0.1:1", "has no such part; sweep one such as"),
        ("cost(gamma=0.1)+ls", "cost.gamma=0.1:1", 'is fixed in "cost'),
        ("cost+ls", "cost.gama=0.1:1", "gama"),
        ("cost+ls", "optimizer.momentum=0:1", "only its learning rate can be swept"),
        ("ls", "optimiser.lr=0:1", 'has no option "optimiser.lr"'),
    ],
)
def test_parts_that_cannot_be_swept(method, swept, said):
    with pytest.raises(InputError, match=said.replace("(", "[(]")):
        Space(method, TASKS, swept)
