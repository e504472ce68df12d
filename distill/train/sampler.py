"""Which rows make an optimizer step, in which order, and which process computes which of them.

A step holds the same rows however many processes there are, so that two processes train what one
would. The data loader of transformers does not promise that: its order depends on the batch size
per device, and it fills the last batch of an epoch with rows that were already used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers.trainer_utils import EvalLoopOutput

from distill.train.label_loss import LabelLoss, Sums
from distill.train.processes import ProcessRank
from distill.train.trainer import RoutingTrainer

DUMMY_ROW = -1
"""The index of a dataset's last row, which has no label: for a process without rows of its own."""


def epoch_steps(rows: int, batch_size: int, seed: int) -> list[list[int]]:
    """The rows of each optimizer step of an epoch, in random order.

    Steps of rows of similar length would save padding, but alternate between short requests and
    long ones: the loss oscillates, and the student learns less from as many rows.
    """
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    return _split(order.tolist(), batch_size)


def _split(order: Sequence[int], size: int) -> list[list[int]]:
    return [list(order[start : start + size]) for start in range(0, len(order), size)]


def micro_batches(rows: Sequence[int], process: ProcessRank, max_rows: int) -> list[list[int]]:
    """The rows of a step that one process computes, in micro-batches of at most `max_rows`.

    Every process gets the same number of them, as they compute in lockstep; one that has no row
    left gets the dummy row.
    """
    largest_share = -(-len(rows) // process.world_size)
    count = -(-largest_share // max_rows)
    share = rows[process.rank :: process.world_size]
    cuts = [len(share) * number // count for number in range(count + 1)]
    return [list(share[start:end]) or [DUMMY_ROW] for start, end in pairwise(cuts)]


class StepSampler:
    """A batch sampler: this process's micro-batches of all steps of an epoch."""

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        process: ProcessRank,
        max_rows: int,
        seed: int | None,
    ) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        """Rows per step, over all processes."""
        self.process = process
        self.max_rows = max_rows
        """Rows per micro-batch."""
        self.seed = seed
        """None: rows are ordered by length, as for evaluation."""
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        if self.seed is not None:
            steps = epoch_steps(len(self.lengths), self.batch_size, self.seed + self.epoch)
        else:
            order = sorted(range(len(self.lengths)), key=self.lengths.__getitem__)
            steps = _split(order, self.batch_size)
        for rows in steps:
            yield from micro_batches(rows, self.process, self.max_rows)

    def __len__(self) -> int:
        steps = _split(range(len(self.lengths)), self.batch_size)
        return sum(len(micro_batches(rows, self.process, self.max_rows)) for rows in steps)


class _EpochLoader(DataLoader[Any]):
    """A DataLoader that passes the epoch on to its batch sampler."""

    def set_epoch(self, epoch: int) -> None:
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]


class StepTrainer(RoutingTrainer):
    """RoutingTrainer on `StepSampler`, with dev metrics that are means over all labels.

    The attributes are set after construction. The last row of each dataset is the dummy row.
    """

    process: ProcessRank
    rows_per_step: int
    rows_per_micro_batch: int

    def get_train_dataloader(self) -> DataLoader[Any]:
        return self._loader(self.train_dataset, self.args.seed)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        return self._loader(self.eval_dataset if eval_dataset is None else eval_dataset, None)

    def _loader(self, rows: Any, seed: int | None) -> DataLoader[Any]:
        lengths = [len(ids) for ids in rows["input_ids"]][:DUMMY_ROW]
        sampler: Any = StepSampler(
            lengths, self.rows_per_step, self.process, self.rows_per_micro_batch, seed
        )
        return _EpochLoader(
            rows,
            batch_sampler=sampler,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )

    @torch.no_grad()
    def evaluation_loop(
        self, dataloader: DataLoader[Any], *_: Any, metric_key_prefix: str = "eval", **__: Any
    ) -> EvalLoopOutput:
        model: Any = self.model
        model.eval()
        loss_fn = LabelLoss(self.decision_weight)
        total = torch.zeros(1, dtype=torch.float64, device=self.args.device)
        for batch in dataloader:
            inputs = self._prepare_inputs(batch)
            with self.compute_loss_context_manager():
                total += self.total_loss(model, inputs, loss_fn)
        summed, *rest = self.accelerator.reduce(torch.cat([total, loss_fn.sums()]))
        sums = Sums(*rest)
        means = sums.as_trl() | sums.as_logged()
        means["loss"] = float(summed / sums.labels.clamp(min=1))
        metrics = {f"{metric_key_prefix}_{name}": mean for name, mean in means.items()}
        rows: Any = dataloader.dataset
        return EvalLoopOutput(np.empty(0), None, metrics, len(rows) - 1)
