"""A tiny model made on the spot, and a real vLLM that distill starts for it.

DISTILL_VLLM_COMMAND names how vLLM is started: `make test-vllm` sets it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from render_tokenizers import HERMES_TEMPLATE, tokenizer

from distill.config import Config, TrainConfig
from distill.evaluate.served import ServedStudent, serve_student
from distill.serving.command import vllm_command
from distill.students.quiet import ignore_peft_warnings

CONTEXT = 8192
ARGUMENTS = (
    # The arithmetic that transformers does on a CPU, and few resources.
    *("--dtype=float32", "--enforce-eager", f"--max-model-len={CONTEXT}", "--max-num-seqs=8"),
    # vLLM 0.32 on CPU dies of a request with a seed whose prompt it reads in several pieces
    # ("CPU Generator does not use offset").
    *("--no-enable-chunked-prefill", f"--max-num-batched-tokens={CONTEXT}"),
)


class Made(NamedTuple):
    """A random model, and a random adapter for it."""

    model: Path
    adapter: Path


class Running(NamedTuple):
    student: ServedStudent
    log: Path
    notices: list[str]


@pytest.fixture(scope="session")
def command() -> list[str]:
    """How vLLM is started here."""
    return vllm_command(os.environ["DISTILL_VLLM_COMMAND"])


@pytest.fixture(scope="session", autouse=True)
def small_cache() -> Iterator[None]:
    """One GiB of keys and values: vLLM would take half of the memory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        yield


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Three random layers of Gemma 3 over a vocabulary of bytes, and LoRA on all of them."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    folder = tmp_path_factory.mktemp("made")
    words = tokenizer(HERMES_TEMPLATE)
    words.save_pretrained(folder / "model")
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=len(words),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=64,
        max_position_embeddings=CONTEXT,
        sliding_window=512,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    model = Gemma3ForCausalLM(config)
    model.save_pretrained(folder / "model")
    # B is random too: an adapter as LoRA begins it changes nothing.
    lora = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    with ignore_peft_warnings():
        tuned: Any = get_peft_model(model, lora)
        tuned.save_pretrained(folder / "adapter")
    return Made(folder / "model", folder / "adapter")


@pytest.fixture(scope="session")
def running(
    made: Made, command: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """The model and its adapter, served by vLLM for the whole session."""
    log = tmp_path_factory.mktemp("run") / "8-evaluate" / "vllm.log"
    run: Any = SimpleNamespace(config=Config(train=TrainConfig(student=str(made.model))))
    notices: list[str] = []
    with ExitStack() as stack:
        student = stack.enter_context(
            serve_student(
                run,
                command=command,
                adapter=made.adapter,
                log=log,
                arguments=ARGUMENTS,
                start_timeout=600,
                notice=notices.append,
            )
        )
        yield Running(student, log, notices)
