"""Whether an export answers as the student did: the same prompts, greedily, id by id."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from distill.errors import ExportError, StudentError
from distill.evaluate.score import cases_of
from distill.export.merged import REMOTE
from distill.export.template import probes
from distill.files import read_records
from distill.records import Case, Example, Message
from distill.render import Renderer, RenderError
from distill.run import layout
from distill.run.folder import RunFolder
from distill.sharing.decode import context_length, greedy_decode
from distill.students import Student
from distill.students.quiet import ignore_peft_warnings, silence_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROMPTS = 20


class Asked(NamedTuple):
    """A prompt as a person reads it, and as the student does."""

    text: str
    messages: tuple[Message, ...]
    ids: list[int]


class Parity(NamedTuple):
    """How many of the prompts an export answers as the student does, and the first difference."""

    same: int
    of: int
    difference: str = ""

    @property
    def whole(self) -> bool:
        return self.same == self.of


def prompts(run: RunFolder, renderer: Renderer, room: int) -> list[Asked]:
    """Up to 20 prompts of at most `room` tokens: held out first, then gold, then training rows."""
    found: list[Asked] = []
    for case in _cases(run):
        try:
            ids = renderer.prompt(case.messages, case.tools)
        except RenderError:
            continue
        if len(ids) <= room:
            found.append(Asked(case.conversation.last_user, case.messages, ids))
        if len(found) == PROMPTS:
            break
    if not found:
        raise ExportError(
            "no prompt of the run fits the student: an export could not be checked",
            place=run.path,
            hint="choose a student with more positions, and train it",
        )
    return found


def _cases(run: RunFolder) -> Sequence[Case]:
    held_out = cases_of(read_records(run.path / layout.SPLITS["test"], Example))
    if len(held_out) >= PROMPTS:
        return held_out
    # A row's own tools may not be the run's, and an export is of the run.
    gold = [case for case in run.workflow.gold if case.tools is None]
    return [*held_out, *gold, *cases_of(read_records(run.path / layout.SPLITS["train"], Example))]


def answers(
    model: PreTrainedModel, asked: Sequence[Asked], renderer: Renderer, max_new_tokens: int
) -> list[list[int]]:
    """What a model says to each prompt, greedily."""
    room = min(max_new_tokens, *(_room(model, len(one.ids)) for one in asked))
    ends = (*renderer.stop_ids, *renderer.invalid_marker_ids)
    return greedy_decode(model, [one.ids for one in asked], ends, room)


def _room(model: PreTrainedModel, length: int) -> int:
    limit = context_length(model)
    return limit - length if limit else 1 << 30


def reference(student: Student, adapter: Path) -> PreTrainedModel:
    """Base and adapter as they were trained, apart: what a merge has to equal."""
    if not (adapter / "adapter_config.json").is_file():
        return student.load(adapter)
    from peft import PeftModel

    base: Any = student.load_weights()
    with ignore_peft_warnings():
        model: Any = PeftModel.from_pretrained(base, str(adapter))
    model.eval()
    return model  # type: ignore[no-any-return]


def load_merged(folder: Path) -> PreTrainedModel:
    """The model in an exported Hugging Face folder, as anybody loads it.

    Code in the folder is distill's own, and was put there by the export.
    """
    return _loaded(folder, trust_remote_code=(folder / REMOTE).is_file())


def load_gguf(path: Path, like: PreTrainedModel) -> PreTrainedModel:
    """The weights of a GGUF file, dequantised by transformers, in a model like `like`.

    transformers makes a config from the file's metadata as well, but leaves out what GGUF has no
    words for; what it does read must be what `like` has. Raises ExportError.
    """
    from transformers import AutoConfig

    read: Any = _tried(lambda: AutoConfig.from_pretrained(path.parent, gguf_file=path.name), path)
    config: Any = like.config
    odd = [
        f"{name} is {getattr(read, name)}, not {getattr(config, name)}"
        for name in _STATED
        if hasattr(config, name) and getattr(read, name, None) != getattr(config, name)
    ]
    if odd:
        raise ExportError(
            f"its metadata are not the student's: {'; '.join(odd)}",
            place=path,
            hint="this is a fault of distill: please report it; --format hf is not touched by it",
        )
    import torch

    # The reader draws a bar of its own; how far an export is, distill says.
    with contextlib.redirect_stderr(io.StringIO()):
        return _loaded(path.parent, gguf_file=path.name, config=config, dtype=torch.float32)


_STATED = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "max_position_embeddings"),
)
"""What GGUF and transformers both call a config's."""


