"""Conversation to token ids and loss mask, and generated tokens back to calls or words.

A tokenizer with a chat template is rendered by that template, token for token. One without gets
FunctionGemma's format. In both, an example's ids begin with exactly the ids of its prompt, so
that what is trained is what is served.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from distill.errors import StudentError
from distill.records import Json, Message, Target, ToolCall, canonical_json, digest
from distill.render.formats import Format
from distill.render.syntax import MalformedError, RenderError
from distill.render.writers import PlainWriter, TemplateWriter, encode
from distill.workflow.model import Tool

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VERSION = 1
"""Raised when the same input is rendered differently; part of every fingerprint."""

_PROBE = Message(role="user", content="Where is the north gate?")


@dataclass(frozen=True)
class Rendered:
    """A training row: `mask` is True on the assistant's tokens, its end of turn included."""

    ids: list[int]
    mask: list[bool]


class Parsed(NamedTuple):
    """What a student said; `detail` tells why it is malformed."""

    calls: tuple[ToolCall, ...] = ()
    reply: str = ""
    malformed: bool = False
    detail: str = ""


class Renderer:
    """The one renderer of a student: prompts, training rows, and the reading of what it says.

    stop_ids: the tokens that end a generation.
    invalid_marker_ids: the tokens after which it is malformed whatever follows.
    declarations: "full" puts the tools into the prompt, "names" no more than their names; what
        is not shown is left to be learned. With "none" rows cannot bring tools of their own.
    format: how calls are written; None asks the chat template.

    Raises StudentError when the tokenizer or its template cannot be used.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        tools: Sequence[Tool],
        *,
        declarations: Literal["full", "names", "none"] = "full",
        format: Format | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.tools: tuple[Json, ...] = tuple(tool.openai() for tool in tools)
        self.declarations = declarations
        self._writer: TemplateWriter | PlainWriter
        names = declarations == "names"
        try:
            if tokenizer.chat_template:
                self._writer = TemplateWriter(tokenizer, format, names=names)
            else:
                self._writer = PlainWriter(tokenizer, format, names=names)
            self.format = self._writer.format
            self.stop_ids = self._holding(self._writer.stops)
            self.invalid_marker_ids = self._holding(self.format.invalid_markers, but=self.stop_ids)
            probe = self.prompt([_PROBE])
        except RenderError as error:
            raise StudentError(
                f"the tools cannot be shown to this student: {error}",
                hint="change the tool's name or description, or choose another student",
            ) from None
        self.fingerprint = digest(
            [VERSION, self.format.name, self._writer.source, declarations, self.tools, probe]
        )

    def prompt(self, messages: Sequence[Message], tools: Sequence[Json] | None = None) -> list[int]:
        """The ids after which the student speaks; `tools` replace the workflow's.

        Raises RenderError for a conversation that cannot be rendered.
        """
        return self._encode(self.prompt_text(messages, tools))

    def prompt_text(self, messages: Sequence[Message], tools: Sequence[Json] | None = None) -> str:
        """`prompt` before it is tokenized, special tokens included."""
        return self._writer.prompt(messages, self._shown(tools))

    def template_inputs(
        self, messages: Sequence[Message]
    ) -> tuple[list[dict[str, Any]], list[Any] | None] | None:
        """What the chat template is given for a conversation; None where there is no template."""
        if isinstance(self._writer, PlainWriter):
            return None
        return self._writer.template_inputs(messages, self._shown(None))

    def example(
        self,
        messages: Sequence[Message],
        target: Target,
        tools: Sequence[Json] | None = None,
    ) -> Rendered:
        """The prompt and the turn that should follow it; only that turn is in the mask.

        Raises RenderError for what cannot be rendered, or would not be read back as it is.
        """
        text = self.prompt_text(messages, tools)
        turn = self._writer.turn(messages, target, self._shown(tools), text)
        self._check(turn, target)
        prompt = self._encode(text)
        ids = self._joined(prompt, text, turn)
        end = self._end(ids, len(prompt))
        return Rendered(ids, [len(prompt) <= at <= end for at in range(len(ids))])

    def decode(self, ids: Iterable[int]) -> str:
        """The ids as text, markers included."""
        return str(
            self.tokenizer.decode(
                list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )

    def parse(self, said: str | Sequence[int]) -> Parsed:
        """What a turn says: calls, or words. Anything undecodable is malformed, with a detail.

        Ids without an end of turn were cut off, and are malformed. Text may leave its end
        marker out, as servers strip it.
        """
        if not isinstance(said, str):
            ids = list(said)
            end = next((at for at, token in enumerate(ids) if token in self.stop_ids), len(ids))
            if end == len(ids) and not set(ids) & set(self.invalid_marker_ids):
                return Parsed(malformed=True, detail=f"no end of turn in {len(ids)} tokens")
            said = self.decode(ids[: end + 1])
        try:
            calls, reply = self.format.read(self._before_stop(said))
        except MalformedError as error:
            return Parsed(malformed=True, detail=str(error))
        return Parsed(calls, reply)

    def _holding(self, markers: Iterable[str], but: Sequence[int] = ()) -> tuple[int, ...]:
        """The tokens whose text holds one of `markers`, the markers themselves first."""
        texts = {id: str(token) for id, token in self.tokenizer.added_tokens_decoder.items()}
        vocabulary = self.tokenizer.get_vocab()
        exact = [vocabulary[marker] for marker in markers if marker in vocabulary]
        longer = [id for id, text in texts.items() if any(marker in text for marker in markers)]
        return tuple(id for id in dict.fromkeys([*exact, *longer]) if id not in but)

    def _before_stop(self, text: str) -> str:
        ends = (text.find(stop) for stop in self._writer.stops)
        return text[: min((end for end in ends if end >= 0), default=len(text))]

    def _shown(self, tools: Sequence[Json] | None) -> Sequence[Json]:
        if self.declarations == "none":
            return ()
        return self.tools if tools is None else tools

    def _encode(self, text: str) -> list[int]:
        return encode(self.tokenizer, text)

    def _joined(self, prompt: list[int], text: str, turn: str) -> list[int]:
        """Prompt and turn as one row, tokenized as a whole where that keeps the prompt's ids."""
        whole = self._encode(text + turn) if self._writer.whole else []
        return whole if whole[: len(prompt)] == prompt else prompt + self._encode(turn)

    def _end(self, ids: list[int], start: int) -> int:
        for at in range(start, len(ids)):
            if ids[at] in self.stop_ids:
                return at
        raise RenderError("the assistant's turn has no end")

    def _check(self, turn: str, target: Target) -> None:
        parsed = self.parse(turn)
        said = [call.model_dump() for call in parsed.calls]
        meant = [call.model_dump() for call in target.calls]
        # As canonical JSON, because in Python 1 == 1.0 == True.
        if parsed.reply != target.reply.strip() or canonical_json(said) != canonical_json(meant):
            cause = f": {parsed.detail}" if parsed.detail else ""
            raise RenderError(f"the target would not be read back as it is{cause}")
