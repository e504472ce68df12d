"""TRL's SFTTrainer that computes what rows share once, and the head only where there is a label."""

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
from distill.train.selfcheck import difference
from distill.train.tally import Tally
from distill.train.ways import as_one_pass, choose, unwrapped


class RoutingTrainer(SFTTrainer):
    """Computes SFTTrainer's loss and metrics, and the beginning that rows share once.

    In routing a label stands on one token of thirty, and every row begins with the same
    declarations: most of what a plain batch computes is the same again, and most of the head's
    work is thrown away. `distill.sharing` says how that is spared, and why it is exact. It is
    compared with the plain batch on the first rows; where they differ, the training is computed
    plainly, and `notice` hears of it.

    The attributes below may be set until the training begins.
    """

    first_token_weight: float = 1.0
    """How often the first token of an answer counts, which chooses the tool."""
    bidirectional_start_ids: Sequence[int] = ()
    """Ids of tokens that open what the model reads in both directions; see `group_by_prefix`."""
    prefix_sharing: str = "auto"
    """"cache", "flat" or "off"; "auto" is the cache way wherever it can be gone."""
    rows_at_once: int = 16
    """Rows whose activations are held at one time on the cache way."""
    notice: Callable[[str], None] = staticmethod(warnings.warn)
    """Hears, in the main process, why the way is another one than was asked for."""

    _compared = False

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        tally = Tally(self.first_token_weight)
        total = self._total(model, inputs, tally)
        count = tally.labels if num_items_in_batch is None else num_items_in_batch
        # At least one, so that a batch without a label has a loss of zero.
        loss = total / torch.as_tensor(count, device=total.device).clamp(min=1)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            # The count is that of all processes, whose gradients are averaged.
            loss = loss * (self.accelerator.num_processes // self.get_tp_size())
        self._keep_metrics(inputs["attention_mask"], tally)
        return loss

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], *_: Any, **__: Any
    ) -> tuple[Tensor, None, None]:
        loss, _nothing, _none = super().prediction_step(model, inputs, prediction_loss_only=True)
        return loss, None, None

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """None is wanted: the run's report says what was trained, on what, and how well."""

    @cached_property
    def way(self) -> str:
        """How rows that begin alike are computed: "cache", "flat" or "off"."""
        way = choose(
            self.prefix_sharing,
            one_pass=self._one_pass(),
            both_ways=bool(self.bidirectional_start_ids),
            some_logits=supports_logits_to_keep(self.model),
        )
        if way.why:
            self._say(way.name, way.why)
        return way.name

    def _one_pass(self) -> str:
        """Why the loss must come from one forward pass without a cache; empty if it need not."""
        if self.args.activation_checkpointing:
            return "gradient checkpointing"
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return "a model spread over processes"
        return ""

    def _total(self, model: Any, inputs: dict[str, Any], score: Tally) -> Tensor:
        """The sum of `score` over all labels, by the way in use."""
        rows = inputs["input_ids"], inputs["attention_mask"], inputs["labels"]
        batches = [] if self.way == "off" else group_by_prefix(*rows, self.bidirectional_start_ids)
        if batches and not self._compared:
            self._compare(model, batches)

        def compute(own: Any) -> Tensor:
            if self.way == "off":
                return plain_loss(own, *rows, score)
            if self.way == "flat":
                return flat_loss(own, batches, score)
            return shared_loss(own, batches, score, rows_at_once=self.rows_at_once)

        return as_one_pass(model, compute)

    def _compare(self, model: Any, batches: Sequence[PrefixBatch]) -> None:
        """The self-check: leave the way of sharing where it differs from the plain batch.

        All processes decide alike, on the first batch in which one of them shares a prefix.
        """
        if not self._largest(any(len(batch.prefix) for batch in batches)):
            return
        self._compared = True
        found = difference(unwrapped(model), batches, self.way)
        if self._largest(found.size) > 1:
            why = found.words if found.size > 1 else "another process found a difference"
            self._say("off", f"compared with the plain batch, {why}")
            self.way = "off"

    def _largest(self, number: float) -> float:
        """The largest of the numbers that the processes have."""
        here = torch.tensor([float(number)], device=self.args.device)
        return float(self.accelerator.gather(here).max())

    def _say(self, way: str, why: str) -> None:
        if self.accelerator.is_main_process:
            done = "is off" if way == "off" else f"goes the {way} way"
            self.notice(f"prefix sharing {done}: {why}")

    def _keep_metrics(self, mask: Tensor, tally: Tally) -> None:
        """What TRL logs, from the labels of all processes, unweighted."""
        assert self.model is not None
        mode = "train" if self.model.training else "eval"
        here = torch.stack([*tally.sums(), mask.sum()])[None]
        whole = self.accelerator.gather_for_metrics(here).sum(0).tolist()
        labels, entropy, correct, tokens = whole
        kept = self._metrics[mode]
        kept["entropy"].append(entropy / max(labels, 1))
        kept["mean_token_accuracy"].append(correct / max(labels, 1))
        if mode == "train":
            self._total_train_tokens += round(tokens) // self.get_tp_size()
        kept["num_tokens"] = [self._total_train_tokens]
