"""Compare an export with its student: greedy answers to the same prompts, id by id."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from distill.errors import ExportError, StudentError
from distill.evaluate.score import cases_of
from distill.export.merged import has_own_code
from distill.export.template import PROBE_CONVERSATIONS
from distill.files import read_records
from distill.records import Case, Example, Message
from distill.render import Renderer, RenderError
from distill.run import layout
from distill.run.folder import RunFolder
from distill.sharing.decode import context_length, greedy_decode
from distill.students import Student
from distill.students.quiet import ignore_peft_warnings, silence_transformers
from distill.students.untrusted import NO_CODE, NO_PICKLE, load_adapter

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MAX_PROMPTS = 20


class ParityPrompt(NamedTuple):
    """A prompt as text, as messages and as the student's token ids."""

    text: str
    messages: tuple[Message, ...]
    ids: list[int]


class Parity(NamedTuple):
    """The number of prompts answered the same, of how many, and the first difference."""

    same: int
    of: int
    difference: str = ""

    @property
    def exact(self) -> bool:
        return self.same == self.of


def parity_prompts(run: RunFolder, renderer: Renderer, max_tokens: int) -> list[ParityPrompt]:
    """Up to 20 prompts of at most `max_tokens`: held-out rows, then gold, then training rows.

    Raises ExportError if there is none.
    """
    found: list[ParityPrompt] = []
    for case in _candidate_cases(run):
        try:
            ids = renderer.prompt(case.messages, case.tools)
        except RenderError:
            continue
        if len(ids) <= max_tokens:
            found.append(ParityPrompt(case.conversation.last_user, case.messages, ids))
        if len(found) == MAX_PROMPTS:
            break
    if not found:
        raise ExportError(
            "no prompt of the run fits the student: an export could not be checked",
            place=run.path,
            hint="choose a student with more positions, and train it",
        )
    return found


def _candidate_cases(run: RunFolder) -> Sequence[Case]:
    held_out = cases_of(read_records(run.path / layout.SPLITS["test"], Example))
    if len(held_out) >= MAX_PROMPTS:
        return held_out
    # An export declares the run's tools: cases with their own are left out.
    gold = [case for case in run.workflow.gold if case.tools is None]
    return [*held_out, *gold, *cases_of(read_records(run.path / layout.SPLITS["train"], Example))]


def greedy_answers(
    model: PreTrainedModel,
    prompts: Sequence[ParityPrompt],
    renderer: Renderer,
    max_new_tokens: int,
) -> list[list[int]]:
    """The ids that the model generates for each prompt, cut to what fits behind the longest."""
    ids = [prompt.ids for prompt in prompts]
    if limit := context_length(model):
        max_new_tokens = min(max_new_tokens, limit - max(map(len, ids)))
    stop_ids = (*renderer.stop_ids, *renderer.invalid_marker_ids)
    return greedy_decode(model, ids, stop_ids, max_new_tokens)


def load_reference(student: Student, adapter: Path) -> PreTrainedModel:
    """The base model with its adapter unmerged, as in training: what an export must equal."""
    if not (adapter / "adapter_config.json").is_file():
        return student.load(adapter)
    base: Any = student.load_weights()
    with ignore_peft_warnings():
        model: Any = load_adapter(base, adapter)
    model.eval()
    return model  # type: ignore[no-any-return]


def load_merged(folder: Path) -> PreTrainedModel:
    """The model in an exported Hugging Face folder, loaded as a user of it would."""
    return _load_model(folder, trust_remote_code=has_own_code(folder))


