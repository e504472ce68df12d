"""Every error knows a way out and an exit code."""

from __future__ import annotations

import inspect

import pytest

from distill import errors
from distill.errors import DistillError, GateError, Problem, UsageError, WorkflowError

CLASSES = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, DistillError)
]


@pytest.mark.parametrize("kind", CLASSES)
def test_an_error_says_place_cause_and_way_out(kind: type[DistillError]) -> None:
    error = kind("is odd", place="rules.md:3", hint="make it even")
    assert str(error) == "rules.md:3: is odd\n  make it even"
    expected = 3 if issubclass(kind, GateError) else {UsageError: 2}.get(kind, 1)
    assert error.exit_code == expected


@pytest.mark.parametrize("kind", CLASSES)
def test_the_tree_in_the_docstring_is_the_tree(kind: type[DistillError]) -> None:
    assert errors.__doc__
    line = next(ln for ln in errors.__doc__.splitlines() if f" {kind.__name__} " in f" {ln} ")
    if "exit" in line:
        assert f"exit {kind.exit_code}" in line


def test_problems_of_one_kind_are_reported_together() -> None:
    found = [Problem("a:1", "is odd", "fix a"), Problem("b:2", "is even", "fix b")]
    error = WorkflowError.of(found)
    assert isinstance(error, WorkflowError)
    assert str(error) == "a:1: is odd\n  fix a\nb:2: is even\n  fix b"
