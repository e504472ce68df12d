"""The calls that a Then demands: tools, and the arguments that its sentence fixes.

Arguments are read wherever they stand behind their tool: as `name` = value, name: value, "name is
`value`", JSON, in the brackets of a call, in bullets and tables below. What is left is prose for
models; where it still looks like an argument or a call, it is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from distill.records import Json
from distill.workflow.arguments import add_argument, call_end, name_pattern, read_brackets, stated
from distill.workflow.beside import find_choice, find_other_case, find_remarks, struck_out
from distill.workflow.fixed import Fixed, FixedArguments, MisreadError
from distill.workflow.masks import Read
from distill.workflow.model import CallSpec, Tool
from distill.workflow.problems import closest_match, comma_list, did_you_mean, excerpt
from distill.workflow.quotes import unquoted
from distill.workflow.rest import WHERE_GIVEN, find_unread
from distill.workflow.schema import schema_of
from distill.workflow.spoken import find_quoted_name
from distill.workflow.stand_ins import require_no_mark
from distill.workflow.values import InvalidInputError, slots_in

_MENTION = r"(?:the\s+)?(?:tools?\s+|functions?\s+)?(?:`([^`\n]*)`|([A-Za-z_][\w.-]*)(?=\())"
_TOOL = re.compile(rf"\s*(?:both\s+)?{_MENTION}", re.IGNORECASE)
_ORDER = r"(?:(?:and|then|next|finally|afterwards),?\s+)*"
_NEXT = re.compile(
    r"((?<!\s)\s*(?:[.,;]?\s*(?:and\s+)?(?:then\s+)?(?:afterwards|followed\s+by|after\s+that)[,:]?|"
    r"[,;]\s*and\s+then|and\s+then|,\s*then|[,;]\s*and|,|;|and|then)\s+(?:call\s+)?"
    rf"|(?:(?<!\s)\s*[.,;]\s*|\n|\b){_ORDER}call\s+|\n{_ORDER}){_MENTION}",
    re.IGNORECASE,
)
_UNSURE = re.compile(
    r"(?i:\b(?:not|never|without|unless|if|when|for\s+(?:example|instance)|such\s+as|except|either|"
    r"both|each|cannot|optionally|sometimes|usually|rather\s+than|instead\s+of|avoid|formerly|"
    r"previously|no\s+longer|defaults?\s+(?:value\s+)?(?:for|of|is))\b|n['’]t\b|\be\.?\s?g\b\.?)"
    r"[^,.;\n]*\Z"
)
_CONNECTIVE = (
    r"(?i:\b(?:(?P<then>then|after\s+that|afterwards|next|finally|followed\s+by)|and|also),?\s+"
    r"(?:(?:then|also|afterwards|finally|next|after\s+that|use|run|invoke|trigger),?\s+)*)"
)
_HAS_ARGUMENTS = re.compile(r"\s+with\b|\(|\s*(?:\.?\s*\Z|\.\s|\n)")
_CODE = re.compile(r"(?<!`)(`+)([^`\n]+)\1(?!`)")
_TERMS = re.compile(r"\s+(?:terms?|words?|phrases?|results?|strings?|keywords?|histor\w+)\b")
_CLOSED = "\"'`”“»’]}"
_WAY_OUT = (
    "join calls by and or then, arguments as: with `a` = 1, `b` = 2; "
    "elsewhere in the sentence leave the backticks out"
)


class Calls(NamedTuple):
    """The calls, the offset behind the last thing that was read for them, and what else is said."""

    calls: tuple[CallSpec, ...]
    end: int
    remarks: tuple[str, ...]


class _Next(NamedTuple):
    """The tool that is called next, where it is announced, and the offset behind its name."""

    tool: Tool
    start: int
    end: int


def prepared(text: str, tools: Mapping[str, Tool]) -> str:
    """`text` with its tables and code spans as plain arguments, on the same lines."""
    names = "|".join(name_pattern(tool) for tool in tools.values()) or r"(?!)"
    argument = re.compile(rf"(?:{names})\s*[=:]|[\"']?\{{\s*[\"'\w]+\s*:", re.IGNORECASE)

    def plain(span: re.Match[str]) -> str:
        inner = span[2].strip()
        called = inner.split("(")[0] in tools and "(" in inner
        is_value = text[: span.start()].rstrip().endswith("=")
        return f" {inner} " if called or (argument.match(inner) and not is_value) else span[0]

    text = text.replace("\\_", "_")
    return _CODE.sub(plain, _without_tables(text, tools))


def read_calls(text: str, start: int, tools: Mapping[str, Tool]) -> Calls:
    """Every call from `start` on; `text` is `prepared`. Raises InvalidInputError."""
    if error := struck_out(text) or find_choice(text[start:].partition("\n")[0], tools):
        raise error
    calls: list[CallSpec] = []
    every: list[Read] = []
    prose: list[tuple[int, int]] = []
    unreads: list[MisreadError] = []
    listed = text[:start].rstrip(" ").endswith("\n")
    end = start
    following: _Next | None = _first(text, start, tools)
    while following is not None:
        tool = following.tool
        tool_start, begins = following.start, following.end
        arguments, end = _brackets(text, begins, tool)
        reads = [_read(begins, end, arguments)] if arguments else []
        reader = FixedArguments(text, tool)
        following = _next(text, end, tools, listed=listed)
        while found := _find(reader, text, end, following, tool, calls, tools):
            prose.append((end, found.start))
            if text[found.end - 1] not in _CLOSED:  # a bare value, which ends late
                _check_called_words(
                    text[found.start : found.end],
                    found.start,
                    [*calls, CallSpec(tool=tool.name, arguments={})],
                    tools,
                )
            _take(arguments, found, tool, text[end : found.start])
            end = found.end
            reads.append(_read(found.start, end, found.values))
            if following and end > following.start:
                following = _next(text, end, tools, listed=listed)
        stop = following.start if following else len(text)
        prose.append((end, stop))
        every += [Read(tool_start, begins, False), *reads]
        if unread := find_unread(text, (begins, stop), reads, set(arguments), tool):
            unreads.append(MisreadError(*unread))
        calls.append(CallSpec(tool=tool.name, arguments=arguments))
    for begins, ends in prose:
        _check_prose(text[begins:ends], begins, calls, tools)
    for error in unreads:
        raise error
    below = text.find("\n", end)
    said = text[: below if below >= 0 else None]
    for call in calls:
        if other := find_other_case(said, every, call.arguments, tools[call.tool]):
            raise MisreadError(*other)
    return Calls(tuple(calls), end, find_remarks(said, [Read(0, start, False), *every]))


def _find(
    reader: FixedArguments,
    text: str,
    start: int,
    following: _Next | None,
    tool: Tool,
    calls: list[CallSpec],
    tools: Mapping[str, Tool],
) -> Fixed | None:
    try:
        return reader.find(start, following.start if following else len(text))
    except MisreadError as error:
        name = re.compile(r"\W*([\w.-]+)").match(text, error.offset)
        own = schema_of(tool).properties
        known = {call.tool for call in calls} | set(re.findall(r"`([^`\n]+)`", text))
        for other in tools.values() if name and name[1] not in own else ():
            if other.name in known and name and name[1] in schema_of(other).properties:
                raise MisreadError(
                    InvalidInputError(
                        f'gives {tool.name} the argument "{name[1]}" of {other.name}',
                        "write each call with its own arguments, joined by then, as: call "
                        f"`tool` with `name` = 1 and then `{other.name}` with `{name[1]}` = 2",
                    ),
                    error.offset,
                ) from None
        raise


def _read(start: int, end: int, values: Json) -> Read:
    return Read(start, end, any(not any(slots_in(value)) for value in values.values()))


def _first(text: str, start: int, tools: Mapping[str, Tool]) -> _Next:
    found = _TOOL.match(text, start)
    name = (found[1] or found[2] or "").strip() if found else ""
    if found is None or (found[2] and name not in tools):
        raise InvalidInputError(
            "calls no tool in its Then",
            f"name one in backticks; known here: {comma_list(tools)}",
        )
    return _Next(_known(name, tools, start), start, found.end())


def _known(name: str, tools: Mapping[str, Tool], offset: int) -> Tool:
    if name not in tools:
        error = InvalidInputError(
            f'calls unknown tool "{excerpt(name)}"', did_you_mean(name, tools, "tools")
        )
        raise MisreadError(error, offset)
    return tools[name]


def _next(text: str, start: int, tools: Mapping[str, Tool], *, listed: bool) -> _Next | None:
    """The next call that is announced: right behind the last one, or by "call" or "then".

    listed: the calls are items of a list, where a new line is enough
    """
    for found in _NEXT.finditer(text, start):
        name = (found[2] or found[3] or "").strip()
        joint = found[1].casefold()
        adjacent = found.start() == start
        announced = adjacent or bool(re.search("call|then|after|followed", joint))
        if joint.strip() == "" and not (listed or name not in tools):
            continue
        if joint.strip(" ,;") == "and" and _HAS_ARGUMENTS.match(text, found.end()):
            announced = True
        unsure = _UNSURE.search(text[start : found.start()]) if announced else None
        if name in tools and (announced or joint.startswith("\n")) and not unsure:
            return _Next(tools[name], found.start(), found.end())
        is_argument = re.compile(r"\s*[=:]").match(text, found.end())
        if adjacent and found[2] and not is_argument and not _is_argument(name, tools):
            _known(name, tools, found.start(2))
    return None


def _is_argument(name: str, tools: Mapping[str, Tool]) -> bool:
    return any(name in schema_of(tool).properties for tool in tools.values())


def _brackets(text: str, start: int, tool: Tool) -> tuple[Json, int]:
    """The arguments in the brackets of a call, where it has any."""
    opening = re.compile(r"[ \t]*\(").match(text, start)
    if opening is None:
        return {}, start
    try:
        end = call_end(text, opening.end() - 1)
        inner = text[opening.end() : end - 1]
        spaced = opening.end() > start + 1
        if spaced:
            _reject_nameless(inner, tool)
        if spaced and re.fullmatch(
            rf"(?:(?:,|and|\s|[`\"'])*(?i:{name_pattern(tool)})\b[`\"']?)+", inner
        ):
            return {}, start  # names of what the teacher fills
        if spaced and not re.match(rf"\s*(?:{{|[`\"']?(?i:{name_pattern(tool)})\b)", inner):
            return {}, start
        arguments = read_brackets(inner, tool, code=True)
        require_no_mark(tool, arguments)
        return arguments, end
    except InvalidInputError as error:
        raise MisreadError(error, start) from None


def _reject_nameless(inner: str, tool: Tool) -> None:
    """A listed value in brackets is some argument's; any other text there is a remark."""
    if any(stated(tool, name, unquoted(inner)) for name in schema_of(tool).properties):
        raise InvalidInputError(
            f"gives {tool.name} the value {excerpt(inner)} without an argument's name",
            f"write it with its name, as: `name` = {excerpt(unquoted(inner))}",
        )


