"""LDC-MTL explained: keep the losses together

LDC-MTL looks at losses alone, so a step costs one backward pass for any number of tasks. It minimises a weighted
sum of the losses and also learns the weights, so that the gaps between neighbouring losses stay small.
"""

# %%
# Eight regression tasks share a network. Each is noisier and louder than the one before.
import matplotlib.pyplot as plt
import torch
from torch import nn

import equipoise as eq

torch.manual_seed(0)
tasks = [f"t{k}" for k in range(8)]
inputs = torch.randn(2048, 12)
teacher = nn.Sequential(nn.Linear(12, 24), nn.Tanh(), nn.Linear(24, 8))
with torch.no_grad():
    targets = (teacher(inputs) * 4) * torch.logspace(-0.5, 0.5, 8)


def losses(model, batch):
    errors = (model(inputs[batch]) - targets[batch]).square().mean(0)
    return dict(zip(tasks, errors, strict=True))


# %%
# `penalty` is λ of the paper: the total is f + λ g, where f is the sum of the gaps and g the weighted sum. A small λ
# keeps the losses together, a large one leaves the gaps alone. Losses are divided by their first values
# (`normalize="rescale"`), so that units do not count.
def trained(balancer, steps=1500):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 8))
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), torch.optim.Adam(model.parameters(), 3e-3), balancer)
    curve, weights = [], []
    for _ in range(steps):
        values = mtl.step(torch.randint(2048, (64,)))
        curve.append([float(values[task]) for task in tasks])
        weights.append(mtl.last.weights.tolist())
    return torch.tensor(curve), torch.tensor(weights)


balancers = {
    "ls": eq.LS(),
    "ldc-mtl, λ = 10": eq.LDCMTL(penalty=10.0, normalize="rescale"),
    "ldc-mtl, λ = 1": eq.LDCMTL(penalty=1.0, normalize="rescale"),
}
runs = {name: trained(balancer) for name, balancer in balancers.items()}


# %%
# The gaps are between neighbouring losses, relative to their start. Smaller gaps cost a larger mean.
def relative(curve):
    return curve[-100:].mean(0) / curve[:20].mean(0)


for name, (curve, _) in runs.items():
    found = relative(curve)
    print(f"{name:16} sum of gaps {found.diff().abs().sum():.3f}   largest {found.max():.3f}   mean {found.mean():.3f}")

# %%
figure, axes = plt.subplots(1, 3, figsize=(10, 2.9), num="Relative losses of eight tasks with ls and LDC-MTL", sharey=True)
for ax, (name, (curve, _)) in zip(axes, runs.items(), strict=True):
    for k in range(8):
        smooth = curve[:, k].unfold(0, 50, 25).mean(1)
        ax.plot(range(0, 25 * len(smooth), 25), smooth / curve[:20, k].mean(), color=plt.cm.viridis(k / 7), linewidth=1)
    ax.set(title=name, xlabel="step", yscale="log")
axes[0].set_ylabel("loss / first loss")
figure.tight_layout()

# %%
# The weights of the last steps: loud tasks end with small weights. A weight can be negative if a loss lies below its
# neighbours.
figure, ax = plt.subplots(figsize=(5.5, 2.6), num="Mean weights of the eight tasks over the last hundred steps")
for place, (name, (_, weights)) in enumerate(runs.items()):
    mean = weights[-100:].mean(0)
    ax.bar([k + 0.27 * (place - 1) for k in range(8)], (mean / mean.sum()).tolist(), width=0.25, label=name)
ax.set(xticks=range(8), xticklabels=tasks, ylabel="share of the weights")
ax.legend(fontsize=7)
figure.tight_layout()
