"""A conversation as text by the tokenizer's own chat template.

What a template leaves to its caller, or cannot take, is found out on probes: whether it shows
tools, in which format it writes calls, with arguments as an object or as JSON text, and whether it
takes a system turn. A template that prints today's date prints a pinned one, so that the prompts of
training, evaluation and every export are the same on every day.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from distill import strict_json
from distill.errors import StudentError
from distill.records import Json, Message, Target, ToolCall, canonical_json
from distill.render.formats import FORMATS, FUNCTION_GEMMA, JSON, Format
from distill.render.plain_writer import developer_instructions, target_text
from distill.render.syntax import MalformedError, RenderError, TurnContent
from distill.workflow.model import Tool

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PINNED_DATE = datetime.date(2024, 7, 26)
"""The date that Llama 3's templates print where they have no clock."""
_DATE_FORMAT = "%d %b %Y"
_DATED = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1""")
_OPEN_THINKING = re.compile(r"<think>\s*(?:</think>\s*)?\Z")
_JSON_INSTRUCTIONS = (
    "You can call the functions below. To call one, answer with nothing but a JSON object "
    '{"name": <its name>, "arguments": <its arguments>}, one on a line for each call.'
)
PROBE_MESSAGE = Message(role="user", content="Where is the north gate?")
PROBE_CALL = ToolCall(name="probe_tool", arguments={"place": "north gate", "count": 2})
"""What templates and renderers are tried on."""
_PROBE_REPLY = "zebra quartz"
_PROBE_SYSTEM = Message(role="system", content="amber lantern")
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
        self.source = _pin_date(_template_of(tokenizer))
        self.name_only_fields: Json | None = None
        self.needs_developer_turn = False
        self.writes_calls = True
        self.arguments_as_text = False
        self.shows_tools = True
        self.takes_system = True
        try:
            self.takes_system = self._shows_system()
            self.shows_tools = PROBE_CALL.name in self._apply([PROBE_MESSAGE], [_PROBE_TOOL])
            self.format = self._detect_format(format)
            self.stops = self._find_stops()
        except RenderError as error:
            raise _unusable_template(f"fails on a plain conversation: {error}") from None
        self.needs_developer_turn = self.format is FUNCTION_GEMMA
        if names_only:
            *shorter, complete = _NAME_ONLY_FIELDS
            self.name_only_fields = next(filter(self._shows_tools_with, shorter), complete)

    def plain(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The messages as they are: a template does not parse them."""
        return messages

    def prompt(self, messages: Sequence[Message], tools: Sequence[Json]) -> str:
        return self._apply(messages, tools)

    def turn(
        self, messages: Sequence[Message], target: Target, tools: Sequence[Json], prompt: str
    ) -> str:
        """The assistant's turn as the template writes it after the prompt."""
        if self.writes_calls:
            answer = Message(role="assistant", content=target.reply, tool_calls=target.calls)
        else:
            answer = Message(role="assistant", content=target_text(self.format, target))
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
        as_text = self.arguments_as_text
        turns = [_openai_message(message, at, as_text) for at, message in enumerate(messages)]
        if not turns:
            raise RenderError("an empty conversation")
        if self.name_only_fields is not None:
            tools = [_name_only(tool, self.name_only_fields) for tool in tools]
        turns = self._with_instructions(turns, tools)
        return turns if self.takes_system else _merge_system(turns), list(tools) or None

    def _apply(
        self,
        messages: Sequence[Message],
        tools: Sequence[Json],
        *,
        add_generation_prompt: bool = True,
    ) -> str:
        turns, declared = self.template_inputs(messages, tools)
        try:
            text = self.tokenizer.apply_chat_template(
                turns,
                tools=declared,
                chat_template=self.source,
                add_generation_prompt=add_generation_prompt,
                tokenize=False,
                # A router answers at once, without reasoning.
                enable_thinking=False,
            )
        except Exception as error:
            # A template is a program of somebody else's, and may raise anything.
            raise RenderError(f"the chat template says: {error}") from None
        return str(text)

    def _shows_system(self) -> bool:
        """Whether a system turn stands in the prompt: some templates raise, and some drop it."""
        try:
            return _PROBE_SYSTEM.content in self._apply([_PROBE_SYSTEM, PROBE_MESSAGE], ())
        except RenderError:
            return False

    def _with_instructions(
        self, turns: list[dict[str, Any]], tools: Sequence[Json]
    ) -> list[dict[str, Any]]:
        """The turns, headed by the instructions that the template leaves to its caller."""
        if not tools or (self.shows_tools and not self.needs_developer_turn):
            return turns
        system = turns[0]["content"] if turns[0]["role"] == "system" else None
        rest = turns if system is None else turns[1:]
        if self.needs_developer_turn:
            return [{"role": "developer", "content": developer_instructions(system)}, *rest]
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
        texts: list[str] = []
        failure: RenderError | None = None
        for self.arguments_as_text in (False, True):
            try:
                texts.append(self._probe_call())
            except RenderError as error:
                failure = failure or error
                continue
            for format in [chosen] if chosen else FORMATS:
                if _parses_probe_call(format, texts[-1]):
                    return format
        self.arguments_as_text = False
        if failure and not texts:
            raise failure
        if not chosen and PROBE_CALL.name in texts[0]:
            raise _unusable_template(
                f"writes calls in a way that distill cannot read: {texts[0][:120]!r}"
            )
        self.writes_calls = False
        return chosen or JSON

    def _probe_call(self) -> str:
        """What the template writes for a call."""
        call = Message(role="assistant", tool_calls=(PROBE_CALL,))
        return self._after(self._apply([PROBE_MESSAGE], ()), [PROBE_MESSAGE, call], ())

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


