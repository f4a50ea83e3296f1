"""Hugging Face: a Trainer with several losses

A small BERT, made from its configuration and not downloaded, reads sequences of digits and answers two questions. Which
digit occurs most often, and what is the sum (minus 54, its mean)? `BalancedTrainer` is a `transformers.Trainer` that
takes a function of losses.
"""

# %%
import tempfile

import matplotlib.pyplot as plt
import torch
import transformers
from torch import nn

from equipoise.integrations import BalancedTrainer

transformers.logging.set_verbosity_error()
generator = torch.Generator().manual_seed(0)


def sequences(rows, length=12):
    tokens = torch.randint(10, (rows, length), generator=generator)
    mode = nn.functional.one_hot(tokens, 10).sum(1).argmax(1)
    return [{"tokens": own, "mode": most, "sum": own.sum() - 54.0} for own, most in zip(tokens, mode, strict=True)]


train, test = sequences(2000), sequences(400)


# %%
# One encoder, one head per question.
class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        config = transformers.BertConfig(
            vocab_size=10, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96,
            max_position_embeddings=16, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        self.encoder = transformers.BertModel(config, add_pooling_layer=False)
        self.mode, self.sum = nn.Linear(48, 10), nn.Linear(48, 1)

    def forward(self, tokens):
        features = self.encoder(tokens).last_hidden_state.mean(1)
        return self.mode(features), self.sum(features).squeeze(-1)


def losses(model, batch):
    mode, total = model(batch["tokens"])
    found = {"mode": nn.functional.cross_entropy(mode, batch["mode"]), "sum": nn.functional.mse_loss(total, batch["sum"])}
    return found, {"mode": mode, "sum": total}


# %%
# The trainer's arguments, evaluation and checkpoints are those of `transformers`. It also logs the weight of each task.
def trained(method):
    transformers.set_seed(0)
    arguments = transformers.TrainingArguments(
        output_dir=tempfile.mkdtemp(), num_train_epochs=8, per_device_train_batch_size=50, learning_rate=2e-3,
        max_grad_norm=1.0,
        logging_steps=10, save_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True, remove_unused_columns=False,
    )  # fmt: skip
    trainer = BalancedTrainer(Reader(), arguments, losses=losses, balancer=method, train_dataset=train, eval_dataset=test)
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    return trainer


trainers = {method: trained(method) for method in ("ls", "fairgrad")}
for method, trainer in trainers.items():
    found = trainer.evaluate()
    print(
        f"{method:10} cross-entropy of mode {found['eval_loss_mode']:.2f}   squared error of sum {found['eval_loss_sum']:.1f}"
    )

# %%
# The weight of each task over training: FairGrad adapts to the scale of the losses.
figure, ax = plt.subplots(figsize=(5, 2.8), num="Weights of the two tasks that FairGrad gave over the steps of training")
for task in ("mode", "sum"):
    rows = [row for row in trainers["fairgrad"].state.log_history if f"balancing/weight/{task}" in row]
    ax.plot([row["step"] for row in rows], [row[f"balancing/weight/{task}"] for row in rows], label=task)
ax.set(xlabel="step", ylabel="weight", yscale="log")
ax.legend()
figure.tight_layout()
