"""The formats that a value which a person wrote is held to: dates, times, addresses.

JSON Schema leaves `format` a note (https://json-schema.org/draft/2020-12/json-schema-validation,
section 7.2); a fixed value or an example in another form teaches that form to the student. Seconds
and the offset from UTC may be left out, as programs write them.
"""

from __future__ import annotations

import re
from datetime import date, datetime, time

from jsonschema import FormatChecker
from referencing import Registry

from distill.records import Json
from distill.workflow.keywords import PartialArguments, PartialValidator
from distill.workflow.model import Tool
from distill.workflow.schema import path_text, schema_of
from distill.workflow.values import InvalidInputError

_DATE, _TIME = r"\d{4}-\d\d-\d\d", r"\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:[Zz]|[+-]\d\d:\d\d)?"
_SHAPES = {
    "date": re.compile(_DATE),
    "date-time": re.compile(rf"{_DATE}[Tt ]{_TIME}"),
    "time": re.compile(_TIME),
    "email": re.compile(r"[^\s@]+@[^\s@]+"),
    "uri": re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s<>\"]+"),
}
_READERS = {
    "date": date.fromisoformat,
    "date-time": datetime.fromisoformat,
    "time": time.fromisoformat,
}
_EXAMPLES = {
    "date": "2026-12-31",
    "date-time": "2026-12-31T09:30:00Z",
    "time": "09:30:00",
    "email": "name@example.com",
    "uri": "https://example.com/page",
}
_CHECKER = FormatChecker(formats=())


def _add(name: str) -> None:
    @_CHECKER.checks(name, raises=ValueError)
    def _is_written_so(value: object) -> bool:
        if not isinstance(value, str) or re.search(r"\{[A-Za-z_]\w*\}", value):
            return True
        if _SHAPES[name].fullmatch(value) is None:
            return False
        # fractions of any length, and lower-case letters, are the same instant to the reader
        plain = re.sub(r"\.\d+", "", value.upper())
        return name not in _READERS or _READERS[name](plain) is not None


for _name in _SHAPES:
    _add(_name)


def require_formats(tool: Tool, arguments: Json) -> None:
    """Raise InvalidInputError for a value that is not in its schema's `format`.

    arguments: some of a call's arguments, otherwise valid; what holds a slot is not looked at
    """
    validator = PartialValidator(schema_of(tool).root, registry=Registry(), format_checker=_CHECKER)
    for error in validator.iter_errors(PartialArguments(arguments)):
        wanted = error.validator_value if error.validator == "format" else None
        raise InvalidInputError(
            f'has a wrong value for "{path_text(error.path)}" of {tool.name}: {error.message}',
            f"write it as: {_EXAMPLES[wanted]}" if wanted in _EXAMPLES else "see its schema",
        )
