"""What Python's decoder takes and JSON has not is refused, wherever JSON is read from outside."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.errors import InputFileError, WorkflowError
from distill.files import parse_json
from distill.strict_json import JsonError, decode, decode_prefix
from distill.workflow.cases import read_cases

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)

REFUSED = {
    "NaN": ("[NaN]", "holds NaN, which is not JSON"),
    "infinity": ("[-Infinity]", "holds -Infinity, which is not JSON"),
    "beyond a float": ("[1e999]", "holds the number 1e999, which is too large"),
    "name twice": ('{"a": {"b": 1, "c": 2, "b": 3}}', 'gives the name "b" twice in one object'),
    "long integer": (f"[{'9' * 5000}]", "holds an integer with too many digits"),
    "deep": ("[" * 100_000, "is nested too deeply to be read"),
    "syntax": ("[1,\n 2 3]", "is not valid JSON: Expecting ',' delimiter at line 2, column 4"),
    "empty": ("", "is not valid JSON: Expecting value at line 1, column 1"),
    "more than a value": ("{} {}", "is not valid JSON: Extra data at line 1, column 4"),
}


@given(VALUES)
def test_json_is_read_as_by_python(value: Any) -> None:
    text = json.dumps(value)
    assert decode(text) == value
    assert decode_prefix(f"so: {text} and", 4) == (value, 4 + len(text))


@pytest.mark.parametrize(("text", "cause"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_json_is_refused(text: str, cause: str) -> None:
    with pytest.raises(JsonError):
        decode(text)
    with pytest.raises(InputFileError) as caught:
        parse_json(text, "tools.json")
    [problem] = caught.value.problems
    assert (problem.place, problem.cause) == ("tools.json", cause)


@pytest.mark.parametrize("text", ['{"a": NaN}', '{"a": 1, "a": 2}', '{"a": 1e999}'])
def test_arguments_in_a_string_are_strict_json_too(tmp_path: Path, text: str) -> None:
    path = tmp_path / "gold.jsonl"
    row = {"user_content": "x", "tool_name": "find", "tool_arguments": text}
    path.write_text(json.dumps(row))
    with pytest.raises(WorkflowError, match="has arguments that are not JSON"):
        read_cases(path, tools=None)


def test_a_name_given_twice_is_found_in_linear_time() -> None:
    names = [f"n{number}" for number in range(20_000)]
    text = "{" + ",".join(f'"{name}": 1' for name in [*names, names[-1]]) + "}"
    began = time.process_time()
    with pytest.raises(JsonError) as caught:
        decode(text)
    assert time.process_time() - began < 0.5
    assert caught.value.cause == 'gives the name "n19999" twice in one object'