def _take(arguments: Json, found: Fixed, tool: Tool, before: str) -> None:
    """Add what is fixed. `before`: the prose between it and what was read last."""
    try:
        if unsure := _UNSURE.search(WHERE_GIVEN.sub("", before)):
            raise InvalidInputError(
                f'gives "{next(iter(found.values), "arguments")}" to {tool.name} behind '
                f'"{excerpt(unsure[0])}", so that it is not plain whether it is fixed',
                "say fixed arguments plainly, and cases that differ in rules of their own",
            )
        for name, value in found.values.items():
            add_argument(arguments, tool, name)
            arguments[name] = value
    except InvalidInputError as error:
        raise MisreadError(error, found.start) from None


def _check_prose(prose: str, offset: int, calls: list[CallSpec], tools: Mapping[str, Tool]) -> None:
    """What is not read is prose for the model; it may not look like more of the calls."""
    called = {name for call in calls for name in schema_of(tools[call.tool]).properties}
    for found in re.finditer(r"`([^`]*)`", prose):
        if found[1] in tools:
            raise MisreadError(_goes_on(found[0]), offset + found.start())
    own = [tools[name] for name in dict.fromkeys(call.tool for call in calls)]
    for tool in own:
        if quoted := find_quoted_name(prose, tool):
            raise MisreadError(quoted[0], offset + quoted[1])
    for tool in own:
        if looks := FixedArguments(prose, tool).leftover():
            raise MisreadError(_goes_on(looks[0][0], looks[1]), offset + looks[0].start())
    named = "|".join(map(re.escape, sorted(tools, key=len, reverse=True)))
    if more := re.search(rf"(?<![\w.-])(?:calls?\s+)(?:{named})(?![\w-])|\b(?:{named})\(", prose):
        raise MisreadError(_goes_on(more[0]), offset + more.start())
    _check_called_words(prose, offset, calls, tools)
    for label in re.finditer(r"([A-Za-z_][\w.-]{2,60})[`\"'*]{0,3}\s*[:：](?!/)", prose):
        near = closest_match(label[1], called, 0.8)
        if near:
            error = InvalidInputError(
                f'goes on with "{label[0]}" after its calls, which is no argument',
                f'did you mean "{near}"?',
            )
            raise MisreadError(error, offset + label.start())


