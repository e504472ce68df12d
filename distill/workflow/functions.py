"""Tools from a Python file: its public functions, their type hints and Google-style docstrings."""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

from distill.errors import MissingExtraError, WorkflowError
from distill.files import read_text
from distill.workflow.declarations import function_schema
from distill.workflow.model import ToolDefinition
from distill.workflow.problems import Problems

GOOGLE_STYLE = "write a Google-style docstring: a summary, then Args: with a line for each argument"


def read_functions(path: Path, problems: Problems) -> list[ToolDefinition]:
    """The OpenAI schemas of the public functions that the file itself defines, in source order.

    The file is executed. Raises WorkflowError when it fails or defines no such function.
    """
    to_schema = _schema_maker()
    found = []
    functions = _functions(_execute(path), path)
    for function in functions:
        line = function.__code__.co_firstlineno
        schema = _schema(function, line, to_schema, problems)
        if schema is not None:
            found.append(ToolDefinition(schema, line))
    if not functions:
        raise WorkflowError(
            "defines no public function",
            place=f"{path}:1",
            hint="define each tool as a function whose name does not start with _",
        )
    return found


def _schema_maker() -> Callable[[Callable[..., Any]], Any]:
    try:
        from transformers.utils.chat_template_utils import get_json_schema
    except ImportError:
        raise MissingExtraError.needing(
            "transformers", "train", "reading tools from a Python file"
        ) from None
    return get_json_schema


def _execute(path: Path) -> ModuleType:
    name = "_distill_tools"
    module = ModuleType(name)
    module.__file__ = str(path)
    source = read_text(path)
    try:
        code = compile(source, str(path), "exec", dont_inherit=True)
        with _importable(module, path.resolve().parent), redirect_stdout(sys.stderr):
            exec(code, module.__dict__)
    except SyntaxError as error:
        place = f"{error.filename or path}:{error.lineno or 1}"
        raise WorkflowError(
            f"is not valid Python: {error.msg}", place=place, hint="correct it there"
        ) from None
    except (Exception, SystemExit) as error:
        raise WorkflowError(
            f"fails when it is run: {type(error).__name__}: {error}",
            place=f"{path}:{_failing_line(error, path)}",
            hint="it must run by itself: keep only what the signatures need, or write tools.json",
        ) from None
    return module


@contextmanager
def _importable(module: ModuleType, folder: Path) -> Iterator[None]:
    """While the file runs: its own module is found by name, and its neighbours can be imported."""
    path_before, written_before = list(sys.path), sys.dont_write_bytecode
    sys.modules[module.__name__] = module
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        del sys.modules[module.__name__]
        sys.path[:] = path_before
        sys.dont_write_bytecode = written_before


def _failing_line(error: BaseException, path: Path) -> int:
    frames = traceback.extract_tb(error.__traceback__)
    return next((f.lineno or 1 for f in reversed(frames) if f.filename == str(path)), 1)


def _functions(module: ModuleType, path: Path) -> list[Any]:
    own = [
        value
        for name, value in vars(module).items()
        if inspect.isfunction(inspect.unwrap(value) if callable(value) else value)
        and not name.startswith("_")
        and value.__module__ == module.__name__
    ]
    unwrapped = {inspect.unwrap(value).__code__: inspect.unwrap(value) for value in own}
    here = [f for f in unwrapped.values() if f.__code__.co_filename == str(path)]
    return sorted(here, key=lambda function: function.__code__.co_firstlineno)


def _schema(
    function: Any, line: int, to_schema: Callable[[Any], Any], problems: Problems
) -> Any | None:
    from transformers.utils.chat_template_utils import (
        DocstringParsingException,
        TypeHintParsingException,
    )

    try:
        _refuse_variadic(function)
        return function_schema(to_schema(function))
    except DocstringParsingException as error:
        cause, hint = _plain(error), GOOGLE_STYLE
    except TypeHintParsingException as error:
        cause, hint = _plain(error), "annotate every argument with str, int, list[str], Literal, …"
    except (NameError, TypeError, ValueError) as error:
        cause = f"its signature or (choices: …) cannot be read: {error}"
        hint = (
            "name every argument, annotate with what the file imports, write choices as a JSON list"
        )
    problems.add(line, f'function "{function.__name__}": {cause}', hint)
    return None


def _refuse_variadic(function: Any) -> None:
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise TypeError(f"{parameter} stands for any number of arguments")


def _plain(error: Exception) -> str:
    return " ".join(str(error.args[0] if error.args else error).split())
