"""Data hyper-cleaning: which labels are wrong?

Half of the training labels of two data sets are wrong, and nobody knows which. Two small validation sets are clean. A
bilevel problem finds out. The lower level trains a network on weighted samples. The upper level chooses the weights so
that the network does well on both validation sets. These are two upper objectives, and FORUM takes care of both.
"""

# %%
# The data are scikit-learn's digits, upright and rotated by 90 degrees. A wrong label is another class.
import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score, roc_curve
from torch import nn

from equipoise.bilevel import FORUM, BilevelProblem

torch.manual_seed(0)
bundled = load_digits()
upright = torch.from_numpy(bundled.images).float() / 16
order = torch.randperm(len(upright))
images = {"upright": upright[order].flatten(1), "turned": upright.rot90(1, (1, 2))[order].contiguous().flatten(1)}
labels = torch.from_numpy(bundled.target).long()[order]
train, val, test = slice(0, 400), slice(400, 600), slice(600, 1797)
wrong = torch.rand(400) < 0.5
noisy = torch.where(wrong, (labels[train] + torch.randint(1, 10, (400,))) % 10, labels[train])
entropy = nn.functional.cross_entropy


# %%
# Each training sample of each data set has one weight, the sigmoid of α. The lower level is trained on weighted losses.
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 64), nn.ReLU())
        self.heads = nn.ModuleDict({name: nn.Linear(64, 10) for name in images})

    def forward(self, x, name):
        return self.heads[name](self.encoder(x))


def lower(alpha, model, batch):
    return sum(
        (own.sigmoid() * entropy(model(images[name][train], name), noisy, reduction="none")).mean()
        for own, name in zip(alpha, images, strict=True)
    )


def upper(alpha, model, batch):
    return {name: entropy(model(images[name][val], name), labels[val]) for name in images}


alpha, model = torch.zeros(2, 400), Net()
problem = BilevelProblem(lower=lower, upper=upper, variables=(alpha, model))
optimizers = [torch.optim.SGD([alpha], 400.0), torch.optim.SGD(model.parameters(), 0.3)]
solver = FORUM(problem, optimizers, lower_steps=10, lower_lr=0.3)
curve = [solver.step() for _ in range(300)]


# %%
# For comparison, a network is trained on all labels as they are.
torch.manual_seed(0)
plain = Net()
optimizer = torch.optim.Adam(plain.parameters(), 1e-2)
for _ in range(300):
    optimizer.zero_grad()
    sum(entropy(plain(images[name][train], name), noisy) for name in images).backward()
    optimizer.step()


@torch.no_grad()
def accuracy(model, name):
    return 100 * float((model(images[name][test], name).argmax(1) == labels[test]).float().mean())


weights = alpha.detach().sigmoid()
for place, name in enumerate(images):
    auc = roc_auc_score(~wrong, weights[place])
    told = f"as they are {accuracy(plain, name):.1f} %   cleaned {accuracy(model, name):.1f} %"
    print(f"{name:8} {told}   AUC of the weights {auc:.3f}")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), num="Weights of right and wrong labels, and their ROC curves")
bins = np.linspace(0, 1, 21)
left.hist([weights[0][~wrong], weights[0][wrong]], bins, label=["right labels", "wrong labels"])
left.set(xlabel="learned weight", ylabel="samples (upright)")
left.legend(fontsize=8)
for place, name in enumerate(images):
    false, true, _ = roc_curve(~wrong, weights[place])
    right.plot(false, true, label=name)
right.set(xlabel="false positives", ylabel="true positives")
right.legend(fontsize=8)
figure.tight_layout()
