"""A graph network with missing labels

Assays measure some properties of a molecule and not others. Here three of four labels are missing, so every batch has
a different set of tasks. A step has losses for the tasks that the batch has labels for; balancers follow tasks by name.
"""

# %%
# Random trees stand for molecules; some of them have closed rings. One label has other units than the rest.
import matplotlib.pyplot as plt
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GINConv, global_add_pool

import equipoise as eq

names = ["atoms", "rings", "oxygens", "ends"]


def molecule(generator, missing):
    size = int(torch.randint(4, 12, (), generator=generator))
    parents = [int(torch.randint(child, (), generator=generator)) for child in range(1, size)]
    bonds = {(parent, child) for child, parent in enumerate(parents, 1)}
    for _ in range(int(torch.randint(3, (), generator=generator))):
        a, b = sorted(torch.randint(size, (2,), generator=generator).tolist())
        bonds |= {(a, b)} if a != b else set()
    edges = torch.tensor(sorted(bonds)).T
    kinds = torch.randint(4, (size,), generator=generator)
    degrees = torch.bincount(edges.flatten(), minlength=size)
    labels = torch.tensor([size, len(bonds) - size + 1, (kinds == 1).sum(), 10 * (degrees == 1).sum()]).float()
    labels[torch.rand(4, generator=generator) < missing] = torch.nan
    return Data(x=nn.functional.one_hot(kinds, 4).float(), edge_index=torch.cat([edges, edges.flip(0)], 1), y=labels[None])


generator = torch.Generator().manual_seed(0)
train = [molecule(generator, missing=0.75) for _ in range(600)]
test = next(iter(DataLoader([molecule(generator, missing=0.0) for _ in range(200)], batch_size=200)))


# %%
class Net(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        sizes = [(4, width), (width, width), (width, width)]
        self.layers = nn.ModuleList(GINConv(nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Linear(b, b))) for a, b in sizes)
        self.heads = nn.ModuleDict({name: nn.Linear(width, 1) for name in names})

    def forward(self, data):
        x = data.x
        for layer in self.layers:
            x = torch.relu(layer(x, data.edge_index))
        x = global_add_pool(x, data.batch)
        return {name: head(x).squeeze(-1) for name, head in self.heads.items()}


def losses(model, data):
    found = {}
    for column, (name, predicted) in enumerate(model(data).items()):
        labelled = ~data.y[:, column].isnan()
        if labelled.any():
            found[name] = nn.functional.l1_loss(predicted[labelled], data.y[labelled, column])
    return found


# %%
# `tasks=names` declares all tasks; a batch may lack any of them.
def trained(method, epochs=20):
    torch.manual_seed(0)
    model = Net()
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses, tasks=names), torch.optim.Adam(model.parameters(), 3e-3), method)
    present = []
    for _ in range(epochs):
        for batch in DataLoader(train, batch_size=32, shuffle=True):
            mtl.step(batch)
            present.append(len(mtl.last.tasks))
        mtl.end_epoch()
    return model, present


@torch.no_grad()
def errors_of(model):
    """Mean absolute errors on complete labels, in standard deviations of each property."""
    return [float((out - test.y[:, k]).abs().mean() / test.y[:, k].std()) for k, out in enumerate(model(test).values())]


errors = {}
for method in ("ls", "uw", "fairgrad"):
    model, present = trained(method)
    errors[method] = errors_of(model)
    print(f"{method:9}", "   ".join(f"{name} {error:.2f}" for name, error in zip(names, errors[method], strict=True)))
print(f"tasks in a batch: {min(present)} to {max(present)}, {sum(present) / len(present):.1f} on average")

# %%
# `ends` is in tenths, and so ten times as loud as it need be. Which method copes best differs from problem to problem.
# With few labels in a batch, the weights of methods on the Gramian are noisy.
figure, ax = plt.subplots(figsize=(6, 3), num="Test errors of four properties for equal weighting, UW and FairGrad")
for place, (method, found) in enumerate(errors.items()):
    ax.bar([k + 0.27 * (place - 1) for k in range(4)], found, width=0.25, label=method)
ax.set(xticks=range(4), xticklabels=names, ylabel="error / standard deviation")
ax.legend()
figure.tight_layout()
