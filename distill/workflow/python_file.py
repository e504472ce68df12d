"""Tools from a Python file: public functions, bound methods, and tool objects of agent SDKs."""

from __future__ import annotations

import ast
import inspect
import sys
import traceback
import typing
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import typing_extensions

from distill import strict_json
from distill.errors import WorkflowError
from distill.files import read_text
from distill.workflow.model import ToolDefinition
from distill.workflow.problems import Problems, did_you_mean
from distill.workflow.signatures import declared_by, exposed_by
from distill.workflow.values import InvalidInputError


class _Binding(NamedTuple):
    """What binds a name at the top of the file."""

    kind: type[ast.stmt]
    line: int


_UNKNOWN = _Binding(ast.Assign, 1)


def read_python(path: Path, problems: Problems) -> list[ToolDefinition]:
    """The tools that the file itself defines, in source order.

    The file is executed. Every public function that it defines, or each that `__all__` names where
    it has one, is read or adds to `problems`.
    Raises WorkflowError when the file fails or defines no tool.
    """
    source = read_text(path)
    module = ModuleType("_distill_tools")
    module.__file__ = str(path)
    faults = len(problems.found)
    names = vars(module)  # now: what runs can make another module of it
    with _importable(module, path.resolve().parent), redirect_stdout(sys.stderr):
        _execute(names, source, path)
        bindings = _bindings(ast.parse(source))
        found = _read_names(_public(names, bindings, problems), bindings, problems)
    if not found and len(problems.found) == faults:
        raise WorkflowError(
            "defines no public function",
            place=f"{path}:1",
            hint="define each tool as a function whose name does not start with _, and name it in "
            "__all__ if the file has one; a method counts where the file binds it, as: "
            "find = Desk().find",
        )
    return sorted(found, key=lambda tool: tool.line)


def _public(
    names: dict[str, Any], bindings: dict[str, _Binding], problems: Problems
) -> dict[str, Any]:
    """What the file makes public: the names in `__all__`, else those that do not start with _."""
    exported = names.get("__all__")
    if exported is None:
        return {name: value for name, value in names.items() if not name.startswith("_")}
    line = bindings.get("__all__", _UNKNOWN).line
    if not isinstance(exported, list | tuple) or not all(isinstance(x, str) for x in exported):
        problems.add(line, "__all__ is not a list of names", 'write it as: __all__ = ["find"]')
        return {}
    for name in exported:
        if name not in names:
            hint = did_you_mean(name, [x for x in names if not x.startswith("_")], "names in it")
            problems.add(line, f'__all__ names "{name}", which the file does not define', hint)
    return {name: names[name] for name in dict.fromkeys(exported) if name in names}


def _read_names(
    names: dict[str, Any], bindings: dict[str, _Binding], problems: Problems
) -> list[ToolDefinition]:
    found: dict[int, ToolDefinition] = {}
    for name, value in names.items():
        # What no statement binds comes from `import *`, where there is one.
        binding = bindings.get(name) or bindings.get("*", _UNKNOWN)
        if binding.kind in (ast.Import, ast.ImportFrom):
            continue
        try:
            if tool := _tool(name, value, binding, problems.path):
                identity, (schema, line) = tool
                plain = strict_json.decode(strict_json.encode(schema))
                found.setdefault(identity, ToolDefinition(plain, line))
        except InvalidInputError as fault:
            problems.add(binding.line, f'function "{name}": {fault.cause}', fault.hint)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            cause = f'function "{name}": it cannot be read: {_described(error)}'
            problems.add(binding.line, cause, "write it into tools.json, or start its name with _")
    return [*found.values()]


