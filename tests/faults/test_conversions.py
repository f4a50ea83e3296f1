"""What a conversion would lose without a word is refused."""

from __future__ import annotations

import pytest
import torch

from equipoise.data.qm9.stored import _molecules
from equipoise.reading import Unreadable


def tables(**changes):
    """Two molecules of one atom each, in double precision."""
    own = {
        "x": torch.zeros(2, 11, dtype=torch.float64),
        "pos": torch.zeros(2, 3, dtype=torch.float64),
        "z": torch.ones(2, dtype=torch.int64),
        "edge_index": torch.zeros(2, 0, dtype=torch.int64),
        "edge_attr": torch.zeros(0, 4),
        "y": torch.zeros(2, 19, dtype=torch.float64),
    }
    return own | changes, {"x": torch.tensor([0, 1, 2]), "edge_index": torch.tensor([0, 0, 0])}


def test_doubles_that_single_precision_cannot_hold() -> None:
    assert len(_molecules(*tables())) == 2
    for name, shape in (("y", (2, 19)), ("pos", (2, 3)), ("x", (2, 11))):
        large = torch.full(shape, 1e300, dtype=torch.float64)
        with pytest.raises(Unreadable, match=f"{name} has entries that are no finite numbers"):
            _molecules(*tables(**{name: large}))
