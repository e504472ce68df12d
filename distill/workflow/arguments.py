"""Arguments as people write them in rules.md: values, `name: value` pairs, JSON, calls."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import yaml

from distill import strict_json
from distill.records import Json
from distill.strict_json import JsonError
from distill.workflow.after_value import UNIT
from distill.workflow.model import Tool
from distill.workflow.problems import did_you_mean, excerpt, truncate
from distill.workflow.quotes import CLOSERS, quotation, unquoted, without_emphasis
from distill.workflow.schema import schema_of
from distill.workflow.values import (
    MAX_QUOTED,
    InvalidInputError,
    is_valid_argument,
    sole_text_argument,
    typed_argument,
    unknown_argument,
)

_SLOT = re.compile(r"\{[A-Za-z_]\w*\}")
_QUOTED_NAME = r"[`\"'*“„]{0,2}"
_NAME = re.compile(rf"{_QUOTED_NAME}([A-Za-z_][\w.-]*)[`\"'*”“]{{0,2}}\s*[:=]\s*")
_SEPARATOR = re.compile(r"\s*(?:[,;]\s*(?:and\s+)?|and\s+|\Z)")
_TYPOGRAPHIC = str.maketrans(dict.fromkeys("“”„‟＂", '"') | dict.fromkeys("‘’‚", "'"))
NOTHING = re.compile(
    r"none|null|nil|undefined|unset|empty|blank|placeholder|t\.?b\.?[ad]\.?|todo|fixme|n/?a",
    re.IGNORECASE,
)
_GROUPED = re.compile(r"-?[1-9]\d{0,2}(?:\.\d{3})+")
PLACEHOLDER = re.compile(r"\.{2,}|…|\?+|<[^<>]*>|\$[A-Za-z_]\w*|\$?\{\{.*\}\}|%\w+%")
_CALL = re.compile(r"(?:call(?:s|ing)?:?\s+)?(?:the\s+)?(?:(?:tool|function)\s+)?", re.IGNORECASE)
_USING = re.compile(r"\s*[,:]?\s*(?:with|using)\b\s*:?\s*(?:the\s+)?(?:arguments?\b\s*:?\s*)?")
_UNKNOWN_CALL = re.compile(r"`?([A-Za-z_][\w.-]*)\((?:.*[=:{].*)?\)`?", re.DOTALL)


class ParsedValue(NamedTuple):
    """A parsed value and its end offset."""

    value: Any
    end: int


def read_arguments(text: str, tool: Tool) -> Json:
    """Arguments as an example gives them: `name: value, …`, a JSON object, or the sole text.

    Raises InvalidInputError.
    """
    text = text.strip()
    if text.startswith("{") and not _SLOT.match(text):
        return _object(text, tool)
    pair = _pair_at(text, 0, tool)
    sole = sole_text_argument(tool)
    if pair and (pair.known or not _is_plain_text(text, sole)):
        return read_pairs(text, tool)
    if sole is None:
        schema = schema_of(tool)
        names = ", ".join(f"{name}: …" for name in schema.required or schema.properties)
        raise InvalidInputError(
            f'does not say which argument of {tool.name} "{excerpt(text)}" is',
            f"write each with its name, as: {names}" if names else "remove it: there are none",
        )
    plain = scan_value(text, 0, tool, sole).value if text.startswith('"') else unquoted(text)
    return {sole: plain}


def read_call(text: str, tools: Mapping[str, Tool]) -> tuple[Tool, Json] | None:
    """The tool and arguments of a call that is written out; None where `text` names no tool.

    As `find(query="x")`, `find` with `query` = "x", {"name": "find", "arguments": {…}}. Raises
    InvalidInputError.
    """
    text = text.strip()
    if quotation(text, 0) and any(unquoted(text).startswith(f"{name}(") for name in tools):
        text = unquoted(text)
    if text.startswith("{") and (named := _call_object(text, tools)):
        return named
    start = _CALL.match(text)
    at = start.end() if start else 0
    quoted = quotation(text, at) if text[at : at + 1] == "`" else None
    bare = re.compile(r"[A-Za-z_][\w.-]*").match(text, at)
    name, end = (quoted.text, quoted.end) if quoted else (bare[0], bare.end()) if bare else ("", 0)
    rest = text[end:]
    if name not in tools:
        if unknown := _UNKNOWN_CALL.fullmatch(text):
            hint = did_you_mean(unknown[1], tools, "tools")
            raise InvalidInputError(f'calls unknown tool "{unknown[1]}"', hint)
        return None
    tool = tools[name]
    if rest.startswith("("):
        return tool, _called(rest, tool)
    using = _USING.match(rest)
    given = rest[using.end() :] if using else rest.strip().removeprefix(":").strip()
    if not rest.strip(" ."):
        raise InvalidInputError(
            f'has only the name of the tool "{name}" after its arrow',
            "leave the arrow out, or give the arguments: name: value, other: value",
        )
    if using or quoted or given.startswith("{") or rest.lstrip().startswith(":"):
        return tool, read_arguments(given, tool)
    return None


def call_end(text: str, start: int) -> int:
    """The offset behind the bracket that closes the one at `start`. Raises InvalidInputError."""
    depth, position = 0, start
    while position < len(text):
        character = text[position]
        if character in CLOSERS and not text[position - 1].isalnum():
            quoted = quotation(text, position)
            position = quoted.end if quoted else position + 1
            continue
        depth += (character in "([{") - (character in ")]}")
        position += 1
        if depth == 0:
            return position
    raise InvalidInputError(
        f"has a bracket that is not closed: {excerpt(text[start:])}", "close it, and its quotes"
    )


def read_brackets(inner: str, tool: Tool, *, code: bool = False) -> Json:
    """The arguments in the brackets of a call, as `query="x", limit=3`. Raises InvalidInputError.

    code: a bare word is a variable, and stands for no text
    """
    inner = inner.strip().strip(",")
    if inner in ("", "…", "..."):
        return {}
    if inner.startswith("{") and not _SLOT.match(inner):
        return _object(inner, tool)
    if _pair_at(inner, 0, tool) is None and (sole := sole_text_argument(tool)):
        found = quotation(inner, 0)
        if found and found.end == len(inner):
            return {sole: found.text}
    return read_pairs(inner, tool, code=code)


def read_pairs(text: str, tool: Tool, *, code: bool = False) -> Json:
    """`name: value, other = value`. Raises InvalidInputError."""
    arguments: Json = {}
    position = 0
    stop = _stop(tool)
    while position < len(text):
        pair = _pair_at(text, position, tool)
        if pair is None:
            raise InvalidInputError(
                f'has "{excerpt(text[position:])}" where an argument\'s name should be',
                'separate arguments by commas, as: name: "value", other: 3',
            )
        add_argument(arguments, tool, pair.name)
        value = scan_value(text, pair.end, tool, pair.name, stop, code=code)
        arguments[pair.name] = value.value
        position = _after_separator(text, value.end)
    return arguments


def add_argument(arguments: Json, tool: Tool, name: str) -> None:
    """Raises InvalidInputError where `name` is no argument of the tool, or given already."""
    if not schema_of(tool).accepts_name(name):
        raise unknown_argument(tool, name)
    if name in arguments:
        raise InvalidInputError(f'gives "{name}" to {tool.name} twice', "keep one of them")


def name_pattern(tool: Tool) -> str:
    """A pattern for the names of the tool's arguments; `order_id` is also written "order id"."""
    names = sorted(schema_of(tool).properties, key=len, reverse=True)
    parts = ([re.escape(part) for part in re.split(r"[_\s-]+", name)] for name in names)
    return "|".join(r"[_\s-]+".join(part) for part in parts) or r"(?!)"


