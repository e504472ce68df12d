"""Strict JSON: no NaN or Infinity, no number beyond a float, no name twice in one object.

Python's own decoder takes all of these, and loses what they said: NaN cannot be written as JSON
again, and of two values under one name the first is dropped. Its encoder writes NaN, which nobody
else reads: all JSON that distill writes is made by `encode`.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from typing import Any, NoReturn, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class JsonError(ValueError):
    """Text or a value that is not strict JSON; str() says what is wrong with it.

    cause: the same as a predicate, as `holds NaN, which is not JSON`
    hint: the way out
    offset: where a syntax error is in the text; None for any other error
    """

    def __init__(self, reason: str, cause: str, hint: str, offset: int | None = None) -> None:
        self.cause = cause
        self.hint = hint
        self.offset = offset
        super().__init__(reason)


def encode(
    value: Any,
    *,
    indent: int | None = None,
    sort_keys: bool = False,
    separators: tuple[str, str] | None = None,
    ensure_ascii: bool = False,
) -> str:
    """`value` as JSON text, its characters as they are. Raises JsonError for NaN and Infinity."""
    try:
        return json.dumps(
            value,
            indent=indent,
            sort_keys=sort_keys,
            separators=separators,
            ensure_ascii=ensure_ascii,
            allow_nan=False,
        )
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        cause = "holds a number that is not finite, which is not JSON"
        raise JsonError(str(error), cause, "write a finite number, or null") from None


def decode(text: str) -> Any:
    """The JSON value that is all of `text`. Raises JsonError."""
    return _translated(_DECODER.decode, text)


def decode_prefix(text: str, start: int = 0) -> tuple[Any, int]:
    """The JSON value that begins at `start`, and the offset of its end. Raises JsonError."""
    return _translated(_DECODER.raw_decode, text, start)


def _translated(decode: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    try:
        return decode(*args, **kwargs)
    except JsonError:
        raise
    except json.JSONDecodeError as error:
        hint = "correct it there; a JSON linter shows the spot"
        raise JsonError(error.msg, "is not valid JSON", hint, error.pos) from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:  # int() converts a limited number of digits
        cause = "holds an integer with too many digits"
        raise JsonError(str(error), cause, "write a shorter number, or a string") from None


def _too_deep() -> JsonError:
    return JsonError("nested too deeply", "is nested too deeply to be read", "flatten it")


def _refuse_constant(name: str) -> NoReturn:
    cause = f"holds {name}, which is not JSON"
    raise JsonError(f"{name} is not JSON", cause, "write a number, or null")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        cause = f"holds the number {digits}, which is too large"
        raise JsonError(f"the number {digits} is too large", cause, "write a smaller number")
    return number


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        cause = f'gives the name "{twice}" twice in one object'
        raise JsonError("a name is given twice in one object", cause, "keep one of the two")
    return members


_DECODER = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_unique_names
)
