"""Which way of prefix sharing a training goes, and how it goes it under DDP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor
from torch.nn.parallel import DistributedDataParallel


class Way(NamedTuple):
    """How rows that begin alike are computed."""

    name: str
    """"cache", "flat" or "off"."""
    why: str = ""
    """Why it is another one than was asked for."""


def choose(asked: str, *, one_pass: str, both_ways: bool, some_logits: bool) -> Way:
    """The way to go when `asked` for "auto", "cache", "flat" or "off".

    one_pass: why the loss must come from one forward pass that keeps no cache, if it must;
    both_ways: the model reads a part of each row in both directions; some_logits: its head can run
    at some positions only.
    """
    if asked == "off":
        return Way("off")
    if not some_logits:
        return Way("off", "the model's head takes no logits_to_keep")
    flat = asked == "flat" or bool(one_pass)
    if flat and both_ways:
        cannot = "which cannot serve a model that reads a part of each row in both directions"
        if one_pass:
            return Way("off", f"{one_pass} needs the flat way, {cannot}")
        return Way("cache", f"the flat way was asked for, {cannot}")
    if asked == "cache" and one_pass:
        return Way("flat", f"{one_pass} leaves no cache")
    return Way("flat" if flat else "cache")


def as_one_pass(model: Any, compute: Callable[[Any], Tensor]) -> Tensor:
    """compute(model), as one forward pass of DDP where that wraps the model.

    DDP prepares the exchange of gradients in each of its forward passes, and sends buffers around:
    processes that made different numbers of them would wait for one another for ever. So it makes
    one, in which the module's own forward is `compute`, and the passes inside are the module's.
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

    def instead() -> Tensor:
        restore()
        return compute(module)

    module.forward = instead
    try:
        loss: Tensor = model()
    finally:
        restore()
    return loss


def unwrapped(model: Any) -> Any:
    """The module itself, where DDP wraps it."""
    return model.module if isinstance(model, DistributedDataParallel) else model
