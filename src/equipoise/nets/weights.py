"""Weights from a file, with a clear word when they do not fit."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from equipoise.errors import InputError
from equipoise.reading import Unreadable, read_tensors

__all__ = ["load_weights"]

# Some published files are older than this counter, which only a cumulative moving average needs.
_COUNTER = "num_batches_tracked"


def load_weights(model: nn.Module, path: str | os.PathLike[str], *, without: Sequence[str] = ("fc.",)) -> tuple[str, ...]:
    """Loads a state dict from a file of ``torch.save``, such as the published ImageNet weights of a residual network.

    Only tensors are read (``weights_only``), nothing in the file is executed. A state dict may lie in the file by itself or
    under ``"state_dict"`` or ``"model"``, and its names may begin with ``"module."``, as ``DataParallel`` writes them. The
    model does not change unless everything fits.

    Args:
        model: takes the weights; for an encoder inside a larger model pass that encoder.
        path: the file.
        without: beginnings of names that the file may have and the model lacks: the classifier, by default.

    Returns:
        The names in the file that were left out for that reason.

    Raises:
        InputError: no such file, a file of something else, or names and shapes that do not fit.

    Example:
        >>> import tempfile, pathlib, torch
        >>> from equipoise.nets import ResNet
        >>> file = pathlib.Path(tempfile.mkdtemp(), "resnet18.pth")
        >>> torch.save(ResNet(18, classes=10, width=4).state_dict(), file)
        >>> load_weights(ResNet(18, classifier=False, width=4), file)
        ('fc.weight', 'fc.bias')
        >>> load_weights(ResNet(50, classifier=False, width=4), file)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        equipoise.errors.InputError: the weights in ... do not fit ResNet: ...
    """
    found = _state_dict(path)
    wanted = model.state_dict()
    left_out = tuple(name for name in found if name not in wanted and name.startswith(tuple(without)))
    unknown = [name for name in found if name not in wanted and name not in left_out]
    missing = [name for name in wanted if name not in found and not name.endswith(_COUNTER)]
    wrong = [
        f"{name} {list(found[name].shape)} for {list(wanted[name].shape)}"
        for name in wanted
        if name in found and found[name].shape != wanted[name].shape
    ]
    complaints = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
        for what, names in (("missing", missing), ("unknown to the model", unknown), ("of another shape", wrong))
        if names
    ]
    if complaints:
        raise InputError(
            f"the weights in {os.fspath(path)} do not fit {type(model).__name__}: {'; '.join(complaints)}; "
            f"build the model as the file's was (depth, classes, width), or name what to leave out by without=[…]"
        )
    model.load_state_dict({name: tensor for name, tensor in found.items() if name in wanted}, strict=False)
    return left_out


def _state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    try:
        content: Any = read_tensors(path)
    except Unreadable as error:
        if isinstance(error.__cause__, OSError):
            raise InputError(f"cannot read weights from {os.fspath(path)}: {error}") from error
        raise InputError(
            f"{os.fspath(path)} holds no tensors that torch.load could read ({error}); give a file of torch.save"
        ) from error
    for container in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(container), Mapping):
            content = content[container]
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items()
    ):
        raise InputError(f"{os.fspath(path)} holds no state dict (names and tensors); got {type(content).__name__}")
    parallel = content and all(name.startswith("module.") for name in content)
    return {name.removeprefix("module.") if parallel else name: tensor for name, tensor in content.items()}
