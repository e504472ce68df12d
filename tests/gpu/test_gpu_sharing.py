"""Prefix sharing in bf16: no farther from the exact loss than the plain batch is."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig, Qwen3Config
from transformers.utils.import_utils import is_flash_attn_2_available

from distill.sharing import flat_loss, group_by_prefix, shared_loss
from distill.sharing.plain import plain_loss
from distill.train.label_loss import LabelLoss

pytestmark = pytest.mark.gpu

SHAPE = {
    "vocab_size": 2048,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "pad_token_id": 0,
}
WINDOWED = ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"]
FAMILIES = {
    "gemma3": lambda: Gemma3TextConfig(**SHAPE, sliding_window=32, layer_types=WINDOWED),
    "qwen3": lambda: Qwen3Config(**SHAPE),
    "llama": lambda: LlamaConfig(**SHAPE),
}
PREFIX = 96


class Found(NamedTuple):
    loss: float
    gradients: Tensor
    """Of all weights, [weights]."""

    def apart(self, other: Found) -> float:
        """How far the gradients are from others, relative to them."""
        return float((self.gradients - other.gradients).norm() / other.gradients.norm())


def batch(device: str) -> list[Tensor]:
    """Two tool sets and a row of its own: input ids, mask and labels."""
    drawn = torch.Generator().manual_seed(0)

    def tokens(count: int) -> Tensor:
        return torch.randint(3, SHAPE["vocab_size"], (count,), generator=drawn)

    prefixes = [tokens(PREFIX), tokens(PREFIX)]
    rows = [torch.cat([prefixes[n % 2], tokens(12 + n)]) for n in range(9)] + [tokens(40)]
    longest = max(map(len, rows))
    ids = torch.stack([torch.nn.functional.pad(row, (0, longest - len(row))) for row in rows])
    at = torch.arange(longest)
    mask = torch.stack([(at < len(row)).long() for row in rows])
    labelled = torch.stack([(at < len(row)) & (at >= len(row) - 7) for row in rows])
    return [part.to(device) for part in (ids, mask, ids.where(labelled, -100))]


def model_of(family: str, attention: str, device: str) -> Any:
    torch.manual_seed(0)
    config = FAMILIES[family]()
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention).to(device)


def found(model: Any, way: str, device: str, *, bf16: bool) -> Found:
    score, rows = LabelLoss(), batch(device)
    model.zero_grad()
    with torch.autocast(device, torch.bfloat16, enabled=bf16):
        if way == "off":
            loss = plain_loss(model, *rows, score)
        elif way == "cache":
            loss = shared_loss(model, group_by_prefix(*rows), score, rows_at_once=4)
        else:
            loss = flat_loss(model, group_by_prefix(*rows), score)
    loss.backward()
    gradients = [weight.grad.flatten() for weight in model.parameters() if weight.grad is not None]
    return Found(float(loss.detach()), torch.cat(gradients).clone())


WAYS = [
    ("sdpa", "cache"),
    ("sdpa", "flat"),
    ("eager", "cache"),
    ("eager", "flat"),
    pytest.param(
        "flash_attention_2",
        "cache",
        marks=pytest.mark.skipif(
            not is_flash_attn_2_available(), reason="flash-attn is not installed"
        ),
    ),
]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("attention", "way"), WAYS)
def test_sharing_in_bf16_is_as_near_as_the_plain_batch(
    family: str, attention: str, way: str, device: str
) -> None:
    model = model_of(family, attention, device)
    reference = copy.deepcopy(model)
    reference.set_attn_implementation("sdpa")
    exact = found(reference, "off", device, bf16=False)
    plain = found(model, "off", device, bf16=True)
    shared = found(model, way, device, bf16=True)
    limit = 2 * abs(plain.loss - exact.loss) + 2e-3 * exact.loss
    assert abs(shared.loss - exact.loss) <= limit
    assert shared.apart(exact) <= 1.5 * plain.apart(exact) + 1e-3


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("way", ["cache", "flat"])
def test_sharing_in_fp32_is_exact(family: str, way: str, device: str) -> None:
    model = model_of(family, "sdpa", device)
    exact, shared = (found(model, name, device, bf16=False) for name in ("off", way))
    assert shared.loss == pytest.approx(exact.loss, rel=1e-6)
    assert shared.apart(exact) <= 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_the_flat_way_with_activations_computed_twice(family: str, device: str) -> None:
    model = model_of(family, "sdpa", device).train()
    once = found(model, "flat", device, bf16=True)
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    twice = found(model, "flat", device, bf16=True)
    assert twice.loss == pytest.approx(once.loss, rel=1e-5)
    assert twice.apart(once) <= 1e-3
