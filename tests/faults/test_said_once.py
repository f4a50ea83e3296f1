"""What is allowed and most probably not meant is said: once per object, at the user's own line."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from tests import problems


def made() -> problems.Heads:
    torch.manual_seed(0)
    return problems.Heads()


@contextmanager
def said(match: str, times: int = 1) -> Iterator[None]:
    """The body warns so many times, all of them with this text and from this file."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    texts = [str(warning.message) for warning in caught]
    assert len(texts) == times, texts
    assert all(match in text for text in texts), texts
    assert all(warning.filename == __file__ for warning in caught), [warning.filename for warning in caught]


def some_losses(model: nn.Module, batch: tuple[problems.Batch, tuple[str, ...]]) -> dict[str, Tensor]:
    everything = problems.losses(model, batch[0])
    return {name: everything[name] for name in batch[1]}


# -- a balancer used by a second optimizer


@pytest.mark.parametrize("method", ["uw", "famo", "gradnorm", "nash-mtl", "moco"])
def test_a_balancer_of_a_second_optimizer(method: str) -> None:
    balancer = eq.balancer(method)
    first, second = problems.optimizer_of(balancer, made()), problems.optimizer_of(balancer, made())
    first.step(problems.batch())
    with said("serves a second training"):
        for _ in range(3):
            second.step(problems.batch())
            first.step(problems.batch())


@pytest.mark.parametrize("method", ["ls", "mgda", "pcgrad", "rlw", "graddrop"])
def test_balancers_without_a_memory_serve_anybody(method: str) -> None:
    """Random numbers are no memory of what was learned."""
    balancer = eq.balancer(method)
    with said("", times=0):
        for _ in range(2):
            problems.optimizer_of(balancer, made()).step(problems.batch())


def test_one_training_after_another_is_two_objects_or_one() -> None:
    """Whoever makes a new optimizer of the same training, and lets go of the old one, goes on."""
    balancer, model = eq.UW(), made()
    with said("", times=0):
        problems.optimizer_of(balancer, model).step(problems.batch())
        problems.optimizer_of(balancer, model).step(problems.batch())
        kept = problems.optimizer_of(eq.UW(), made())
        kept.step(problems.batch())
        copied = pickle.loads(pickle.dumps(kept.balancer))
        problems.optimizer_of(copied, made()).step(problems.batch())


@pytest.mark.parametrize("method", ["uw", "gradnorm"])
def test_a_balancer_of_two_models_in_the_dropin(method: str) -> None:
    balancer, models = eq.balancer(method), [made(), made()]
    with said("serves a second training"):
        for _ in range(3):
            for model in models:
                eq.backward(problems.losses(model, problems.batch()), balancer)


def test_a_balancer_of_an_optimizer_and_the_dropin() -> None:
    balancer = eq.UW()
    mtl = problems.optimizer_of(balancer, made())
    mtl.step(problems.batch())
    with said("serves a second training"):
        for _ in range(2):
            eq.backward(problems.losses(made(), problems.batch()), balancer)


def test_growing_models_are_the_same_training() -> None:
    model, balancer = made(), eq.UW()
    with said("", times=0):
        eq.backward(problems.losses(model, problems.batch()), balancer)
        model.encoder[0].requires_grad_(False)
        eq.backward(problems.losses(model, problems.batch()), balancer)


# -- every batch holding one task


@pytest.mark.parametrize("method", ["ls", "mgda"])
def test_batches_of_one_task_each(method: str) -> None:
    model = made()
    objective = eq.Objective(model, some_losses, tasks=("t0", "t1", "t2"))
    mtl = eq.MultiTaskOptimizer(objective, torch.optim.SGD(model.parameters(), lr=0.01), method, shared=model.encoder)
    with said("held a single one of 3 tasks"):
        for step in range(25):
            mtl.step((problems.batch(seed=step), (f"t{step % 3}",)))
    balancer = eq.balancer(method)
    with said("held a single one of 3 tasks"):
        for step in range(25):
            found = problems.losses(model, problems.batch(seed=step))
            name = f"t{step % 3}"
            eq.backward({name: found[name]}, balancer, model.encoder, tasks=("t0", "t1", "t2"))


