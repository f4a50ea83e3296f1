"""Prints the peak of tensor memory of training in bytes, one line per method: ``python measure_memory.py plain METHOD …``.

The profiler tells of every allocation and release of a tensor's memory, so the peak is exact, whatever the allocator does.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import equipoise as eq

TASKS = 4
WIDTH = 1280


class Model(nn.Module):
    """About ten million shared parameters; a head is 0.1 % of them."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(6):
            layers += [nn.Linear(WIDTH, WIDTH), nn.Tanh()]
        self.encoder = nn.Sequential(*layers)
        self.heads = nn.ModuleList(nn.Linear(WIDTH, 1) for _ in range(TASKS))

    def forward(self, inputs: Tensor) -> list[Tensor]:
        features = self.encoder(inputs)
        return [head(features) for head in self.heads]


def losses(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    return {f"t{k}": (out - k).square().mean() for k, out in enumerate(model(batch))}


def peak(method: str) -> tuple[int, int]:
    """Most bytes that were allocated at once beyond model and batch, and the number of shared parameters."""
    torch.manual_seed(0)
    model, batch = Model(), torch.randn(2, WIDTH)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    mtl = None if method == "plain" else eq.MultiTaskOptimizer(eq.Objective(model, losses), optimizer, method)

    def step() -> None:
        if mtl is not None:
            mtl.step(batch)
        else:
            optimizer.zero_grad()
            sum(losses(model, batch).values()).backward()  # type: ignore[union-attr]
            optimizer.step()

    # What is allocated once and kept counts too, so the first step belongs to the measurement.
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        for _ in range(2):
            step()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]  # type: ignore[union-attr]
    events.sort(key=lambda event: event.start_ns())
    now = most = 0
    for event in events:
        now += event.nbytes()
        most = max(most, now)
    return most, sum(parameter.numel() for parameter in model.encoder.parameters())


if __name__ == "__main__":
    torch.set_num_threads(1)
    for method in sys.argv[1:]:
        print(*peak(method))
