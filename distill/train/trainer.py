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
from distill.train.label_loss import LabelLoss
from distill.train.selfcheck import compare_with_plain
from distill.train.sharing_mode import choose_sharing_mode, in_one_ddp_forward, unwrap_ddp


class RoutingTrainer(SFTTrainer):
    """Computes SFTTrainer's loss and metrics, and a prefix that rows share only once.

    In routing data, one token of thirty has a label, and every row begins with the same tool
    declarations: a plain batch computes them again for each row, and most of its logits are thrown
    away. `distill.sharing` avoids both, exactly. The first rows are compared with the plain batch;
    if they differ, training goes on without prefix sharing, and `notice` is told.

    The attributes below may be set until the training begins.
    """

    first_token_weight: float = 1.0
    """The weight in the loss of the first token of an answer, which chooses the tool."""
    bidirectional_start_ids: Sequence[int] = ()
    """Ids of tokens that start a part which the model reads in both directions."""
    prefix_sharing: str = "auto"
    """"cache", "flat" or "off"; "auto" is "cache" wherever that is possible."""
    rows_at_once: int = 16
    """Rows whose activations are held at one time in cache mode."""
    notice: Callable[[str], None] = staticmethod(warnings.warn)
    """Called in the main process with the reason why another mode than requested is used."""

    _compared = False

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        loss_fn = LabelLoss(self.first_token_weight)
        total = self._total_loss(model, inputs, loss_fn)
        count = loss_fn.labels if num_items_in_batch is None else num_items_in_batch
        # At least one, so that a batch without a label has a loss of zero.
        loss = total / torch.as_tensor(count, device=total.device).clamp(min=1)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            # The count is that of all processes, whose gradients are averaged.
            loss = loss * (self.accelerator.num_processes // self.get_tp_size())
        self._log_metrics(inputs["attention_mask"], loss_fn)
        return loss

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], *_: Any, **__: Any
    ) -> tuple[Tensor, None, None]:
        loss, _logits, _labels = super().prediction_step(model, inputs, prediction_loss_only=True)
        return loss, None, None

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

    def _total_loss(self, model: Any, inputs: dict[str, Any], loss_fn: LabelLoss) -> Tensor:
        """The sum of `loss_fn` over all labels, in the current mode."""
        rows = inputs["input_ids"], inputs["attention_mask"], inputs["labels"]
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

    def _log_metrics(self, mask: Tensor, loss_fn: LabelLoss) -> None:
        """The metrics that TRL logs, from the labels of all processes, unweighted."""
        assert self.model is not None
        mode = "train" if self.model.training else "eval"
        here = torch.stack([*loss_fn.sums(), mask.sum()])[None]
        sums = self.accelerator.gather_for_metrics(here).sum(0).tolist()
        labels, entropy, correct, tokens = sums
        metrics = self._metrics[mode]
        metrics["entropy"].append(entropy / max(labels, 1))
        metrics["mean_token_accuracy"].append(correct / max(labels, 1))
        if mode == "train":
            self._total_train_tokens += round(tokens) // self.get_tp_size()
        metrics["num_tokens"] = [self._total_train_tokens]
