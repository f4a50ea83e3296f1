"""Keeping out a caller's autocast, and ``torch.compile``, whose functions are single nodes of the autograd graph.

And what differentiating twice needs: code that is not compiled, and an attention kernel that has a second derivative.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import ParamSpec, TypeVar

import torch

__all__ = [
    "compiled_anew",
    "differentiable_twice",
    "forget_compiled",
    "lacks_second_derivative",
    "not_compiled",
    "overwrites",
    "uncompiled",
    "without_autocast",
]

_T = TypeVar("_T")
_P = ParamSpec("_P")
_REASON = "equipoise differentiates the losses itself, which no compiled graph holds"


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Turns autocast off in the body, if it is on for this kind of device."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def compiled_anew(act: Callable[[], _T], undo: Callable[[], object] = lambda: None) -> _T:
    """Does something, and does it again where a compiled backward pass turns out to overwrite what further ones need.

    torch compiles a graph so ("donated buffers") when it is first differentiated by a single pass, and refuses further ones.
    Once its compiled code is forgotten, the graph is compiled anew by the first of several passes, and serves both.

    Args:
        act: what is done.
        undo: makes as if it had not been.
    """
    try:
        return act()
    except RuntimeError as error:
        if not overwrites(error):
            raise
    undo()
    forget_compiled()
    return act()


def forget_compiled() -> None:
    """Forgets all compiled code, so that graphs are compiled anew, and from now on for several backward passes."""
    from torch._functorch import config

    # Else the compiler's cache on disk would bring the same code back. Nothing that was compiled before is called any more.
    config.donated_buffer = False
    torch._dynamo.reset()


def overwrites(error: BaseException) -> bool:
    """Whether a compiled backward pass refused to run a second time."""
    return isinstance(error, RuntimeError) and "donated buffer" in str(error)


def not_compiled() -> AbstractContextManager[object]:
    """Runs compiled functions eagerly in the body."""
    # Where nothing has been compiled, this must not be what imports the compiler.
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


@contextmanager
def differentiable_twice() -> Iterator[None]:
    """What runs in the body can be differentiated twice, as far as that is a matter of how it runs.

    Compiled functions run eagerly, and ``scaled_dot_product_attention`` by the kernel whose backward pass is differentiable:
    the fused ones, which torch would choose, have first derivatives only.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with not_compiled(), sdpa_kernel(SDPBackend.MATH):
        yield


def lacks_second_derivative(error: BaseException) -> bool:
    """Whether an error says that an operation can be differentiated once only."""
    said = str(error)
    return isinstance(error, RuntimeError) and (
        ("derivative for" in said and "not implemented" in said)
        or any(part in said for part in ("once_differentiable", "not currently support double backward"))
    )


def _compiling() -> bool:
    """Whether functions called now would be compiled."""
    if torch.compiler.is_dynamo_compiling():
        return True  # asked while this very code is traced, which could not follow further
    return "torch._dynamo" in sys.modules and callable(torch._C._dynamo.eval_frame.get_eval_frame_callback())


def uncompiled(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Keeps ``torch.compile`` out of a function that is called from compiled code: it breaks the graph and runs as it is.

    What ``torch.compiler.disable`` does, without importing the compiler where nobody else has.
    """
    inside: list[Callable[_P, _T]] = []

    @functools.wraps(function)
    def called(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        if not _compiling():
            return function(*args, **kwargs)
        if not inside:
            inside.append(torch.compiler.disable(function, reason=_REASON))
        return inside[0](*args, **kwargs)

    called._torchdynamo_disable = True  # type: ignore[attr-defined]  # where the compiler looks
    called._torchdynamo_disable_msg = _REASON  # type: ignore[attr-defined]
    return called