def load_gguf(path: Path, like: PreTrainedModel) -> PreTrainedModel:
    """The weights of a GGUF file, dequantized by transformers, with the config of `like`.

    The config that transformers reads from the file's metadata lacks what GGUF cannot express.
    Raises ExportError if what it does have differs from the config of `like`.
    """
    from transformers import AutoConfig

    with _load_errors(path):
        found: Any = AutoConfig.from_pretrained(path.parent, gguf_file=path.name, **NO_CODE)
    config: Any = like.config
    differences = [
        f"{name} is {getattr(found, name)}, not {getattr(config, name)}"
        for name in _CONFIG_FIELDS
        if hasattr(config, name) and getattr(found, name, None) != getattr(config, name)
    ]
    if differences:
        raise ExportError(
            f"its metadata are not the student's: {'; '.join(differences)}",
            place=path,
            hint="this is a fault of distill: please report it; --format hf is not touched by it",
        )
    import torch

    # Hides the reader's progress bar: distill has its own.
    with contextlib.redirect_stderr(io.StringIO()):
        return _load_model(path.parent, gguf_file=path.name, config=config, dtype=torch.float32)


_CONFIG_FIELDS = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "max_position_embeddings"),
)
"""Fields of a config that GGUF metadata have too."""


def compare_templates(
    folder: Path, prompts: Sequence[ParityPrompt], renderer: Renderer
) -> tuple[int, int]:
    """How many conversations without tool calls the exported template renders the same, of all."""
    from transformers import AutoTokenizer

    load: Any = AutoTokenizer.from_pretrained
    with _load_errors(folder):
        tokenizer = load(str(folder), trust_remote_code=has_own_code(folder))
    conversations = [
        (prompt.messages, prompt.ids)
        for prompt in prompts
        if not any(message.role == "tool" or message.tool_calls for message in prompt.messages)
    ]
    conversations += [(probe, renderer.prompt(probe)) for probe in PROBE_CONVERSATIONS]
    same = 0
    for messages, ids in conversations:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        found = tokenizer.apply_chat_template(turns, add_generation_prompt=True)
        same += list(found["input_ids"]) == ids
    return same, len(conversations)


def count_same_tokenizations(
    path: Path, prompts: Sequence[ParityPrompt], renderer: Renderer
) -> int | None:
    """How many prompts get the same ids by the tokenizer that transformers reads from a GGUF file.

    None if transformers does not know the file's pre-tokenizer: it would guess one.
    """
    from transformers import AutoTokenizer
    from transformers.integrations.gguf.gguf_tokenizer_mapping import (
        GGUF_PRE_TOKENIZER_SPLITS,
        get_gguf_tokenizer,
    )

    _, metadata, _ = get_gguf_tokenizer(str(path))
    pre = metadata["pre_tokenizer_type"]
    if pre != "default" and pre not in GGUF_PRE_TOKENIZER_SPLITS:
        return None
    with _load_errors(path):
        tokenizer: Any = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, **NO_CODE)
    texts = [renderer.prompt_text(prompt.messages) for prompt in prompts]
    found = [list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    return sum(ids == prompt.ids for ids, prompt in zip(found, prompts, strict=True))


def compare_answers(
    expected: Sequence[Sequence[int]],
    found: Sequence[Sequence[int]],
    prompts: Sequence[ParityPrompt],
    renderer: Renderer,
) -> Parity:
    """The student's and the export's answers, prompt by prompt."""
    differing = [at for at, ids in enumerate(expected) if list(ids) != list(found[at])]
    if not differing:
        return Parity(len(expected), len(expected))
    first = differing[0]
    difference = (
        f"to {prompts[first].text!r} the student says {renderer.decode(expected[first])!r}, "
        f"the export {renderer.decode(found[first])!r}"
    )
    return Parity(len(expected) - len(differing), len(expected), difference)


def _load_model(folder: Path, **options: Any) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    silence_transformers()
    load: Any = AutoModelForCausalLM.from_pretrained
    with _load_errors(folder):
        model: Any = load(str(folder), **{**NO_PICKLE, **options})
    model.eval()
    return model  # type: ignore[no-any-return]


@contextlib.contextmanager
def _load_errors(place: Path) -> Iterator[None]:
    """Translates what transformers raises for files that it cannot load to StudentError."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        text = next((line for line in str(error).splitlines() if line.strip()), "")
        raise StudentError(
            f"the export cannot be loaded again: {text or type(error).__name__}",
            place=place,
            hint="nothing was kept of it; another --format may do",
        ) from None
