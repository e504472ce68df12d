"""One optimizer step of a real SFTTrainer, in several ways: seconds, peak memory, loss."""

from __future__ import annotations

import copy
import ctypes
import gc
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset, disable_progress_bars  # type: ignore[import-untyped]
from shapes import Row, plain_tokenizer
from torch import Tensor
from torch.nn.functional import cross_entropy, pad
from transformers import PrinterCallback, TrainerCallback, set_seed
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from distill.students.quiet import ignore_peft_warnings, silence_transformers
from distill.train.trainer import RoutingTrainer

MEGABYTE = 1e6
PART = 2
"""Rows computed together where a variant goes in parts."""
MATMUL = 8192


class Setting(NamedTuple):
    """What all variants have in common."""

    device: str
    precision: str
    rows_at_once: int


class Measured(NamedTuple):
    """One optimizer step: forward, backward, clipping, update."""

    seconds: float
    cpu_seconds: float
    peak: float
    """Bytes: resident memory of the process at its highest, or the device's allocations."""
    more: float
    """Bytes: by how much that is above what was there before the step."""
    loss: float


class Clock(TrainerCallback):
    """Measures from where TRL's loop begins a step to where it has updated the weights."""

    def __init__(self, device: str) -> None:
        self.memory: Memory = Cuda() if device == "cuda" else Resident()

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        gc.collect()
        self.before = self.memory.begin()
        self.began = time.perf_counter(), time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.peak = self.memory.peak()
        self.seconds = time.perf_counter() - self.began[0]
        self.cpu_seconds = time.process_time() - self.began[1]


class Resident:
    """Resident memory of this process, with the high-water mark set back; NaN where Linux is not.

    What other steps have freed is first handed back to the system, so that it does not count.
    """

    def begin(self) -> float:
        try:
            ctypes.CDLL("libc.so.6").malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5", "ascii")
        except OSError:
            return float("nan")
        return self.peak()

    def peak(self) -> float:
        return _proc("/proc/self/status", "VmHWM")


class Cuda:
    """Memory that torch has allocated on the device."""

    def begin(self) -> float:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
        return float(torch.cuda.memory_allocated())

    def peak(self) -> float:
        torch.cuda.synchronize()
        return float(torch.cuda.max_memory_allocated())


Memory = Resident | Cuda


def free_memory(device: str) -> float:
    """Bytes that a step could still take."""
    if device == "cuda":
        return float(torch.cuda.mem_get_info()[0])
    return _proc("/proc/meminfo", "MemAvailable")


