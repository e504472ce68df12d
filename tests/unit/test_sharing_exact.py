"""Sharing against the plain padded batch: one loss, one gradient, on every kind of model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from kit.rows import HEADS, OPENS, Row, decision, mixed_rows, padded_rows, tiny, with_lora
from torch import Tensor

from distill.sharing import flat_loss, group_by_prefix, prefix_cache, shared_loss
from distill.sharing.flat import attention_masks
from distill.sharing.plain import plain_loss, to_padded
from distill.train.label_loss import LabelLoss

# gemma3-16: a window within the prefix; gemma3-100: one beyond it.
DECODERS = ["gemma3-16", "gemma3-100", "qwen3", "llama", "mistral"]
WAYS: dict[str, Callable[[Any, Any, Any], Tensor]] = {
    "cache": lambda model, batches, score: shared_loss(model, batches, score, rows_at_once=99),
    "chunks": lambda model, batches, score: shared_loss(model, batches, score, rows_at_once=2),
    "flat": flat_loss,
}


def computed(
    model: Any, loss_of: Callable[[Any], Tensor], loss_fn: LabelLoss
) -> tuple[float, Tensor]:
    """The loss, and the gradient of all that is trained, one after the other."""
    model.zero_grad()
    loss = loss_of(loss_fn)
    loss.backward()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    gradients = [torch.zeros_like(w) if w.grad is None else w.grad for w in trained]
    return loss.item(), torch.cat([gradient.flatten() for gradient in gradients])


def assert_same(
    model: Any, way: str, rows: list[Row], *, bidirectional_start_ids: Any = (), left: bool = False
) -> None:
    table = padded_rows(rows, left=left)
    weight, plainly, shared = 3.0, LabelLoss(3.0), LabelLoss(3.0)
    batches = group_by_prefix(*table, bidirectional_start_ids)
    loss, gradient = computed(
        model, lambda score: plain_loss(model, *padded_rows(rows), score), plainly
    )
    other, found = computed(model, lambda score: WAYS[way](model, batches, score), shared)
    assert weight == shared.decision_weight
    assert other == pytest.approx(loss, rel=1e-6)
    assert (found - gradient).norm() <= 1e-5 * gradient.norm()
    assert gradient.norm() > 0.01
    assert shared.labels == plainly.labels
    assert shared.sums().allclose(plainly.sums(), rtol=1e-6)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("tuned", ["lora", "full"])
@pytest.mark.parametrize("name", DECODERS)
def test_decoders(name: str, tuned: str, way: str) -> None:
    model = with_lora(tiny(name)) if tuned == "lora" else tiny(name)
    assert_same(model.train(), way, mixed_rows())


@pytest.mark.parametrize("way", ["cache", "chunks"])
@pytest.mark.parametrize("tuned", ["lora", "full"])
def test_a_student_that_reads_requests_both_ways(tuned: str, way: str) -> None:
    model = with_lora(tiny("minilm")) if tuned == "lora" else tiny("minilm")
    rows = mixed_rows()
    assert_same(model.train(), way, rows, bidirectional_start_ids=(OPENS,))
    assert max(len(batch.prefix) for batch in group_by_prefix(*padded_rows(rows), (OPENS,))) == 70


def test_a_prefix_into_what_is_read_both_ways_would_be_wrong() -> None:
    """Without `bidirectional_start_ids`: the test above does not pass for the wrong reason."""
    model = tiny("minilm")
    same = [4] * 70 + [OPENS, 5, 6, 7]
    rows = [Row([*same, at, HEADS, 9], [-100] * 76 + [9]) for at in range(20, 24)]
    loss, _ = computed(model, lambda s: plain_loss(model, *padded_rows(rows), s), LabelLoss())
    for bidirectional_start_ids, right in (((OPENS,), True), ((), False)):
        batches = group_by_prefix(*padded_rows(rows), bidirectional_start_ids)
        found, _ = computed(model, lambda s, b=batches: WAYS["cache"](model, b, s), LabelLoss())
        assert (abs(found - loss) < 1e-6 * loss) == right


@pytest.mark.parametrize("way", WAYS)
def test_padding_on_the_left(way: str) -> None:
    assert_same(tiny("gemma3-16").train(), way, mixed_rows(1), left=True)


@pytest.mark.parametrize("way", WAYS)
def test_rows_that_share_nothing(way: str) -> None:
    rows = [mixed_rows(seed)[0] for seed in range(4)]
    assert all(not len(batch.prefix) for batch in group_by_prefix(*padded_rows(rows)))
    assert_same(tiny("qwen3").train(), way, rows)


@pytest.mark.parametrize("way", WAYS)
def test_a_batch_without_a_label_has_a_loss_of_zero_that_reaches_the_weights(way: str) -> None:
    model = tiny("llama").train()
    rows = [Row(row.ids, [-100] * len(row.ids)) for row in mixed_rows()]
    loss, gradient = computed(
        model, lambda s: WAYS[way](model, group_by_prefix(*padded_rows(rows)), s), LabelLoss()
    )
    assert loss == 0
    assert not gradient.any()


def test_a_weight_that_nothing_uses_has_no_gradient() -> None:
    model = tiny("llama").train()
    model.idle = torch.nn.Parameter(torch.ones(3))
    WAYS["chunks"](model, group_by_prefix(*padded_rows(mixed_rows())), LabelLoss()).backward()
    assert model.idle.grad is None
    assert model.lm_head.weight.grad is not None


def test_the_chunks_give_the_gradient_times_what_comes_after() -> None:
    model = tiny("llama").train()
    batches = group_by_prefix(*padded_rows(mixed_rows()))
    _, once = computed(model, lambda s: WAYS["chunks"](model, batches, s), LabelLoss())
    _, thrice = computed(model, lambda s: 3 * WAYS["chunks"](model, batches, s), LabelLoss())
    assert thrice.allclose(3 * once, rtol=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_autocast_to_bfloat16(way: str) -> None:
    """The weights are cast once, and used by every chunk; the gradient is that of bfloat16."""
    model = tiny("qwen3").train()
    table = padded_rows(mixed_rows())
    exact, right = computed(model, lambda s: plain_loss(model, *table, s), LabelLoss())

    def cast(score: Any) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return WAYS[way](model, group_by_prefix(*table), score)

    loss, found = computed(model, cast, LabelLoss())
    assert loss == pytest.approx(exact, rel=0.01)
    assert (found - right).norm() < 0.05 * right.norm()


def test_rows_come_back_whole() -> None:
    rows = mixed_rows()
    ids, mask, labels, deciding = to_padded(group_by_prefix(*padded_rows(rows)))
    back = {
        (tuple(i[m].tolist()), tuple(w[m].tolist()))
        for i, m, w in zip(ids, mask.bool(), labels, strict=True)
    }
    # The first token has nothing before it that could predict it.
    assert back == {(tuple(row.ids), (-100, *row.labels[1:])) for row in rows}
    assert torch.equal(deciding, decision(labels))


def kept_bytes(loss_of: Callable[[], Tensor]) -> int:
    """The most bytes that are kept for backward passes at one time."""
    kept: dict[int, int] = {}
    most = 0

    class Held:
        def __init__(self, tensor: Tensor) -> None:
            nonlocal most
            self.tensor = tensor
            kept[id(self)] = tensor.numel() * tensor.element_size()
            most = max(most, sum(kept.values()))

        def __del__(self) -> None:
            del kept[id(self)]

    with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor):
        loss_of().backward()
    return most


@pytest.mark.parametrize(("rows_at_once", "growth"), [(2, 1.05), (99, 2.0)])
def test_chunks_keep_no_more_for_more_rows(rows_at_once: int, growth: float) -> None:
    """In chunks, three times as many rows of three prefixes keep nothing more; else they do."""
    model = with_lora(tiny("llama"))

    def kept(many: int) -> int:
        table = [
            Row([at] * 40 + [5 + row, 7, 8], [-100] * 42 + [8])
            for at in range(10, 13)
            for row in range(many)
        ]
        batches = group_by_prefix(*padded_rows(table))
        assert len(batches) == 3
        return kept_bytes(
            lambda: shared_loss(model, batches, LabelLoss(), rows_at_once=rows_at_once)
        )

    few, more = kept(8), kept(32)
    assert (more <= growth * few) == (rows_at_once == 2)


@pytest.mark.parametrize("name", ["minilm", "flash"])
def test_what_cannot_go_the_flat_way_says_so(name: str) -> None:
    batches = group_by_prefix(*padded_rows(mixed_rows()))
    model = with_lora(tiny("minilm" if name == "minilm" else "llama"))
    if name == "flash":
        model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match=r"both directions|takes no ready mask"):
        flat_loss(model, batches, LabelLoss())


def test_layers_of_an_unknown_kind_take_no_mask() -> None:
    model = tiny("gemma3-16")
    model.config.layer_types = ["chunked_attention", "full_attention"]
    seen = torch.ones(1, 2, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="chunked_attention"):
        attention_masks(model, seen, torch.zeros(1, 2, 2))


def test_a_model_that_remembers_in_other_ways_is_refused() -> None:
    from transformers import MambaConfig, MambaForCausalLM

    shape = {"vocab_size": 96, "hidden_size": 16, "num_hidden_layers": 1, "state_size": 4}
    model = MambaForCausalLM(MambaConfig(**shape))
    with pytest.raises((ValueError, TypeError, AttributeError)):
        prefix_cache(model, torch.tensor([4, 5, 6]))
