"""Residual networks: the names of published weights, dilation, and files that do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import equipoise as eq
from equipoise.nets import DeepLab, ResNet, load_weights

# Names and shapes of the published ImageNet weights' state dicts.
NAMES = json.loads((Path(__file__).parent / "resnet_names.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_names_and_shapes_are_those_of_published_weights(depth: int, output_stride: int) -> None:
    with torch.device("meta"):
        state = ResNet(depth, output_stride=output_stride).state_dict()
    assert [(name, list(tensor.shape)) for name, tensor in state.items()] == list(NAMES[f"resnet{depth}"].items())


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize(("output_stride", "step"), [(16, 2), (8, 4)])
@pytest.mark.parametrize("size", [(64, 96), (50, 71)])
def test_every_so_manyth_pixel_of_a_dilated_network_is_the_plain_networks(
    depth: int, output_stride: int, step: int, size: tuple[int, int]
) -> None:
    """Dilation ("à trous") computes the plain network's result at the places that striding would have skipped, too."""
    plain = ResNet(depth, classifier=False, width=4).double().eval()
    dilated = ResNet(depth, classifier=False, width=4, output_stride=output_stride).double().eval()
    dilated.load_state_dict(plain.state_dict())
    image = torch.randn(1, 3, *size, dtype=torch.float64)
    assert torch.allclose(dilated(image)[..., ::step, ::step], plain(image))


def test_maps_pooled_features_and_logits() -> None:
    image = torch.randn(2, 3, 65, 64)
    network = ResNet(50, classes=5, width=2).eval()
    maps = network.maps(image)
    assert [tuple(each.shape[1:]) for each in maps] == [(8, 17, 16), (16, 9, 8), (32, 5, 4), (64, 3, 2)]
    assert network.layer_channels == (8, 16, 32, 64)
    pooled = ResNet(50, classifier=False, pool=True, width=2).eval()
    pooled.load_state_dict({name: tensor for name, tensor in network.state_dict().items() if not name.startswith("fc.")})
    assert network.fc is not None
    assert torch.allclose(pooled(image), maps[-1].mean((2, 3)))
    assert torch.allclose(network(image), network.fc(pooled(image)))


@pytest.mark.parametrize("arguments", [{"depth": 34}, {"output_stride": 4}, {"width": 0}, {"classes": 0}])
def test_bad_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(eq.InputError, match=next(iter(arguments))):
        ResNet(**arguments)


def small(**arguments: Any) -> ResNet:
    return ResNet(18, width=2, **{"classes": 3, **arguments})


@pytest.mark.parametrize("container", ["", "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("counters", [True, False])
def test_weights_load_as_they_are_found_in_files(container: str, prefix: str, counters: bool, tmp_path: Path) -> None:
    source = small()
    state = {prefix + name: tensor for name, tensor in source.state_dict().items() if counters or "num_batches" not in name}
    torch.save({container: state, "epoch": 3} if container else state, tmp_path / "weights.pth")
    network = small()
    assert load_weights(network, tmp_path / "weights.pth") == ()
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(network.parameters(), source.parameters(), strict=True))
    encoder = DeepLab({"depth": 1}, small(classifier=False, output_stride=8), channels=2)
    assert load_weights(encoder.features, tmp_path / "weights.pth") == ("fc.weight", "fc.bias")
    image = torch.randn(1, 3, 32, 32)
    for network in (source, encoder.features):
        network.eval()
    assert torch.allclose(encoder.features.maps(image)[0], source.maps(image)[0])


@pytest.mark.parametrize(
    ("network", "complaint"),
    [
        (lambda: ResNet(50, width=2, classes=3), "missing"),
        (lambda: small(classes=4), r"of another shape \(fc.weight \[3, 16\] for \[4, 16\], fc.bias"),
        (lambda: ResNet(18, width=3, classes=3), "of another shape"),
        (lambda: torch.nn.Linear(2, 2), r"2 missing \(weight, bias\); 120 unknown to the model"),
    ],
)
def test_weights_that_do_not_fit_change_nothing(network: Any, complaint: str, tmp_path: Path) -> None:
    torch.save(small().state_dict(), tmp_path / "weights.pth")
    model = network()
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(eq.InputError, match=complaint):
        load_weights(model, tmp_path / "weights.pth")
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_a_classifier_can_be_left_out_by_name(tmp_path: Path) -> None:
    state = small().state_dict()
    torch.save({f"head.{name}" if name.startswith("fc") else name: tensor for name, tensor in state.items()}, tmp_path / "w")
    with pytest.raises(eq.InputError, match=r"unknown to the model \(head.fc.weight, head.fc.bias\)"):
        load_weights(small(classifier=False), tmp_path / "w")
    assert load_weights(small(classifier=False), tmp_path / "w", without=["head."]) == ("head.fc.weight", "head.fc.bias")


def test_files_of_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    with pytest.raises(eq.InputError, match="cannot read weights"):
        load_weights(small(), path)
    path.write_text("<html>not found</html>")
    with pytest.raises(eq.InputError, match="no tensors"):
        load_weights(small(), path)
    torch.save([1, 2], path)
    with pytest.raises(eq.InputError, match="no state dict"):
        load_weights(small(), path)
    torch.save({"epoch": 3}, path)
    with pytest.raises(eq.InputError, match="no state dict"):
        load_weights(small(), path)
    torch.save(small(), path)
    with pytest.raises(eq.InputError, match="no tensors"):
        load_weights(small(), path)