def named_argument(tool: Tool, text: str) -> str | None:
    """The argument that `name_pattern` matched as `text`."""
    properties = schema_of(tool).properties
    if text in properties:
        return text
    return next((name for name in properties if _folded(name) == _folded(text)), None)


def scan_value(
    text: str, start: int, tool: Tool, name: str, stop: str = r"\Z", *, code: bool = False
) -> ParsedValue:
    """One value from `start` on: JSON, a quotation, `code`, or bare words up to `stop`.

    code: bare words are not text, unless the schema lists them
    """
    mark = text[start : start + 1]
    if mark in ('"', "[", "{") and not _SLOT.match(text, start):
        value, end = _json_value(text, start)
        return ParsedValue(typed_value(tool, name, value), end)
    quoted = quotation(text, start)
    if quoted and (mark in "`“" or re.compile(rf"{stop}|\s*[.!]?\s*\Z").match(text, quoted.end)):
        if mark == "`":
            inner = scan_value(quoted.text, 0, tool, name).value
            return ParsedValue(inner, quoted.end)
        return ParsedValue(typed_value(tool, name, quoted.text), quoted.end)
    end_match = re.compile(stop).search(text, start)
    bare = text[start : end_match.start() if end_match else len(text)]
    return ParsedValue(_bare(tool, name, bare.strip(), code=code), start + len(bare))