def _template_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """The template, or of several the one that takes tools."""
    templates = tokenizer.chat_template
    if not isinstance(templates, dict):
        return str(templates)
    found = templates.get("tool_use") or templates.get("default")
    if found is None:
        names = ", ".join(sorted(templates))
        raise _unusable_template(f"is one of {names}, and none is called default or tool_use")
    return str(found)


def _pin_date(template: str) -> str:
    """The template, with a strftime_now of its own if it asks for today's date."""
    if "strftime_now" not in template:
        return template
    formats = dict.fromkeys([_DATE_FORMAT, *(match[2] for match in _DATED.finditer(template))])
    dates = {format: _PINNED_DATE.strftime(format) for format in formats}
    found = f"{strict_json.encode(dates)}.get(format, {strict_json.encode(dates[_DATE_FORMAT])})"
    return f"{{%- macro strftime_now(format) -%}}{{{{- {found} -}}}}{{%- endmacro -%}}{template}"


def _merge_system(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The turns with the system turn in front of the user's first, as Gemma 2 is prompted."""
    if turns[0]["role"] != "system":
        return turns
    system, rest = turns[0], turns[1:]
    if not rest or rest[0]["role"] != "user":
        return [{**system, "role": "user"}, *rest]
    content = f"{system['content']}\n\n{rest[0]['content']}"
    return [{**rest[0], "content": content}, *rest[1:]]


def _openai_message(message: Message, index: int, arguments_as_text: bool) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.name:
        turn["name"] = message.name
    if message.tool_calls:
        turn["tool_calls"] = [
            # Mistral's template requires an id of nine letters or digits.
            {
                "type": "function",
                "id": f"call{index:03d}{number:02d}",
                "function": {
                    "name": call.name,
                    "arguments": _json_text(call) if arguments_as_text else call.arguments,
                },
            }
            for number, call in enumerate(message.tool_calls)
        ]
    return turn


def _json_text(call: ToolCall) -> str:
    try:
        return strict_json.encode(call.arguments)
    except strict_json.JsonError as error:
        raise RenderError(f"the arguments of {call.name} are not JSON: {error}") from None


def _unusable_template(cause: str) -> StudentError:
    return StudentError(
        f"its chat template {cause}",
        hint="choose another student, or give its tokenizer another chat template",
    )
