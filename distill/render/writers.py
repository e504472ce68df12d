"""A conversation as text: by the tokenizer's chat template, or in FunctionGemma's format."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from distill.errors import StudentError
from distill.records import Json, Message, Target, ToolCall, canonical_json
from distill.render import functiongemma
from distill.render.formats import FORMATS, FUNCTION_GEMMA, JSON, Format
from distill.render.syntax import MalformedError, RenderError, TurnContent
from distill.workflow.model import Tool

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_OPEN_THINKING = re.compile(r"<think>\s*(?:</think>\s*)?\Z")
_JSON_INSTRUCTIONS = (
    "You can call the functions below. To call one, answer with nothing but a JSON object "
    '{"name": <its name>, "arguments": <its arguments>}, one on a line for each call.'
)
PROBE_MESSAGE = Message(role="user", content="Where is the north gate?")
PROBE_CALL = ToolCall(name="probe_tool", arguments={"place": "north gate", "count": 2})
"""What templates and renderers are tried on."""
_PROBE_REPLY = "zebra quartz"
_PROBE_TOOL, _SECOND_TOOL = (
    Tool(name=name, description="Probe.", parameters={"type": "object"}).openai()
    for name in (PROBE_CALL.name, "second_tool")
)
_NAME_ONLY_FIELDS: tuple[Json, ...] = (
    {},
    {"description": ""},
    {"description": "", "parameters": {"type": "object", "properties": {}}},
)
"""Empty fields that a template may require beside a tool's name, the shortest first."""


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

    def prompt(self, messages: Sequence[Message], tools: Sequence[Json]) -> str:
        head, rest = self.bos, messages
        if tools:
            system = next((m.content for m in messages[:1] if m.role == "system"), None)
            rest = messages if system is None else messages[1:]
            instructions = functiongemma.reject_markers(_developer_instructions(system))
            head += functiongemma.developer_turn(map(self.declare, tools), instructions)
        return head + functiongemma.conversation(rest)

    def turn(
        self, messages: Sequence[Message], target: Target, tools: Sequence[Json], prompt: str
    ) -> str:
        return _target_text(self.format, target) + functiongemma.TURN[1]


