"""Conversations to token ids and a loss mask, and generated tokens back to calls or text.

A tokenizer's own chat template is used, token for token; a tokenizer without one gets
FunctionGemma's format. In both, a training example's ids begin with exactly the ids of its prompt:
training and inference see the same prompt. No text in it becomes a control token
(distill.render.control).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from distill.errors import StudentError
from distill.records import Json, Message, Target, ToolCall, canonical_json, digest
from distill.render.chat_template import PROBE_MESSAGE, TemplateWriter
from distill.render.control import ControlTokens, Quoted
from distill.render.formats import Format
from distill.render.plain_writer import PlainWriter
from distill.render.syntax import MalformedError, RenderError
from distill.workflow.model import Tool

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VERSION = 2
"""Raised when the same input is rendered differently; part of every fingerprint."""


@dataclass(frozen=True)
class Rendered:
    """A training example; `mask` is True on the assistant's turn, its stop token included."""

    ids: list[int]
    mask: list[bool]

    @property
    def completion(self) -> list[int]:
        """The ids on which `mask` is True."""
        return [token for token, masked in zip(self.ids, self.mask, strict=True) if masked]


class Parsed(NamedTuple):
    """A student's answer; `detail` says why it is malformed."""

    calls: tuple[ToolCall, ...] = ()
    reply: str = ""
    malformed: bool = False
    detail: str = ""


