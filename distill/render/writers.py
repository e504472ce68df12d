"""The two ways in which a conversation becomes text: by the tokenizer's chat template, or by us."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from distill.errors import StudentError
from distill.records import Json, Message, Target, ToolCall, canonical_json
from distill.render import functiongemma
from distill.render.formats import FORMATS, FUNCTION_GEMMA, JSON, Format
from distill.render.syntax import MalformedError, RenderError, TurnContent
from distill.workflow.model import Tool

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_OPENED_THOUGHT = re.compile(r"<think>\s*(?:</think>\s*)?\Z")
_UNDECLARED = (
    "You can call the functions below. To call one, answer with nothing but a JSON object "
    '{"name": <its name>, "arguments": <its arguments>}, one on a line for each call.'
)
_PROBE = Message(role="user", content="Where is the north gate?")
_WORDS = "zebra quartz"
_TOOL_NAME = "probe_tool"
_CALL = ToolCall(name=_TOOL_NAME, arguments={"place": "north gate", "count": 2})
_TOOL = Tool(name=_TOOL_NAME, description="Probe.", parameters={"type": "object"}).openai()
_OTHER = Tool(name="second_tool", description="Probe.", parameters={"type": "object"}).openai()
_BESIDE: tuple[Json, ...] = (
    {},
    {"description": ""},
    {"description": "", "parameters": {"type": "object", "properties": {}}},
)
"""What may stand beside a tool's name where no more than names is shown, the shortest first."""


class PlainWriter:
    """FunctionGemma's format for a tokenizer that has no chat template of its own.

    The turn is tokenized apart from the prompt, so that no token spans the two. It ends with
    <end_of_turn> after calls too: a router waits for no response, and one end is learned better
    than two. <start_function_response> ends a generation all the same.
    """

    whole = False
    source = "built in"

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, format: Format | None, *, names: bool = False
    ) -> None:
        self.format = format or FUNCTION_GEMMA
        self.declare = functiongemma.declare_name if names else functiongemma.declare
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

    def prompt(self, messages: Sequence[Message], tools: Sequence[Json]) -> str:
        head, rest = self.bos, messages
        if tools:
            system = next((m.content for m in messages[:1] if m.role == "system"), None)
            rest = messages if system is None else messages[1:]
            instructions = functiongemma.safe(_instructions(system))
            head += functiongemma.developer_turn(map(self.declare, tools), instructions)
        return head + functiongemma.conversation(rest)

    def turn(
        self, messages: Sequence[Message], target: Target, tools: Sequence[Json], prompt: str
    ) -> str:
        return _said(self.format, target) + functiongemma.TURN[1]


