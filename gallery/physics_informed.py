"""A physics-informed network

We solve Poisson's equation on the unit square, −Δu = f, with u = 0 on the border. The network is trained on two losses
of very different size: the residual of the equation inside, and the values on the border. Neither of them is the error
that counts.
"""

# %%
# f is chosen so that the solution is known: u = sin(πx) sin(πy). The residual takes second derivatives by autograd.
import math

import matplotlib.pyplot as plt
import torch
from torch import nn

import equipoise as eq


def exact(points):
    return torch.sin(math.pi * points).prod(-1)


def losses(model, batch):
    inside, border = batch
    inside = inside.requires_grad_(True)
    u = model(inside).squeeze(-1)
    (slope,) = torch.autograd.grad(u.sum(), inside, create_graph=True)
    second = [torch.autograd.grad(slope[:, k].sum(), inside, create_graph=True)[0][:, k] for k in range(2)]
    residual = sum(second) + 2 * math.pi**2 * exact(inside)
    return {"residual": residual.square().mean(), "border": model(border).square().mean()}


def points(generator, size=128):
    inside, border = torch.rand(2, size, 2, generator=generator)
    sides = torch.arange(size) % 4
    border[torch.arange(size), sides % 2] = (sides // 2).float()
    return inside, border


# %%
# ConFIG takes a direction that has the same cosine with both gradients; FAMO weighs log losses at the price of one
# backward pass.
axis = torch.linspace(0, 1, 41)
grid = torch.cartesian_prod(axis, axis)


def trained(method, steps=600):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), torch.optim.Adam(model.parameters(), lr=3e-3), method)
    generator, curve = torch.Generator().manual_seed(0), []
    for step in range(steps):
        mtl.step(points(generator))
        if step % 20 == 19:
            with torch.no_grad():
                curve.append(float((model(grid).squeeze(-1) - exact(grid)).norm() / exact(grid).norm()))
    return model, curve


runs = {method: trained(method) for method in ("ls", "famo", "config")}
for method, (_, curve) in runs.items():
    print(f"{method:7} relative error of u after {20 * len(curve)} steps: {curve[-1]:.4f}")

# %%
# FAMO settles on u = 0: there the border's loss is 0, and its logarithm can fall without end. A method on log losses
# needs losses that do not come near 0.
figure, axes = plt.subplots(1, 4, figsize=(11, 2.8), num="The error over the steps, and in space, for three methods")
for method, (_, curve) in runs.items():
    axes[0].plot(range(20, 20 * len(curve) + 1, 20), curve, label=method)
axes[0].set(yscale="log", xlabel="step", title="relative error of u")
axes[0].legend(fontsize=8)
with torch.no_grad():
    for ax, (method, (model, _)) in zip(axes[1:], runs.items(), strict=True):
        off = (model(grid).squeeze(-1) - exact(grid)).reshape(41, 41)
        image = ax.imshow(off.T, origin="lower", cmap="RdBu", vmin=-0.05, vmax=0.05)
        ax.set(title=f"error of {method}", xticks=[], yticks=[])
figure.colorbar(image, ax=axes[1:])