class Renderer:
    """A student's prompts, training examples and answer parser.

    stop_ids: the tokens that end a generation.
    invalid_marker_ids: tokens that make an answer malformed whatever follows.
    declarations: "full" declares the tools in the prompt, "names" only their names, "none" nothing:
        what is not in the prompt has to be learned. With "none" a row's own tools are ignored.
    format: the format of calls; None detects it from the chat template.

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
        self.control = ControlTokens(tokenizer)
        self._writer: TemplateWriter | PlainWriter
        names_only = declarations == "names"
        try:
            if tokenizer.chat_template:
                self._writer = TemplateWriter(tokenizer, format, names_only=names_only)
            else:
                self._writer = PlainWriter(tokenizer, format, names_only=names_only)
            self.format = self._writer.format
            self.stop_ids = self._marker_ids(self._writer.stops)
            self.invalid_marker_ids = self._marker_ids(
                self.format.invalid_markers, exclude=self.stop_ids
            )
            probe = self.prompt([PROBE_MESSAGE])
        except RenderError as error:
            raise StudentError(
                f"the tools cannot be shown to this student: {error}",
                hint="change the tool's name or description, or choose another student",
            ) from None
        self.fingerprint = digest(
            [VERSION, self.format.name, self._writer.source, declarations, self.tools, probe]
        )

    def prompt(self, messages: Sequence[Message], tools: Sequence[Json] | None = None) -> list[int]:
        """The ids after which the student generates; `tools` replace the workflow's.

        Raises RenderError for a conversation that cannot be rendered.
        """
        quoted = self._quoted(messages, tools)
        return self.control.encode(self._writer.prompt(quoted.messages, quoted.tools), quoted.cut)

    def prompt_text(self, messages: Sequence[Message], tools: Sequence[Json] | None = None) -> str:
        """The text of `prompt`, special tokens included: tokenized, it gives the ids of `prompt`.

        Raises RenderError also for a conversation that quotes a marker, which text alone cannot.
        """
        quoted = self._quoted(messages, tools)
        if quoted.cut:
            raise RenderError("a marker among the words of a message can be quoted in ids alone")
        return self._writer.prompt(quoted.messages, quoted.tools)

    @property
    def stop_texts(self) -> tuple[str, ...]:
        """The texts of stop tokens, at which `parse` ends an answer that is text."""
        return self._writer.stops

    @property
    def chat_template(self) -> str:
        """The student's own chat template as it is used, its date pinned; empty without one."""
        return self._writer.source if isinstance(self._writer, TemplateWriter) else ""

    @property
    def prompt_tools(self) -> list[Any]:
        """What the prompts contain of the workflow's tools."""
        return [*self._declared(None)]

    def template_inputs(
        self, messages: Sequence[Message]
    ) -> tuple[list[dict[str, Any]], list[Any] | None] | None:
        """The messages and tools passed to the chat template; None for a tokenizer without one."""
        if isinstance(self._writer, PlainWriter):
            return None
        return self._writer.template_inputs(messages, self._declared(None))

    def example(
        self,
        messages: Sequence[Message],
        target: Target,
        tools: Sequence[Json] | None = None,
    ) -> Rendered:
        """The prompt and the target as the assistant's turn; the mask covers that turn alone.

        Raises RenderError for a target that cannot be rendered, or is not parsed back unchanged.
        """
        quoted = self._quoted(messages, tools, target)
        text = self._writer.prompt(quoted.messages, quoted.tools)
        turn = self._turn(quoted, text)
        self._check_round_trip(turn.replace(quoted.cut, "") if quoted.cut else turn, target)
        prompt = self.control.encode(text, quoted.cut)
        joined = self._writer.tokenize_jointly
        ids = self.control.encode(text + turn, quoted.cut) if joined else []
        if ids[: len(prompt)] != prompt:
            # A token that spans the two would change the prompt's ids.
            ids = prompt + self.control.encode(turn, quoted.cut)
        end = next((at for at in range(len(prompt), len(ids)) if ids[at] in self.stop_ids), None)
        if end is None:
            raise RenderError("the assistant's turn has no end")
        return Rendered(ids, [len(prompt) <= at <= end for at in range(len(ids))])

    def decode(self, ids: Iterable[int]) -> str:
        """The ids as text, special tokens included."""
        return str(
            self.tokenizer.decode(
                list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )

    def parse(self, answer: str | Sequence[int]) -> Parsed:
        """The calls or the reply in an assistant turn; an invalid turn is malformed, with a detail.

        Ids without a stop token were cut off, and are malformed. Text may lack it: servers strip
        the stop token.
        """
        if not isinstance(answer, str):
            ids = list(answer)
            end = next((at for at, token in enumerate(ids) if token in self.stop_ids), len(ids))
            if end == len(ids) and not set(ids) & set(self.invalid_marker_ids):
                return Parsed(malformed=True, detail=f"no end of turn in {len(ids)} tokens")
            answer = self.decode(ids[: end + 1])
        stops = [at for stop in self._writer.stops if (at := answer.find(stop)) >= 0]
        try:
            calls, reply = self.format.read(answer[: min(stops, default=len(answer))])
        except MalformedError as error:
            return Parsed(malformed=True, detail=str(error))
        return Parsed(calls, reply)

    def _marker_ids(self, markers: Iterable[str], exclude: Sequence[int] = ()) -> tuple[int, ...]:
        """The tokens whose text contains one of `markers`, the markers themselves first."""
        texts = {id: str(token) for id, token in self.tokenizer.added_tokens_decoder.items()}
        vocabulary = self.tokenizer.get_vocab()
        exact = [vocabulary[marker] for marker in markers if marker in vocabulary]
        longer = [id for id, text in texts.items() if any(marker in text for marker in markers)]
        return tuple(id for id in dict.fromkeys([*exact, *longer]) if id not in exclude)

    def _declared(self, tools: Sequence[Json] | None) -> Sequence[Json]:
        if self.declarations == "none":
            return ()
        return self.tools if tools is None else tools

    def _quoted(
        self,
        messages: Sequence[Message],
        tools: Sequence[Json] | None,
        target: Target | None = None,
    ) -> Quoted:
        return self.control.quote(self._writer.plain(messages), self._declared(tools), target)

    def _turn(self, quoted: Quoted, prompt: str) -> str:
        assert quoted.target is not None
        return self._writer.turn(quoted.messages, quoted.target, quoted.tools, prompt)

    def _check_round_trip(self, turn: str, target: Target) -> None:
        parsed = self.parse(turn)
        # As canonical JSON, because in Python 1 == 1.0 == True.
        found, expected = (
            canonical_json([call.model_dump() for call in calls])
            for calls in (parsed.calls, target.calls)
        )
        if parsed.reply != target.reply.strip() or found != expected:
            cause = f": {parsed.detail}" if parsed.detail else ""
            raise RenderError(f"the target would not be read back as it is{cause}")