def _proc(file: str, field: str) -> float:
    try:
        lines = Path(file).read_text("utf-8").split("\n")
    except OSError:
        return float("nan")
    return next(float(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


class Gathered(SFTTrainer):
    """A padded batch, every row whole, with the head over the vocabulary only at the labels."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        labels: Tensor = inputs["labels"][:, 1:]
        keep = pad(labels != -100, (0, 1))
        logits = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            use_cache=False,
            logits_to_keep=keep,
        ).logits
        flat = logits.reshape(-1, logits.shape[-1]).float()
        return cross_entropy(flat, labels[labels != -100], reduction="sum") / num_items_in_batch


class Shared(RoutingTrainer):
    """distill's trainer. Where it would give sharing up, there is nothing to measure."""

    @staticmethod
    def notice(text: str) -> None:
        raise RuntimeError(text)


Settings = Callable[[Sequence[Row]], dict[str, Any]]


class Variant(NamedTuple):
    """One way to take a step."""

    settings: Settings
    """For SFTConfig, given the rows."""
    trainer: Callable[[Setting, int], type[SFTTrainer]]
    """The class, given the setting and the number of rows."""
    grows: Callable[[float, float, int], float]
    """Seconds or bytes for so many rows, from those for one row and for two."""
    held: Callable[[Setting, int], int] = lambda setting, rows: rows
    """Of so many rows, those whose activations are held at one time."""


def by_rows(one: float, two: float, count: int) -> float:
    """The second row costs what each further one does."""
    return one + max(0.0, two - one) * (count - 1)


def by_pairs(one: float, two: float, count: int) -> float:
    """Rows, and attention over all pairs of them."""
    pair = max(0.0, two - 2 * one) / 2
    return (one - pair) * count + pair * count**2


def _as_shipped(rows: Sequence[Row]) -> dict[str, Any]:
    return {"max_length": _longest(rows)}


def _packing(rows: Sequence[Row]) -> dict[str, Any]:
    # Packed rows of four; all of them make one step, which TRL flattens into one row.
    return {"max_length": 4 * _longest(rows), "packing": True}


def _padding_free(rows: Sequence[Row]) -> dict[str, Any]:
    # TRL takes no max_length with it.
    return {"max_length": None, "padding_free": True}


def _plain(rows: Sequence[Row]) -> dict[str, Any]:
    """Rows as they are, activations kept."""
    return {
        "max_length": None,
        "activation_checkpointing": False,
        "dataset_kwargs": {"skip_prepare_dataset": True},
    }


def _in_parts(settings: Settings, rows: Sequence[Row]) -> dict[str, Any]:
    """The same with gradients accumulated over parts of the batch."""
    part = next(size for size in range(PART, 0, -1) if len(rows) % size == 0)
    return {
        **settings(rows),
        "per_device_train_batch_size": part,
        "gradient_accumulation_steps": len(rows) // part,
    }


def _longest(rows: Sequence[Row]) -> int:
    return max(len(row.ids) for row in rows)


def _trl(setting: Setting, rows: int) -> type[SFTTrainer]:
    return SFTTrainer


def _gathered(setting: Setting, rows: int) -> type[SFTTrainer]:
    return Gathered


def _shared(setting: Setting, rows: int, *, way: str = "cache", whole: bool = False) -> type:
    at_once = rows if whole else setting.rows_at_once
    return type("Shared", (Shared,), {"rows_at_once": at_once, "prefix_sharing": way})


def _rows_at_once(setting: Setting, rows: int) -> int:
    return min(setting.rows_at_once, rows)


def _one_part(setting: Setting, rows: int) -> int:
    return min(PART, rows)


VARIANTS: dict[str, Variant] = {
    "shared": Variant(_plain, _shared, by_rows, _rows_at_once),
    "shared-whole": Variant(_plain, partial(_shared, whole=True), by_rows),
    "flat": Variant(_plain, partial(_shared, way="flat"), by_rows),
    "gathered": Variant(_plain, _gathered, by_rows),
    "gathered-parts": Variant(partial(_in_parts, _plain), _gathered, by_rows, _one_part),
    "trl": Variant(_as_shipped, _trl, by_rows),
    "trl-parts": Variant(partial(_in_parts, _as_shipped), _trl, by_rows, _one_part),
    "trl-packing": Variant(_packing, _trl, by_pairs),
    "trl-padding-free": Variant(_padding_free, _trl, by_pairs),
}
"""distill's cache way with the default rows_at_once, with all rows at once, its flat way; what the
head at the labels alone brings; TRL with its own defaults (gradient checkpointing among them),
packed, and padding-free. Those in parts are what fits where the whole batch does not."""


class Contender:
    """A variant with a trainer of its own; the frozen weights are everybody's."""

    def __init__(self, name: str, model: Any, rows: Sequence[Row], setting: Setting) -> None:
        variant = VARIANTS[name]
        _hush()
        self.clock = Clock(setting.device)
        self.folder = tempfile.TemporaryDirectory()
        self.trainer = variant.trainer(setting, len(rows))(
            model=_with_lora(model),
            args=SFTConfig(**_arguments(self.folder.name, rows, setting), **_of(variant, rows)),
            train_dataset=_dataset(rows),
            processing_class=plain_tokenizer(),
            callbacks=[self.clock],
        )
        self.trainer.remove_callback(PrinterCallback)
        self.start = {n: w.detach().clone() for n, w in self._trained()}
        if isinstance(self.trainer, Shared):
            # distill compares itself with the plain loss once, in its first step.
            self.step()

    def step(self) -> Measured:
        """One step from the starting weights, by TRL's own loop."""
        with torch.no_grad():
            for name, weight in self._trained():
                weight.copy_(self.start[name])
        loss = float(self.trainer.train().training_loss)
        self.trainer.optimizer = None
        clock = self.clock
        more = clock.peak - clock.before
        return Measured(clock.seconds, clock.cpu_seconds, clock.peak, more, loss)

    def flops(self) -> int:
        """What a step computes in matrix products and attention, recomputation included."""
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            self.step()
        return int(counter.get_total_flops())

    def _trained(self) -> list[tuple[str, Tensor]]:
        model: Any = self.trainer.model
        return [(n, w) for n, w in model.named_parameters() if w.requires_grad]

    def close(self) -> None:
        """Free what the trainer holds."""
        self.folder.cleanup()
        del self.trainer, self.start
        gc.collect()


def _hush() -> None:
    silence_transformers()
    disable_progress_bars()
    # SFTConfig sets a default of its own in a way that transformers deprecates.
    warnings.filterwarnings("ignore", "`gradient_checkpointing` is deprecated")
    logging.getLogger("trl").setLevel(logging.ERROR)


def _of(variant: Variant, rows: Sequence[Row]) -> dict[str, Any]:
    settings = variant.settings(rows)
    settings.setdefault("per_device_train_batch_size", len(rows))
    return settings


def _arguments(folder: str, rows: Sequence[Row], setting: Setting) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "max_steps": 1,
        "learning_rate": 2e-4,
        "use_cpu": setting.device == "cpu",
        "bf16": setting.precision == "bf16",
        "save_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": setting.device == "cuda",
    }


def _with_lora(model: Any) -> Any:
    """A copy of the modules around the same weights, with LoRA that is not zero at the start."""
    from peft import LoraConfig, get_peft_model

    kept: Mapping[int, Tensor] = {id(t): t for t in (*model.parameters(), *model.buffers())}
    twin = copy.deepcopy(model, dict(kept))
    config = LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear")
    set_seed(0)
    with ignore_peft_warnings():
        wrapped: Any = get_peft_model(twin, config)
    for name, weight in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.01)
    return wrapped


def _dataset(rows: Sequence[Row]) -> Any:
    return Dataset.from_dict(
        {"input_ids": [row.ids for row in rows], "labels": [row.labels for row in rows]}
    )


def matmul_peak(device: str, precision: str) -> float:
    """Operations a second of one large matrix product, the best of ten."""
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    one = torch.randn(MATMUL, MATMUL, dtype=kind, device=device)
    taken = []
    for _ in range(10):
        torch.cuda.synchronize()
        began = time.perf_counter()
        one @ one
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return 2 * MATMUL**3 / min(taken)
