"""Which tokens of an answer decide: those at which it parts from the other answers allowed.

An answer may call any tool that the row offers, or be in words; an argument with an enumerated or
boolean value may have any other value. Each of these answers is written by the row's own renderer,
and the first token in which the answer at hand differs from it is a decision. That holds for every
format and tokenizer: the tokens before it are the same whatever is decided, and those after it
follow from the decision or are free text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import JsonValue

from distill.records import Json, Target, ToolCall, canonical_json
from distill.render.chat_template import PROBE_CALL, PROBE_MESSAGE
from distill.render.renderer import Rendered, Renderer
from distill.render.syntax import RenderError
from distill.workflow.model import Tool
from distill.workflow.schema import ArgumentsSchema, schema_of

if TYPE_CHECKING:
    from distill.sharing.reading import TokenPath

PROBE_REPLY = Target(kind="answer", reply="Zebra quartz.")
"""Words that no template writes."""


class _Answers(NamedTuple):
    """What a set of tools allows."""

    calls: dict[str, set[TokenPath]]
    """Of each tool; see `sample_calls`."""
    words: list[TokenPath]


class Decisions:
    """The decision tokens of targets; the answers that a set of tools allows are rendered once."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self._answers: dict[str, _Answers] = {}

    def mask(
        self, row: Rendered, target: Target, tools: Sequence[Json] | None = None
    ) -> list[bool]:
        """For each id of the row, whether it is a decision token of its target.

        tools: the row's own, as the row was rendered with; None: the workflow's
        """
        from distill.sharing.reading import common_prefix_length

        completion = tuple(row.completion)
        parted = {common_prefix_length(completion, other) for other in self._others(target, tools)}
        start = row.mask.index(True)
        ends = {start + length for length in parted if length < len(completion)}
        return [at in ends for at in range(len(row.ids))]

    def _others(self, target: Target, tools: Sequence[Json] | None) -> Iterator[TokenPath]:
        """The ids of the other answers."""
        answers = self._answers_of(tools)
        called = [call.name for call in target.calls]
        for name, calls in answers.calls.items():
            if called[:1] != [name]:
                yield from calls
        if not called:
            return
        yield from answers.words
        others = [ToolCall(name=name, arguments={}) for name in answers.calls]
        for number, call in enumerate(target.calls):
            before, after = target.calls[:number], target.calls[number + 1 :]
            if number:
                yield from self._rendered(_calls(before), tools)
                for other in others:
                    if other.name != call.name:
                        yield from self._rendered(_calls((*before, other)), tools)
            for arguments in self._other_arguments(call, tools):
                changed = call.model_copy(update={"arguments": arguments})
                yield from self._rendered(_calls((*before, changed, *after)), tools)

    def _answers_of(self, tools: Sequence[Json] | None) -> _Answers:
        key = "" if tools is None else canonical_json(list(tools))
        if key not in self._answers:
            offered = self._renderer.tools if tools is None else tools
            found = (sample_calls(self._renderer, tool, offered) for tool in offered)
            calls = {name: samples for name, samples in found if samples}
            self._answers[key] = _Answers(calls, self._rendered(PROBE_REPLY, tools))
        return self._answers[key]

    def _rendered(self, target: Target, tools: Sequence[Json] | None) -> list[TokenPath]:
        return _completions(self._renderer, target, tools)

    def _other_arguments(self, call: ToolCall, tools: Sequence[Json] | None) -> Iterator[Json]:
        """The call's arguments with another enumerated or boolean value, one at a time."""
        offered = self._renderer.tools if tools is None else tools
        for tool in offered:
            function: Any = tool.get("function", tool)
            if function["name"] == call.name:
                parameters = function.get("parameters") or {}
                schema = schema_of(Tool(name=call.name, description="", parameters=parameters))
                yield from _other_values(call.arguments, schema.root, schema)
                return


def _calls(calls: Sequence[ToolCall]) -> Target:
    return Target(kind="call", calls=tuple(calls))


def _other_values(value: JsonValue, schema: Any, whole: ArgumentsSchema) -> Iterator[Any]:
    """`value` with one scalar in it replaced by each other value that its schema names."""
    if isinstance(value, dict):
        properties = whole.properties_of(schema)
        for name, part in value.items():
            for other in _other_values(part, properties.get(name), whole):
                yield {**value, name: other}
    elif isinstance(value, list):
        items = [node["items"] for node in whole.applied(schema) if "items" in node]
        for number, part in enumerate(value):
            for other in _other_values(part, items[0] if items else None, whole):
                yield [*value[:number], other, *value[number + 1 :]]
    else:
        named = [other for node in whole.applied(schema) for other in node.get("enum", ())]
        if isinstance(value, bool):
            named = [not value]
        yield from (other for other in named if canonical_json(other) != canonical_json(value))


def sample_calls(
    renderer: Renderer, tool: Json, tools: Sequence[Json]
) -> tuple[str, set[TokenPath]]:
    """The tool's name, and the ids of calls with different arguments, as far as they render."""
    function = tool.get("function", tool)
    assert isinstance(function, dict)
    name, parameters = str(function["name"]), function.get("parameters")
    properties = parameters.get("properties") if isinstance(parameters, dict) else None
    samples: list[Json] = [{}, PROBE_CALL.arguments]
    for argument in properties if isinstance(properties, dict) else ():
        samples += [{argument: "north"}, {argument: 2}]
    targets = (_calls([ToolCall(name=name, arguments=arguments)]) for arguments in samples)
    return name, {path for each in targets for path in _completions(renderer, each, tools)}


def _completions(
    renderer: Renderer, target: Target, tools: Sequence[Json] | None
) -> list[TokenPath]:
    """The ids of an answer; none where the format cannot express it."""
    try:
        return [tuple(renderer.example([PROBE_MESSAGE], target, tools).completion)]
    except RenderError:
        return []
