"""Low-rank adapters of a small causal language model on three domains: a balanced step next to plain fine-tuning.

``python -m benchmarks.language_models times|memory|quality``; needs transformers and PEFT, downloads nothing.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

import equipoise as eq
from benchmarks.tables import duration, table
from benchmarks.timing import race

__all__ = ["main"]

Batch = Mapping[str, Tensor]
Losses = Callable[[nn.Module, Batch], dict[str, Tensor]]
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
WORDS = 64


def model(width: int = 256, layers: int = 6, seed: int = 0) -> nn.Module:
    """A Llama-like model with random weights, frozen, and adapters of rank 8 in all its linear maps."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=WORDS, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers, num_attention_heads=4
    )
    adapters = LoraConfig(r=8, lora_alpha=16, target_modules=TARGETS, task_type="CAUSAL_LM")
    adapted: nn.Module = get_peft_model(LlamaForCausalLM(config), adapters)
    return adapted


def batch(rows: int = 8, length: int = 32, seed: int = 0) -> Batch:
    """Counting with a stride, a motif that repeats, and a text that is then read backwards."""
    draw = torch.Generator().manual_seed(seed)
    start, stride = torch.randint(20, (rows, 1), generator=draw), torch.randint(1, 5, (rows, 1), generator=draw)
    half = torch.randint(40, WORDS, (rows, length // 2), generator=draw)
    return {
        "count": (start + stride * torch.arange(length)) % 20,
        "motif": torch.randint(20, 40, (rows, 4), generator=draw).repeat(1, length // 4),
        "mirror": torch.cat([half, half.flip(1)], 1),
    }


def apart(net: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """A forward pass per domain."""
    return {name: net(input_ids=ids, labels=ids).loss for name, ids in batch.items()}


def together(net: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """One forward pass of all domains' rows."""
    logits = net(input_ids=torch.cat(list(batch.values()))).logits[:, :-1]
    parts = logits.split([len(ids) for ids in batch.values()])
    pairs = zip(parts, batch.items(), strict=True)
    return {name: nn.functional.cross_entropy(part.flatten(0, 1), ids[:, 1:].flatten()) for part, (name, ids) in pairs}


def _optimizer(net: nn.Module, lr: float = 1e-3) -> torch.optim.Optimizer:
    return torch.optim.AdamW([own for own in net.parameters() if own.requires_grad], lr)


def _plain(losses: Losses, **size: int) -> Callable[[int], object]:
    net = model(**size)
    optimizer = _optimizer(net)

    def step(turn: int) -> None:
        optimizer.zero_grad()
        torch.stack(list(losses(net, batch(seed=turn)).values())).sum().backward()
        optimizer.step()

    return step


def _step(losses: Losses, proxy: str | None = None, *, size: Mapping[str, int] | None = None, **options: object):  # type: ignore[no-untyped-def]
    net = model(**(size or {}))
    given = None if proxy is None else eq.Proxy(proxy, audit=0)
    mtl = eq.MultiTaskOptimizer(eq.Objective(net, losses), _optimizer(net), "fairgrad", proxy=given, **options)  # type: ignore[arg-type]
    return lambda turn: mtl.step(batch(seed=turn))


def _loss(losses: Losses, proxy: str, *, size: Mapping[str, int] | None = None) -> Callable[[int], object]:
    net = model(**(size or {}))
    optimizer, balancer, kept = _optimizer(net), eq.FairGrad(), eq.Proxy(proxy, audit=0)

    def step(turn: int) -> None:
        optimizer.zero_grad()
        eq.balanced_loss(losses(net, batch(seed=turn)), balancer, kept).backward()
        optimizer.step()

    return step


WAYS: dict[str, Losses] = {"apart": apart, "together": together}


def times(budget: float) -> None:
    """Whole steps over those of plain fine-tuning."""
    rows = []
    for name, losses in WAYS.items():
        runs = {
            "plain": _plain(losses),
            "exact": _step(losses),
            "`last`": _step(losses, "last"),
            "`balanced_loss`, `last`": _loss(losses, "last"),
        }
        found = race(runs, seconds=60 * budget)
        ratios = [f"{found.ratio(each, 'plain'):.2f}" for each in list(runs)[1:]]
        rows.append([name, duration(found.median("plain")), *ratios, str(found.rounds("plain"))])
    print(table(["domains", *runs, "rounds"], rows))


def memory() -> None:
    """Peaks in fresh processes, beyond that of plain fine-tuning, and sizes of checkpoints."""
    rows = []
    for name in WAYS:
        peaks = [_peak(name, kind) for kind in ("plain", "exact", "last", "loss")]
        rows.append([name, f"{peaks[0] / 2**20:.0f} MiB", *(f"{(peak - peaks[0]) / 2**20:.0f} MiB" for peak in peaks[1:])])
    print(table(["domains", "plain", "exact beyond", "`last` beyond", "`balanced_loss` beyond"], rows))
    net = model(width=512, layers=8)
    mtl = eq.MultiTaskOptimizer(eq.Objective(net, apart), _optimizer(net), "fairgrad")
    mtl.step(batch(2))
    whole, part = (_bytes(mtl.state_dict(trainable_only=only)) for only in (False, True))
    print(f"\nA checkpoint: {whole / 2**20:.1f} MiB; with trainable_only=True {part / 2**20:.1f} MiB.")


def _bytes(state: object) -> int:
    import io

    file = io.BytesIO()
    torch.save(state, file)
    return file.tell()


def _peak(way: str, kind: str) -> int:
    command = [sys.executable, "-m", "benchmarks.language_models", "one", "--way", way, "--kind", kind]
    return int(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def _one(way: str, kind: str) -> None:
    losses, size = WAYS[way], {"width": 512, "layers": 8}
    run = {
        "plain": lambda: _plain(losses, **size),
        "exact": lambda: _step(losses, size=size),
        "last": lambda: _step(losses, "last", size=size),
        "loss": lambda: _loss(losses, "last", size=size),
    }[kind]()
    for turn in range(3):
        run(turn)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def quality(seeds: int, steps: int) -> None:
    """Held-out losses of the domains after as many steps, with lr 3e-3; the last column is the worst domain's."""
    held_out, rows = batch(64, seed=10**6), []
    for method in ("ls", "fairgrad", "fairgrad@last", "famo", "si"):
        found = []
        for seed in range(seeds):
            net = model(64, 2, seed)
            mtl = eq.MultiTaskOptimizer(eq.Objective(net, apart), _optimizer(net, 3e-3), method)
            for turn in range(steps):
                mtl.step(batch(seed=seed * 1000 + turn))
            with torch.no_grad():
                found.append(torch.stack(list(apart(net, held_out).values())))
        each = torch.stack(found)
        cells = [f"{mean:.2f} ± {spread:.2f}" for mean, spread in zip(each.mean(0), each.std(0), strict=True)]
        rows.append([method, *cells, f"{each.max(1).values.mean():.2f}"])
    print(table(["method", *held_out, "worst"], rows))


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.language_models")
    parser.add_argument("what", choices=("times", "memory", "quality", "one"))
    parser.add_argument("--budget", type=float, default=1.0, help="relative to the usual (default 1)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--way", choices=tuple(WAYS), default="apart", help="of one process of the memory's table")
    parser.add_argument("--kind", default="plain", help="of one process of the memory's table")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if options.what == "times":
        times(options.budget)
    elif options.what == "memory":
        memory()
    elif options.what == "quality":
        quality(options.seeds, options.steps)
    else:
        _one(options.way, options.kind)


if __name__ == "__main__":
    main()
