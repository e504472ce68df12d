"""Arguments that a sentence fixes, in the many ways in which people say so."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from unicodedata import normalize

from distill.workflow.after_value import REWRITTEN, unread_behind
from distill.workflow.arguments import (
    ParsedValue,
    name_pattern,
    named_argument,
    placeholder,
    read_object,
    require_plain_number,
    scan_value,
    typed_value,
)
from distill.workflow.model import Tool
from distill.workflow.problems import closest_match, excerpt
from distill.workflow.quotes import CLOSERS, quotation
from distill.workflow.schema import schema_of
from distill.workflow.stand_ins import is_stand_in, require_no_mark
from distill.workflow.values import (
    InvalidInputError,
    argument_errors,
    is_valid_argument,
    slots_in,
    typed_argument,
    unknown_argument,
)

_OPEN, _CLOSE = r"[`\"'*_“„«‘]{0,3}", r"[`\"'*_”“»’]{0,3}"
_SIGN = re.compile(r"\s*(?:==|:=|=>|->|[=:＝：→⇒])\s*")
# Words between a name and its value; the value must then be plain: quoted, listed, a number.
_WORDS = re.compile(
    r"\s+(?:(?:must|should|shall|will|always|is|are|be|being|becomes?|equals?|set|fixed|equal|to|as|"
    r"at|of)\s+){1,5}(?:the\s+value\s+)?"
    r"|\s*[—–]\s*|\s+-\s+|\s*(?=[`“„‟«‹「『〝＂])|\s+",
    re.IGNORECASE,
)
# Bare words end at a comma, at a full stop that ends a sentence, or where the next call begins.
_BARE_END = r"(?<!\s)\s*(?:,|\n|\.(?=\s|\Z)|\s(?:and|then)\s+(?:then\s+|call\s+)*`|\Z)"
_OTHER_VALUE = re.compile(r"\s*(?:,\s*)?(?:\bor\b|\||/)\s*(?=\S)", re.IGNORECASE)
_MORE = re.compile(r"\s*(?:,\s*)?(?:\band\b|[&+>;])\s*|[^\n.;]*\n[\s*-]*", re.IGNORECASE)
# In a text without quotes: what may be said of the value instead of being it.
_LOOSE = re.compile(
    r"\b(?:and|or|for|in|from|by|with|only|to|the|of|e\.?g|as|any|if|when|is|are|then|tell|ask)\b|;|"
    r"\A(?:required|optional|mandatory|unknown|given|dynamic|variable|free\s+text|user\s+input|"
    r"keywords?|\d+\s+digits?|digits?)\Z",
    re.IGNORECASE,
)
_ADDED = re.compile(
    r"\}\s+(?:and\s+(?:the|an?|their|its|his|her)|or|plus|but|without|\+)\s(?!\{)", re.IGNORECASE
)
_CASE = re.compile(
    r"\s*,?\s*(?:(?:only\s+)?if|unless|depending)\b[^.;\n]*|"
    r"[^.;\n]*(?<!thing )(?<!what )(?<!who )\b(?:else|otherwise)\b[^.;\n]*",
    re.IGNORECASE,
)
_AS = r"\s+(?:as|for|into|in)\s+(?:the\s+|its\s+)?"
_SWITCH = re.compile(
    r"(?:on|off|yes|no|(?:en|dis)abled)(?=\s*(?:[.,;:)!\n]|\Z|and\b|then\b))", re.IGNORECASE
)
_NUMBER = re.compile(
    r"(?:zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)\b(?!\s+of\b)",
    re.IGNORECASE,
)
_DATE = re.compile(r"\d{4}-\d\d-\d\d|\d{1,2}[./]\d{1,2}[./]\d{2,4}")
_BRACES = re.compile(r"\{+\s*\w[^{}]*\}+")
_SLOT = re.compile(r"\{[A-Za-z_]\w*\}")
_PLUS, _THE = "and|plus|with|also", "with|also|the|their|its|his|her|an?|any|customer['’]s"
_IN_A_CASE = re.compile(
    rf"\}}\s+{REWRITTEN.pattern}|"
    r"\s(?:if|unless|when|whenever|except|otherwise|only\s+(?:if|for|on|in|when))\s+\w|"
    r"\}\s+(?:as|which|that|where|exactly|unchanged|verbatim|in\s+(?:lower|upper)|"
    r"(?:from|for|of|in|with|without)\s+(?:the|their|his|her|its|any|an?))\b",
    re.IGNORECASE,
)
_DESCRIBING = re.compile(
    r"(?:the|their|his|her|its|your|whatever|whichever|what|as)\s+\w", re.IGNORECASE
)
_PART = re.compile(
    r"(?:\.|\[[\"']?|['’]s\s+|[`*_]*\s*->\s*[`*_]*)([A-Za-z_]\w*|\d+)[\"']?\]?[`*_]*\s*[=:](?!/)"
)
_SLOTS = re.compile(r"\{[A-Za-z_]\w*\}(?:\s+\w+\s+\{[A-Za-z_]\w*\})*")
_REASON = re.compile(r"\b(?:because|since)\b[^,.;\n]*\Z", re.IGNORECASE)


class MisreadError(InvalidInputError):
    """What is wrong in a text, and the offset where."""

    def __init__(self, error: InvalidInputError, offset: int) -> None:
        super().__init__(error.cause, error.hint)
        self.offset = offset


class Fixed(NamedTuple):
    """The values of arguments, and where what is said about them starts and ends."""

    values: dict[str, Any]
    start: int
    end: int


class FixedArguments:
    """Finds what a text fixes of a tool's arguments."""

    def __init__(self, text: str, tool: Tool) -> None:
        self._text = text
        self._tool = tool
        names = name_pattern(tool)
        opening = rf"(?<![\w{{.?&#])(?<!\w-)({_OPEN})"
        self._name = rf"{opening}((?i:{names}))(?:_{{1,2}}(?!\w))?(?![\w(-])({_CLOSE})"
        self._reverse = re.compile(rf"{_AS}{_OPEN}((?i:{names}))(?!\w){_CLOSE}", re.IGNORECASE)
        self._event = re.compile(
            rf"{self._name}|`([^`\n]*)`(?=\s*[=:＝：])|(?<![\w.?&#-])([A-Za-z_][\w.-]*)(?=\s*[=＝](?!=))"
            r"|(\{)|[" + re.escape("".join(CLOSERS)) + "]"
        )
        self._stop = (
            rf"(?<!\s)\s*(?:[,;&]|\band\b)?\s*(?:and\s+)?(?:with\s+)?(?:the\s+)?{self._name}"
            rf"(?:\s*[=:＝：])|{_BARE_END}"
        )

    def find(self, start: int, limit: int) -> Fixed | None:
        """The next thing that is fixed, beginning before `limit`. Raises MisreadError."""
        position = start
        while (event := self._event.search(self._text, position)) and event.start() < limit:
            adjacent = not self._text[start : event.start()].strip(" ,:")
            try:
                found = self._read(event, adjacent=adjacent)
                if isinstance(found, Fixed):
                    self._check_values(found)
                    return found
            except InvalidInputError as error:
                raise MisreadError(error, event.start()) from None
            position = max(found, event.end())
        return None

    def leftover(self) -> tuple[re.Match[str], str] | None:
        """The first place where the text still looks like it fixes an argument, and a way out."""
        signed = re.search(rf"{self._name}\s*(?:[=:＝：|]|!=|≠)|\|\s*{self._name}", self._text)
        if signed:
            return signed, ""
        for clause in re.finditer(r"[^.;\n]+", self._text):
            for named in re.finditer(self._name, clause[0]):
                name = named_argument(self._tool, named[2])
                values = self._mentioned(clause[0], name) if name else []
                if len(values) == 1:
                    denied = re.search(r"\b(?:not|no|never|without|but)\b|n['’]t\b", clause[0])
                    plain = f"write a fixed value as: `{name}` = {values[0]}"
                    return clause, "" if denied else plain
        return None

    def _read(self, event: re.Match[str], *, adjacent: bool) -> Fixed | int:
        """What the event fixes; else the offset from which to search on."""
        if event[2] is not None:
            return self._named(event)
        for written in (event[4], event[5]):
            if written is not None:
                return self._unknown(event, written, adjacent=adjacent)
        if event[6]:
            return self._object(event.start())
        return self._quoted(event.start())

    def _named(self, event: re.Match[str]) -> Fixed | int:
        name = named_argument(self._tool, event[2])
        if name is None:
            return event.end()
        if inner := _PART.match(self._text, event.end()):
            raise InvalidInputError(
                f'gives a part of "{name}", {excerpt(event[0] + inner[0])}, which is not read',
                "write the whole value as JSON, as: "
                + (
                    f'`{name}` = ["…"]' if inner[1].isdigit() else f'`{name}` = {{"{inner[1]}": …}}'
                ),
            )
        if sign := _SIGN.match(self._text, event.end()):
            start = sign.end()
            if event[1] and self._text.startswith(f"{event[1]} ", start):  # **name:** value
                start += len(event[1]) + 1
            return self._signed(name, event, start, ":" in sign[0] and "`" not in event[1])
        words = _WORDS.match(self._text, event.end())
        value = self._plain_value(name, words.end()) if words else None
        if words and value is None and words[0].strip():
            self._check_near(name, words.end())
        if value is None and words:
            self._check_beside(name, words.end())
        is_name = value and isinstance(value.value, str) and named_argument(self._tool, value.value)
        if value is None or is_name or self._has_other(name, value.end):
            return event.end()
        return Fixed({name: value.value}, event.start(), value.end)

    def _signed(self, name: str, event: re.Match[str], start: int, loose: bool) -> Fixed:
        value = self._scan(name, start)
        written = self._text[start : value.end].strip()
        listed = self._text[: event.start()].rstrip(" ").endswith("\n")
        if not written:
            raise InvalidInputError(f'gives "{name}" no value', "write it behind the sign")
        is_text = isinstance(value.value, str) and written[:1] not in CLOSERS
        joined = re.search(rf"\s+(?:{_PLUS})(?:\s+(?:{_THE}))*\s+{self._name}|\s+and\Z", written)
        if joined and _SLOT.fullmatch(written[: joined.start()]):
            value, joined = ParsedValue(written[: joined.start()], start + joined.start()), None
        told = joined or _DESCRIBING.match(written)
        case = _IN_A_CASE.search(written)
        has_slot = _SLOT.search(written)
        is_note = (loose or listed or told) and " " in written and not has_slot
        text = str(value.value)
        is_note = is_note or bool((_ADDED if _SLOT.search(text) else _LOOSE).search(text))
        may_be_note = is_text and (is_note or case)
        if may_be_note and is_valid_argument(self._tool, name, value.value):
            raise InvalidInputError(
                f'says "{excerpt(written)}" of "{name}", which may be its value or a note',
                f'put a fixed value into quotes, as: `{name}` = "{excerpt(written)}"; for what '
                "the teacher fills write {topic}, a slot, or a sentence without the sign",
            )
        if is_text and is_stand_in(self._tool, name, value.value):
            raise placeholder(self._tool, name, written)
        return Fixed({name: value.value}, event.start(), value.end)

    def _scan(self, name: str, start: int) -> ParsedValue:
        quoted = None if self._text[start : start + 1] in '`"' else quotation(self._text, start)
        if quoted:
            return ParsedValue(typed_value(self._tool, name, quoted.text), quoted.end)
        slot = _SLOTS.match(self._text, start)
        if slot and re.compile(r"\s+\(").match(self._text, slot.end()):  # with an explanation
            return ParsedValue(slot[0], slot.end())
        if not is_valid_argument(self._tool, name, "text"):  # no text: its end is plain
            value = (
                self._plain_value(name, start) if self._text[start : start + 1].isalnum() else None
            )
            is_item = value and isinstance(value.value, str) and self._takes_list(name)
            ends = value and not re.compile(r"[\w%-]|[./:]\w").match(self._text, value.end)
            if value and ends and not is_item:
                return value
        return scan_value(self._text, start, self._tool, name, self._stop)

    def _unknown(self, event: re.Match[str], name: str, *, adjacent: bool) -> Fixed | int:
        """A name that the schema does not have, beside a sign."""
        sign = _SIGN.match(self._text, event.end())
        if sign is None or (":" in sign[0] and not adjacent):
            return event.end()
        if event[5] and _REASON.search(self._text, 0, event.start()):
            return event.end()
        if not schema_of(self._tool).accepts_name(name):
            raise unknown_argument(self._tool, name)
        value = self._scan(name, sign.end())
        return Fixed({name: value.value}, event.start(), value.end)

    def _object(self, start: int) -> Fixed | int:
        if slot := _SLOT.match(self._text, start):
            return slot.end()
        value, end = read_object(self._text, start)
        named = value.get("name") == self._tool.name and len(value) == 2
        inner = value.get("arguments", value.get("parameters")) if named else None
        arguments = inner if isinstance(inner, dict) else value
        tool = self._tool
        return Fixed({n: typed_value(tool, n, v) for n, v in arguments.items()}, start, end)

    def _quoted(self, start: int) -> Fixed | int:
        """ "`closed` as the status"; any other quotation is skipped as a whole."""
        text = self._text
        quoted = None if text[start - 1 : start].isalnum() else quotation(text, start)
        if quoted is None or "\n" in text[start : quoted.end]:
            return start + 1
        names = self._reverse.match(text, quoted.end)
        name = named_argument(self._tool, names[1]) if names else None
        if names is None or name is None or named_argument(self._tool, quoted.text):
            return quoted.end
        value = self._scan(name, start)
        return Fixed({name: value.value}, start, names.end())

    def _plain_value(self, name: str, start: int) -> ParsedValue | None:
        """A value that can be nothing else: quoted, JSON, a slot, a listed one, a number."""
        text = self._text
        if quotation(text, start) or _SLOT.match(text, start) or text[start : start + 1] in "[{":
            return self._scan(name, start)
        for value in sorted(self._listed(name), key=len, reverse=True):
            for form in ("NFC", "NFD"):
                written = normalize(form, value)
                end = start + len(written)
                same = text[start:end].casefold() == written.casefold()
                if same and not text[end : end + 1].isalnum():
                    return ParsedValue(value, end)
        number = re.compile(r"(?:-?\d+(?:\.\d+)*|true|false)\b", re.IGNORECASE).match(text, start)
        if number and not isinstance(typed_argument(self._tool, name, number[0]), str):
            require_plain_number(number[0], typed_argument(self._tool, name, number[0]))
            return ParsedValue(typed_argument(self._tool, name, number[0]), number.end())
        return None

    def _check_values(self, found: Fixed) -> None:
        """Raise where further values follow, braces hold no slot's name, or the schema objects."""
        for name, value in found.values.items():
            if self._has_other(name, found.end):
                raise InvalidInputError(
                    f'gives "{name}" of {self._tool.name} several values',
                    "name one, or leave it to the teacher and say when it is which",
                )
            braces = _BRACES.findall(value) if isinstance(value, str) else []
            if not all(map(_SLOT.fullmatch, braces)):
                raise InvalidInputError(
                    f'gives "{name}" a value with braces around no slot\'s name: {excerpt(value)}',
                    "write a slot as one word in single braces, as: {topic}",
                )
            require_no_mark(self._tool, {name: value})
            is_fixed = not any(slots_in(value))
            if is_fixed and (case := _CASE.match(self._text, found.end)):
                raise InvalidInputError(
                    f'gives "{name}" of {self._tool.name} a value only in a case: '
                    f'"{excerpt(case[0])}"',
                    "write a rule for each case, as a fixed value is fixed always",
                )
            self._check_behind(name, found, value, is_fixed=is_fixed)
            if is_fixed and schema_of(self._tool).accepts_name(name):
                for error in argument_errors(self._tool, {name: value}, partial=True):
                    raise error

    def _check_behind(self, name: str, found: Fixed, value: Any, *, is_fixed: bool) -> None:
        """Raise where the value's sentence goes on with what changes the value."""
        quoted = self._text[found.end - 1] in "\"'`”“»’"
        is_text = isinstance(value, str) and not quoted and value not in self._listed(name)
        listed = "|".join(rf"{re.escape(each)}\b" for each in self._listed(name)) or r"(?!)"
        rest = unread_behind(
            self._text[found.end :],
            self._name,
            listed,
            is_text=is_text,
            is_fixed=is_fixed,
            is_number=isinstance(value, int | float) and not isinstance(value, bool),
        )
        if rest is not None:
            raise InvalidInputError(
                f'goes on with "{excerpt(rest)}" behind the value of "{name}", which is not read',
                f'write a list as JSON, as: `{name}` = ["…", "…"]'
                if self._takes_list(name) and isinstance(value, str)
                else "a fixed value is fixed in every row: end the sentence behind it, put a text "
                "with commas in quotes, write a number as 1234.5, and a rule for each case",
            )

    def _takes_list(self, name: str) -> bool:
        schema = schema_of(self._tool).properties.get(name)
        return isinstance(schema, Mapping) and schema.get("type") == "array"

    def _has_other(self, name: str, end: int) -> bool:
        other, more = _OTHER_VALUE.match(self._text, end), _MORE.match(self._text, end)
        if other is not None and self._plain_value(name, other.end()) is not None:
            return True
        listed = "|".join(map(re.escape, self._listed(name))) or r"(?!)"
        value = re.compile(rf"(?:{listed})(?![\w-])(?!\s*[=:])", re.IGNORECASE)
        return more is not None and value.match(self._text, more.end()) is not None

    def _check_near(self, name: str, start: int) -> None:
        word = re.compile(r"[\w-]{3,60}").match(self._text, start)
        near = closest_match(word[0], self._listed(name), 0.8) if word else None
        if word and near:
            raise InvalidInputError(
                f'says "{word[0]}" of "{name}", which {self._tool.name} does not know',
                f'did you mean "{near}"?',
            )

    def _check_beside(self, name: str, start: int) -> None:
        """Raise where the word beside a name is a value in words, or a date."""
        takes_text = is_valid_argument(self._tool, name, "text")
        switch = not takes_text and is_valid_argument(self._tool, name, True)
        number = not takes_text and is_valid_argument(self._tool, name, 3)
        patterns = [_DATE] + [_SWITCH] * switch + [_NUMBER] * number
        word = next(filter(None, (each.match(self._text, start) for each in patterns)), None)
        if word is not None:
            raise InvalidInputError(
                f'says "{word[0]}" beside "{name}", which may fix its value',
                f"write a fixed value as: `{name}` = {'true' if switch else '…'}",
            )

    def _listed(self, name: str) -> list[str]:
        schema = schema_of(self._tool)
        values = schema.stated_values(schema.properties.get(name, {}))
        return [value for value in values if isinstance(value, str) and value]

    def _mentioned(self, clause: str, name: str) -> list[str]:
        return [
            value
            for value in dict.fromkeys(self._listed(name))
            if re.search(rf"(?<![\w-]){re.escape(value)}(?![\w-])", clause, re.IGNORECASE)
        ]
