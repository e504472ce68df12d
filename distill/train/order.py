"""Which rows make an optimizer step, in which order, and which process computes which of them.

A step holds the same rows however many processes share them, so that two processes train what one
would. The loader of transformers does not promise that: it orders by the batch of one device, and
fills the last batch of an epoch up with rows that were there before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers.trainer_utils import EvalLoopOutput

from distill.sharing import IGNORE_INDEX
from distill.train.processes import ProcessRank
from distill.train.trainer import RoutingTrainer

BLANK = -1
"""The row of a dataset that has no label: its last one."""


def steps(rows: int, size: int, seed: int) -> list[list[int]]:
    """The rows of each optimizer step of an epoch, `size` a step, in random order.

    Steps of rows of like length would waste less on padding, and see in turn short requests alone
    and long ones alone: their loss saws up and down, and the student learns less from as many.
    """
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    return _cut(order.tolist(), size)


def _cut(order: Sequence[int], size: int) -> list[list[int]]:
    return [list(order[at : at + size]) for at in range(0, len(order), size)]


def share(rows: Sequence[int], process: ProcessRank, at_once: int) -> list[list[int]]:
    """What one process computes of a step's rows, in parts of at most `at_once`.

    Every process gets as many parts as every other, as they compute in step; one without rows for
    a part gets a blank one.
    """
    largest = -(-len(rows) // process.world_size)
    parts = -(-largest // at_once)
    own = rows[process.rank :: process.world_size]
    cuts = [len(own) * part // parts for part in range(parts + 1)]
    return [list(own[start:end]) or [BLANK] for start, end in pairwise(cuts)]


class Shares:
    """A batch sampler: this process's share of the steps, epoch after epoch."""

    def __init__(
        self,
        lengths: Sequence[int],
        size: int,
        process: ProcessRank,
        at_once: int,
        seed: int | None,
    ) -> None:
        self.lengths = lengths
        self.size = size
        self.process = process
        self.at_once = at_once
        self.seed = seed
        """None: the rows stay in order of their length, as for evaluation."""
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        for rows in self._steps():
            yield from share(rows, self.process, self.at_once)

    def __len__(self) -> int:
        full, rest = divmod(len(self.lengths), self.size)
        sizes = [range(self.size)] * full + [range(rest)] * bool(rest)
        return sum(len(share(rows, self.process, self.at_once)) for rows in sizes)

    def _steps(self) -> list[list[int]]:
        if self.seed is not None:
            return steps(len(self.lengths), self.size, self.seed + self.epoch)
        order = sorted(range(len(self.lengths)), key=self.lengths.__getitem__)
        return _cut(order, self.size)


class _Loader(DataLoader[Any]):
    """A DataLoader that tells its sampler which epoch it is."""

    def set_epoch(self, epoch: int) -> None:
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]


class OrderedTrainer(RoutingTrainer):
    """RoutingTrainer on `Shares`, with a dev loss that is the mean over all labels of all rows.

    `process`, `rows_per_step` and `part`, the rows that one process computes at a time, are set
    after construction. The last row of each dataset is its blank one.
    """

    process: ProcessRank
    rows_per_step: int
    part: int

    def get_train_dataloader(self) -> DataLoader[Any]:
        return self._loader(self.train_dataset, self.args.seed)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        return self._loader(self.eval_dataset if eval_dataset is None else eval_dataset, None)

    def _loader(self, rows: Any, seed: int | None) -> DataLoader[Any]:
        lengths = [len(ids) for ids in rows["input_ids"]][:BLANK]
        shares: Any = Shares(lengths, self.rows_per_step, self.process, self.part, seed)
        return _Loader(
            rows,
            batch_sampler=shares,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )

    @torch.no_grad()
    def evaluation_loop(
        self, dataloader: DataLoader[Any], *_: Any, metric_key_prefix: str = "eval", **__: Any
    ) -> EvalLoopOutput:
        model: Any = self.model
        model.eval()
        total = torch.zeros(2, dtype=torch.float64)
        for batch in dataloader:
            labels = int((batch["labels"][:, 1:] != IGNORE_INDEX).sum())
            loss = self.prediction_step(model, batch)[0]
            total += torch.tensor([float(loss) * labels, labels])
        summed, count = self.accelerator.reduce(total.to(self.args.device)).tolist()
        metrics = {f"{metric_key_prefix}_loss": summed / count}
        rows: Any = dataloader.dataset
        return EvalLoopOutput(np.empty(0), None, metrics, len(rows) - 1)
