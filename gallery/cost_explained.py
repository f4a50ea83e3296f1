"""COST explained: out of a conflict by teleport

Two valleys lie side by side, and their gradients oppose each other: descent gets stuck between them, far from any
Pareto-optimal point. COST moves the shared parameters to another point of about equal losses at which the tasks agree
better, and descent goes on from there.
"""

# %%
# The problem is the one on which the papers show their trajectories. Everything is shared here: two numbers.
import matplotlib.pyplot as plt
import torch
from torch import nn

import equipoise as eq
from equipoise.teleport import PaperFormulation, Probes, Schedule, Search
from equipoise_papers.toys import ParetoCurve, TwoTasks

problem = TwoTasks()
pareto = ParetoCurve(problem)


class Point(nn.Module):
    def __init__(self, start):
        super().__init__()
        self.x = nn.Parameter(torch.tensor(start))


def losses(model, batch=None):
    return dict(zip(("first", "second"), problem.losses(model.x), strict=True))


# %%
# The same descent twice: Adam on the sum of the losses, without COST and with it. COST looks at the Gramian of the task
# gradients now and then. If a task's gradient opposes the mean, COST searches for a better point by evaluating losses
# at substituted parameters.
def descended(start, teleport=None, steps=5500):
    torch.manual_seed(0)
    model = Point(start)
    objective = eq.Objective(model, losses)
    mtl = eq.MultiTaskOptimizer(objective, torch.optim.Adam(model.parameters(), 5e-3), "ls", teleport=teleport)
    way, jumps = [model.x.detach().clone()], []
    for _ in range(steps):
        before = model.x.detach().clone()
        mtl.step(None)
        way.append(model.x.detach().clone())
        if mtl.last.teleport is not None and mtl.last.teleport.accepted:
            jumps.append((mtl.last.teleport, before, way[-1]))
    return torch.stack(way), jumps


def cost():
    return eq.COST(
        "dominated",
        delta="dense",
        search=Search(PaperFormulation(gamma=0.1, radius=1.0), steps=100, lr=0.1, scaling="none"),
        schedule=Schedule(start_step=700, cooldown=100, budget=None),
        probes=Probes("current"),
        guard=None,
        history="reuse",
    )


start = (-8.5, 7.5)
plain, _ = descended(start)
moved, jumps = descended(start, cost())
for name, way in (("sum of the losses", plain), ("with COST on top", moved)):
    print(
        f"{name:18} ends at ({way[-1][0]:.2f}, {way[-1][1]:.2f}), on the Pareto set: {bool(pareto.contains(way[-1][None])[0])}"
    )

# %%
# The first teleport keeps the losses about equal, and gives the worst task a better cosine with the mean gradient.
first, before, after = jumps[0]
print(f"{len(jumps)} teleports. The first, in step {first.step}, went from {before.tolist()} to {after.tolist()}")
print("losses      ", [round(loss, 2) for loss in first.losses_before], "→", [round(loss, 2) for loss in first.losses_after])
print("cosines     ", [round(c, 2) for c in first.cosines_before], "→", [round(c, 2) for c in first.cosines_after])

# %%
# Both paths over the level lines of the mean loss; the Pareto set is gray, teleports are dashed. On this problem COST
# does what it is made for. On real data we found no gain from it at equal cost: [COST, judged](../cost-judged.md).
grid = torch.stack(torch.meshgrid(torch.linspace(-11, 11, 200), torch.linspace(-11, 11, 200), indexing="xy"), -1)
figure, axes = plt.subplots(1, 2, figsize=(8.4, 4), num="Descent on two losses, without COST and with it", sharey=True)
for ax, (name, way) in zip(axes, (("sum of the losses", plain), ("with COST on top", moved)), strict=True):
    ax.contour(grid[..., 0], grid[..., 1], problem.losses(grid).mean(-1), levels=12, colors="0.8", linewidths=0.7)
    ax.plot((-7, 7), (-8, -8), color="0.6", linewidth=4)
    ax.set(title=name, xlim=(-11, 11), ylim=(-11, 11))
    edges = [0] if way is plain else [0, *(jump[0].step + 1 for jump in jumps)]
    for a, b in zip(edges, [*edges[1:], len(way)], strict=True):
        ax.plot(*way[a:b].T, color="C1")
    ax.plot(*way[0], "ko")
    ax.plot(*way[-1], "*", color="C1", markersize=14)
for _, before, after in jumps:
    axes[1].plot(*torch.stack([before, after]).T, "k--", linewidth=1)
figure.tight_layout()
