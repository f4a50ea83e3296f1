"""What a balancer is asked for: little, and what few of them do besides is in classes of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import equipoise as eq
from equipoise.balance.base import Balancer
from equipoise.balance.mixins import Attached, ElsewhereObservation, LooksElsewhere
from tests.problems import batch, optimizer_of


def test_the_contract_has_no_hooks_of_single_methods() -> None:
    members = {name for name in {**vars(Balancer), **Balancer.__annotations__} if not name.startswith("_")}
    facts = {"needs", "watches", "stateful", "decides_purely"}
    assert members == facts | {"decide", "update", "observe", "end_epoch", "state_dict", "read_state", "load_state_dict"}


def test_what_knows_the_model_is_told_of_it_and_of_each_step() -> None:
    class Knowing(Attached, eq.balance.LossBalancer):
        def __init__(self) -> None:
            self.told: list[Any] = []

        def attach(self, objective: eq.Objective) -> None:
            self.told.append(objective)

        def begin(self) -> None:
            self.told.append("begin")

        def weights(self, losses: Tensor) -> Tensor:
            self.told.append("decide")
            return torch.ones_like(losses)

    balancer = Knowing()
    mtl = optimizer_of(balancer)
    mtl.step(batch())
    mtl.step(batch())
    assert balancer.told == [mtl.objective, "begin", "decide", "begin", "decide"]


def test_what_looks_elsewhere_sees_the_losses_of_the_step_there() -> None:
    class Looking(LooksElsewhere, eq.balance.LossBalancer):
        def __init__(self) -> None:
            self.seen: list[eq.balance.Observation] = []

        def decide(self, observation: eq.balance.Observation) -> Tensor:
            self.seen.append(observation)
            assert observation.losses is not None
            if isinstance(observation, ElsewhereObservation):
                own = observation.elsewhere.parameters()
                assert torch.equal(observation.elsewhere.losses(own), observation.losses)
                there = observation.elsewhere.losses({name: torch.zeros_like(value) for name, value in own.items()})
                assert not torch.isclose(there, observation.losses).any()
            return torch.ones_like(observation.losses)

        looks_elsewhere = False

    balancer = Looking()
    mtl = optimizer_of(balancer)
    mtl.step(batch())
    balancer.looks_elsewhere = True
    mtl.step(batch())
    model: Any = mtl.objective.model
    eq.backward(mtl.objective(batch()), balancer, model.encoder)
    assert [isinstance(seen, ElsewhereObservation) for seen in balancer.seen] == [False, True, False]
