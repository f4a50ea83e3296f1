"""Your own loop: one line changes

Two handwritten digits lie on one canvas, and there are four tasks: which digit is left, which is right, what is their
sum, and what is the ratio of their ink? The losses differ by two orders of magnitude, so their sum follows the loudest.
We train the same network three times and change one line.
"""

# %%
# The data come with scikit-learn. The network has one encoder and four heads.
import matplotlib.pyplot as plt
import torch
from torch.nn import functional

import equipoise as eq
from equipoise.data import digits
from equipoise.nets import DigitsNet

train, _, test = digits().loaders(seed=0)


def losses_of(model, batch):
    out = model(batch["image"])
    return {
        "left": functional.cross_entropy(out["left"], batch["left"]),
        "right": functional.cross_entropy(out["right"], batch["right"]),
        "sum": functional.mse_loss(out["sum"], batch["sum"]),
        "ink": functional.mse_loss(out["ink"], batch["ink"]),
    }


# %%
# The loop is an ordinary one. `proxy="last"` takes the tasks' inner products from the last shared layer, which brings a
# step down to about the price of plain training.
def trained(method, epochs=3):
    torch.manual_seed(0)
    model = DigitsNet()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    balancer = eq.balancer(method) if method else None
    curve = []
    for _ in range(epochs):
        for batch in train:
            losses = losses_of(model, batch)
            loss = eq.balanced_loss(losses, balancer, proxy="last") if balancer else sum(losses.values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            curve.append(torch.stack(list(losses.values())).detach())
    return model, torch.stack(curve)


@torch.no_grad()
def accuracy(model):
    hits = [(model(batch["image"])["left"].argmax(1) == batch["left"]).float() for batch in test]
    return 100 * float(torch.cat(hits).mean())


# %%
# With the plain sum, the loss of `sum` drowns the rest. FairGrad and Nash-MTL serve every task.
runs = {name or "sum of the losses": trained(name) for name in (None, "fairgrad", "nash-mtl")}
for name, (model, _) in runs.items():
    print(f"{name:18} left digit: {accuracy(model):.1f} % right on test data")

# %%
# Which losses rose in return? The curves are averages over ten steps:
figure, axes = plt.subplots(1, 4, figsize=(11, 2.6), num="Training losses of four tasks with three methods")
for place, (ax, task) in enumerate(zip(axes, ("left", "right", "sum", "ink"), strict=True)):
    for name, (_, curve) in runs.items():
        smooth = curve[:, place].unfold(0, 10, 5).mean(1)
        ax.plot(range(0, 5 * len(smooth), 5), smooth, label=name)
    ax.set(title=task, yscale="log" if task in ("sum", "ink") else "linear", xlabel="step")
axes[0].legend(fontsize=8)
figure.tight_layout()