def _tool(
    name: str, value: Any, binding: _Binding, path: Path
) -> tuple[int, ToolDefinition] | None:
    """The tool that a public name stands for, after its identity; None where it is none."""
    if isinstance(value, type):
        return None
    inner = _unwrapped(value)
    if inspect.ismethod(inner) and _is_of(inner.__func__, path):
        return id(value), ToolDefinition(declared_by(inner, name), binding.line)
    if inspect.isfunction(inner) and _is_of(inner, path):
        declared = declared_by(inner, inner.__name__)
        return id(inner), ToolDefinition(declared, inner.__code__.co_firstlineno)
    if exposed := exposed_by(value):
        return id(value), ToolDefinition(exposed, binding.line)
    if binding.kind in (ast.FunctionDef, ast.AsyncFunctionDef):
        kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        raise InvalidInputError(
            f"its decorator makes a {kind} of it, which shows neither a schema nor the function",
            "take the decorator off, use functools.wraps in it, or start the name with _",
        )
    return None


def _unwrapped(value: Any) -> Any:
    try:
        return inspect.unwrap(value) if callable(value) else value
    except Exception:  # `__wrapped__` in a circle, as of a mock
        return value


def _is_of(function: Any, path: Path) -> bool:
    code = getattr(_unwrapped(function), "__code__", None)
    return code is not None and code.co_filename == str(path)


def _bindings(tree: ast.Module) -> dict[str, _Binding]:
    """The last binding of each name at the top of the file, that of a condition included."""
    found: dict[str, _Binding] = {}
    statements: list[ast.AST] = [*tree.body]
    for node in statements:  # grows by the statements of conditions
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names, line = [node.name], min(d.lineno for d in (*node.decorator_list, node))
            case ast.Import() | ast.ImportFrom():
                imported = (alias.asname or alias.name.partition(".")[0] for alias in node.names)
                names, line = [*imported], node.lineno
            case ast.Assign() | ast.AnnAssign():
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                parts = (part for target in targets for part in ast.walk(target))
                names, line = [part.id for part in parts if isinstance(part, ast.Name)], node.lineno
            case _:
                statements += ast.iter_child_nodes(node) if not isinstance(node, ast.expr) else ()
                continue
        found.update(dict.fromkeys(names, _Binding(type(node), line)))
    return found


def _execute(names: dict[str, Any], source: str, path: Path) -> None:
    try:
        exec(compile(source, str(path), "exec", dont_inherit=True), names)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        own = (SyntaxError, IndentationError, TabError)  # not what a file derives from them
        if isinstance(error, SyntaxError) and type(error) in own and error.filename:
            raise WorkflowError(
                f"is not valid Python: {error.msg}",
                place=f"{error.filename}:{error.lineno or 1}",
                hint="correct it there",
            ) from None
        raise WorkflowError(
            f"fails when it is run: {_described(error)}",
            place=f"{path}:{_failing_line(error, path)}",
            hint="it must run by itself: keep only what the signatures need, or write tools.json",
        ) from None


def _described(error: BaseException) -> str:
    try:
        said = " ".join(str(error).split())
    except BaseException:
        said = "its message cannot be read"
    return f"{type.__dict__['__name__'].__get__(type(error))}: {said}"


@contextmanager
def _importable(module: ModuleType, folder: Path) -> Iterator[None]:
    """While the file runs: its own module is found by name, and its neighbours can be imported."""
    path_before, written_before = list(sys.path), sys.dont_write_bytecode
    typed_dict = typing.TypedDict
    sys.modules[module.__name__] = module
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    if sys.version_info < (3, 12):
        # Pydantic reads no other there: https://errors.pydantic.dev/2/u/typed-dict-version
        typing.TypedDict = typing_extensions.TypedDict
    try:
        yield
    finally:
        typing.TypedDict = typed_dict
        sys.modules.pop(module.__name__, None)
        sys.path[:] = path_before
        sys.dont_write_bytecode = written_before


def _failing_line(error: BaseException, path: Path) -> int:
    frames = traceback.extract_tb(error.__traceback__)
    return next((f.lineno or 1 for f in reversed(frames) if f.filename == str(path)), 1)
