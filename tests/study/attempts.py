"""Teleports for studies: real ones, as often as a tiny problem allows, and made-up ones."""

import math

from equipoise.study import parse_method
from equipoise.teleport import TeleportReport

# Attempts in nearly every step, which is what a problem of three steps an epoch needs. Whatever decides what becomes of them
# is said, so that other defaults give the same attempts.
COST = (
    "cost(budget=None,check_every=1,cooldown=1,probe=recent,probe_batches=1,held_out_batches=1,steps=4,lr=0.01,samples=5,"
    "seek=sharpness,gamma=0.1,radius=0.1,delta=lowrank,rank=2,history=keep,tolerance=0.05,guard=True,formulation=paper)"
)
LABEL = parse_method(f"{COST}+ls").label.removesuffix("+ls")


def attempt(number, seed, tasks, level):
    """Every third attempt is refused, and every sixth search fails, so that there is nothing to say of the other point."""
    refused, failed = number % 3 == 2, number % 6 == 5
    before = [math.sin(number + seed + k) for k in range(len(tasks))]
    after = [] if failed else [min(1.0, cosine + 0.3) for cosine in before]
    losses = [level / (1 + number) for _ in tasks]
    return TeleportReport(
        step=number,
        epoch=number // 3,
        trigger="dominated",
        tasks=tasks,
        accepted=not refused,
        reason="the loss of near became non-finite"
        if failed
        else "the losses change by 31.0% on held-out batches, more than the tolerance of 5.0%"
        if refused
        else "equal losses and no more conflict than before",
        sigma=0.01,
        distance=0.1,
        cosines_before=before,
        cosines_after=after,
        norms_before=[1.0 + k for k in range(len(tasks))],
        norms_after=[] if failed else [1.5 * (1.0 + k) for k in range(len(tasks))],
        losses_before=losses,
        losses_after=[] if failed else [loss * (1.02 if k % 2 else 0.99) for k, loss in enumerate(losses)],
        measure_before=-before[0],
        measure_after=math.nan if failed else -after[0],
        invariance=[0.0, 0.02 * level, 0.01 * level],
        reward=[0.001, 0.002, 0.003],
        seconds=0.02,
    ).as_dict()