def read_object(text: str, start: int) -> ParsedValue:
    """The JSON object at `start`; also with single or no quotes. Raises InvalidInputError."""
    return _json_value(text, start)


def typed_value(tool: Tool, name: str, value: Any) -> Any:
    """A quoted value; `"3"` is a number where only a number is valid."""
    if isinstance(value, str) and not is_valid_argument(tool, name, value):
        return typed_argument(tool, name, value)
    return value


class _Pair(NamedTuple):
    name: str
    known: bool
    end: int


def _pair_at(text: str, position: int, tool: Tool) -> _Pair | None:
    known = re.compile(
        rf"{_QUOTED_NAME}({name_pattern(tool)})[`\"'*”“]{{0,2}}\s*[:=]\s*", re.IGNORECASE
    )
    if (found := known.match(text, position)) and (name := named_argument(tool, found[1])):
        return _Pair(name, True, found.end())
    other = _NAME.match(text, position)
    return _Pair(other[1], False, other.end()) if other else None


def _stop(tool: Tool) -> str:
    name = rf"{_QUOTED_NAME}(?i:{name_pattern(tool)})[`\"'*”“]{{0,2}}\s*[:=]"
    return rf"(?<!\s)\s*(?:[,;]|\band\b)\s*(?:and\s+)?{name}|(?<!\s)\s*[,;]?\s*\Z"


def _called(text: str, tool: Tool) -> Json:
    end = call_end(text, 0)
    if text[end:].strip(" .`"):
        raise InvalidInputError(
            f'goes on with "{excerpt(text[end:])}" after the call',
            "keep the first call of the rule after the arrow; the others follow from the rule",
        )
    return read_brackets(text[1 : end - 1], tool)


def _call_object(text: str, tools: Mapping[str, Tool]) -> tuple[Tool, Json] | None:
    """A call as chat APIs write it: {"name": …, "arguments": {…}}, also within "function"."""
    try:
        value, _ = strict_json.decode_prefix(text)
    except JsonError:
        return None
    inner = value.get("function", value)
    if not isinstance(inner, dict) or inner.get("name") not in tools:
        return None
    arguments = inner.get("arguments", inner.get("parameters"))
    if arguments is None or len(inner) > 2:
        return None
    if not isinstance(arguments, dict):
        raise InvalidInputError('has "arguments" that are no object', 'write {"name": value}')
    return tools[inner["name"]], arguments


def _bare(tool: Tool, name: str, text: str, *, code: bool) -> Any:
    plain = without_emphasis(text)
    if plain != text and (text[0] == "*" or not is_valid_argument(tool, name, text)):
        text = plain
    value = typed_argument(tool, name, text)
    if isinstance(value, str) and not is_valid_argument(tool, name, value):
        value = _as_spoken(tool, name, value)
    if value == "None" and is_valid_argument(tool, name, None):
        return None
    require_plain_number(text, value)
    if isinstance(value, str) and PLACEHOLDER.fullmatch(value):
        raise placeholder(tool, name, value)
    if (
        code
        and isinstance(value, str)
        and not _SLOT.search(value)
        and not stated(tool, name, value)
    ):
        raise InvalidInputError(
            f'gives "{name}" the word {value}, without quotes',
            f'put a fixed value into quotes, as: {name}="{value}"; leave out what is not fixed',
        )
    return value


