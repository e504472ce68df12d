"""What a call's sentences say of arguments that have no value: described, or spoken of otherwise.

"with the city they name" describes what the teacher fills. "without the city", "disable urgent" and
"amount under 5" would be dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from distill.workflow.arguments import name_pattern, named_argument
from distill.workflow.masks import DOT, FIXED, SENTENCE, shown
from distill.workflow.model import Tool
from distill.workflow.schema import schema_of
from distill.workflow.values import InvalidInputError, as_argument, is_valid_argument

_Found = tuple[InvalidInputError, int]
_NEGATION = re.compile(
    r"(?:\b(?:no|not|never|without|disable|deactivate|omit|skip|drop|ignore|exclude|excluding|"
    r"(?:leave|leaving)\s+(?:out|off|away)|"
    r"minus|unset|clear|remove|suppress)|n['’]t)(?:\s+(?:the|an?|any|its|their|it|be|as|marked|"
    r"set|send|pass|give|use|fill|include|add|apply))*\s+[`*_]*\Z",
    re.IGNORECASE,
)
_EMPTY = re.compile(
    r"[`*_]*\s*(?:(?:is|be|are|stays?|remains?|must|should|will|to|as|always|left|set)\s+)*"
    r"(?:empty|blank|null|none|unset|omitted|out|away|unfilled|not\s+(?:set|sent|given|used|filled))"
    r"\b",
    re.IGNORECASE,
)
_LEFT_OUT = re.compile(
    r"\b(?:not|no|never|without|disable\w*|omit\w*|skip\w*|drop\w*|ignore\w*|exclud\w*|except|but|"
    r"unless|off|(?:leave|leaving|left)\b.*\b(?:out|off|away|empty)|empty|blank|unset|null)\b|n['’]t\b",
    re.IGNORECASE,
)
_BOUND = re.compile(
    r"\b(?:above|over|below|under|at\s+(?:most|least)|up\s+to|(?:more|less|fewer)\s+than|"
    r"maximum|minimum|limited\s+to|within)\b(?=.*\d)",
    re.IGNORECASE,
)
_FILLED_BEFORE = re.compile(
    r"(?:\A|[,(:]|\b(?:with|and|the|an?|their|its|fills?(?:\s+in)?|for|using|plus|also|arguments?|"
    r"gives?|takes?|sets?|provides?|into|in|includes?|adds?|as\s+well\s+as|needs?|optionally))\s*\Z",
    re.IGNORECASE,
)
_DESCRIBED_AS = re.compile(
    r"\b(?:the|what|their|its|his|her|whether)\s[^,\d\"“”'`]*\bas\s*\Z", re.IGNORECASE
)
_FILLED_BEHIND = re.compile(
    r"\s*(?:\Z|[,)]|and\b|as\s+(?:the|they|he|she|it|given|said|stated|named|asked|in)\b|"
    r"\(?\s*(?:taken\s+)?from\s+(?:the|their|what)\b|\(?\s*one\s+of\b|\(?\s*(?:if|where|when)\s+"
    r"(?:any|given|known|named|present|stated|they|it|the)\b|which\b|that\b|of\s+the\b|named\b|given\b|"
    r"(?:is|are)\s+(?:in|from|what|as|taken|up\s+to)\b|"
    r"\(\s*(?:the|what|which|as|their)\b)",
    re.IGNORECASE,
)
_ABOUT_LACK = re.compile(
    r"\b(?:if|when|whenever|where|there|has|have|gives?|names?|in\s+case|unless|whether)\b",
    re.IGNORECASE,
)
_NUMBER = re.compile(
    r"(?<![\w-])(?:[A-Za-z]?\d+\w*|zero|one(?!\s+(?:of|they|that|the|in))|two|three|four|five|six|seven|eight|"
    r"nine|ten|twelve|twenty|fifty|hundred|thousand|unlimited)\b"
    r"(?!\s*(?:decimals?|digits?|places?|(?:decimal|times?)))",
    re.IGNORECASE,
)
_DEGREE = (
    r"(?:highest|lowest|top|max(?:imum|imal)?|min(?:imum|imal)?|high|low|medium|full|largest|"
    r"smallest)"
)
_TO_A_DEGREE = re.compile(rf"\b{_DEGREE}\s+[`*_]*\Z|\A[`*_]*\s+{_DEGREE}\b", re.IGNORECASE)
_TOLD = re.compile(
    r"[`*_]*\s*(?:as|if|when|whenever|where|that|which|depending|according|from|of|flag|field|"
    r"argument|parameter|setting|option|value|or\s+not|means|is\s+(?:up|what|whether|as|left|filled)|"
    r"(?:they|the\s+\w+|he|she)\s+\w+)\b",
    re.IGNORECASE,
)
_EXAMPLE = re.compile(
    rf"(?:e{DOT}\s?g{DOT}|\b(?:for\s+(?:example|instance)|such\s+as|like)\b)[^.;\n]*\Z",
    re.IGNORECASE,
)
_EVERYDAY = re.compile(
    r"all|any|others?|none|new|old|more|same|standard|normal|general|low|high|medium|now|first|last|"
    r"next|yes|not|auto|full|default|true|false|order|text|user|home",
    re.IGNORECASE,
)
_ALONE = re.compile(r"[\"'`”“»’*_]*\s*(?:[.,;)\n]|\Z|and\b|with\b)")
_SET = re.compile(
    r"[`*_]*\s*(?:flag|field|argument|parameter|setting|option|value)?\s*(?:is\s+|to\s+)?"
    r"(?:set|on|off|true|false|(?:en|dis)abled|checked|ticked)\b(?!\s+(?:as|if|when|or|what)\b)",
    re.IGNORECASE,
)
_IN_BRACKETS = re.compile(
    r"[`*_]*\s*\((?:[a-z]+\s+){0,2}(?:[=≤≥<>~]+\s*|:\s*)?\d+(?:[.,]\d+)?\)", re.IGNORECASE
)  # a number, as: limit (default 2)
_NAMED = re.compile(r"[`*_]*\s+(?:of\s+)?(?!I\b)[A-ZÀ-Þ]\w+")  # a name: city Berlin, city of Berlin
_EITHER = re.compile(r"[`*_]*\s+(?:is|are|as)?\s*either\b", re.IGNORECASE)
_ASKED = re.compile(r"\b(?:whether|how|if)\b[^,.;]*\Z", re.IGNORECASE)


def find_mentions(region: str, given: set[str], tool: Tool) -> Iterator[_Found]:
    """Arguments without a value that are spoken of in another way than to describe them."""
    switches = [name for name in schema_of(tool).properties if _kind(tool, name) == "switch"]
    stems = "|".join(re.escape(name.removesuffix("e")) for name in switches if len(name) > 3)
    inflected = rf"|(?P<stem>{stems or '(?!)'})(?:e?s|e?d|ing|ly|e?d?ly)"
    named = re.compile(
        rf"(?<![\w{{.-])(?:({name_pattern(tool)}){inflected})(?![\w-])", re.IGNORECASE
    )
    for found in named.finditer(region):
        stem = found["stem"]
        name = named_argument(tool, found[1] or stem) or named_argument(tool, f"{stem}e")
        if name is None or name in given:
            continue
        before = re.split(rf"[.;\n,:(){FIXED}]", region[: found.start()])[-1]
        after = re.split(r"[.;\n,:()]", region[found.end() :], maxsplit=1)[0]
        kind = _kind(tool, name)
        if region[found.start() - 1 : found.end() + 1] == f"`{found[0]}`" and _is_left_to_fill(
            region, found.start() - 1, found.end() + 1
        ):
            continue
        in_brackets = kind == "number" and _IN_BRACKETS.match(region, found.end())
        if in_brackets or not _is_plain(before, after, kind):
            said = shown(f"{before}{found[0]}{after}".strip(" `*_"))
            error = InvalidInputError(
                f'says "{said}" of "{name}", which fixes nothing', _way_out(name, said, kind)
            )
            yield error, found.start() - len(before.lstrip())


def find_quoted_name(prose: str, tool: Tool) -> _Found | None:
    """The first argument in backticks that is more than one of what the teacher fills."""
    for found in re.finditer(r"`([^`]*)`", prose):
        if found[1] in schema_of(tool).properties and not _is_left_to_fill(prose, *found.span()):
            said = shown("".join(_around(prose, *found.span(), keep=True)))
            error = InvalidInputError(
                f'says "{said}" of `{found[1]}`, which is not understood',
                _way_out(found[1], said, _kind(tool, found[1])),
            )
            return error, found.start()
    return None


def _is_left_to_fill(prose: str, start: int, end: int) -> bool:
    before, after = _around(prose, start, end)
    return bool(
        (_FILLED_BEFORE.search(before) or _DESCRIBED_AS.search(before))
        and _FILLED_BEHIND.match(after)
        and not _LEFT_OUT.search(f"{before} {after}")
    )


def _around(prose: str, start: int, end: int, *, keep: bool = False) -> tuple[str, str]:
    """What a sentence says in front of a place, and behind it; `keep`: the place as well."""
    before = re.split(r"[.;\n]", prose[:start])[-1]
    after = re.split(r"[.;\n]", prose[end:], maxsplit=1)[0]
    return before.lstrip(" ,") + prose[start:end] * keep, after


def _way_out(name: str, said: str, kind: str) -> str:
    lacks = _LEFT_OUT.search(said)
    if bound := _BOUND.search(said):
        return (
            f'a bound ("{bound[0]}") belongs into the schema, as minimum or maximum; write a fixed '
            f"value as: `{name}` = {(re.findall(r'[0-9]+', said) or ['…'])[0]}"
        )
    if kind == "switch":
        value = "false" if lacks else "true"
        return (
            f"write a fixed value as: `{name}` = {value}; say what the teacher fills as: whether "
            f"it is {name}, as the request says"
        )
    if lacks:
        return (
            "leave the sentence out: an optional argument is sent only where the request gives it; "
            f"what is never sent belongs out of the tool's schema, a fixed value is written as: "
            f"`{name}` = …"
        )
    said_number = (
        re.search(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w.])", said) if kind == "number" else None
    )
    value = said_number[0] if said_number else "…"
    return (
        f"write a fixed value as: `{name}` = {value}; say what the teacher fills as: with the "
        f"{name}, as the request says"
    )


def find_values(region: str, given: set[str], tool: Tool) -> Iterator[_Found]:
    """A value that the schema lists, alone in the call's own sentence, without its name."""
    switches = [name for name in schema_of(tool).properties if _kind(tool, name) == "switch"]
    if switches and given and (left := re.search(r"\b(?:true|false)\b", region, re.IGNORECASE)):
        yield (
            InvalidInputError(
                f'goes on with "{left[0]}" beside the values that are read',
                f"write a fixed value as: `{switches[0]}` = {left[0].lower()}, and a rule for each "
                "case",
            ),
            left.start(),
        )
    own = SENTENCE.match(region)
    schema = schema_of(tool)
    for name in schema.properties if own else ():
        stated = schema.stated_values(schema.properties[name])
        listed = sorted({value for value in stated if isinstance(value, str) and len(value) > 2})
        if name in given or not own or not listed or is_valid_argument(tool, name, "text"):
            continue
        pattern = re.compile(
            rf"(?<![\w{{-])(?:{'|'.join(map(re.escape, listed))})(?![\w-])", re.IGNORECASE
        )
        found = list(pattern.finditer(own[0]))
        if len(found) != 1 or _EXAMPLE.search(own[0], 0, found[0].start()):
            continue
        if not _EVERYDAY.fullmatch(found[0][0]) or _ALONE.match(own[0], found[0].end()):
            yield (
                InvalidInputError(
                    f'says "{shown(own[0])}", and "{found[0][0]}" is a value of "{name}", which '
                    "is not read",
                    f"write a fixed value as: `{name}` = {as_argument(tool, name, found[0][0])}; "
                    "else say it in other words",
                ),
                found[0].start(),
            )


def _is_plain(before: str, after: str, kind: str) -> bool:
    if _NAMED.match(after) or _EITHER.match(after):
        return False
    lacks = _NEGATION.search(before) or _EMPTY.match(after)
    if lacks and not _ABOUT_LACK.search(before) and not _ABOUT_LACK.match(after.strip(" `*_")):
        return False
    if kind == "number":
        degree = _TO_A_DEGREE.search(before) and not after.strip(" `*_")
        number = _NUMBER.search(after) or _NUMBER.search(before)
        return not (number or degree or _TO_A_DEGREE.match(after))
    if kind == "switch" and _SET.match(after):
        return False
    if kind == "switch":
        return bool(_TOLD.match(after) or _ASKED.search(before))
    return True


def _kind(tool: Tool, name: str) -> str:
    """ "switch" for a boolean, "number", else "text"; anything may be text where no type is set."""
    if name not in schema_of(tool).properties or is_valid_argument(tool, name, "text"):
        return "text"
    if is_valid_argument(tool, name, True) and is_valid_argument(tool, name, False):
        return "switch"
    some = (0, 1, 3, 10, 100, 1000, 0.5, -1)
    return "number" if any(is_valid_argument(tool, name, each) for each in some) else "text"
