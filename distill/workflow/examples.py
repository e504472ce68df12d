"""The items under Examples and Not: a request, an arrow, and what the arrow points to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from distill.records import Json
from distill.workflow.arguments import (
    name_pattern,
    named_argument,
    read_arguments,
    read_call,
    stated,
)
from distill.workflow.model import Then, Tool
from distill.workflow.page_marks import Bare, without_marks, without_prefix
from distill.workflow.problems import excerpt
from distill.workflow.quotes import quotation, unquoted
from distill.workflow.schema import json_equal, leaves
from distill.workflow.stand_ins import require_meant
from distill.workflow.strict import drop_nulls
from distill.workflow.tails import split_tail
from distill.workflow.values import (
    InvalidInputError,
    argument_errors,
    is_valid_argument,
    slots_in,
)

_SIGN = r"(?:[→⟶⇒⟹➔➜➝➞➡⇨↦⟼]\ufe0f?|[-=–—]{1,3}(?:>|&gt;)|&(?:rarr|rArr|#8594|#x2192);)"
ARROW = re.compile(rf"(?:^|(?<=\s)){_SIGN}(?=\s|$)")
_TIGHT_ARROW = re.compile(rf"(?<!\\){_SIGN}")
_ESCAPED = re.compile(rf"\\(?={_SIGN})")
# Signs that are typed for an arrow, and mean other things as well.
_NO_ARROW = r"(?:::|\||>{1,2}|»|←|⇐|<[-=]|—)"
IN_QUOTES = 'put a request that holds an arrow itself into quotes, as: - "from A -> B"'


class Arrow(NamedTuple):
    """`left → right` of a list item; `right` is None without an arrow. `\\->` escapes one."""

    left: str
    right: str | None


class Example(NamedTuple):
    """A request, the arguments of the rule's first call where it gives any, and page markup."""

    request: str
    arguments: Json | None
    taken: tuple[str, ...] = ()
    """What stood around words of the request, and was taken off."""
    left_out: tuple[str, ...] = ()
    """Arguments that the item says are not set."""


def split_arrow(text: str, *, last: bool = False, target: str = r"(?!)") -> Arrow:
    """Split an item at its first arrow before something like `target`, else at its first or last.

    Arrows have blanks around them; none is looked for in quotes around the request. Raises
    InvalidInputError where more than one arrow may be meant.
    """
    text = text.strip()
    quoted = quotation(text, 0)
    if quoted and is_quoted(text):
        after = ARROW.match(text, quoted.end + 1)
        return Arrow(quoted.text.strip(), text[after.end() :].strip() if after else None)
    aimed = [
        arrow
        for arrow in _TIGHT_ARROW.finditer(text)
        if re.compile(rf"\s*(?:{target})", re.IGNORECASE).match(text, arrow.end())
    ]
    arrows = aimed[:1] or list(ARROW.finditer(text))
    if not arrows:
        return Arrow(_plain(text), None)
    if len(arrows) > 1 and not last:
        raise InvalidInputError("has more than one arrow", IN_QUOTES)
    arrow = arrows[-1]
    return Arrow(_plain(text[: arrow.start()]), text[arrow.end() :].strip())


def read_example(text: str, then: Then, tools: Mapping[str, Tool]) -> Example:
    """An item of Examples. Raises InvalidInputError."""
    target = _target(then, tools)
    item = without_prefix(text)
    request, written = split_arrow(item.text, target=target)
    if not request or written == "":
        missing = "the request" if not request else "the arguments"
        raise InvalidInputError(
            f"lacks {missing} beside its arrow",
            'write: - the request → name: "value"; an arrow in the text itself as \\->',
        )
    quoted = is_quoted(item.text)
    if written is None and then.calls and not quoted:
        _reject_unread(item.text, target, tools)
        if tail := split_tail(request, tools[then.calls[0].tool]):
            request, written = _plain(tail.request), tail.written
    bare = Bare(request) if quoted else without_marks(request)
    taken = (*item.taken, *bare.taken)
    if written is None:
        return Example(bare.text, None, taken)
    if not then.calls:
        raise InvalidInputError(
            f"gives arguments, and the rule says {then.kind}, not call",
            f"remove the arrow and what follows; {IN_QUOTES}",
        )
    arguments, left_out = _arguments(bare.text, written, then, tools)
    return Example(bare.text, arguments, taken, left_out)


def _without_stop(value: Any, request: str) -> Any:
    """A text without the full stop that ends its bullet, where the request says it without."""
    is_text = isinstance(value, str) and value.endswith(".") and value not in request
    return value[:-1] if is_text and value[:-1] in request else value


def is_quoted(item: str) -> bool:
    """Whether the request of an item stands in quotes, and so is meant as it is written."""
    quoted = quotation(item, 0)
    return quoted is not None and (
        not item[quoted.end :].strip() or ARROW.match(item, quoted.end + 1) is not None
    )


def _arguments(
    request: str, written: str, then: Then, tools: Mapping[str, Tool]
) -> tuple[Json, tuple[str, ...]]:
    """The first call's arguments, of the rule and of the example, and which are not set."""
    spec = then.calls[0]
    tool = tools[spec.tool]
    called = read_call(written, tools)
    if called and called[0] != tool:
        raise InvalidInputError(
            f"calls {called[0].name}, and the rule calls {tool.name} first",
            "move it to the rule whose call it is, or correct the call",
        )
    from_example = called[1] if called else read_arguments(written, tool)
    if not called and list(from_example.values()) == [written]:
        _check_words(request, written)
    from_example = {name: _without_stop(each, request) for name, each in from_example.items()}
    from_example = {
        name: None if _is_null(tool, name, value, written) else value
        for name, value in from_example.items()
    }
    for name, value in from_example.items():
        if isinstance(value, str):
            _check_value(name, value, request, written, tools, tool)
        for leaf in leaves(value):
            require_meant(tool, name, leaf.value, request)
    nulls = [name for name, value in from_example.items() if value is None]
    from_example = drop_nulls(tool, from_example)
    constants = {name: value for name, value in spec.arguments.items() if not any(slots_in(value))}
    for name, value in constants.items():
        if not json_equal(from_example.get(name, value), value):
            raise InvalidInputError(
                f'gives "{name}" another value than the rule does', "change one of the two"
            )
    arguments = {**constants, **from_example}
    for error in argument_errors(tool, arguments):
        raise error
    return arguments, tuple(name for name in nulls if name not in arguments)