def templates_alike(folder: Path, asked: Sequence[Asked], renderer: Renderer) -> tuple[int, int]:
    """How many conversations in words the exported template renders to the student's prompts."""
    from transformers import AutoTokenizer

    code = (folder / REMOTE).is_file()
    ask: Any = AutoTokenizer.from_pretrained
    tokenizer: Any = _tried(lambda: ask(str(folder), trust_remote_code=code), folder)
    words = [(one.messages, one.ids) for one in asked if all(map(_in_words, one.messages))]
    words += [(tuple(one), renderer.prompt(one)) for one in probes(renderer)]
    same = 0
    for messages, ids in words:
        turns = [{"role": one.role, "content": one.content} for one in messages]
        found = tokenizer.apply_chat_template(turns, add_generation_prompt=True)
        same += list(found["input_ids"]) == ids
    return same, len(words)


def _in_words(message: Message) -> bool:
    return message.role != "tool" and not message.tool_calls


def tokenizes_alike(path: Path, asked: Sequence[Asked], renderer: Renderer) -> int | None:
    """How many prompts the tokenizer that transformers reads from a GGUF file cuts the same.

    None where transformers does not know the file's pre-tokenizer, and would guess.
    """
    from transformers import AutoTokenizer
    from transformers.integrations.gguf.gguf_tokenizer_mapping import (
        GGUF_PRE_TOKENIZER_SPLITS,
        get_gguf_tokenizer,
    )

    _, described, _ = get_gguf_tokenizer(str(path))
    pre = described["pre_tokenizer_type"]
    if pre != "default" and pre not in GGUF_PRE_TOKENIZER_SPLITS:
        return None
    read: Any = _tried(
        lambda: AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name), path
    )
    texts = [renderer.prompt_text(one.messages) for one in asked]
    found = [list(read(text, add_special_tokens=False)["input_ids"]) for text in texts]
    return sum(ids == one.ids for ids, one in zip(found, asked, strict=True))


def compared(
    expected: Sequence[Sequence[int]],
    found: Sequence[Sequence[int]],
    asked: Sequence[Asked],
    renderer: Renderer,
) -> Parity:
    """The two models' answers, prompt by prompt."""
    differing = [at for at, ids in enumerate(expected) if list(ids) != list(found[at])]
    if not differing:
        return Parity(len(expected), len(expected))
    at = differing[0]
    difference = (
        f"to {asked[at].text!r} the student says {renderer.decode(expected[at])!r}, "
        f"the export {renderer.decode(found[at])!r}"
    )
    return Parity(len(expected) - len(differing), len(expected), difference)


def _loaded(folder: Path, **how: Any) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    silence_transformers()
    ask: Any = AutoModelForCausalLM.from_pretrained
    model: Any = _tried(lambda: ask(str(folder), **how), folder)
    model.eval()
    return model  # type: ignore[no-any-return]


def _tried(read: Any, place: Path) -> Any:
    from safetensors import SafetensorError

    try:
        return read()
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        text = next((line for line in str(error).splitlines() if line.strip()), "")
        raise StudentError(
            f"the export cannot be loaded again: {text or type(error).__name__}",
            place=place,
            hint="nothing was kept of it; another --format may do",
        ) from None
