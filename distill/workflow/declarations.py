"""Declarations of tools in the forms of OpenAI, Anthropic, Gemini, Bedrock and MCP.

Sources: https://platform.openai.com/docs/guides/function-calling (chat completions wrap in
`function`, Responses do not), https://docs.anthropic.com/en/docs/agents-and-tools/tool-use,
https://ai.google.dev/api/caching#FunctionDeclaration,
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ToolSpecification.html,
https://modelcontextprotocol.io/specification/2025-06-18/schema#tool.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from distill import strict_json
from distill.records import Json
from distill.strict_json import JsonError
from distill.workflow.problems import comma_list
from distill.workflow.rewrite import json_schema
from distill.workflow.values import InvalidInputError

EXAMPLE = '{"name": "…", "description": "…", "parameters": {"type": "object", "properties": {}}}'
SCHEMA_KEYS = (
    *("parameters", "inputSchema", "input_schema"),
    *("parametersJsonSchema", "parameters_json_schema"),
)
"""The keys under which a tool has the schema of its arguments."""

_ENVELOPES = ("result", "toolConfig", "tool_config")
_GROUPS = ("functionDeclarations", "function_declarations")
_WRAPPERS = ("function", "toolSpec")
# What says nothing of a tool's arguments: of its results, its display, its use by the vendor.
_INERT = frozenset(
    [
        *(
            "name",
            "description",
            "type",
            "strict",
            "title",
            "annotations",
            "icons",
            "_meta",
            "meta",
        ),
        *("outputSchema", "output_schema", "return", "returns", "output", "response", "responses"),
        *("responseJsonSchema", "response_json_schema", "responseSchema", "response_schema"),
        *("cache_control", "cachePoint", "defer_loading", "allowed_callers", "behavior"),
        *("input_examples", "eager_input_streaming", "execution", "metadata", "examples"),
    ]
)
_SCHEMA_WORDS = frozenset(["type", "properties", "$ref", "anyOf", "oneOf", "allOf", "enum"])
_MOVE = f"give the arguments' schema as one of {comma_list(SCHEMA_KEYS)}"

Path = tuple[str | int, ...]


class Declaration(NamedTuple):
    """One tool as it stands in a list, and the keys and positions that lead to it."""

    path: Path
    value: Any


def declarations(value: Any) -> list[Declaration]:
    """Every tool that `value` declares: a list, an object that has one, or either as JSON text.

    Objects are `{"tools": […]}`, with whatever a request says beside it, and the result of MCP's
    `tools/list` with its JSON-RPC envelope. Raises InvalidInputError where there is no list.
    """
    path: Path = ()
    value = _parsed(value, "the tools")
    for key in (*_ENVELOPES, "tools", "functions", *_GROUPS):
        if isinstance(value, dict) and value.get(key) is not None:
            if value.get("nextCursor"):
                raise InvalidInputError(
                    "is one page of a list of tools: its nextCursor says that there are more",
                    "ask the server for the other pages too, and join their tools",
                )
            value, path = _parsed(value[key], f'"{key}"'), (*path, key)
    if not isinstance(value, list):
        raise InvalidInputError(
            "is no list of tools", f"write a list of function schemas: [{EXAMPLE}]"
        )
    return list(_elements(value, path))


def _elements(listed: list[Any], path: Path) -> Iterator[Declaration]:
    for number, item in enumerate(listed):
        place = (*path, number)
        element = _parsed(item, f"tool {number + 1}")
        group = next((key for key in _GROUPS if isinstance(element, dict) and key in element), None)
        if group is None:
            yield Declaration(place, element)
            continue
        beside = [key for key, part in element.items() if key != group and part is not None]
        if beside or not isinstance(element[group], list):
            raise InvalidInputError(
                f"has {comma_list(beside)} beside {group}" if beside else f"has no list in {group}",
                "keep the functions that are declared; what a vendor runs itself is no tool here",
            )
        yield from _elements(element[group], (*place, group))


def function_schema(value: Any) -> Json:
    """One declaration as `name`, `description` and `parameters`, unchecked.

    Raises InvalidInputError where it is none, or says of its arguments what would be lost.
    """
    declared = value if isinstance(value, dict) else {}
    for wrapper in _WRAPPERS:
        if isinstance(inner := declared.get(wrapper), dict):
            _refuse_unread(declared, (*_INERT, wrapper), f"move it into {wrapper}")
            declared = inner
    if "name" not in declared:
        raise InvalidInputError("is not a function schema: it has no name", f"write {EXAMPLE}")
    _refuse_unread(declared, (*_INERT, *SCHEMA_KEYS), _MOVE)
    given = {key: _schema(declared[key], key) for key in SCHEMA_KEYS if key in declared}
    stated = {key: schema for key, schema in given.items() if schema not in (None, {})}
    first = next(iter(stated.values()), None)
    if any(schema != first for schema in stated.values()):
        raise InvalidInputError(f"has two schemas, {comma_list(stated)}", "keep one of them")
    kind = declared.get("type")
    if not given and kind not in (None, "function"):
        raise InvalidInputError(
            f"is of the type {strict_json.encode(kind)} and has no schema: its vendor runs it",
            "take it out: only functions with arguments can be routed to",
        )
    return {
        "name": declared["name"],
        "description": declared.get("description"),
        "parameters": first,
    }


def _schema(value: Any, key: str) -> Any:
    schema = _parsed(value, f'its "{key}"')
    if isinstance(schema, dict) and schema.keys() == {"json"}:
        schema = schema["json"]  # Bedrock
    return json_schema(schema)


def _refuse_unread(declared: Json, known: Collection[str], hint: str) -> None:
    for key, part in declared.items():
        if key not in known and _is_schema_like(part):
            raise InvalidInputError(f'has the unknown key "{key}", which holds a schema', hint)


def _is_schema_like(part: Any) -> bool:
    """Whether `part` is a schema, several by name, or a list of arguments with their types."""
    if isinstance(part, list):
        return any(isinstance(item, dict) and bool(item.keys() & _SCHEMA_WORDS) for item in part)
    if not isinstance(part, dict):
        return False
    members = [item for item in part.values() if isinstance(item, dict)]
    return any(_has_schema_words(item) for item in (part, *members))


def _has_schema_words(part: Json) -> bool:
    return any(part[word] is not None for word in part.keys() & _SCHEMA_WORDS)


def _parsed(value: Any, what: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return strict_json.decode(value)
    except JsonError as error:
        raise InvalidInputError(f"has {what} as text that {error.cause}", error.hint) from None
