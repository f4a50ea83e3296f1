"""A training that was stopped within an epoch and resumed ends at the same bits, with other workers, too."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

import equipoise as eq
from equipoise.data import nyuv2_loaders
from equipoise.metrics import Metric
from equipoise.study.plan import Run
from equipoise.study.problem import Problem
from equipoise.study.training import train
from equipoise_papers.samples import write_nyuv2_sample


def losses(model, batch):
    classes, depth, normal = model(batch["image"]).split([13, 1, 3], dim=1)
    return {
        "label": F.cross_entropy(classes, batch["label"], ignore_index=-1),
        "depth": (depth - batch["depth"]).abs().mean(),
        "normal": (normal - batch["normal"]).square().mean(),
    }


def started():
    torch.manual_seed(1)
    model = torch.nn.Conv2d(3, 17, 3, padding=1)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    return model, eq.MultiTaskOptimizer(eq.Objective(model, losses), optimizer, balancer=eq.FairGrad())


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_nyuv2_sample(tmp_path_factory.mktemp("nyuv2"), images=7)


@pytest.mark.parametrize("workers", [0, 2])
def test_stopped_and_resumed(root, workers):
    model, mtl = started()
    batches = nyuv2_loaders(root, 2, seed=3)[0]
    kept = None
    for epoch in range(2):
        for number, batch in enumerate(batches):
            if (epoch, number) == (1, 1):
                kept = copy.deepcopy((model.state_dict(), mtl.state_dict()))
            mtl.step(batch)
    again, resumed = started()
    again.load_state_dict(kept[0])
    resumed.load_state_dict(kept[1])
    rest = nyuv2_loaders(root, 2, seed=3, workers=workers)[0]
    rest.set_epoch(1, skip=1)
    for batch in rest:
        resumed.step(batch)
    for name, parameter in model.state_dict().items():
        assert torch.equal(parameter, again.state_dict()[name])


def test_a_study_repeats_itself_whatever_the_workers(root):
    def problem(workers):
        def evaluate(model, loader):
            return {"error": sum(float(losses(model, batch)["depth"]) for batch in loader)}

        return Problem(
            "rooms",
            ("label", "depth", "normal"),
            (Metric("error", "depth", higher_is_better=False),),
            lambda seed: (torch.nn.Conv2d(3, 17, 3, padding=1), losses),
            lambda seed: nyuv2_loaders(root, 2, validation=0.3, seed=seed, workers=workers),
            evaluate,
        )

    run = Run(5, task="depth")
    alone, helped = (train(problem(workers), run, epochs=2, gramian_every=0) for workers in (0, 2))
    for one, two in zip(alone["history"], helped["history"], strict=True):
        assert one["losses"] == two["losses"]
        assert one["test"] == two["test"]
    assert alone["history"][0]["losses"] != alone["history"][1]["losses"]