class TemplateWriter:
    """The tokenizer's chat template; its format of calls and its stop tokens are detected.

    With `names_only` it gets the tools' names, and of the other fields only those that it requires,
    empty.
    """

    tokenize_jointly = True

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, format: Format | None, *, names_only: bool = False
    ) -> None:
        self.tokenizer = tokenizer
        self.source = str(tokenizer.chat_template)
        self.name_only_fields: Json | None = None
        self.needs_developer_turn = False
        self.writes_calls = True
        self.shows_tools = True
        try:
            self.shows_tools = PROBE_CALL.name in self._apply([PROBE_MESSAGE], [_PROBE_TOOL])
            self.format = self._detect_format(format)
            self.stops = self._find_stops()
        except RenderError as error:
            raise _unusable_template(f"fails on a plain conversation: {error}") from None
        self.needs_developer_turn = self.format is FUNCTION_GEMMA
        if names_only:
            *shorter, complete = _NAME_ONLY_FIELDS
            self.name_only_fields = next(filter(self._shows_tools_with, shorter), complete)

    def prompt(self, messages: Sequence[Message], tools: Sequence[Json]) -> str:
        return self._apply(messages, tools)

    def turn(
        self, messages: Sequence[Message], target: Target, tools: Sequence[Json], prompt: str
    ) -> str:
        """The assistant's turn as the template writes it after the prompt."""
        if self.writes_calls:
            answer = Message(role="assistant", content=target.reply, tool_calls=target.calls)
        else:
            answer = Message(role="assistant", content=_target_text(self.format, target))
        turn = self._after(prompt, [*messages, answer], tools)
        return turn if any(stop in turn for stop in self.stops) else turn + self.stops[0]

    def _after(self, prompt: str, messages: Sequence[Message], tools: Sequence[Json]) -> str:
        """What the template writes for `messages` after `prompt`, the text of all but the last."""
        full = self._apply(messages, tools, add_generation_prompt=False)
        if full.startswith(prompt):
            return full[len(prompt) :]
        # Some templates end the prompt with <think>, and strip it from an assistant turn that is in
        # the conversation. The prompt is served as it is; the turn follows it.
        header = _OPEN_THINKING.sub("", prompt)
        if full.startswith(header):
            return full[len(header) :].lstrip("\n")
        raise _unusable_template(
            "writes a conversation differently when the assistant's turn is in it"
        )

    def template_inputs(
        self, messages: Sequence[Message], tools: Sequence[Json]
    ) -> tuple[list[dict[str, Any]], list[Any] | None]:
        """The messages and tools passed to the chat template, in OpenAI's format."""
        turns = [_openai_message(message, at) for at, message in enumerate(messages)]
        if not turns:
            raise RenderError("an empty conversation")
        if self.name_only_fields is not None:
            tools = [_name_only(tool, self.name_only_fields) for tool in tools]
        return self._with_instructions(turns, tools), list(tools) or None

    def _apply(
        self,
        messages: Sequence[Message],
        tools: Sequence[Json],
        *,
        add_generation_prompt: bool = True,
    ) -> str:
        from jinja2 import TemplateError

        turns, declared = self.template_inputs(messages, tools)
        try:
            text = self.tokenizer.apply_chat_template(
                turns,
                tools=declared,
                add_generation_prompt=add_generation_prompt,
                tokenize=False,
                # A router answers at once, without reasoning.
                enable_thinking=False,
            )
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            raise RenderError(f"the chat template says: {error}") from None
        return str(text)

    def _with_instructions(
        self, turns: list[dict[str, Any]], tools: Sequence[Json]
    ) -> list[dict[str, Any]]:
        """The turns, headed by the instructions that the template leaves to its caller."""
        if not tools or (self.shows_tools and not self.needs_developer_turn):
            return turns
        system = turns[0]["content"] if turns[0]["role"] == "system" else None
        rest = turns if system is None else turns[1:]
        if self.needs_developer_turn:
            return [{"role": "developer", "content": _developer_instructions(system)}, *rest]
        schemas = tools if self.name_only_fields is None else [tool["function"] for tool in tools]
        declarations = "\n".join(map(canonical_json, schemas))
        content = "\n".join(filter(None, [system, _JSON_INSTRUCTIONS, declarations]))
        return [{"role": "system", "content": content}, *rest]

    def _shows_tools_with(self, fields: Json) -> bool:
        """Whether the template shows tools that have a name and no fields but these.

        A key that the template itself prints once for each tool is one whose value it requires.
        """
        self.name_only_fields = fields
        try:
            one = self._apply([PROBE_MESSAGE], [_PROBE_TOOL])
            two = self._apply([PROBE_MESSAGE], [_PROBE_TOOL, _SECOND_TOOL])
        except RenderError:
            return False
        required = [key for key in _NAME_ONLY_FIELDS[-1] if one.count(key) != two.count(key)]
        return PROBE_CALL.name in one and fields.keys() >= {*required}

    def _detect_format(self, chosen: Format | None) -> Format:
        """The format that parses what the template writes for a call.

        A template that writes no calls, or not in the chosen format, gets them as text.
        """
        call = Message(role="assistant", tool_calls=(PROBE_CALL,))
        text = self._after(self._apply([PROBE_MESSAGE], ()), [PROBE_MESSAGE, call], ())
        for format in [chosen] if chosen else FORMATS:
            if _parses_probe_call(format, text):
                return format
        if not chosen and PROBE_CALL.name in text:
            raise _unusable_template(
                f"writes calls in a way that distill cannot read: {text[:120]!r}"
            )
        self.writes_calls = False
        return chosen or JSON

    def _find_stops(self) -> tuple[str, ...]:
        """Stop tokens: the first special token after a reply, the format's, and EOS."""
        vocabulary = self.tokenizer.get_vocab()
        reply = Message(role="assistant", content=_PROBE_REPLY)
        text = self._after(self._apply([PROBE_MESSAGE], ()), [PROBE_MESSAGE, reply], ())
        after = text[text.index(_PROBE_REPLY) + len(_PROBE_REPLY) :]
        tail = self.tokenizer(after, add_special_tokens=False)["input_ids"]
        added = self.tokenizer.added_tokens_decoder
        ends = [str(added[token]) for token in tail if token in added][:1]
        ends += [*self.format.stops, self.tokenizer.eos_token or ""]
        found = tuple(dict.fromkeys(end for end in ends if end in vocabulary))
        if not found:
            raise _unusable_template("ends the assistant's turn with no token of its own")
        return found


def _name_only(tool: Json, fields: Json) -> Json:
    """The tool with its name and `fields` alone."""
    function = tool.get("function", tool)
    assert isinstance(function, dict)
    return {"type": "function", "function": {"name": function["name"], **fields}}


def _target_text(format: Format, target: Target) -> str:
    if target.calls:
        return format.write(target.calls)
    return functiongemma.reject_markers(target.reply.strip())


def _developer_instructions(system: str | None) -> str:
    """FunctionGemma's trigger sentence, followed by the conversation's own system message."""
    if system is None or system.startswith(functiongemma.TRIGGER_SENTENCE):
        return system or functiongemma.TRIGGER_SENTENCE
    return f"{functiongemma.TRIGGER_SENTENCE}\n{system}"


def _parses_probe_call(format: Format, text: str) -> bool:
    """Whether the text, up to one of its special tokens or its end, is the probe call."""
    starts = [found.start() for found in re.finditer(r"<", text)]
    for end in (len(text), *reversed(starts)):
        try:
            if format.read(text[:end]) == TurnContent(calls=(PROBE_CALL,)):
                return True
        except MalformedError:
            continue
    return False


def _openai_message(message: Message, index: int) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.name:
        turn["name"] = message.name
    if message.tool_calls:
        turn["tool_calls"] = [
            # Mistral's template requires an id of nine letters or digits.
            {
                "type": "function",
                "id": f"call{index:03d}{number:02d}",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for number, call in enumerate(message.tool_calls)
        ]
    return turn


def _unusable_template(cause: str) -> StudentError:
    return StudentError(
        f"its chat template {cause}",
        hint="choose another student, or give its tokenizer another chat template",
    )
