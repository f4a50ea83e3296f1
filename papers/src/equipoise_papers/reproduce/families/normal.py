"""NORMAL: the thesis' Tables 5.1 to 5.4."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn
from torch.nn.functional import interpolate

from equipoise.nets import (
    NORMAL,
    NYUV2,
    DeepLab,
    FixedPositions,
    HardSharing,
    PositivePositions,
    ResNet,
    TaskFlow,
    load_weights,
)
from equipoise_papers.reproduce.families import celeba, nyuv2, office
from equipoise_papers.reproduce.families.common import LIBMTL, rows
from equipoise_papers.reproduce.recipe import Part, Recipe, RecipeRow, Setting, hyper
from equipoise_papers.reproduce.study_part import StudyPart

__all__ = ["RECIPES", "NormalDeepLab", "OwnInputs"]

OPEN = (
    "Section 5.5 prints neither learning rate, batch size nor epochs; they are those of section 3.7.2.",
    "ξ of eq. 5.5 is tuned in the thesis and not printed; here it is 0.",
)


class OwnInputs(nn.Module):
    """NORMAL for tasks that have inputs of their own: task → input in, task → output out."""

    def __init__(self, network: NORMAL) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Computes the outputs of the tasks that have an input."""
        return {task: self.network(own, tasks=[task])[task] for task, own in inputs.items()}


class NormalDeepLab(DeepLab):
    """DeepLab with NORMAL's flow between the encoder's maps and the heads."""

    def __init__(self, encoder: ResNet, channels: int) -> None:
        super().__init__(NYUV2, encoder, channels=channels)
        self.flow = TaskFlow.for_maps(tuple(NYUV2), encoder.channels)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Computes every task's output."""
        own = self.flow(self.features(image))
        size = image.shape[-2:]
        return {
            task: self.outputs[task].finish(interpolate(head(own[task]), size, mode="bilinear", align_corners=True))
            for task, head in self.heads.items()
        }


Flow = Callable[[Sequence[str], int], TaskFlow]


def _learned(tasks: Sequence[str], size: int) -> TaskFlow:
    return TaskFlow.for_vectors(tasks, size)


def _identical(tasks: Sequence[str], size: int) -> TaskFlow:
    return TaskFlow.for_vectors(tasks, size, positions=FixedPositions(tasks, 1.0))


def _different(tasks: Sequence[str], size: int) -> TaskFlow:
    return TaskFlow.for_vectors(
        tasks, size, positions=FixedPositions(tasks, [1.0 + 0.25 * place for place in range(len(tasks))])
    )


def _positive(tasks: Sequence[str], size: int) -> TaskFlow:
    return TaskFlow.for_vectors(tasks, size, positions=PositivePositions(tasks))


def _first_order(tasks: Sequence[str], size: int) -> TaskFlow:
    return TaskFlow.for_vectors(tasks, size, first_order=True)


def _office(flow: Flow) -> office.Network:
    def network(setting: Setting, sources: tuple[str, ...], classes: int) -> nn.Module:
        encoder = office.encoder(setting)
        heads = {source: nn.Linear(encoder.channels, classes) for source in sources}
        return OwnInputs(NORMAL(encoder, flow(sources, encoder.channels), heads))

    return network


def _map(size: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(size, size), nn.LeakyReLU(), nn.Linear(size, size))


def _shared_layers(setting: Setting, sources: tuple[str, ...], classes: int) -> nn.Module:
    """As many parameters as the flow's two maps, before the heads."""
    encoder = office.encoder(setting)
    size = encoder.channels
    longer = nn.Sequential(encoder, _map(size), nn.LeakyReLU(), _map(size))
    return HardSharing(longer, {source: nn.Linear(size, classes) for source in sources}, own_inputs=True)


def _own_layers(setting: Setting, sources: tuple[str, ...], classes: int) -> nn.Module:
    """About as many parameters in all, a layer in each head."""
    encoder = office.encoder(setting)
    size = encoder.channels
    heads = {source: nn.Sequential(nn.Linear(size, size), nn.LeakyReLU(), nn.Linear(size, classes)) for source in sources}
    return HardSharing(encoder, heads, own_inputs=True)


_FLOW = "ResNet-18, NORMAL's flow in 512 dimensions by Euler's method, a linear head for each source"


def _compared(kind: str) -> tuple[StudyPart, ...]:
    table = f"thesis-table5.1-{kind}"
    shared = rows(table, LIBMTL)
    return (
        office.office_part(kind, f"{kind}-hard-sharing", table, shared, further=OPEN, subfolder=kind),
        office.office_part(
            kind, f"{kind}-normal", table, (RecipeRow("NORMAL", "ls"),), _office(_learned), _FLOW, further=OPEN, subfolder=kind
        ),
    )


_VARIANTS: tuple[tuple[str, office.Network, str], ...] = (
    ("constant and identical positions", _office(_identical), "all positions 1"),
    ("constant but different positions", _office(_different), "positions 1, 1.25, 1.5 (and 1.75) in the order of the sources"),
    ("positions e^v", _office(_positive), "positive positions"),
    ("first-order NODE", _office(_first_order), "a first-order flow"),
    ("task-shared layers", _shared_layers, "no flow; four further layers that all sources share"),
    ("task-specific layers", _own_layers, "no flow; a further layer in each head"),
    ("NORMAL", _office(_learned), "learned positions"),
)