def test_batches_that_now_and_then_hold_several_tasks_are_fine() -> None:
    model = made()
    objective = eq.Objective(model, some_losses, tasks=("t0", "t1", "t2"))
    mtl = eq.MultiTaskOptimizer(objective, torch.optim.SGD(model.parameters(), lr=0.01), "mgda", shared=model.encoder)
    with said("", times=0):
        for step in range(25):
            mtl.step((problems.batch(seed=step), ("t0", "t2") if step == 3 else (f"t{step % 3}",)))
    single = problems.optimizer_of("ls", problems.Heads(1))
    with said("", times=0):  # with one task there is nothing else
        for step in range(25):
            single.step(problems.batch(tasks=1, seed=step))


def test_micro_batches_of_one_task_each_make_a_step_of_several() -> None:
    model = made()
    objective = eq.Objective(model, some_losses, tasks=("t0", "t1", "t2"))
    mtl = eq.MultiTaskOptimizer(objective, torch.optim.SGD(model.parameters(), lr=0.01), "mgda", shared=model.encoder)
    with said("", times=0):
        for step in range(15):
            mtl.step(*((problems.batch(seed=step), (name,)) for name in ("t0", "t1", "t2")))


# -- a compiled graph without `shared=`


@pytest.fixture
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_graph_without_shared_parameters() -> None:
    model = made()
    whole: Any = torch.compile(model, backend="aot_eager")
    balancer = eq.MGDA()
    problems.losses(whole, problems.batch())  # compiling may warn by itself
    with said("say what is shared"):
        for _ in range(2):
            eq.backward(problems.losses(whole, problems.batch()), balancer)
    with said("", times=0):
        eq.backward(problems.losses(whole, problems.batch()), eq.MGDA(), model.encoder)
        eq.backward(problems.losses(whole, problems.batch()), eq.UW())


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_encoder_tells_what_is_shared() -> None:
    """All losses start from its one output, so what lies below is shared and the heads are not."""
    model, other = made(), made()
    encoder = model.encoder
    model.encoder = torch.compile(encoder, backend="aot_eager")  # type: ignore[assignment]
    problems.losses(model, problems.batch())
    with said("", times=0):
        report = eq.backward(problems.losses(model, problems.batch()), eq.MGDA())
    expected = eq.backward(problems.losses(other, problems.batch()), eq.MGDA())
    assert report.gramian is not None
    assert expected.gramian is not None
    assert torch.allclose(report.gramian, expected.gramian, rtol=1e-4)


# -- balancers that nobody tells what they need


def test_famo_unobserved() -> None:
    model, balancer = made(), eq.FAMO()
    with said("call balancer.observe"):
        for _ in range(40):
            eq.backward(problems.losses(model, problems.batch()), balancer)
    observed = eq.FAMO()
    with said("", times=0):
        for _ in range(40):
            report = eq.backward(problems.losses(model, problems.batch()), observed)
            observed.observe(report.losses, report.losses, (0, 1, 2))


def test_steps_that_a_scaler_skips_are_not_unobserved_ones() -> None:
    mtl = problems.optimizer_of("famo", made(), scaler=torch.amp.GradScaler("cpu", init_scale=2.0**127, backoff_factor=0.999))
    inputs, targets = problems.batch()
    with said("", times=0):
        for _ in range(15):
            mtl.step((inputs, 1e4 * targets))
            assert mtl.last is not None
            assert mtl.last.skipped


NEEDY: dict[str, Callable[[], eq.balance.Balancer]] = {
    "dwa": eq.DWA,
    "stch": lambda: eq.STCH(formulation="released"),
    "ldc-mtl": lambda: eq.LDCMTL(normalize="log"),
}


@pytest.mark.parametrize("name", NEEDY)
def test_epochs_that_never_end(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("equipoise.balance.per_task._PATIENCE", 6)
    for patient in (False, True):
        mtl = problems.optimizer_of(NEEDY[name](), made())
        with said("no end of an epoch", times=0 if patient else 1):
            for step in range(20):
                mtl.step(problems.batch())
                if patient and step % 5 == 4:
                    mtl.end_epoch()
    model, balancer = made(), NEEDY[name]()
    with said("no end of an epoch"):
        for _ in range(20):
            eq.backward(problems.losses(model, problems.batch()), balancer)


# -- batches without labels, and optimizers that do not step


def test_unlabelled_batches_are_said_once_per_training() -> None:
    for _ in range(2):
        model = made()
        objective = eq.Objective(model, some_losses, tasks=("t0", "t1", "t2"))
        mtl = eq.MultiTaskOptimizer(objective, torch.optim.SGD(model.parameters(), lr=0.01), "mgda")
        with said("no task's loss"):
            for _ in range(3):
                mtl.step((problems.batch(), ()))
        assert mtl.unlabelled == 3