def _as_spoken(tool: Tool, name: str, text: str) -> Any:
    """`Suite` as the listed value suite, `200 euros` as 200; other text as it is."""
    schema = schema_of(tool)
    stated_here = schema.stated_values(schema.properties.get(name, {}))
    listed = {value for value in stated_here if isinstance(value, str)}
    same = [value for value in listed if value.casefold() == text.casefold()]
    if len(same) == 1 and is_valid_argument(tool, name, same[0]):
        return same[0]
    number = re.match(r"-?\d+(?:\.\d+)?(?=\s)", text)
    unit = UNIT.fullmatch(text, number.end()) if number else None
    counted = typed_argument(tool, name, number[0]) if number and unit else text
    if number and counted is not text and not isinstance(counted, str):
        require_plain_number(number[0], counted)
        return counted
    return text


def placeholder(tool: Tool, name: str, text: str) -> InvalidInputError:
    ways = ["leave the argument out where the teacher fills it"]
    if is_valid_argument(tool, name, None):
        ways.append("write null for no value")
    if is_valid_argument(tool, name, "text"):
        ways.append("write {topic} for what the request is about")
        if "<" not in text:
            ways.append("put a text that is meant so into quotes")
    return InvalidInputError(f'gives "{name}" the placeholder {text}', ", or ".join(ways))


def require_plain_number(text: str, value: object) -> None:
    """Raise InvalidInputError for 1.500, which is 1500 in half of the world."""
    if isinstance(value, float) and _GROUPED.fullmatch(text):
        digits = text.replace(".", "")
        fraction = f"{text}0" if f"{value:g}" == text else f"{value:g}"
        raise InvalidInputError(
            f"has the number {text}, which may be {digits} or {value:g}",
            f"write {digits} or {fraction}",
        )


def stated(tool: Tool, name: str, value: object) -> bool:
    """Whether the argument's schema lists the value."""
    schema = schema_of(tool)
    return value in schema.stated_values(schema.properties.get(name, {}))


def _json_value(text: str, start: int) -> ParsedValue:
    try:
        return ParsedValue(*strict_json.decode_prefix(text, start))
    except JsonError:
        relaxed = _relaxed_json(text, start) if text[start] in "{[" else None
        if relaxed is not None:
            return relaxed
    raise InvalidInputError(
        f"has a value that is not complete JSON: {truncate(text[start:], MAX_QUOTED)}",
        'close its quotes and brackets; inside of quotes write \\" and \\\\',
    )


def _relaxed_json(text: str, start: int) -> ParsedValue | None:
    """JSON with typographic, single or no quotes: flow YAML, its scalars as text."""
    try:
        end = call_end(text, start)
        span = text[start:end].translate(_TYPOGRAPHIC)
        if len(span) > 5_000 or re.search(r"[&*!]", span):
            return None
        value = yaml.load(span, Loader=yaml.BaseLoader)
    except (InvalidInputError, yaml.YAMLError, RecursionError):
        return None
    return ParsedValue(value, end) if isinstance(value, list) or _is_object(value) else None


def _is_object(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(key, str) and item != "" for key, item in value.items()
    )


def _object(text: str, tool: Tool) -> Json:
    value, end = _json_value(text, 0)
    if text[end:].strip():
        raise InvalidInputError(
            f'goes on with "{excerpt(text[end:])}" after the arguments',
            "keep one JSON object after the arrow",
        )
    return {name: typed_value(tool, name, item) for name, item in value.items()}


def _after_separator(text: str, position: int) -> int:
    rest = _SEPARATOR.match(text, position)
    if rest is None:
        raise InvalidInputError(
            f'goes on with "{excerpt(text[position:])}" after a complete value',
            'separate arguments by commas, as: name: "value", other: 3',
        )
    return rest.end()


def _is_plain_text(text: str, sole: str | None) -> bool:
    # "query: x" with a name that is no argument is a slip; "10:30 meeting" is not.
    return sole is not None and not re.match(r"`?[A-Za-z_][\w.-]*`?\s*[:=](?:\s|$)", text)


def _folded(name: str) -> str:
    return re.sub(r"[_\s-]+", "_", name).casefold()
