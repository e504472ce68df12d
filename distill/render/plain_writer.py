"""A conversation as text in FunctionGemma's format, for a tokenizer without a chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from distill import strict_json
from distill.errors import StudentError
from distill.records import Json, Message, Target
from distill.render import functiongemma
from distill.render.formats import FUNCTION_GEMMA, Format
from distill.render.syntax import RenderError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class PlainWriter:
    """FunctionGemma's format, for a tokenizer without a chat template.

    Prompt and turn are tokenized separately, so that no token spans the two. A turn ends with
    <end_of_turn> after calls too: a router waits for no response, and one stop token is learned
    better than two. <start_function_response> stops a generation all the same.
    """

    tokenize_jointly = False
    source = "built in"

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, format: Format | None, *, names_only: bool = False
    ) -> None:
        self.format = format or FUNCTION_GEMMA
        self.declare = functiongemma.declare_name if names_only else functiongemma.declare
        self.bos = tokenizer.bos_token or ""
        vocabulary = tokenizer.get_vocab()
        missing = [marker for marker in functiongemma.MARKERS if marker not in vocabulary]
        if missing:
            raise StudentError(
                f"its tokenizer has no chat template, and no token for {', '.join(missing)}",
                hint="choose a student with a chat template, or add these tokens to it",
            )
        ends = (*functiongemma.STOPS, tokenizer.eos_token)
        self.stops = tuple(dict.fromkeys(end for end in ends if end in vocabulary))

    def plain(self, messages: Sequence[Message]) -> list[Message]:
        """The messages with results in JSON as they are read, so that an escape hides no marker."""
        return [_unescaped(message) if message.role == "tool" else message for message in messages]

    def prompt(self, messages: Sequence[Message], tools: Sequence[Json]) -> str:
        head, rest = self.bos, messages
        if tools:
            system = next((m.content for m in messages[:1] if m.role == "system"), None)
            rest = messages if system is None else messages[1:]
            instructions = functiongemma.reject_markers(developer_instructions(system))
            head += functiongemma.developer_turn(map(self.declare, tools), instructions)
        return head + functiongemma.conversation(rest)

    def turn(
        self, messages: Sequence[Message], target: Target, tools: Sequence[Json], prompt: str
    ) -> str:
        return target_text(self.format, target) + functiongemma.TURN[1]


def _unescaped(message: Message) -> Message:
    fields = functiongemma.result_fields(message)
    try:
        return message.model_copy(update={"content": strict_json.encode(fields)})
    except strict_json.JsonError as error:
        raise RenderError(f"a tool's result is not JSON: {error}") from None


def target_text(format: Format, target: Target) -> str:
    """The target in a format, where the chat template writes no calls itself."""
    if target.calls:
        return format.write(target.calls)
    return functiongemma.reject_markers(target.reply.strip())


def developer_instructions(system: str | None) -> str:
    """FunctionGemma's trigger sentence, followed by the conversation's own system message."""
    if system is None or system.startswith(functiongemma.TRIGGER_SENTENCE):
        return system or functiongemma.TRIGGER_SENTENCE
    return f"{functiongemma.TRIGGER_SENTENCE}\n{system}"
