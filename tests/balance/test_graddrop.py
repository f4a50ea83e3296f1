"""GradDrop on activations, as in its paper: against an algorithm written sample by sample, and autograd through the encoder."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import equipoise as eq
from equipoise.balance.mixins import FeaturesObservation
from equipoise.distributed import Processes
from equipoise.errors import InputError
from tests.problems import Heads, batch, losses


def by_hand(features: Tensor, rows: Tensor, leaks: list[float], drawn: Tensor) -> Tensor:
    """Algorithm 1 of Chen et al. (2020) for activations ``[N, m]`` and gradients ``[K, N, m]``, entry by entry."""
    kept = torch.zeros_like(rows[0])
    for feature in range(features.shape[1]):
        signs = features[:, feature].sign().tolist()
        sums = [sum(s * g for s, g in zip(signs, row[:, feature].tolist(), strict=True)) for row in rows]
        total = sum(map(abs, sums))
        purity = 0.5 * (1 + sum(sums) / total) if total else 0.0
        for row, own, leak in zip(rows, sums, leaks, strict=True):
            chosen = own > 0 if purity > drawn[feature] else own < 0
            kept[:, feature] += row[:, feature] * (leak + (1 - leak) * chosen)
    return kept


@pytest.mark.parametrize("leak", [0.0, [0.0, 0.3, 1.0]])
def test_on_activations_it_is_the_papers_algorithm_and_goes_through_the_encoder(leak: float | list[float]) -> None:
    torch.manual_seed(0)
    model, data = Heads(), batch()
    balancer = eq.GradDrop(leak=leak, seed=3)
    mtl = eq.MultiTaskOptimizer(
        eq.Objective(model, losses), torch.optim.SGD(model.parameters(), 0.0), balancer, features=model.encoder
    )
    kept: list[Tensor] = []
    handle = model.encoder.register_forward_hook(lambda module, inputs, output: kept.append(output))
    values = list(losses(model, data).values())
    handle.remove()
    (features,) = kept
    rows = torch.stack([torch.autograd.grad(value, features, retain_graph=True)[0] for value in values])
    drawn = torch.rand(features.shape[1], generator=torch.Generator().manual_seed(3))
    expected = by_hand(features, rows, leak if isinstance(leak, list) else [leak] * len(values), drawn)
    assert not torch.allclose(expected, rows.sum(0))
    gradients = torch.autograd.grad(features, list(model.encoder.parameters()), expected)
    mtl.step(data)
    for parameter, gradient in zip(model.encoder.parameters(), gradients, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, gradient)
    for value, head in zip(losses(model, data).values(), model.heads, strict=True):
        own = torch.autograd.grad(value, list(head.parameters()))
        assert all(torch.allclose(p.grad, g, atol=1e-7) for p, g in zip(head.parameters(), own, strict=True))


class _Half(Processes):
    """Of two processes, the one that knows what the other has."""

    def __init__(self, other: Tensor) -> None:
        super().__init__()
        self.other = other

    def sum(self, tensor: Tensor, what: str = "a sum") -> Tensor:
        return tensor + self.other


def test_the_signs_are_those_of_the_joint_batch() -> None:
    torch.manual_seed(1)
    features, rows = torch.randn(8, 5), torch.randn(2, 8, 5)
    means = torch.ones(2, dtype=torch.float64)
    drawn = torch.rand(5, generator=torch.Generator().manual_seed(0))

    def decided(part: slice, processes: Processes) -> Tensor:
        observation = FeaturesObservation(
            ("a", "b"),
            (0, 1),
            means,
            gradients=rows[:, part].flatten(1),
            processes=processes,
            features=features[part],
            batch=None,
        )
        return eq.GradDrop().decide(observation).view(-1, 5)

    other = (features[4:].sign() * rows[:, 4:]).sum(1)
    whole = by_hand(features, rows, [0.0, 0.0], drawn)
    torch.testing.assert_close(decided(slice(None), Processes()), whole)
    torch.testing.assert_close(decided(slice(4), _Half(other)), whole[:4])


def test_methods_that_follow_parameters_over_steps_are_refused_at_features_and_proxies() -> None:
    model = Heads()
    for name in ("moco", "db-mtl", "excess-mtl"):
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), optimizer, name, features="encoder")
        with pytest.raises(InputError, match=r"needs the gradients themselves\. Leave features= out$"):
            mtl.step(batch())
        with pytest.raises(InputError, match=r"needs the gradients themselves\. Leave proxy= out$"):
            eq.MultiTaskOptimizer(eq.Objective(model, losses), optimizer, name, proxy="last")
    with pytest.raises(InputError, match="or give MultiTaskOptimizer features="):
        eq.MultiTaskOptimizer(eq.Objective(model, losses), optimizer, "graddrop", proxy="last")
