"""A Pareto front, point by point

Fonseca's problem has two objectives that no point serves fully, and its front is concave. A weighted sum of the
losses finds only the ends of such a front, whatever the weights. A smooth maximum finds any point of it, and a
preference says which.
"""

# %%
# `pareto.grid` spreads preferences evenly.
import matplotlib.pyplot as plt
import torch
from torch import nn

import equipoise as eq
from equipoise.pareto import grid

preferences = grid(9, 2, inset=0.1)
print(preferences[:3])


class Point(nn.Module):
    def __init__(self, seed):
        super().__init__()
        self.x = nn.Parameter(0.1 * torch.randn(3, generator=torch.Generator().manual_seed(seed)))


def losses(model, batch=None):
    corner = 3**-0.5
    return {
        "first": 1 - torch.exp(-(model.x - corner).square().sum()),
        "second": 1 - torch.exp(-(model.x + corner).square().sum()),
    }


# %%
# One short training per preference, with each of two methods.
def reached(make):
    found = []
    for seed, preference in enumerate(preferences.tolist()):
        model = Point(seed)
        mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), torch.optim.Adam(model.parameters(), 0.02), make(preference))
        for _ in range(300):
            mtl.step(None)
        with torch.no_grad():
            found.append([float(loss) for loss in losses(model).values()])
    return torch.tensor(found)


points = {
    "weighted sum (ls)": reached(lambda preference: eq.LS(preference)),
    "smooth maximum (stch)": reached(lambda preference: eq.STCH(mu=0.02, preference=preference)),
}
for name, found in points.items():
    print(f"{name:22} reaches {len(found.mul(50).round().unique(dim=0))} places with {len(found)} preferences")

# %%
# One training per point is the simple way. A [Pareto set](../pareto-sets.md) trains one network for all preferences.
t = torch.linspace(-1, 1, 200)[:, None] * 3**-0.5 * torch.ones(3)
first, second = (1 - torch.exp(-(t - s * 3**-0.5).square().sum(1)) for s in (1, -1))
figure, ax = plt.subplots(figsize=(4.2, 3.6), num="The front, with what a weighted sum and a smooth maximum reached")
ax.plot(first, second, color="0.75", linewidth=4, label="the front")
for (name, found), marker in zip(points.items(), "s*", strict=True):
    ax.plot(*found.T, marker, label=name, markersize=8)
ax.set(xlabel="first loss", ylabel="second loss")
ax.legend(fontsize=8)
figure.tight_layout()