class TemplateWriter:
    """The tokenizer's own chat template, which is asked how it writes calls and ends a turn.

    With `names` it is shown the tools' names, and what it cannot do without beside them.
    """

    whole = True

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, format: Format | None, *, names: bool = False
    ) -> None:
        self.tokenizer = tokenizer
        self.source = str(tokenizer.chat_template)
        self.beside: Json | None = None
        self.developer = False
        self.writes_calls = True
        self.shows_tools = True
        try:
            self.shows_tools = _TOOL_NAME in self._apply([_PROBE], [_TOOL])
            self.format = self._detect(format)
            self.stops = self._find_stops()
        except RenderError as error:
            raise _unusable(f"fails on a plain conversation: {error}") from None
        self.developer = self.format is FUNCTION_GEMMA
        if names:
            self.beside = next(filter(self._suffices, _BESIDE[:-1]), _BESIDE[-1])

    def prompt(self, messages: Sequence[Message], tools: Sequence[Json]) -> str:
        return self._apply(messages, tools)

    def turn(
        self, messages: Sequence[Message], target: Target, tools: Sequence[Json], prompt: str
    ) -> str:
        """What the template writes after the prompt for the assistant's turn."""
        turn = self._after(prompt, [*messages, self._assistant(target)], tools)
        return turn if any(stop in turn for stop in self.stops) else turn + self.stops[0]

    def _after(self, prompt: str, messages: Sequence[Message], tools: Sequence[Json]) -> str:
        full = self._apply(messages, tools, prompting=False)
        if full.startswith(prompt):
            return full[len(prompt) :]
        # Some templates open or skip a thought for the prompt and strip it from what was said.
        # What is served is the prompt as it is; the turn follows it.
        header = _OPENED_THOUGHT.sub("", prompt)
        if full.startswith(header):
            return full[len(header) :].lstrip("\n")
        raise _unusable("writes a conversation differently when the assistant's turn is in it")

    def _assistant(self, target: Target) -> Message:
        if self.writes_calls:
            return Message(role="assistant", content=target.reply, tool_calls=target.calls)
        return Message(role="assistant", content=_said(self.format, target))

    def template_inputs(
        self, messages: Sequence[Message], tools: Sequence[Json]
    ) -> tuple[list[dict[str, Any]], list[Any] | None]:
        """The turns and the tools that the chat template is given for a conversation."""
        turns = [_openai(message, at) for at, message in enumerate(messages)]
        if not turns:
            raise RenderError("an empty conversation")
        if self.beside is not None:
            tools = [_reduced(tool, self.beside) for tool in tools]
        return self._instructed(turns, tools), list(tools) or None

    def _apply(
        self, messages: Sequence[Message], tools: Sequence[Json], prompting: bool = True
    ) -> str:
        from jinja2 import TemplateError

        turns, shown = self.template_inputs(messages, tools)
        try:
            # A router answers at once: templates that can think are asked not to.
            switches: dict[str, Any] = {"enable_thinking": False}
            text = self.tokenizer.apply_chat_template(
                turns,
                tools=shown,
                add_generation_prompt=prompting,
                tokenize=False,
                **switches,
            )
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            raise RenderError(f"the chat template says: {error}") from None
        return str(text)

    def _instructed(
        self, turns: list[dict[str, Any]], tools: Sequence[Json]
    ) -> list[dict[str, Any]]:
        """The turns, with the instructions in front that the template leaves to its caller."""
        if not tools or (self.shows_tools and not self.developer):
            return turns
        system = turns[0]["content"] if turns[0]["role"] == "system" else None
        rest = turns if system is None else turns[1:]
        if self.developer:
            return [{"role": "developer", "content": _instructions(system)}, *rest]
        shown = tools if self.beside is None else [tool["function"] for tool in tools]
        declared = "\n".join(map(canonical_json, shown))
        content = "\n".join(filter(None, [system, _UNDECLARED, declared]))
        return [{"role": "system", "content": content}, *rest]

    def _suffices(self, beside: Json) -> bool:
        """Whether the template shows tools of which it is told a name and `beside` alone.

        A key that it writes itself, once for each tool, is a key whose value it wants.
        """
        self.beside = beside
        try:
            one, two = (self._apply([_PROBE], tools) for tools in ([_TOOL], [_TOOL, _OTHER]))
        except RenderError:
            return False
        wanted = [key for key in _BESIDE[-1] if one.count(key) != two.count(key)]
        return _TOOL_NAME in one and beside.keys() >= {*wanted}

    def _detect(self, chosen: Format | None) -> Format:
        """The format that reads back what the template writes for a call.

        A template that writes no calls, or not in the chosen format, is given them as words.
        """
        call = Message(role="assistant", tool_calls=(_CALL,))
        text = self._after(self._apply([_PROBE], ()), [_PROBE, call], ())
        for format in [chosen] if chosen else FORMATS:
            if _reads(format, text, _CALL):
                return format
        if not chosen and _TOOL_NAME in text:
            raise _unusable(f"writes calls in a way that distill cannot read: {text[:120]!r}")
        self.writes_calls = False
        return chosen or JSON

    def _find_stops(self) -> tuple[str, ...]:
        """The tokens after which nothing more is said: asked of the template, and known ones."""
        vocabulary = self.tokenizer.get_vocab()
        reply = Message(role="assistant", content=_WORDS)
        text = self._after(self._apply([_PROBE], ()), [_PROBE, reply], ())
        tail = encode(self.tokenizer, text[text.index(_WORDS) + len(_WORDS) :])
        added = self.tokenizer.added_tokens_decoder
        ends = [str(added[token]) for token in tail if token in added][:1]
        ends += [*self.format.stops, self.tokenizer.eos_token or ""]
        found = tuple(dict.fromkeys(end for end in ends if end in vocabulary))
        if not found:
            raise _unusable("ends the assistant's turn with no token of its own")
        return found


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The ids of a text that holds its own special tokens; RenderError where it has none."""
    try:
        return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    except (UnicodeError, TypeError) as error:
        raise RenderError(f"the text is not Unicode that can be tokenized: {error}") from None


def _reduced(tool: Json, beside: Json) -> Json:
    """The tool without all but its name and what is to stand `beside` it."""
    function = tool.get("function", tool)
    assert isinstance(function, dict)
    return {"type": "function", "function": {"name": function["name"], **beside}}


def _said(format: Format, target: Target) -> str:
    """The target as the assistant's text."""
    if target.calls:
        return format.write(target.calls)
    return functiongemma.safe(target.reply.strip())


def _instructions(system: str | None) -> str:
    """FunctionGemma's trigger sentence, and after it what the conversation itself instructs."""
    if system is None or system.startswith(functiongemma.DEVELOPER):
        return system or functiongemma.DEVELOPER
    return f"{functiongemma.DEVELOPER}\n{system}"


def _reads(format: Format, text: str, call: ToolCall) -> bool:
    for end in (len(text), *sorted(_ends(text), reverse=True)):
        try:
            if format.read(text[:end]) == TurnContent(calls=(call,)):
                return True
        except MalformedError:
            continue
    return False


def _ends(text: str) -> Iterable[int]:
    return (found.start() for found in re.finditer(r"<", text))


def _openai(message: Message, at: int) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.name:
        turn["name"] = message.name
    if message.tool_calls:
        turn["tool_calls"] = [
            # Mistral's template wants an id of nine letters or digits.
            {
                "type": "function",
                "id": f"call{at:03d}{number:02d}",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for number, call in enumerate(message.tool_calls)
        ]
    return turn


def _unusable(cause: str) -> StudentError:
    return StudentError(
        f"its chat template {cause}",
        hint="choose another student, or give its tokenizer another chat template",
    )
