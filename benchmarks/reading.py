"""How fast data sets are read from files: images per second, with and without workers and cache.

Made of samples with the sizes of the real sets, freshly written and so in the operating system's cache: what is measured is
decoding, augmenting and passing on, not the disk. Rates are by the clock, since workers are other processes; beside them
stands what reading takes from the process that trains. Nothing trains meanwhile, so workers gain less here than they would.
"""

from __future__ import annotations

import itertools
import random
import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sized
from pathlib import Path
from time import perf_counter, process_time

import torch

from benchmarks.tables import duration, table
from equipoise.data import alternate, celeba_loaders, nyuv2_loaders, qm9_loaders, zip_loaders
from equipoise_papers.samples import write_celeba_sample, write_nyuv2_sample, write_qm9_sample

__all__ = ["run"]

Say = Callable[[str], None]
Batches = Callable[[], Iterable[object]]

SCENES, FACES, MOLECULES, STEPS = 60, 2048, 3000, 400


def run(say: Say, *, budget: float = 1.0) -> None:
    """Prints one table per data set."""
    rounds = max(2, round(5 * budget))
    _mixed(say, rounds)
    with tempfile.TemporaryDirectory() as folder:
        _scenes(say, Path(folder), rounds)
        _faces(say, Path(folder), rounds)
        _molecules(say, Path(folder), rounds)


def _mixed(say: Say, rounds: int) -> None:
    """What mixing costs beside a loop of one's own, where loading costs as little as it can."""

    def loaders() -> dict[str, torch.utils.data.DataLoader[object]]:
        sizes = {"large": STEPS * 16, "small": STEPS * 4}
        sets = {name: torch.utils.data.TensorDataset(torch.randn(size, 32)) for name, size in sizes.items()}
        return {name: torch.utils.data.DataLoader(own, batch_size=16, shuffle=True) for name, own in sets.items()}

    def endless(loader: Iterable[object]) -> Iterator[object]:
        while True:
            yield from loader

    own = loaders()

    def zipped_by_hand() -> Iterable[object]:
        pairs = zip(own["large"], endless(own["small"]), strict=False)
        return ({"large": one, "small": other} for one, other in pairs)

    def alternating_by_hand() -> Iterable[object]:
        order = [name for name, loader in own.items() for _ in range(len(loader))]
        random.Random(0).shuffle(order)
        running = {name: iter(loader) for name, loader in own.items()}
        return ({name: next(running[name])} for name in itertools.islice(order, STEPS))

    zipped, mixed = zip_loaders(loaders()), alternate(loaders(), STEPS)
    both = {"by hand": zipped_by_hand, "zip_loaders": zipped.__iter__}
    either = {"by hand": alternating_by_hand, "alternate": mixed.__iter__}
    say("## Two data sets, a batch of each per step\n\n" + _race(both, STEPS, rounds, "steps"))
    say("## Two data sets, a batch of one of them per step\n\n" + _race(either, STEPS, rounds, "steps"))


def _scenes(say: Say, folder: Path, rounds: int) -> None:
    root = write_nyuv2_sample(folder / "nyuv2", images=SCENES, test_images=1, size=(288, 384))
    ways: dict[str, Batches] = {}
    for workers in (0, 2):
        ways[f"{workers} workers"] = nyuv2_loaders(root, 2, augmentation=None, workers=workers)[0].__iter__
        ways[f"{workers} workers, augmented"] = nyuv2_loaders(root, 2, workers=workers)[0].__iter__
    say("## Reading NYUv2\n\n288×384, four `.npy` files per scene, batches of 2.\n\n" + _race(ways, SCENES, rounds))


def _faces(say: Say, folder: Path, rounds: int) -> None:
    root = write_celeba_sample(folder / "celeba", images=2 * FACES)
    ways: dict[str, Batches] = {}
    start = perf_counter()
    for cache in (None, folder / "cache"):
        for workers in (0, 2):
            name = f"{workers} workers" + (", cached" if cache else "")
            ways[name] = celeba_loaders(root, 256, cache=cache, workers=workers)[0].__iter__
    filled = perf_counter() - start
    say(
        "## Reading CelebA\n\nJPEG of 178×218 to 64×64, batches of 256.\n\n"
        + _race(ways, FACES, rounds)
        + f"\n\nFilling the cache, once, with all {2 * FACES:,} images: {2 * FACES / filled:,.0f} images/s."
    )


def _molecules(say: Say, folder: Path, rounds: int) -> None:
    from torch_geometric.datasets import QM9
    from torch_geometric.loader import DataLoader
    from torch_geometric.transforms import Compose, Distance

    root = write_qm9_sample(folder / "qm9", molecules=MOLECULES + 2)
    ways: dict[str, Batches] = {
        f"{workers} workers": qm9_loaders(root, 120, held_out=1, workers=workers)[0].__iter__ for workers in (0, 2)
    }
    theirs = QM9(str(root), transform=Compose([_complete, Distance(norm=False)]))[:MOLECULES]
    for workers in (0, 2):
        loader = DataLoader(theirs, batch_size=120, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
        ways[f"{workers} workers, torch_geometric's loader and transforms"] = loader.__iter__
    say("## Reading QM9\n\nComplete graphs with distances, batches of 120.\n\n" + _race(ways, MOLECULES, rounds, "molecules"))


def _complete(graph: object) -> object:
    """Joins all atoms of one molecule, as a transform."""
    count = graph.num_nodes  # type: ignore[attr-defined]
    kinds = torch.zeros(count, count, 4)
    kinds[tuple(graph.edge_index)] = graph.edge_attr  # type: ignore[attr-defined]
    pairs = (~torch.eye(count, dtype=torch.bool)).nonzero().T
    graph.edge_index, graph.edge_attr = pairs, kinds[tuple(pairs)]  # type: ignore[attr-defined]
    return graph


def _race(ways: dict[str, Batches], rows: int, rounds: int, what: str = "images") -> str:
    """One epoch of each way in each round, after one to warm up; the ratio is taken within rounds."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    own_time: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, begin in ways.items():
            start, processor = perf_counter(), process_time()
            for batch in begin():
                assert isinstance(batch, Sized)
            if turn:
                rates[name].append(rows / (perf_counter() - start))
                own_time[name].append((process_time() - processor) / rows)
    first = next(iter(rates.values()))
    lines = [
        [
            name,
            f"{statistics.median(own):,.0f}",
            f"{min(own):,.0f} to {max(own):,.0f}",
            f"{statistics.median(one / base for one, base in zip(own, first, strict=True)):.2f}",
            duration(statistics.median(own_time[name])),
        ]
        for name, own in rates.items()
    ]
    head = ["way", f"{what}/s", "range", "relative to the first", "processor time of the training process, each"]
    return table(head, lines)
