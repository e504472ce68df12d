"""The formats that values are held to: dates, times, addresses.

JSON Schema leaves `format` a note (https://json-schema.org/draft/2020-12/json-schema-validation,
section 7.2); a value in another form teaches that form to the student. Seconds and the offset from
UTC may be left out, as programs write them.
"""

from __future__ import annotations

import re
from datetime import date, datetime, time

from jsonschema import FormatChecker

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
FORMAT_EXAMPLES = {
    "date": "2026-12-31",
    "date-time": "2026-12-31T09:30:00Z",
    "time": "09:30:00",
    "email": "name@example.com",
    "uri": "https://example.com/page",
}
FORMAT_CHECKER = FormatChecker(formats=())
"""A value that holds a slot passes."""


def _add(name: str) -> None:
    @FORMAT_CHECKER.checks(name, raises=ValueError)
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