def _check_called_words(
    text: str, offset: int, calls: list[CallSpec], tools: Mapping[str, Tool]
) -> None:
    """A tool's bare name where a call is expected is one; everyday words need a clearer sign."""
    named = "|".join(map(re.escape, sorted(tools, key=len, reverse=True)))
    arguments = "|".join(name_pattern(tools[call.tool]) for call in calls)
    pattern = re.compile(
        rf"(?:{_CONNECTIVE}|(?P<begins>[.;\n]\s*(?:-\s+)?)|(?P<comma>,\s*))"
        rf"(?P<tool>(?i:{named}))(?![\w-])(?P<ends>\s*(?:[.,;\n]|\Z|with\b))?"
    )
    begun = {call.tool.casefold() for call in calls}
    for found in pattern.finditer(text):
        name = found["tool"].casefold()
        again = name in begun and name.isalpha() and not found["then"]
        argument = re.compile(rf"(?:{arguments})(?![\w-])", re.IGNORECASE)
        if again or (found["comma"] and not found["ends"]):
            continue
        if not found["then"] and _TERMS.match(text, found.end("tool")):
            continue
        if argument.match(text, found.start("tool")):
            continue
        error = InvalidInputError(
            f'goes on with "{excerpt(found[0].strip())}", the name of a tool, which is not read',
            f"where it is called write: and call `{found['tool']}`; else say it in other words",
        )
        raise MisreadError(error, offset + found.start("tool"))