def _ablation(kind: str) -> tuple[StudyPart, ...]:
    return tuple(
        office.office_part(
            kind,
            f"{kind}-{name.replace(' ', '-').replace('^', '')}".lower(),
            f"thesis-table5.4-{kind}",
            (RecipeRow(name, "ls"),),
            network,
            f"ResNet-18, a linear head for each source; {words}",
            further=(
                *OPEN,
                "Of the constant positions the thesis reports the best permutation; here it is one.",
                "How the further layers are built is not said, but that they have as many parameters as the flow.",
            ),
            subfolder=kind,
        )
        for name, network, words in _VARIANTS
    )


def _both(name: str, source: str, title: str, parts: Callable[[str], tuple[Part, ...]]) -> Recipe:
    return Recipe(
        name,
        source,
        title,
        f"two folders in one: office31/, {office.DATA['office31']}; officehome/, {office.DATA['officehome']}",
        (*parts("office31"), *parts("officehome")),
        family="office",
    )


def _normal_deeplab(setting: Setting) -> nn.Module:
    return NormalDeepLab(nyuv2.encoder(setting, 18), 8 if setting.smoke else 256)


def _faces(setting: Setting, tasks: Sequence[str]) -> ResNet:
    encoder = ResNet(18, classifier=False, pool=True, width=2 if setting.smoke else 64)
    if setting.weights is not None:
        load_weights(encoder, setting.weights)
    return encoder


class _Columns(nn.Module):
    """Logits ``[N, 1]`` of each task as ``[N]``."""

    def __init__(self, encoder: ResNet, tasks: Sequence[str], flow: bool) -> None:
        super().__init__()
        size = encoder.channels
        heads = {task: nn.Linear(size, 1) for task in tasks}
        self.encoder = encoder if not flow else nn.Identity()
        self.network = NORMAL(encoder, TaskFlow.for_vectors(tasks, size), heads) if flow else None
        self.heads = nn.ModuleDict({} if flow else heads)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        if self.network is not None:
            out: Mapping[str, Tensor] = self.network(image)
        else:
            features = self.encoder(image)
            out = {task: head(features) for task, head in self.heads.items()}
        return {task: logits.squeeze(-1) for task, logits in out.items()}


def _celeba(name: str, made: tuple[RecipeRow, ...], flow: bool) -> StudyPart:
    network = "ResNet-18 with average pooling, one linear head per attribute" + ("; NORMAL's flow between" if flow else "")
    return StudyPart(
        name=name,
        table="thesis-table5.3",
        rows=made,
        workload=replace(celeba.WORK, gigaflops=0.3),
        network=network,
        hyperparameters=hyper(
            optimizer="Adam, weight decay 1e-5",
            learning_rate="1e-4",
            batch=256,
            epochs=15,
            reported="best epoch on validation, by mean accuracy",
        ),
        problem=lambda setting: celeba.celeba_problem(
            f"celeba-{name}",
            setting,
            lambda setting, tasks: _Columns(_faces(setting, tasks), tasks, flow),
            lr=1e-4,
            weight_decay=1e-5,
            accuracy=True,
            options={"network": network, "weights": str(setting.weights is not None)},
        ),
        sample=celeba.write_sample,
        open_choices=(
            *OPEN,
            "Nothing about the training on CelebA is printed: images of 64×64, batches of 256 and 15 epochs are those of the "
            "studies on balancing.",
            "The encoder starts from ImageNet weights where --weights gives them; whether the thesis' does is not said.",
            "The flow has the 512 dimensions of ResNet-18's features; the thesis prints 2048, which they do not have.",
        ),
        pretrained=True,
        further=_average,
    )


def _average(results: object, method: str) -> dict[str, list[float]]:
    from equipoise.study.results import Results

    assert isinstance(results, Results)
    values = [record["final"]["test"] for record in results.records(method).values()]
    return {"average": [sum(own.values()) / len(own) for own in values]}


RECIPES = (
    _both("thesis-table5.1", "Thesis, Table 5.1", "NORMAL and 8 balancers on Office-31 and Office-Home", _compared),
    Recipe(
        "thesis-table5.2",
        "Thesis, Table 5.2",
        "NORMAL and 8 balancers on NYUv2",
        nyuv2.DATA,
        (
            nyuv2.deeplab_part(
                "hard-sharing",
                "thesis-table5.2",
                rows("thesis-table5.2", LIBMTL),
                "DeepLab on a dilated ResNet-18",
                nyuv2.deeplab_18,
                88,
                *OPEN,
            ),
            nyuv2.deeplab_part(
                "normal",
                "thesis-table5.2",
                (RecipeRow("NORMAL", "ls"),),
                "DeepLab on a dilated ResNet-18, NORMAL's flow of 512 channels before the heads",
                _normal_deeplab,
                96,
                *OPEN,
            ),
        ),
        family="nyuv2",
    ),
    Recipe(
        "thesis-table5.3",
        "Thesis, Table 5.3",
        "NORMAL and 8 balancers on CelebA",
        celeba.DATA,
        (
            _celeba("hard-sharing", rows("thesis-table5.3", LIBMTL), flow=False),
            _celeba("normal", (RecipeRow("NORMAL", "ls"),), flow=True),
        ),
        family="celeba",
    ),
    _both("thesis-table5.4", "Thesis, Table 5.4", "Parts of NORMAL changed, on Office-31 and Office-Home", _ablation),
)
