"""The comparison of states that other tests rely on sees every difference, and none where there is none."""

from __future__ import annotations

import random
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from tests.states import assert_same_state, differences, kept, same_state


@dataclass
class Report:
    step: int
    losses: torch.Tensor


def state() -> dict[str, Any]:
    torch_generator = torch.Generator().manual_seed(3)
    return {
        "weights": torch.linspace(0, 1, 5000).reshape(50, 100),
        "half": torch.tensor([1.0, float("nan")], dtype=torch.bfloat16),
        "complex": torch.tensor([1 + 2j]),
        "empty": torch.zeros(0, 3),
        "flags": torch.tensor([True, False]),
        "scalar": torch.tensor(0.5),
        "array": np.arange(6.0).reshape(2, 3),
        "number": np.float64(0.1),
        "objects": np.array(["a", None], dtype=object),
        "nested": [{"lr": 0.1, "betas": (0.9, 0.999)}, float("nan"), None, "text", {1, 2}, b"bytes"],
        "generators": (torch_generator, np.random.default_rng(0), random.Random(0)),
        "report": Report(3, torch.tensor([1.0, 2.0])),
        7: -0.0,
    }


def test_a_state_is_its_own_copy() -> None:
    assert_same_state(kept(state()), state())
    assert same_state(state(), state())


def drawn(generator: Any) -> None:
    if isinstance(generator, torch.Generator):
        torch.rand(1, generator=generator)
    else:
        generator.random()


CHANGES: dict[str, Any] = {
    "['weights']: 1 of 5000 entries differ, first at [20, 7]": lambda s: s["weights"][20, 7].add_(1e-7),
    "['weights']: dtype torch.float64, expected torch.float32": lambda s: s.update(weights=s["weights"].double()),
    "['weights']: shape torch.Size([100, 50])": lambda s: s.update(weights=s["weights"].reshape(100, 50)),
    "['half']: 1 of 2 entries differ, first at [1]: 1.0, expected nan": lambda s: s["half"].fill_(1.0),
    "['complex']: 1 of 1 entries differ": lambda s: s["complex"].add_(1j),
    "['empty']: shape torch.Size([3, 0])": lambda s: s.update(empty=torch.zeros(3, 0)),
    "['flags']: 1 of 2 entries": lambda s: s["flags"].fill_(True),
    "['scalar']: 1 of 1 entries differ: 0.25, expected 0.5": lambda s: s["scalar"].fill_(0.25),
    "['scalar']: 0.5 of type float": lambda s: s.update(scalar=0.5),
    "['array']: 1 of 6 entries differ, first at [0, 0]: -0.0, expected 0.0": lambda s: s["array"].__setitem__((0, 0), -0.0),
    "['array']: dtype float32": lambda s: s.update(array=s["array"].astype(np.float32)),
    "['array']: shape (3, 2)": lambda s: s.update(array=s["array"].reshape(3, 2)),
    "['number']: 1 of 1 entries": lambda s: s.update(number=np.nextafter(s["number"], 1)),
    "['objects'][1]: 'b' of type str": lambda s: s["objects"].__setitem__(1, "b"),
    "['nested'][0]['lr']: 0.10000000000000002, expected 0.1": lambda s: s["nested"][0].update(lr=np.nextafter(0.1, 1).item()),
    "['nested'][0]['betas']: [0.9, 0.999] of type list": lambda s: s["nested"][0].update(betas=[0.9, 0.999]),
    "['nested'][0]['eps']: 1, expected nothing": lambda s: s["nested"][0].update(eps=1),
    "['nested'][0]['lr']: missing, expected 0.1": lambda s: s["nested"][0].pop("lr"),
    "['nested'][1]: 0.0, expected nan": lambda s: s["nested"].__setitem__(1, 0.0),
    "['nested']: 5 entries, expected 6": lambda s: s["nested"].pop(),
    "['nested'][3]: 'other', expected 'text'": lambda s: s["nested"].__setitem__(3, "other"),
    "['nested'][4]: {1, 2, 3}, expected {1, 2}": lambda s: s["nested"][4].add(3),
    "['generators'][0].get_state()": lambda s: drawn(s["generators"][0]),
    "['generators'][1].state": lambda s: drawn(s["generators"][1]),
    "['generators'][2].getstate()": lambda s: drawn(s["generators"][2]),
    "['report'].losses: 1 of 2 entries": lambda s: s["report"].losses[1].mul_(1 + 1e-6),
    "[7]: 0.0, expected -0.0": lambda s: s.update({7: 0.0}),
    "OrderedDict, expected": None,
}


@pytest.mark.parametrize("said", CHANGES)
def test_every_difference_is_seen_and_its_place_named(said: str) -> None:
    mine = state()
    change = CHANGES[said]
    if change is None:
        mine = OrderedDict(mine)
    else:
        change(mine)
    assert not same_state(mine, state())
    line, *_ = differences(mine, state())
    assert said in line
    with pytest.raises(AssertionError, match="not the same"):
        assert_same_state(mine, state())


def test_many_differences_are_cut_short() -> None:
    with pytest.raises(AssertionError) as caught:
        assert_same_state(list(range(100)), [-1] * 100, "counts")
    lines = str(caught.value).splitlines()
    assert len(lines) == 7
    assert lines[1].strip() == "counts[0]: 0, expected -1"
    assert lines[-1].strip() == "..."


def test_what_cannot_be_compared_is_not_the_same() -> None:
    assert not same_state(object(), object())