def _is_null(tool: Tool, name: str, value: object, written: str) -> bool:
    """Whether a bare word says that an argument is not set."""
    is_word = value in ("null", "Null", "NULL", "None") and not stated(tool, name, value)
    return is_word and not re.search(rf"[\"'“‘«„`]{value}\b", written)


def _target(then: Then, tools: Mapping[str, Tool]) -> str:
    """A pattern for how the arguments of an example begin."""
    if not then.calls:
        return r"(?!)"
    names = name_pattern(tools[then.calls[0].tool])
    called = "|".join(map(re.escape, sorted(tools, key=len, reverse=True)))
    return (
        rf"(?:call\s+)?[`\"'*“„]{{0,3}}(?:(?:{names})[`\"'*”“]{{0,3}}\s*[:=]|(?:{called})[`\"'*]*\s*"
        r"(?:\(|\{|:|with\b|\Z))|`{0,3}\{\s*[\"'“]"
    )


def _reject_unread(text: str, target: str, tools: Mapping[str, Tool]) -> None:
    """Without an arrow, all of the text is the request: it may not look like more."""
    half = re.search(rf"(?<!\\)(?:(?<=\s){_SIGN}(?=\S)|(?<=\S)(?<!\\){_SIGN}(?=\s))", text)
    unsaid = rf"{_NO_ARROW}\s*(?:{target})|^[\"“„«'].*[\"”“»']\s*:?\s*(?:{target})"
    called = rf"(?<!\w)(?:{'|'.join(map(re.escape, tools))})\s*[(:]\s*[\"'“{{]*\w*[\"'”]*\s*[=:,)]"
    if half or re.search(unsaid, text, re.IGNORECASE) or re.search(called, text):
        raise InvalidInputError(
            "may have arguments, without an arrow between blanks before them",
            f"write: - the request → name: value; {IN_QUOTES}",
        )


def _check_value(
    name: str, value: str, request: str, written: str, tools: Mapping[str, Tool], tool: Tool
) -> None:
    """Raise where the text that became a value still looks like arguments, a call or a slot."""
    names, called = name_pattern(tool), "|".join(map(re.escape, tools))
    start = rf"(?:[(\[]\s*)?(?:with\s+|using\s+)?(?:the\s+)?(?:(?i:{names})|{called})\b"
    swallowed = re.match(start, value) or re.search(
        rf"(?<![\w-])(?:(?i:{names})\s*[:=]|(?:{called})\()", value
    )
    is_quoted = any(f"{mark}{value}" in written for mark in "\"“'`«„‘")
    if not value and not re.search(r"[\"'“`]", written):
        raise InvalidInputError(f'gives "{name}" no value', "write it behind the sign")
    if any(slots_in(value)):
        raise InvalidInputError(
            f'gives "{name}" the slot {excerpt(value)}, which examples do not fill',
            "write the value that this request has",
        )
    if swallowed and not is_quoted and swallowed[0].casefold() not in request.casefold():
        raise InvalidInputError(
            f'has "{excerpt(value)}" as {name}, which looks like more than a value',
            'write: name: "value", other: 3, or the whole call; put a value that is meant so in '
            "quotes",
        )
    if not is_quoted:
        _check_pieces(name, value, request, tool)


def _check_pieces(name: str, value: str, request: str, tool: Tool) -> None:
    """Raise where text behind a comma may be an argument: a switch, a part of one, or a pair."""
    for found in re.finditer(r"[,;]\s*(?:and\s+)?([^,;]+)", value):
        piece = found[1].strip()
        pair = re.match(r"[A-Za-z_][\w.]*\s*(?:=|:(?=\s))", piece)
        switch = re.fullmatch(rf"(no|not|without)?\s*({name_pattern(tool)})", piece, re.IGNORECASE)
        named = named_argument(tool, switch[2]) if switch else None
        is_switch = named is not None and is_valid_argument(tool, named, True)
        if is_switch or (pair and piece.casefold() not in request.casefold()):
            as_pair = f"{named}: {'false' if switch and switch[1] else 'true'}" if is_switch else (
                'name: value, or name: {"part": value} for a part of an object'
            )  # fmt: skip
            raise InvalidInputError(
                f'has "{excerpt(piece)}" behind a comma in the value of {name}, which may be an '
                "argument of its own",
                f"write it as {as_pair}; put a text that is meant so into quotes",
            )


def _check_words(request: str, value: str) -> None:
    """A value without a name has words of the request: else the arrow may be the request's own."""
    said = request.casefold()
    if value.casefold() in said:
        return
    for word in re.findall(r"\w+", value.casefold()):
        if re.search(rf"(?<![a-z0-9]){re.escape(word)}", said):
            return
    raise InvalidInputError(
        f'has "{excerpt(value)}" after its arrow, which is neither an argument nor in the request',
        f'write: - the request → name: "value"; {IN_QUOTES}',
    )


def _plain(text: str) -> str:
    """`text` with its arrows unescaped, and without quotes around all of it."""
    return unquoted(_ESCAPED.sub("", text.strip()))
