"""Which mode of prefix sharing a training uses, and how it runs under DDP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor
from torch.nn.parallel import DistributedDataParallel


class SharingMode(NamedTuple):
    """How rows with a common prefix are computed."""

    name: str
    """"cache", "flat" or "off"."""
    reason: str = ""
    """Why it is not the mode that was requested; empty if it is."""


def choose_sharing_mode(
    requested: str, *, single_pass_reason: str, bidirectional: bool, logits_to_keep: bool
) -> SharingMode:
    """The mode to use when "auto", "cache", "flat" or "off" was requested.

    single_pass_reason: why the loss must come from one forward pass without a cache, if it must;
    bidirectional: the model attends in both directions within a part of each row; logits_to_keep:
    the model can compute logits at some positions only.
    """
    if requested == "off":
        return SharingMode("off")
    if not logits_to_keep:
        return SharingMode("off", "the model's head takes no logits_to_keep")
    flat = requested == "flat" or bool(single_pass_reason)
    if flat and bidirectional:
        cannot = "which cannot serve a model that reads a part of each row in both directions"
        if single_pass_reason:
            return SharingMode("off", f"{single_pass_reason} needs flat mode, {cannot}")
        return SharingMode("cache", f"flat mode was asked for, {cannot}")
    if requested == "cache" and single_pass_reason:
        return SharingMode("flat", f"{single_pass_reason} leaves no cache")
    return SharingMode("flat" if flat else "cache")


def in_one_ddp_forward(model: Any, compute: Callable[[Any], Tensor]) -> Tensor:
    """compute(module), within one forward pass of DDP where that wraps the module.

    Each forward pass of DDP prepares the gradient exchange and broadcasts buffers: ranks that make
    different numbers of them deadlock. So DDP makes one, in which the module's forward is replaced
    by `compute`, and the passes inside it are the module's own.
    """
    if not isinstance(model, DistributedDataParallel):
        return compute(model)
    module = model.module
    inherited = "forward" not in vars(module)
    forward = module.forward

    def restore() -> None:
        module.forward = forward
        if inherited:
            del module.forward

    def replacement() -> Tensor:
        restore()
        return compute(module)

    module.forward = replacement
    try:
        loss: Tensor = model()
    finally:
        restore()
    return loss


def unwrap_ddp(model: Any) -> Any:
    """The module that DDP wraps, or the model itself."""
    return model.module if isinstance(model, DistributedDataParallel) else model
