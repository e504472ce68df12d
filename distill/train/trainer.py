"""TRL's SFTTrainer with prefix sharing, and with logits only where there is a label."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from trl.trainer.sft_trainer import SFTTrainer

from distill.sharing import PrefixBatch, flat_loss, group_by_prefix, shared_loss
from distill.sharing.plain import plain_loss, supports_logits_to_keep
from distill.train.label_loss import LabelLoss, Sums
from distill.train.selfcheck import compare_with_plain
from distill.train.sharing_mode import choose_sharing_mode, in_one_ddp_forward, unwrap_ddp


class DecisionCollator:
    """A collator of rows that also pads their column `decision`, absent where no label is one."""

    def __init__(self, collate: Callable[[Any], dict[str, Tensor]]) -> None:
        self._collate = collate

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        batch = self._collate(rows)
        batch["decision"] = torch.zeros_like(batch["labels"], dtype=torch.bool)
        for own, row in zip(batch["decision"], rows, strict=True):
            decision = torch.tensor(row.get("decision", ()), dtype=torch.bool)
            own[: len(decision)] = decision
        return batch


class RoutingTrainer(SFTTrainer):
    """Computes SFTTrainer's loss and metrics, and a prefix that rows share only once.

    In routing data, one token of thirty has a label, and every row begins with the same tool
    declarations: a plain batch computes them again for each row, and most of its logits are thrown
    away. `distill.sharing` avoids both, exactly. The first rows are compared with the plain batch;
    if they differ, training goes on without prefix sharing, and `notice` is told.

    The attributes below may be set until the training begins.
    """

    decision_weight: float = 1.0
    """The weight in the loss of a token at which the allowed answers part."""
    bidirectional_start_ids: Sequence[int] = ()
    """Ids of tokens that start a part which the model reads in both directions."""
    prefix_sharing: str = "auto"
    """"cache", "flat" or "off"; "auto" is "cache" wherever that is possible."""
    rows_at_once: int = 16
    """Rows whose activations are held at one time in cache mode."""
    notice: Callable[[str], None] = staticmethod(warnings.warn)
    """Called in the main process with the reason why another mode than requested is used."""

    _compared = False

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.data_collator = DecisionCollator(self.data_collator)
        self._sums: dict[str, Sums] = {}

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        loss_fn = LabelLoss(self.decision_weight)
        total = self.total_loss(model, inputs, loss_fn)
        count = loss_fn.labels if num_items_in_batch is None else num_items_in_batch
        # At least one, so that a batch without a label has a loss of zero.
        loss = total / torch.as_tensor(count, device=total.device).clamp(min=1)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            # The count is that of all processes, whose gradients are averaged.
            loss = loss * (self.accelerator.num_processes // self.get_tp_size())
        self._add_metrics(inputs["attention_mask"], loss_fn)
        return loss

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], *_: Any, **__: Any
    ) -> tuple[Tensor, None, None]:
        loss, _logits, _labels = super().prediction_step(model, inputs, prediction_loss_only=True)
        return loss, None, None

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """TRL's log, and beside it the losses over all labels since the last one."""
        for mode, sums in self._sums.items():
            self._metrics[mode].update({name: [mean] for name, mean in sums.as_logged().items()})
        self._sums.clear()
        super().log(logs, start_time)

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns: Any = ["input_ids", "labels", "decision"]

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Writes none: the run has a model card of its own."""

    @cached_property
    def sharing_mode(self) -> str:
        """How rows with a common prefix are computed: "cache", "flat" or "off"."""
        mode = choose_sharing_mode(
            self.prefix_sharing,
            single_pass_reason=self._single_pass_reason(),
            bidirectional=bool(self.bidirectional_start_ids),
            logits_to_keep=supports_logits_to_keep(self.model),
        )
        if mode.reason:
            self._notify(mode.name, mode.reason)
        return mode.name

    def _single_pass_reason(self) -> str:
        """Why the loss must come from one forward pass without a cache; empty if it need not."""
        if self.args.activation_checkpointing:
            return "gradient checkpointing"
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return "a model spread over processes"
        return ""

    def total_loss(self, model: Any, inputs: dict[str, Any], loss_fn: LabelLoss) -> Tensor:
        """The sum of `loss_fn` over all labels, in the current mode."""
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        rows = ids, mask, inputs["labels"], inputs["decision"]
        off = self.sharing_mode == "off"
        batches = [] if off else group_by_prefix(*rows, self.bidirectional_start_ids)
        if batches and not self._compared:
            self._compare(model, batches)

        def compute(module: Any) -> Tensor:
            if self.sharing_mode == "off":
                return plain_loss(module, *rows, loss_fn)
            if self.sharing_mode == "flat":
                return flat_loss(module, batches, loss_fn)
            return shared_loss(module, batches, loss_fn, rows_at_once=self.rows_at_once)

        return in_one_ddp_forward(model, compute)

    def _compare(self, model: Any, batches: Sequence[PrefixBatch]) -> None:
        """Turn sharing off if it differs from the plain batch.

        All processes decide together, on the first batch in which one of them shares a prefix.
        """
        if not self.max_over_processes(any(len(batch.prefix) for batch in batches)):
            return
        self._compared = True
        found = compare_with_plain(unwrap_ddp(model), batches, self.sharing_mode)
        if self.max_over_processes(found.ratio) > 1:
            reason = found.description if found.ratio > 1 else "another process found a difference"
            self._notify("off", f"compared with the plain batch, {reason}")
            self.sharing_mode = "off"

    def max_over_processes(self, number: float) -> float:
        """The largest of the processes' numbers; every process has to call it."""
        here = torch.tensor([float(number)], device=self.args.device)
        return float(self.accelerator.gather(here).max())

    def _notify(self, mode: str, reason: str) -> None:
        if self.accelerator.is_main_process:
            state = "is off" if mode == "off" else f"runs in {mode} mode"
            self.notice(f"prefix sharing {state}: {reason}")

    def _add_metrics(self, mask: Tensor, loss_fn: LabelLoss) -> None:
        """Note what the next log is made of, from the labels of all processes, unweighted."""
        assert self.model is not None
        mode = "train" if self.model.training else "eval"
        here = torch.cat([loss_fn.sums(), mask.sum()[None]])[None]
        *numbers, tokens = self.accelerator.gather_for_metrics(here).sum(0)
        sums, metrics = Sums(*numbers), self._metrics[mode]
        for name, mean in sums.as_trl().items():
            metrics[name].append(mean)
        if mode == "train":
            self._total_train_tokens += round(float(tokens)) // self.get_tp_size()
        metrics["num_tokens"] = [self._total_train_tokens]
        before = self._sums.get(mode)
        self._sums[mode] = sums if before is None else before.plus(sums)
