"""LoRA on three data sets

A small language model with low-rank adapters learns three data sets at once, each with its own batches. The base
stays frozen. There is one loss per data set, and any balancer takes them.
"""

# %%
# The base is a tiny Llama made from its configuration: random, frozen, and not downloaded. The three data sets are
# counting up, a repeated motif of four tokens, and a sequence followed by its mirror image.
import matplotlib.pyplot as plt
import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch.utils.data import DataLoader

import equipoise as eq
from equipoise.data import zip_loaders

transformers.logging.set_verbosity_error()
torch.manual_seed(0)
rows, length = 384, 16
half = torch.randint(40, 64, (rows, length // 2))
domains = {
    "count": (torch.randint(20, (rows, 1)) + torch.arange(length)) % 20,
    "motif": torch.randint(20, 40, (rows, 4)).repeat(1, length // 4),
    "mirror": torch.cat([half, half.flip(1)], 1),
}
targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def adapted():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, initializer_range=0.3
    )
    base = transformers.LlamaForCausalLM(config)
    return get_peft_model(base, LoraConfig(r=8, lora_alpha=16, target_modules=targets, task_type="CAUSAL_LM"))


# %%
# Losses come from a batch with one part per data set. `zip_loaders` makes such batches and remembers its place in each
# loader.
def losses(model, batch):
    logits = model(input_ids=torch.cat(list(batch.values()))).logits[:, :-1]
    parts = logits.split([len(ids) for ids in batch.values()])
    return {
        name: torch.nn.functional.cross_entropy(part.flatten(0, 1), ids[:, 1:].flatten())
        for part, (name, ids) in zip(parts, batch.items(), strict=True)
    }


def trained(method, epochs=6):
    model = adapted()
    own = [parameter for parameter in model.parameters() if parameter.requires_grad]
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, losses), torch.optim.AdamW(own, lr=1e-2), method, proxy="last")
    loader = zip_loaders({name: DataLoader(texts, batch_size=32, shuffle=True) for name, texts in domains.items()}, seed=0)
    curve = [mtl.step(batch) for _ in range(epochs) for batch in loader]
    return mtl, {name: [float(step[name]) for step in curve] for name in domains}


# %%
runs = {"ls": trained("ls"), "fairgrad": trained("fairgrad"), "upgrad": trained("upgrad")}
for method, (_, curve) in runs.items():
    print(f"{method:9}", "   ".join(f"{name} {sum(losses[-12:]) / 12:.2f}" for name, losses in curve.items()))

# %%
# These data sets hardly conflict: FairGrad learns to count faster and loses on the motif, and UPGrad ends where the sum
# does. `equipoise diagnose` tells you such things beforehand.
#
# You only need to keep the adapters, which are small, not the base.
state = runs["fairgrad"][0].state_dict(trainable_only=True)
print(f"{len(state['model'])} tensors, all of adapters: {all('lora_' in name for name in state['model'])}")

# %%
figure, axes = plt.subplots(1, 3, figsize=(9.5, 2.8), num="Losses on three data sets with equal weighting, FairGrad and UPGrad")
for ax, name in zip(axes, domains, strict=True):
    for method, (_, curve) in runs.items():
        ax.plot(torch.tensor(curve[name]).unfold(0, 6, 3).mean(1), label=method)
    ax.set(title=name, xlabel="quarter epochs")
axes[0].legend(fontsize=8)
figure.tight_layout()
