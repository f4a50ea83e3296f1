"""Dense prediction on rendered scenes

Classes, depth and surface normals of rooms are the three tasks of NYUv2. This needs no download: `equipoise-papers`
renders the rooms and knows the truth of every pixel. A small network learns all three tasks, and we look at what it
sees after a short training.
"""

# %%
# The rooms are drawn here. They have 48 by 64 pixels, so that this page takes only seconds.
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from torch.nn import functional

import equipoise as eq
from equipoise_papers.scenes import ROOM_CLASSES, make_scene

scenes = [make_scene("rooms", (48, 64), seed=0, number=number) for number in range(72)]


def stacked(name):
    return torch.from_numpy(np.stack([np.array(getattr(scene, name)) for scene in scenes]))


print({name: tuple(stacked(name).shape) for name in ("image", "label", "depth", "normal")})


# %%
# A small U-shaped network with one head per task.
class Block(nn.Sequential):
    def __init__(self, inputs, outputs):
        super().__init__(nn.Conv2d(inputs, outputs, 3, padding=1), nn.GroupNorm(4, outputs), nn.ReLU())


class UNet(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.down = nn.ModuleList([Block(3, width), Block(width, 2 * width), Block(2 * width, 4 * width)])
        self.up = nn.ModuleList([Block(6 * width, 2 * width), Block(3 * width, width)])
        channels = {"classes": len(ROOM_CLASSES), "depth": 1, "normals": 3}
        self.heads = nn.ModuleDict({task: nn.Conv2d(width, outputs, 1) for task, outputs in channels.items()})

    def forward(self, image):
        fine = self.down[0](image)
        middle = self.down[1](functional.max_pool2d(fine, 2))
        coarse = self.down[2](functional.max_pool2d(middle, 2))
        middle = self.up[0](torch.cat([middle, functional.interpolate(coarse, scale_factor=2)], 1))
        fine = self.up[1](torch.cat([fine, functional.interpolate(middle, scale_factor=2)], 1))
        return {task: head(fine) for task, head in self.heads.items()}


def losses(model, batch):
    out = model(batch["image"])
    seen = (batch["depth"] > 0).float()
    normals = functional.cosine_similarity(out["normals"], batch["normal"], dim=1)
    return {
        "classes": functional.cross_entropy(out["classes"], batch["label"], ignore_index=-1),
        "depth": ((out["depth"][:, 0] - batch["depth"]).abs() * seen).sum() / seen.sum(),
        "normals": ((1 - normals) * seen).sum() / seen.sum(),
    }


# %%
data = {
    "image": stacked("image").permute(0, 3, 1, 2),
    "label": stacked("label"),
    "depth": stacked("depth"),
    "normal": stacked("normal").permute(0, 3, 1, 2),
}
train, test = ({name: rows[part] for name, rows in data.items()} for part in (slice(0, 64), slice(64, 72)))


def trained(method, steps=120):
    torch.manual_seed(0)
    model = UNet()
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), torch.optim.Adam(model.parameters(), 3e-3), method)
    for _ in range(steps):
        chosen = torch.randint(64, (8,))
        mtl.step({name: rows[chosen] for name, rows in train.items()})
    return model


models = {method: trained(method) for method in ("ls", "fairgrad@last")}
with torch.no_grad():
    for method, model in models.items():
        print(f"{method:14}", "   ".join(f"{task} {float(loss):.3f}" for task, loss in losses(model, test).items()))

# %%
# What the balanced network sees in a room that it was not trained on. 120 steps are few: borders of classes stay soft.
with torch.no_grad():
    out = models["fairgrad@last"](test["image"][:1])
shown = {
    "image": test["image"][0].permute(1, 2, 0),
    "classes": out["classes"][0].argmax(0),
    "depth": out["depth"][0, 0],
    "normals": functional.normalize(out["normals"][0], dim=0).permute(1, 2, 0) / 2 + 0.5,
    "true classes": test["label"][0],
    "true depth": test["depth"][0],
    "true normals": test["normal"][0].permute(1, 2, 0) / 2 + 0.5,
}
alternative = "A rendered room; its classes, depth and normals as predicted and as they are"
figure, axes = plt.subplots(2, 4, figsize=(9, 3.8), num=alternative)
for ax, name in zip(axes.flat, ("image", "classes", "depth", "normals", "", *list(shown)[4:]), strict=True):
    ax.axis("off")
    if name:
        limits = {"vmin": 0, "vmax": 12, "cmap": "tab20"} if "classes" in name else {}
        ax.imshow(shown[name].clamp(0, None).numpy(), **limits)
        ax.set_title(name, fontsize=9)
figure.tight_layout()
