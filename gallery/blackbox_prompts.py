"""Prompts of a model that only answers queries

A served model takes a prompt and images, and answers with class scores. No gradients come back. One prompt should serve
two tasks. `blackbox.minimize` tunes it by queries alone: ASMG draws prompts, looks at the losses of both tasks, and
moves its distribution along a direction that serves both.
"""

# %%
# Our "served model" is a small network behind a function. It scores images against class vectors that the prompt
# shifts. One task sees the digits upright, the other sees them mirrored.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from equipoise.blackbox import minimize
from equipoise_papers.prompts import BlackBoxPrompt, CallableModel, PromptTask

rng = np.random.default_rng(0)
bundled = load_digits()
hidden = rng.normal(0, 1 / 8, (64, 32))  # the encoder's weights, which nobody sees
prototypes = rng.normal(0, 0.3, (10, 32))


def encoded(images):
    return np.tanh(images.reshape(len(images), 64) / 16 @ hidden * 4)


def served(prompts, images):
    """Scores [prompts, images, classes]: the prompt's ten tokens shift the ten classes' vectors."""
    return np.einsum("bce,ne->bnc", prototypes + prompts, encoded(images))


def task(name, images):
    order = rng.permutation(len(images))
    rows = {"train": order[:600], "test": order[600:]}
    return PromptTask(name, {k: images[r] for k, r in rows.items()}, {k: bundled.target[r] for k, r in rows.items()})


tasks = [task("upright", bundled.images), task("mirrored", bundled.images[:, :, ::-1])]
model = CallableModel(served, embedding_size=32)

# %%
# The prompt has 10 × 32 numbers; a random projection makes them from 64 numbers. The search may use 6,000 queries.
curves, found = {}, {}
for name, options in {"ASMG": {"lr": 0.5}, "the sum, by CMA-ES": {"method": "cma-es"}}.items():
    prompt = BlackBoxPrompt(model, tasks, tokens=10, dim=64, batch_size=64, budget=6000, seed=0)
    before = prompt.accuracies(np.zeros(64))
    result = minimize(prompt, np.zeros(64), batched=True, evaluations=6000, samples=50, seed=0, **options)
    found[name] = prompt.accuracies(result.x)
    told = "   ".join(f"{task} {before[task]:.1f} % → {share:.1f} %" for task, share in found[name].items())
    print(f"{name:20} {prompt.queries} queries   {told}")
    curves[name] = result.objectives

# %%
figure, axes = plt.subplots(1, 2, figsize=(8, 2.8), num="Mean losses of both tasks over the queries for two searches")
for place, ax in enumerate(axes):
    for name, curve in curves.items():
        ax.plot(np.linspace(0, 6000, len(curve)), curve[:, place], label=name)
    ax.set(title=tasks[place].name, xlabel="queries", ylabel="cross-entropy")
axes[0].legend(fontsize=8)
figure.tight_layout()
