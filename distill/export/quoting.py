"""Jinja that keeps the texts of messages from becoming control tokens.

A template writes text, in which a tokenizer reads every marker, so it cannot quote one as the
renderer does (distill.render.control). In the content of a message it puts a blank behind a
marker's first character, so that no message forges a turn. A marker in calls, tools or roles, which
a router does not get from strangers, is refused.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from distill import strict_json
from distill.render.control import ControlTokens

_NUMBERED = re.compile(r"(.*?)[0-9]+.*", re.DOTALL)
_FAMILY = 8
"""So many markers that differ in a number, as <unused0> to <unused98>, are one by their prefix."""

# Defines plain(text), which the other templates call.
_PLAIN = """\
{%- set markers = MARKERS -%}
{%- set unquotable = UNQUOTABLE -%}
{%- macro plain(text) -%}
{%- set said = namespace(text=text) -%}
{%- for marker in unquotable -%}
{%- if marker in text -%}
{{- raise_exception('a message holds ' ~ marker ~ ', which cannot be quoted') -}}
{%- endif -%}
{%- endfor -%}
{%- for marker in markers -%}
{%- if marker in said.text -%}
{%- set said.text = said.text | replace(marker, marker[:1] ~ ' ' ~ marker[1:]) -%}
{%- endif -%}
{%- endfor -%}
{{- said.text -}}
{%- endmacro -%}
"""

QUOTE_MESSAGES = """\
{%- macro require_plain(value, what) -%}
{%- set written = value | tojson -%}
{%- for marker in markers + unquotable -%}
{%- if (marker | tojson)[1:-1] in written -%}
{{- raise_exception(what ~ ' hold ' ~ marker ~ ', which is a control token') -}}
{%- endif -%}
{%- endfor -%}
{%- endmacro -%}
{%- set quoted = namespace(messages=[]) -%}
{%- for message in messages -%}
{%- for key in message -%}
{%- if key != 'content' or message.content is not string -%}
{{- require_plain(message[key], key ~ ' of a message') -}}
{%- endif -%}
{%- endfor -%}
{%- if message.content is string and plain(message.content) != message.content -%}
{%- set quoted.messages = quoted.messages + [dict(message, content=plain(message.content))] -%}
{%- else -%}
{%- set quoted.messages = quoted.messages + [message] -%}
{%- endif -%}
{%- endfor -%}
{%- set messages = quoted.messages -%}
{%- if tools -%}{{- require_plain(tools, 'the tools') -}}{%- endif -%}
"""
"""Jinja that replaces `messages` by quoted ones, and refuses what it cannot quote."""


class Markers(NamedTuple):
    """The control tokens of a student as text."""

    quotable: list[str]
    """With a blank behind its first character it is a marker no more."""
    unquotable: list[str]
    """All others, as those of one character."""


def find_markers(control: ControlTokens) -> Markers:
    """The student's markers; many that differ in a number are one by their prefix."""
    quotable = _families(control.texts)
    return Markers(
        quotable, [text for text in control.texts if control.found_in(quote(text, quotable))]
    )


def quote(text: str, markers: Sequence[str]) -> str:
    """The text with a blank behind the first character of each marker, as exports write it."""
    for marker in markers:
        text = text.replace(marker, f"{marker[:1]} {marker[1:]}")
    return text


def define_plain(control: ControlTokens) -> str:
    """Jinja that defines the macro `plain(text)`: the text without a control token in it."""
    markers = find_markers(control)
    filled = _PLAIN.replace("UNQUOTABLE", jinja_literal(markers.unquotable), 1)
    return filled.replace("MARKERS", jinja_literal(markers.quotable), 1)


def jinja_literal(value: Any) -> str:
    """A JSON value as a Jinja expression."""
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case str():
            return strict_json.encode(value)
        case dict():
            pairs = (f"{jinja_literal(key)}: {jinja_literal(item)}" for key, item in value.items())
            return "{" + ", ".join(pairs) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(jinja_literal, value)) + "]"
        case _:
            return strict_json.encode(value)


def _families(texts: tuple[str, ...]) -> list[str]:
    """The texts, with one prefix for many that differ in a number."""
    prefixes = {text: found[1] for text in texts if (found := _NUMBERED.fullmatch(text))}
    counts = Counter(prefixes.values())
    names = {text: prefix for text, prefix in prefixes.items() if len(prefix) > 2}
    shared = (names.get(text, text) for text in texts)
    return [
        *dict.fromkeys(
            name if counts[name] >= _FAMILY else text
            for text, name in zip(texts, shared, strict=True)
        )
    ]