def _goes_on(what: str, way_out: str = "") -> InvalidInputError:
    return InvalidInputError(
        f"goes on with {excerpt(what.strip(' ,'))} after its calls, which is not understood",
        way_out or _WAY_OUT,
    )


def _without_tables(text: str, tools: Mapping[str, Tool]) -> str:
    """Tables of arguments as `name: value` on the lines of their rows."""
    known = {name.casefold() for tool in tools.values() for name in schema_of(tool).properties}
    lines = text.split("\n")
    number = 1
    while number < len(lines):
        rows = number + 1
        if "|" in lines[number] and re.fullmatch(r"[\s|:-]*-[\s|:-]*", lines[number]):
            while rows < len(lines) and "|" in lines[rows]:
                rows += 1
            _write_pairs(lines, number - 1, rows, known)
        number = rows
    return "\n".join(lines)


def _write_pairs(lines: list[str], start: int, end: int, known: set[str]) -> None:
    """Replace the table from the header at `start` on: one argument a row, or one a column."""
    header = _cells(lines[start])
    body = [_cells(line) for line in lines[start + 2 : end]]
    lines[start : start + 2] = ["", ""]
    across = {cell.strip("`*").casefold() for cell in header} <= known
    if across and len(body) > 1:
        raise InvalidInputError(
            f"has a table with {len(body)} rows of values",
            "a rule fixes one value for each argument: write a rule for each row",
        )
    for row, cells in enumerate(body, start=start + 2):
        is_told = len(cells) > 2 and cells[0].strip("`*").casefold() in known  # with a comment
        pairs = (
            list(zip(header, cells, strict=False)) if across else [cells[:2] if is_told else cells]
        )
        if all(len(pair) == 2 for pair in pairs):
            lines[row] = ", ".join(f"{name}: {value}" for name, value in pairs)


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip().strip("|").split("|")]
