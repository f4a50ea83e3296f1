"""The price of a balanced step over plain training, and how near a proxy's direction is to the exact one and to the truth."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

import equipoise as eq
from benchmarks import peers
from benchmarks.memory import peak
from benchmarks.memory_process import SHARED
from benchmarks.price_networks import NETWORKS, POST_NORM, PricedProblem
from benchmarks.tables import duration, table
from benchmarks.timing import Times, race
from equipoise.engine.proxy import LastLayers
from equipoise.step.proxying import cosine

__all__ = ["main", "run"]

TASKS = (11, 40)
METHODS = ("fairgrad", "nash-mtl", "cagrad", "upgrad", "imtl-g", "mgda")
PROXIES: dict[str, str | LastLayers] = {
    "features": "features",
    "last": "last",
    "last, no stream": LastLayers(1, stream=False),
    "last 2": "last 2",
}
SPLIT = ("exact norms, cosines of last", "exact cosines, norms of last")
MEMORIES = ("exact", "last", "last, memory 0.5", "last, memory 0.9")
TIMED = "imtl-g"
TRUTH = 8
Say = Callable[[str], None]
Step = Callable[[int], object]


def run(say: Say, *, budget: float = 1.0, networks: tuple[PricedProblem, ...] = NETWORKS) -> None:
    """Prints the tables.

    Args:
        say: takes each line or table.
        budget: seconds per race and steps of training, relative to the usual.
        networks: those to run.
    """
    sizes = "; ".join(f"{problem.name}: {problem.shared():,}" for problem in networks)
    say(
        f"## The price of a balanced step\n\nShared parameters: {sizes}. Heads of two layers (→ 16 → 1) per task, targets of "
        "noisy teachers whose scales span three decades over the tasks, Adam."
    )
    _times(say, budget, networks)
    _nearness(say, budget, (*networks, *POST_NORM))
    _memory(say)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one table, of some networks."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.price")
    parser.add_argument("table", choices=("times", "nearness"))
    parser.add_argument("networks", nargs="*", help="their names, all if left out")
    parser.add_argument("--budget", type=float, default=1.0, help="relative to the usual (default 1)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    chosen = tuple(problem for problem in (*NETWORKS, *POST_NORM) if problem.name in options.networks or not options.networks)
    (_times if options.table == "times" else _nearness)(print, options.budget, chosen)


def _times(say: Say, budget: float, networks: tuple[PricedProblem, ...]) -> None:
    rows, worst = [], 0.0
    for problem in networks:
        for tasks in TASKS:
            result = race(
                {
                    "plain": _plain(problem, tasks),
                    "FAMO": _optimizer(problem, tasks, "famo"),
                    "proxy": _optimizer(problem, tasks, TIMED, proxy=eq.Proxy("last", audit=0)),
                    "loss": _loss(problem, tasks),
                    "audited": _optimizer(problem, tasks, TIMED, proxy="last"),
                    "features": _optimizer(problem, tasks, TIMED, proxy=eq.Proxy("features", audit=0)),
                    "exact": _optimizer(problem, tasks, TIMED),
                    **_torchjd(problem, tasks),
                },
                seconds=budget * (12.0 if tasks < 40 else 24.0),
            )
            worst = max(worst, result.spread("proxy", "plain"))
            names = ("proxy", "loss", "features", "FAMO", "exact", "TorchJD", "TorchJD engine")
            rows.append(
                [
                    problem.name,
                    str(tasks),
                    duration(result.median("plain")),
                    *(_against(result, name) for name in names),
                    str(result.rounds("proxy")),
                ]
            )
    head = ["network", "K", "plain", '`proxy="last"`', "`balanced_loss`", '`proxy="features"`', "FAMO", "exact", "TorchJD rows"]
    say(
        "### Time over plain training\n\nWhole steps with IMTL-G, optimizer included, audits left out: they add at most a "
        "tenth by default. TorchJD rows: `mtl_backward` and `jac_to_grad`; TorchJD engine: its Gramian engine, then a weighted "
        "backward pass.\n\n"
        + table([*head, "TorchJD engine", "rounds"], rows)
        + f"\n\nHalf the range between the quartiles of proxy / plain is at most {100 * worst:.0f} %."
    )


def _nearness(say: Say, budget: float, networks: tuple[PricedProblem, ...]) -> None:
    same, truth = [], []
    for problem in networks:
        for tasks in TASKS:
            near, true = _cosines(problem, tasks, steps=max(1, round(300 * budget)))
            first = [problem.name, str(tasks)]
            names = (*PROXIES, *SPLIT, "another batch")
            same += [[*first, name, *(f"{near[name, method]:.3f}" for method in METHODS)] for name in names]
            truth += [[*first, name, *(f"{true[name, method]:.3f}" for method in METHODS)] for name in MEMORIES]
    head = ["network", "K", "weights from", *METHODS]
    say(
        f"### Cosine to the exact direction of the same batch\n\nMeans over 5 batches after {round(300 * budget)} steps of "
        'FairGrad with `proxy="last"`; `another batch`: the exact weights of the next batch.\n\n' + table(head, same)
    )
    say(
        f"### Cosine to the direction of {TRUTH} batches\n\nDirections are taken on these {TRUTH} batches, with the weights "
        "from one of them, against those of all.\n\n" + table(head, truth)
    )


def _memory(say: Say) -> None:
    rows = []
    for tasks in TASKS:
        plain, buffer = peak("plain", tasks), tasks * SHARED * 4
        cells = [f"{(peak(name, tasks) - plain) / 2**20:.0f} MiB" for name in ("ours, proxy", "ours, streamed", "ours")]
        rows.append([str(tasks), f"{plain / 2**20:.0f} MiB", f"{buffer / 2**20:.0f} MiB", *cells])
    say(
        f"### Memory\n\nPeaks of an MLP with {SHARED:,} shared parameters, batch 64, each in a fresh process.\n\n"
        + table(["K", "plain", "K·P·4 bytes", "proxy beyond plain", "streamed beyond plain", "exact beyond plain"], rows)
    )


def _plain(problem: PricedProblem, tasks: int) -> Step:
    model, batch = problem.network(tasks), problem.batch(tasks)
    optimizer = _adam(model)

    def step(_: int) -> None:
        losses = problem.losses(model, batch)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()

    return step


def _optimizer(problem: PricedProblem, tasks: int, method: str, **options: object) -> Step:
    model, batch = problem.network(tasks), problem.batch(tasks)
    mtl = eq.MultiTaskOptimizer(eq.Objective(model, problem.losses), _adam(model), method, **options)  # type: ignore[arg-type]
    return lambda _: mtl.step(batch)


def _loss(problem: PricedProblem, tasks: int) -> Step:
    model, batch = problem.network(tasks), problem.batch(tasks)
    optimizer, balancer, proxy = _adam(model), eq.balancer(TIMED), eq.Proxy("last", audit=0)

    def step(_: int) -> None:
        loss = eq.balanced_loss(problem.losses(model, batch), balancer, proxy)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _torchjd(problem: PricedProblem, tasks: int) -> dict[str, Step]:
    if not peers.torchjd():
        return {}
    from torchjd.aggregation import IMTLG, IMTLGWeighting
    from torchjd.autogram import Engine
    from torchjd.autojac import jac_to_grad, mtl_backward

    model, batch = problem.network(tasks), problem.batch(tasks)
    optimizer, aggregator = _adam(model), IMTLG()

    def rows(_: int) -> None:
        features = model.encoder(*batch[0])
        outputs = {name: head(features).squeeze(-1) for name, head in model.heads.items()}
        losses = [torch.nn.functional.mse_loss(out, batch[1][..., k]) for k, out in enumerate(outputs.values())]
        optimizer.zero_grad()
        mtl_backward(losses, features=features, parallel_chunk_size=1)
        jac_to_grad(model.encoder.parameters(), aggregator)
        optimizer.step()

    other = problem.network(tasks)
    optimizer_too, weighting, engine = _adam(other), IMTLGWeighting(), Engine(other.encoder, batch_dim=None)

    def by_engine(_: int) -> None:
        losses = torch.stack(list(problem.losses(other, batch).values()))
        optimizer_too.zero_grad()
        losses.backward(weighting(engine.compute_gramian(losses)))
        optimizer_too.step()

    return {"TorchJD": rows, "TorchJD engine": by_engine}


def _adam(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), 1e-3)


def _against(result: Times, name: str) -> str:
    if name in result.failed:
        return result.failed[name]
    return f"{result.ratio(name, 'plain'):.2f}×" if result.rounds(name) else "–"


def _cosines(
    problem: PricedProblem, tasks: int, steps: int
) -> tuple[Mapping[tuple[str, str], float], Mapping[tuple[str, str], float]]:
    """Cosines to the exact direction on the same batch, and to the direction of several batches; by source and method."""
    model = problem.network(tasks)
    objective = eq.Objective(model, problem.losses)
    optimizer = _adam(model)
    mtl = eq.MultiTaskOptimizer(objective, optimizer, "fairgrad", proxy=eq.Proxy("last", audit=0))
    for number in range(steps):
        mtl.step(problem.batch(tasks, number))
    rounds = 5
    near: dict[tuple[str, str], float] = {}
    true: dict[tuple[str, str], float] = {}
    numbers = range(steps, steps + TRUTH)
    rows = [_rows(problem, model, tasks, number) for number in numbers]
    exact = [matrix @ matrix.T for matrix in rows]
    whole = torch.stack(rows).mean(0)
    everything = whole @ whole.T
    # The steps are none, for nothing moves: the point is the same in all that follows.
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    found: dict[str, list[Tensor]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, source in PROXIES.items():
            probe = eq.MultiTaskOptimizer(objective, optimizer, "fairgrad", proxy=eq.Proxy(source, audit=0))
            found[name] = []
            for number in numbers:
                model.train()
                probe.step(problem.batch(tasks, number))
                assert probe.last is not None
                gramian = probe.last.gramian
                assert gramian is not None
                found[name].append(gramian)
    for factor in (0.5, 0.9):
        keeper = eq.Proxy("last", memory=factor, audit=0)
        found[f"last, memory {factor}"] = [keeper.blend(gramian, range(tasks), tasks) for gramian in found["last"]]
    pairs = list(zip(exact, found["last"], strict=True))
    found[SPLIT[0]] = [_with_norms(near_it, true_one) for true_one, near_it in pairs]
    found[SPLIT[1]] = [_with_norms(true_one, near_it) for true_one, near_it in pairs]
    found["exact"] = exact
    found["another batch"] = [*exact[1:], exact[0]]
    for method in METHODS:
        answers = [eq.balancer(method).weights(gramian) for gramian in exact]
        best = eq.balancer(method).weights(everything)
        for name, gramians in found.items():
            weights = [eq.balancer(method).weights(gramian) for gramian in gramians]
            last = zip(exact[-rounds:], weights[-rounds:], answers[-rounds:], strict=True)
            near[name, method] = sum(cosine(matrix, ours, theirs)[0] for matrix, ours, theirs in last) / rounds
            true[name, method] = sum(cosine(everything, ours, best)[0] for ours in weights[-rounds:]) / rounds
    return near, true


def _with_norms(gramian: Tensor, other: Tensor) -> Tensor:
    """The cosines of the one with the norms of the other."""
    ratio = (other.diagonal() / gramian.diagonal()).sqrt()
    return gramian * ratio * ratio[:, None]


def _rows(problem: PricedProblem, model: torch.nn.Module, tasks: int, number: int) -> Tensor:
    """Exact task gradients ``[K, P]`` in float64."""
    leaves = list(model.get_submodule("encoder").parameters())
    rows = []
    losses = list(problem.losses(model, problem.batch(tasks, number)).values())
    for loss in losses:
        found = torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True)
        flat = [(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(leaves, found, strict=True)]
        rows.append(torch.cat(flat))
    return torch.stack(rows).double()


if __name__ == "__main__":
    main()
