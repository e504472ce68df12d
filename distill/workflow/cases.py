"""Rows that a student is evaluated on: gold sets, and any file of prompts with their labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from distill import strict_json
from distill.errors import InputFileError, Problem, WorkflowError
from distill.files import numbered_lines, parse_json
from distill.records import Case, digest
from distill.strict_json import JsonError
from distill.workflow.forms import FORMS
from distill.workflow.model import Rule, Tool
from distill.workflow.problems import Problems, excerpt
from distill.workflow.rows import Known, read_row
from distill.workflow.values import InvalidInputError

R = TypeVar("R")
MAX_ROW = 1_000_000
"""Characters of a row; a longer one is no request, and would take minutes to compare."""


def read_cases(
    path: Path, *, tools: Sequence[Tool] | None, rules: Sequence[Rule] | None = None
) -> tuple[Case, ...]:
    """The rows of a JSON Lines file, in any of `forms`.

    Raises InputFileError for a file that cannot be read, WorkflowError with every wrong row.
    """
    return _cases(_file_rows(path), path, tools, rules)


def read_rows(path: Path, read: Callable[[Any, str], R]) -> tuple[R, ...]:
    """What `read` makes of each row of a JSON Lines file and its place, as file:line.

    Raises InputFileError for a file that cannot be read, WorkflowError with every row of which
    `read` raises InvalidInputError.
    """
    return _each(_file_rows(path), path, lambda row, line: read(row, f"{path.name}:{line}"))


def cases_of_rows(
    rows: Iterable[Any], *, tools: Sequence[Tool] | None, rules: Sequence[Rule] | None = None
) -> tuple[Case, ...]:
    """The same for rows in Python: dictionaries of what JSON can hold. Raises WorkflowError."""
    return _cases(enumerate(rows, start=1), Path("data"), tools, rules, in_python=True)


def unscored_note(cases: Iterable[Case]) -> Problem | None:
    """What to say of whole conversations, of which a turn before the last is scored."""
    whole = [case for case in cases if case.unscored]
    if not whole:
        return None
    rows = "1 row is a whole conversation" if len(whole) == 1 else (
        f"{len(whole)} rows are whole conversations"
    )  # fmt: skip
    return Problem(
        whole[0].place,
        f"{rows}: the first call after the user's last turn is scored, what follows it is not",
        "end a row with the turn that is to be scored; words after a result are scored where the "
        'row says "target": "answer"',
    )


def _cases(
    rows: Iterable[tuple[int, Any]],
    path: Path,
    tools: Sequence[Tool] | None,
    rules: Sequence[Rule] | None,
    *,
    in_python: bool = False,
) -> tuple[Case, ...]:
    known = Known(
        {tool.name: tool for tool in tools} if tools is not None else None,
        {rule.id: rule for rule in rules} if rules is not None else None,
    )
    first: dict[str, int] = {}

    def read(row: Any, line: int) -> Case:
        case = read_row(_as_json(row) if in_python else row, known, f"{path.name}:{line}")
        _reject_repeat(case, line, first)
        return case

    return _each(rows, path, read)


def _each(
    rows: Iterable[tuple[int, Any]], path: Path, read: Callable[[Any, int], R]
) -> tuple[R, ...]:
    problems, found, count = Problems(path), list[R](), 0
    for line, row in rows:
        count += 1
        try:
            found.append(read(row, line))
        except InvalidInputError as fault:
            problems.add(line, f"the row {fault.cause}", fault.hint)
    if not count:
        problems.add(1, "holds no rows", FORMS)
    if problems.found:
        raise WorkflowError.of(problems.found)
    return tuple(found)


def _file_rows(path: Path) -> Iterator[tuple[int, Any]]:
    begun = False
    for line, text in numbered_lines(path):
        place = f"{path}:{line}"
        if not begun and text.lstrip().startswith("["):
            raise InputFileError(
                "is a JSON array, not JSON Lines",
                place=place,
                hint=f"write one object a line: jq -c '.[]' {path.name} > rows.jsonl",
            )
        if not begun and text.strip() == "{":
            raise InputFileError(
                "begins a JSON object that goes on over several lines",
                place=place,
                hint=f"write each row on one line: jq -c . {path.name} > rows.jsonl",
            )
        if len(text) > MAX_ROW:
            raise InputFileError(
                f"the row is {len(text):,} characters long",
                place=place,
                hint=f"a row may have {MAX_ROW:,}; shorten it",
            )
        begun = True
        yield line, parse_json(text, place)


def _as_json(row: Any) -> Any:
    """A row in Python as its JSON would be read: tuples are lists, and keys are text."""
    try:
        return strict_json.decode(strict_json.encode(row))
    except JsonError as error:
        raise InvalidInputError(error.cause, error.hint) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInputError(
            f"is not JSON: {excerpt(str(error))}", "give text, numbers, true, false, None and lists"
        ) from None


def _reject_repeat(case: Case, line: int, first: dict[str, int]) -> None:
    said = " ".join(case.conversation.key.split()).casefold()
    key = digest([said, list(case.tools or ())])
    if key in first:
        raise InvalidInputError(
            f'repeats the prompt of line {first[key]}: "{excerpt(case.conversation.last_user)}"',
            "remove one of the two, so that no prompt counts twice",
        )
    first[key] = line
