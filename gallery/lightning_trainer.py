"""Lightning: a module whose loss is balanced

A `BalancedModule` is a `LightningModule` that asks for losses instead of one loss. Lightning does everything else: here
bfloat16, accumulation over two batches, gradient clipping, and a checkpoint from which training resumes exactly.
"""

# %%
import tempfile
import warnings
from pathlib import Path

import lightning.pytorch as pl
import matplotlib.pyplot as plt
import torch
from torch import nn

from equipoise.integrations import BalancedModule

warnings.filterwarnings("ignore")
torch.manual_seed(0)
inputs = torch.randn(512, 6)
targets = torch.stack([inputs[:, 0] * inputs[:, 1], 30 * torch.sin(inputs[:, 1])], 1)
rows = torch.utils.data.TensorDataset(inputs, targets)
loader = torch.utils.data.DataLoader(rows, batch_size=32)


# %%
# The method is text, as on the command line: FairGrad with α = 2, its Gramian from the last shared layer. It is a
# hyperparameter of the module and is saved with it.
class Network(BalancedModule):
    def __init__(self, method):
        super().__init__(method)
        self.encoder = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh())
        self.heads = nn.ModuleDict({"quiet": nn.Linear(32, 1), "loud": nn.Linear(32, 1)})
        self.curve = []

    def losses(self, batch):
        inputs, targets = batch
        features = self.encoder(inputs)
        errors = {task: head(features).squeeze(-1) - targets[:, k] for k, (task, head) in enumerate(self.heads.items())}
        losses = {task: error.square().mean() for task, error in errors.items()}
        self.curve.append([float(loss) for loss in losses.values()])
        return losses

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


# %%
# Lightning trains as always. The report of the last step tells what the balancer did.
folder = Path(tempfile.mkdtemp())
options = {
    "accelerator": "cpu",
    "precision": "bf16-mixed",
    "accumulate_grad_batches": 2,
    "gradient_clip_val": 1.0,
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "default_root_dir": folder,
}


def fitted(method, epochs=12, **more):
    torch.manual_seed(0)
    module = Network(method)
    pl.Trainer(max_epochs=epochs, **{**options, "enable_checkpointing": False, **more}).fit(module, loader)
    return module


modules = {method: fitted(method) for method in ("ls", "fairgrad:alpha=2@last")}
for method, module in modules.items():
    quiet, loud = torch.tensor(module.curve[-16:]).mean(0).tolist()
    print(f"{method:22} quiet {quiet:.3f}   loud {loud:.2f}")
print("weights of the last step:", [round(weight, 4) for weight in modules["fairgrad:alpha=2@last"].report.weights.tolist()])

# %%
# Stopped and resumed training gives the same parameters as training that never stopped.
keep = pl.callbacks.ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)
whole = fitted("fairgrad", epochs=2, callbacks=[keep], enable_checkpointing=True)
resumed = Network("fairgrad")
trainer = pl.Trainer(max_epochs=2, **{**options, "enable_checkpointing": False})
trainer.fit(resumed, loader, ckpt_path=folder / "epoch=0.ckpt", weights_only=True)
print("the same bits:", all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True)))

# %%
figure, axes = plt.subplots(1, 2, figsize=(8, 2.8), num="Losses of both tasks with equal weighting and FairGrad")
for place, task in enumerate(("quiet", "loud")):
    for method, module in modules.items():
        axes[place].plot(torch.tensor(module.curve)[:, place].unfold(0, 16, 8).mean(1), label=method)
    axes[place].set(title=task, yscale="log", xlabel="half epochs")
axes[0].legend(fontsize=8)
figure.tight_layout()
