"""Accelerate: a balanced loss that it saves and restores."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from equipoise.balance.base import Balancer
from equipoise.errors import InputError
from equipoise.integrations.balanced import BalancedLoss
from equipoise.method import MethodSpec
from equipoise.proxy import Proxy

__all__ = ["accelerate_loss"]


def accelerate_loss(
    accelerator: Any,
    balancer: Balancer | MethodSpec | str | Any,
    proxy: Proxy | str | nn.Module | Iterable[Tensor] | None = None,
    **options: Any,
) -> BalancedLoss:
    """A balanced loss whose state ``accelerator.save_state()`` and ``load_state()`` hold.

    Make it once, before ``load_state()``. What it returns goes to ``accelerator.backward``, which scales and accumulates.

    Args:
        accelerator: an ``accelerate.Accelerator``.
        balancer: as for :class:`~equipoise.integrations.BalancedLoss`.
        proxy: as for :class:`~equipoise.integrations.BalancedLoss`.
        options: as for :class:`~equipoise.integrations.BalancedLoss`.

    Raises:
        InputError: it is no accelerator, it trains by Megatron-LM, which computes losses itself, or see
            :class:`~equipoise.integrations.BalancedLoss`.
    """
    if not hasattr(accelerator, "register_for_checkpointing") or not hasattr(accelerator, "backward"):
        raise InputError(f"accelerator must be an accelerate.Accelerator; got {type(accelerator).__name__}")
    if "MEGATRON" in str(getattr(accelerator, "distributed_type", "")):
        raise InputError("Megatron-LM computes losses and steps itself, so there is no loss to balance; use FSDP or DDP")
    loss = BalancedLoss(balancer, proxy, **options)
    accelerator.register_for_checkpointing(loss)
    return loss
