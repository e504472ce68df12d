"""The sentence after **Then**: a verb, and what it is done with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from distill.records import TARGET_KINDS, Json, TargetKind
from distill.workflow.markdown import join_lines
from distill.workflow.model import CallSpec, Then, Tool
from distill.workflow.problems import comma_list, did_you_mean
from distill.workflow.schema import schema_of
from distill.workflow.values import InvalidInputError, scan_value, unknown_argument

_VERB = re.compile(r"[\s:*_]*([^\W\d_]+)\**_*\s*[:,]?\s*", re.UNICODE)
_TOOL = re.compile(r"(?:the\s+)?(?:tools?\s+|functions?\s+)?`([^`]*)`", re.IGNORECASE)
_WITH = re.compile(r"\s*,?\s*with\s+(?:the\s+)?(?:arguments?\s+)?(?=`)", re.IGNORECASE)
_NEXT_ARGUMENT = re.compile(r"\s*(?:,\s*and|,|and)\s+(?:with\s+)?(?=`[^`]*`\s*[=:])", re.IGNORECASE)
_ARGUMENT = re.compile(r"`([^`]*)`\s*[=:]\s*")
_NEXT_CALL = re.compile(
    r"\s*(?:,\s*and\s+then|and\s+then|,\s*then|,\s*and|,|;|and|then)\s+(?:call\s+)?"
    r"(?=(?:the\s+)?(?:tools?\s+|functions?\s+)?`)",
    re.IGNORECASE,
)
# Bare words end at a comma, at a full stop that ends a sentence, or where the next call begins.
_BARE_END = r"\s*(?:,|\.(?=\s|\Z)|\s(?:and|then)\s+(?:then\s+|call\s+)*`|\Z)"
_QUOTED_END = re.compile(r'(?:"([^"]+)"|“([^”]+)”)\s*[.!]?\s*\Z')

USAGE = (
    'start it with call, ask, answer or refuse, as: **Then** call `tool` with `name` = "{topic}"'
)


class _Calls(NamedTuple):
    calls: tuple[CallSpec, ...]
    rest: str


def read_then(text: str, tools: Mapping[str, Tool]) -> Then:
    """The action that the sentence demands. Raises InvalidInputError."""
    sentence = join_lines(text)
    verb = _VERB.match(sentence)
    kind = _kind(verb[1]) if verb else None
    if verb is None or kind is None:
        first = f'starts with "{verb[1]}"' if verb else "is empty"
        near = did_you_mean(verb[1], TARGET_KINDS, "verbs") if verb else ""
        hint = f"{near} {USAGE}" if near.startswith("did") else USAGE
        raise InvalidInputError(f"has a Then that {first}", hint)
    body = sentence[verb.end() :]
    if kind == "call":
        found = _read_calls(body, tools)
        _check_rest(found, tools)
        return Then(kind=kind, calls=found.calls, text=sentence)
    return Then(kind=kind, reply=_reply(body, kind), text=sentence)


def _kind(verb: str) -> TargetKind | None:
    word = verb.casefold()
    return next((kind for kind in TARGET_KINDS if word in (kind, f"{kind}s")), None)


def _reply(body: str, kind: str) -> str:
    quoted = _QUOTED_END.search(body)
    reply = (quoted[1] or quoted[2]) if quoted else body.strip()
    if not reply.strip(" .:"):
        raise InvalidInputError(
            f"does not say what to {kind}",
            f'add the words to say, as: **Then** {kind}: "…"',
        )
    return reply


def _read_calls(body: str, tools: Mapping[str, Tool]) -> _Calls:
    calls: list[CallSpec] = []
    position = 0
    while found := _TOOL.match(body, position):
        tool = tools.get(found[1])
        if tool is None:
            raise _unknown_tool(found[1], tools)
        arguments, position = _read_arguments(body, found.end(), tool)
        calls.append(CallSpec(tool=tool.name, arguments=arguments))
        following = _NEXT_CALL.match(body, position)
        if following is None:
            break
        position = following.end()
    if not calls:
        raise InvalidInputError(
            "calls no tool in its Then",
            f"name one in backticks; known here: {comma_list(tools)}",
        )
    return _Calls(tuple(calls), body[position:])


def _read_arguments(body: str, position: int, tool: Tool) -> tuple[Json, int]:
    arguments: Json = {}
    step = _WITH.match(body, position)
    while step and (found := _ARGUMENT.match(body, step.end())):
        name = found[1]
        if not schema_of(tool).accepts_name(name):
            raise unknown_argument(tool, name)
        if name in arguments:
            raise InvalidInputError(f'gives "{name}" to {tool.name} twice', "keep one of them")
        arguments[name], position = scan_value(body, found.end(), tool, name, _BARE_END)
        step = _NEXT_ARGUMENT.match(body, position)
    return arguments, position


def _check_rest(found: _Calls, tools: Mapping[str, Tool]) -> None:
    """What follows the calls is prose for the model; it may not look like more of the calls."""
    called = {name for call in found.calls for name in schema_of(tools[call.tool]).properties}
    for name in re.findall(r"`([^`]*)`", found.rest):
        if name in tools or name in called:
            raise InvalidInputError(
                f"goes on with `{name}` after its calls, which is not understood",
                "join calls by and or then, arguments as: with `a` = 1, `b` = 2; "
                "elsewhere in the sentence leave the backticks out",
            )


def _unknown_tool(name: str, tools: Mapping[str, Tool]) -> InvalidInputError:
    return InvalidInputError(f'calls unknown tool "{name}"', did_you_mean(name, tools, "tools"))
