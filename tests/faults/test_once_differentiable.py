"""ConsMTL and COST's ``seek`` on layers whose usual kernel has no second derivative, and on layers that have none at all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equipoise as eq
from equipoise.errors import InputError
from tests.teleport.helpers import eager_cost

TASKS = 2


class Encoder(nn.Module):
    def __init__(self, attends: bool) -> None:
        super().__init__()
        self.attends = attends
        self.block = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
        self.centers = nn.Parameter(torch.randn(4, 4))

    def forward(self, tokens: Tensor) -> Tensor:
        states: Tensor = self.block(tokens).mean(1) if self.attends else tokens.mean(1)
        return states if self.attends else torch.cdist(states, self.centers)


def made(attends: bool) -> tuple[nn.Module, Any, tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    heads = nn.ModuleList(nn.Linear(4, 1) for _ in range(TASKS))
    model = nn.ModuleDict({"encoder": Encoder(attends), "heads": heads}).double()

    def losses(model: Any, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        features = model["encoder"](batch[0])
        return {f"t{k}": (head(features)[:, 0] - batch[1][:, k]).square().mean() for k, head in enumerate(model["heads"])}

    return model, losses, (torch.randn(6, 3, 4).double(), torch.randn(6, TASKS).double())


def test_consmtl_through_attention_is_that_of_central_differences() -> None:
    model, losses, batch = made(True)
    shared = list(model["encoder"].block.parameters())
    heads = list(model["heads"].parameters())

    def rows() -> Tensor:
        found = [torch.autograd.grad(loss, shared, retain_graph=True) for loss in losses(model, batch).values()]
        return torch.stack([torch.cat([piece.flatten() for piece in row]) for row in found])

    grads = []
    for mu in (0.0, 0.7):
        balancer = eq.ConsMTL("mgda", mu=mu, measure="product", at_most=None)
        optimizer = torch.optim.SGD(model.parameters(), 0.0)
        eq.MultiTaskOptimizer(eq.Objective(model, losses), optimizer, balancer).step(batch)
        grads.append([head.grad.clone() for head in heads])
    toward = balancer.weights(rows() @ rows().T) @ rows()
    for position in (0, 2):
        found = (grads[1][position] - grads[0][position]).view(-1)[0]
        sides = []
        for shift in (1e-5, -2e-5):
            with torch.no_grad():
                heads[position].view(-1)[0] += shift
            sides.append(-0.7 * float(rows()[position // 2] @ toward))
        with torch.no_grad():
            heads[position].view(-1)[0] += 1e-5
        assert float(found) == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-5)
        assert abs(float(found)) > 1e-6


def test_consmtl_says_which_layer_it_cannot_pull_through() -> None:
    model, losses, batch = made(False)
    balancer = eq.ConsMTL("mgda", mu=0.7)
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), torch.optim.SGD(model.parameters(), 0.1), balancer)
    with pytest.raises(InputError, match=r"pulls heads by second derivatives, .*_cdist_backward"):
        mtl.step(batch)
    model, losses, batch = made(True)
    with pytest.raises(InputError, match="let MultiTaskOptimizer evaluate the losses"):
        eq.backward(losses(model, batch), eq.ConsMTL("mgda", mu=0.7), shared=model["encoder"].block)


@pytest.mark.parametrize("attends", [True, False])
def test_a_search_for_agreement(attends: bool) -> None:
    model, losses, batch = made(attends)
    cost = eager_cost(seek="mean", gamma=1.0, delta=eq.teleport.Dense(), probe="current")
    mtl = eq.MultiTaskOptimizer(
        eq.Objective(model, losses), torch.optim.SGD(model.parameters(), 0.1), "fairgrad", teleport=cost
    )
    if attends:
        mtl.step(batch)
        mtl.step(batch)
        assert cost.attempts[0].reward
        return
    with pytest.raises(InputError, match=r'seek="mean" differentiates the losses twice, .*_cdist_backward.*"sharpness"'):
        [mtl.step(batch) for _ in range(2)]
