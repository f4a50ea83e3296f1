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
from equipoise_papers.reproduce.families.common import LIBMTL, POSITION_LR, rows
from equipoise_papers.reproduce.recipe import Part, Recipe, RecipeRow, Setting, hyper
from equipoise_papers.reproduce.study_part import StudyPart

__all__ = ["RECIPES", "NormalDeepLab", "OwnInputs"]

OPEN = (
    "Section 5.5 prints neither learning rate, batch size nor epochs; they are those of section 3.7.2.",
    "ξ of eq. 5.5 is tuned in the thesis and not printed; here it is 0.",
)
FLOW_OPEN = (
    "Neither where positions start, nor their step size η, nor the step of Euler's method is printed; here they start at 1, η "
    f"is {POSITION_LR:g} without weight decay, and a step is 0.25. Every epoch's positions are recorded, and the report of "
    "each part draws them (Figure 5.2).",
)
_STEP = {"euler_step": "0.25"}
_LEARNED = {"positions": f"start at 1, η = {POSITION_LR:g} in a group of their own, without weight decay", **_STEP}


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


def _map(size: int, hidden: int | None = None) -> nn.Sequential:
    hidden = size if hidden is None else hidden
    return nn.Sequential(nn.Linear(size, hidden), nn.LeakyReLU(), nn.Linear(hidden, size))


def _shared_layers(setting: Setting, sources: tuple[str, ...], classes: int) -> nn.Module:
    """As many parameters as the flow's two maps, before the heads."""
    encoder = office.encoder(setting)
    size = encoder.channels
    longer = nn.Sequential(encoder, _map(size), nn.LeakyReLU(), _map(size))
    return HardSharing(longer, {source: nn.Linear(size, classes) for source in sources}, own_inputs=True)


def _own_layers(setting: Setting, sources: tuple[str, ...], classes: int) -> nn.Module:
    """As many parameters in all as the flow's two maps, to a thousandth, in two further layers of each head."""
    encoder = office.encoder(setting)
    size = encoder.channels
    wanted = 4 * size * (size + 1) / len(sources)
    heads = {
        source: nn.Sequential(_map(size, round((wanted - size) / (2 * size + 1))), nn.LeakyReLU(), nn.Linear(size, classes))
        for source in sources
    }
    return HardSharing(encoder, heads, own_inputs=True)


_FLOW = "ResNet-18, NORMAL's flow in 512 dimensions by Euler's method, a linear head for each source"


def _compared(kind: str) -> tuple[StudyPart, ...]:
    table = f"thesis-table5.1-{kind}"
    shared = rows(table, LIBMTL)
    return (
        office.office_part(kind, f"{kind}-hard-sharing", table, shared, further=OPEN, subfolder=kind),
        office.office_part(
            kind,
            f"{kind}-normal",
            table,
            (RecipeRow("NORMAL", "ls"),),
            _office(_learned),
            _FLOW,
            further=(*OPEN, *FLOW_OPEN),
            subfolder=kind,
            flow=_LEARNED,
        ),
    )


_VARIANTS: tuple[tuple[str, office.Network, str, Mapping[str, str]], ...] = (
    ("constant and identical positions", _office(_identical), "all positions 1", _STEP),
    (
        "constant but different positions",
        _office(_different),
        "positions 1, 1.25, 1.5 (and 1.75) in the order of the sources",
        _STEP,
    ),
    ("positions e^v", _office(_positive), "positive positions", _LEARNED),
    ("first-order NODE", _office(_first_order), "a first-order flow", _LEARNED),
    ("task-shared layers", _shared_layers, "no flow; four further layers that all sources share", {}),
    ("task-specific layers", _own_layers, "no flow; two further layers in each head, with as many parameters in all", {}),
    ("NORMAL", _office(_learned), "learned positions", _LEARNED),
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
                *FLOW_OPEN,
                "Of the constant positions the thesis reports the best permutation; here it is one.",
                "How the further layers are built is not said, but that they have as many parameters as the flow.",
                "The first-order flow has no u, and with it 0.5 million parameters less than the others.",
            ),
            subfolder=kind,
            flow=flow,
        )
        for name, network, words, flow in _VARIANTS
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


def _faces(setting: Setting) -> ResNet:
    encoder = ResNet(18, classifier=False, width=2 if setting.smoke else 64)
    if setting.weights is not None:
        load_weights(encoder, setting.weights)
    return encoder


class _Columns(nn.Module):
    """Logits ``[N, 1]`` of each task as ``[N]``, from ResNet-18's last maps as 2 × 2 places: 2,048 features.

    On images of 64 × 64 the maps have that size; from larger ones they are averaged to it.
    """

    def __init__(self, maps: ResNet, tasks: Sequence[str], flow: bool) -> None:
        super().__init__()
        size = 4 * maps.channels
        encoder = nn.Sequential(maps, nn.AdaptiveAvgPool2d(2), nn.Flatten())
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
    network = "ResNet-18, its last maps as 2 × 2 places, 2,048 features; one linear head per attribute" + (
        "; NORMAL's flow between" if flow else ""
    )
    return StudyPart(
        name=name,
        table="thesis-table5.3",
        rows=made,
        workload=replace(celeba.WORK, gigaflops=0.38 if flow else 0.3),
        network=network,
        hyperparameters=hyper(
            optimizer="Adam, weight decay 1e-5",
            learning_rate="1e-4",
            batch=256,
            epochs=15,
            **(_LEARNED if flow else {}),
            reported="best epoch on validation, by mean accuracy",
        ),
        problem=lambda setting: celeba.celeba_problem(
            f"celeba-{name}",
            setting,
            lambda setting, tasks: _Columns(_faces(setting), tasks, flow),
            lr=1e-4,
            weight_decay=1e-5,
            accuracy=True,
            options={"network": network, "weights": str(setting.weights is not None)},
        ),
        sample=celeba.write_sample,
        open_choices=(
            *OPEN,
            *(FLOW_OPEN if flow else ()),
            "Nothing about the training on CelebA is printed: images of 64×64, batches of 256 and 15 epochs are those of the "
            "studies on balancing.",
            "The encoder starts from ImageNet weights where --weights gives them; whether the thesis' does is not said.",
            "The thesis prints 2048 dimensions and names no image size: on images of 64×64 they are the [512, 2, 2] of "
            "ResNet-18's last maps, flattened.",
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
                *FLOW_OPEN,
                flow=_LEARNED,
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
