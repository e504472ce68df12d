"""Writes what of the reference follows from the code: docs/reference/*.md and schemas/formats/.

    python docs/generate_reference.py            # write
    python docs/generate_reference.py --check    # exit 1 and name the files that would change

`make docs` writes; tests/unit/test_docs_reference.py compares. What code cannot tell (what a file
of a run folder holds, what a rejection reason means) stands in `reference_text.py`, which has to
name every one of them.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import re
import sys
import textwrap
import types
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

import click
from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT), str(DOCS)]

import reference_text as text  # noqa: E402

from distill import errors  # noqa: E402
from distill.ablate.model import Ablation  # noqa: E402
from distill.cli.main import cli  # noqa: E402
from distill.config import Config, Section  # noqa: E402
from distill.evaluate.score import Scores  # noqa: E402
from distill.records import (  # noqa: E402
    Candidate,
    Case,
    Example,
    Failure,
    FailureReason,
    Outcome,
    Prediction,
    Reason,
    Record,
    Rejection,
    Scenario,
)
from distill.report.model import Report  # noqa: E402
from distill.run import layout  # noqa: E402
from distill.run.folder import RunSettings  # noqa: E402
from distill.run.manifest import Manifest  # noqa: E402
from distill.stages import FLOW  # noqa: E402
from distill.workflow.model import Workflow  # noqa: E402


class ScoresFile(Record):
    """`scores.json`: what each arm's predictions on one data set are worth."""

    data: str
    """The data set: gold, test, or the name of a file."""
    arms: dict[str, Scores]


FORMATS = ROOT / "schemas" / "formats"
RECORDS: tuple[type[BaseModel], ...] = (
    Scenario,
    Candidate,
    Example,
    Rejection,
    Failure,
    Case,
    Prediction,
    ScoresFile,
    Report,
    Ablation,
    RunSettings,
    Manifest,
    Workflow,
)
"""The records of which a file of a run folder consists: each has a JSON Schema."""
DIALECT = "https://json-schema.org/draft/2020-12/schema"
HEADER = "% Written by docs/generate_reference.py (make docs). Change the code, not this page.\n"


def generated() -> dict[Path, str]:
    """Every generated file with its text."""
    pages = {
        DOCS / "reference" / f"{name}.md": f"{HEADER}\n{page()}"
        for name, page in (
            ("settings", settings_page),
            ("commands", commands_page),
            ("files", files_page),
            ("errors", errors_page),
        )
    }
    schemas = {FORMATS / f"{schema_name(kind)}.schema.json": schema(kind) for kind in RECORDS}
    return {
        **{path: content.rstrip("\n") + "\n" for path, content in pages.items()},
        **{
            path: json.dumps(content, indent=2, ensure_ascii=False) + "\n"
            for path, content in schemas.items()
        },
    }


# --- settings ---


def settings_page() -> str:
    parts = [text.SETTINGS]
    for name, field in Config.model_fields.items():
        section = field.annotation
        assert isinstance(section, type)
        assert issubclass(section, Section)
        parts.append(f"## `[{name}]`\n\n{_sentence(first_line(section).partition(': ')[2])}")
        parts += [_setting(name, section, key) for key in section.model_fields]
    return "\n\n".join(parts)


def _setting(section: str, model: type[Section], name: str) -> str:
    field = model.model_fields[name]
    facts = [
        f"- type: {_type(field.annotation)}{_limits(field)}",
        f"- default: {_toml(field.default)}",
    ]
    if flags := list(_flags(section, name)):
        facts.append(f"- flag: {'; '.join(flags)}")
    facts.append(f"- a change: {_effect(section, field)}")
    if does := model.personal().get(name):
        facts.append(f"- yours alone, as {does}")
    body = "\n".join([_sentence(field.description or ""), "", *facts])
    nested = [kind for kind in _records_in(field.annotation) if issubclass(kind, Section)]
    tables = [fields_table(kind) for kind in nested]
    return "\n\n".join([f"### `{section}.{name}`", body, *tables])


def _type(annotation: Any) -> str:
    kinds = [kind for kind in _alternatives(annotation) if kind is not type(None)]
    optional = len(kinds) < len(_alternatives(annotation))
    said = " or ".join(_one_type(kind) for kind in kinds)
    return f"{said}, may be left out" if optional else said


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    return (
        get_args(annotation)
        if get_origin(annotation) in (Union, types.UnionType)
        else (annotation,)
    )


def _one_type(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(f'`"{word}"`' for word in get_args(kind))
    if get_origin(kind) is tuple:
        return f"array of {_one_type(get_args(kind)[0])}s"
    if get_origin(kind) is dict:
        return f"table of {_one_type(get_args(kind)[1])} by name"
    return {int: "integer", float: "number", str: "string", Path: "path"}.get(
        kind, f"`{kind.__name__}`"
    )


def _limits(field: FieldInfo) -> str:
    said = []
    for limit in field.metadata:
        match limit:
            case Ge():
                said.append(f"at least {limit.ge:,}")
            case Gt():
                said.append(f"more than {limit.gt:,}")
            case Le():
                said.append(f"at most {limit.le:,}")
            case Lt():
                said.append(f"less than {limit.lt:,}")
            case MinLen(1):
                said.append("not empty")
            case _:
                raise TypeError(f"how is {limit!r} said?")
    return "".join(f", {part}" for part in said)


def _toml(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return f"`[{', '.join(json.dumps(item) for item in value)}]`"
    return "`{}`" if value == {} else f"`{json.dumps(value)}`"


def _effect(section: str, field: FieldInfo) -> str:
    extra = field.json_schema_extra
    if isinstance(extra, dict) and "operational" in extra:
        return f"at any time; {extra['operational']}"
    stages = [stage.name for stage in FLOW if section in stage.settings]
    return f"makes a run stale from the stage `{stages[0]}` on"


def _flags(section: str, name: str) -> Iterator[str]:
    """`--flag` of a, b: the options that set it, and the commands that have them."""
    commands: dict[str, list[str]] = {}
    for command, parameter in _parameters():
        if parameter.name == f"{section}__{name}":
            commands.setdefault(_words(parameter), []).append(command)
    for flag, having in commands.items():
        yield f"{flag} of {', '.join(f'`{command}`' for command in having)}"


def _parameters() -> Iterator[tuple[str, click.Option]]:
    for name, command in cli.commands.items():
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                yield name, parameter


# --- commands ---


def commands_page() -> str:
    parts = [text.COMMANDS]
    rows = [
        [f"[`{name}`](#distill-{name})", _cell(_summary(command))]
        for name, command in sorted(cli.commands.items())
    ]
    parts.append(table(["command", "what it does"], rows))
    parts += [_command(name, command) for name, command in sorted(cli.commands.items())]
    return "\n\n".join(parts)


def _command(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=f"distill {name}")
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    rows = [
        [_words(option), _value(option), _cell(_option_help(option))]
        for option in command.params
        if isinstance(option, click.Option)
    ]
    parts = [f"## `distill {name}`", f"```text\n{usage}\n```", _help(command)]
    if rows:
        parts.append(table(["option", "value", "what it does"], rows))
    return "\n\n".join(parts)


def _summary(command: click.Command) -> str:
    return _help(command).split("\n\n")[0].replace("\n", " ")


def _help(command: click.Command) -> str:
    return _flags_as_code(inspect.cleandoc(command.help or ""))


def _words(option: click.Option) -> str:
    return ", ".join(f"`{flag}`" for flag in (*option.opts, *option.secondary_opts))


def _flags_as_code(said: str) -> str:
    return re.sub(r"(?<![\w`-])(--[a-z][a-z-]*)", r"`\1`", said)


def _value(option: click.Option) -> str:
    if option.is_flag:
        return ""
    if isinstance(option.type, click.Choice):
        shown = " \\| ".join(f"`{word}`" for word in option.type.choices)
    else:
        shown = option.metavar or type_word(option.type)
    return f"{shown}, repeatable" if option.multiple else shown


def type_word(kind: click.ParamType) -> str:
    if isinstance(kind, click.IntRange):
        return f"integer ≥ {kind.min}" if kind.min is not None else "integer"
    return {"integer": "integer", "float": "number", "path": "path", "text": "text"}[kind.name]


def _option_help(option: click.Option) -> str:
    said = _flags_as_code(option.help or "")
    if option.show_default and option.default is not None:
        default = option.default
        shown = ", ".join(map(str, default)) if isinstance(default, tuple) else str(default)
        said = f"{said} [default: {shown}]".strip()
    section, _, name = (option.name or "").partition("__")
    if name:
        said += f" [`{section}.{name}`](settings.md#{anchor(f'{section}.{name}')})"
    return said


# --- files ---


class Place(NamedTuple):
    """A file or folder of a run: its path, what it holds, and its record."""

    path: str
    what: str
    kind: type[BaseModel] | None


def files_page() -> str:
    rows = [[f"`{place.path}`", _cell(place.what), _record_link(place.kind)] for place in places()]
    parts = [text.FILES, table(["path in the run folder", "what it is", "format"], rows)]
    parts.append(text.RECORDS)
    shown: list[type[BaseModel]] = []
    for kind in RECORDS:
        parts += [f"### {kind.__name__}", _record(kind)]
        shown.append(kind)
    parts.append(f"## Parts of records\n\n{text.PARTS}")
    for kind in inner_records(RECORDS):
        parts += [f"### {kind.__name__}", f"{first_line(kind)}\n\n{fields_table(kind)}"]
    return "\n\n".join(parts)


def places() -> list[Place]:
    """Every name of distill/run/layout.py, folder by folder, with what is there."""
    kinds = {name: kind for kind, names in text.HOLDS.items() for name in names}
    records = {kind.__name__: kind for kind in RECORDS}
    found = []
    for name, path in layout_names():
        if name in text.PLACES:
            kind = records[kinds[name]] if name in kinds else None
            found.append(Place(path, text.PLACES[name], kind))
        elif name not in text.WITHIN:
            raise KeyError(f"say in docs/reference_text.py what layout.{name} is")
    # What stands in one folder stands together.
    folders = list(dict.fromkeys(place.path.split("/")[0] for place in found))
    return sorted(found, key=lambda place: folders.index(place.path.split("/")[0]))


def layout_names() -> Iterator[tuple[str, str]]:
    """Constants and functions of the layout, with the path that each stands for."""
    for name, value in vars(layout).items():
        if name.startswith("_") or name == "annotations":
            continue
        if isinstance(value, str):
            yield name, value + "/" * (name in text.FOLDERS)
        elif isinstance(value, dict):
            yield name, _braced(list(value.values()))
        elif inspect.isfunction(value):
            yield name, value(*[word.upper() for word in inspect.signature(value).parameters])
        elif name not in text.WITHIN:
            raise KeyError(f"how is layout.{name} shown?")


def _braced(paths: Sequence[str]) -> str:
    """`a/x, b/x` as {a,b}/x."""
    folders, names = zip(*(path.rpartition("/")[::2] for path in paths), strict=True)
    folder, name = dict.fromkeys(folders), dict.fromkeys(names)
    stems = [one.removesuffix(".jsonl") for one in name]
    shown = stems[0] if len(stems) == 1 else "{" + ",".join(stems) + "}"
    return ("{" + ",".join(folder) + "}" if len(folder) > 1 else folders[0]) + f"/{shown}.jsonl"


def _record_link(kind: type[BaseModel] | None) -> str:
    return f"[{kind.__name__}](#{anchor(kind.__name__)})" if kind else ""


def _record(kind: type[BaseModel]) -> str:
    name = f"{schema_name(kind)}.schema.json"
    link = f"Schema: {{download}}`{name} <../../schemas/formats/{name}>`."
    return f"{_sentence(first_line(kind))} {link}\n\n{fields_table(kind)}"


def fields_table(kind: type[BaseModel]) -> str:
    if issubclass(kind, Section):
        rows = [
            [f"`{name}`", _type(field.annotation), _cell(_sentence(field.description or ""))]
            for name, field in kind.model_fields.items()
        ]
    else:
        documented = docstrings(kind)
        rows = [
            [f"`{name}`", _cell(_field_type(field.annotation)), _cell(documented.get(name, ""))]
            for name, field in kind.model_fields.items()
            if not field.exclude
        ]
    return table(["field", "type", "what it is"], rows)


def _field_type(annotation: Any) -> str:
    return " or ".join(_json_type(kind) for kind in _alternatives(annotation))


def _json_type(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is type(None):
        return "null"
    if origin is Literal:
        return ", ".join(f"`{word}`" for word in arguments)
    if origin in (tuple, list):
        return f"array of {_json_type(arguments[0])}"
    if origin is dict:
        inner = _json_type(arguments[1])
        return "object" if inner == "any" else f"object of {inner}"
    if kind is Config:
        return "[every setting](settings.md)"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return f"[{kind.__name__}](#{anchor(kind.__name__)})"
    if isinstance(kind, type) and issubclass(kind, tuple):
        return f"array: {', '.join(getattr(kind, '_fields', ()))}"
    if isinstance(kind, type) and kind.__name__ in text.ENUMERATIONS:
        return f"[{kind.__name__}](errors.md#{text.ENUMERATIONS[kind.__name__]})"
    words = {str: "string", int: "integer", float: "number", bool: "boolean"}
    return words.get(kind, "any")


def inner_records(kinds: Iterable[type[BaseModel]]) -> list[type[BaseModel]]:
    """The records inside of records that have no section of their own, in alphabetical order."""
    seen = [*kinds]
    for kind in seen:
        for field in kind.model_fields.values():
            seen += [one for one in _records_in(field.annotation) if one not in seen]
    inner = [kind for kind in seen if kind not in RECORDS and not issubclass(kind, Section)]
    return sorted(inner, key=lambda kind: kind.__name__)


def _records_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [kind for part in get_args(annotation) for kind in _records_in(part)]


# --- JSON Schemas ---


def schema_name(kind: type[BaseModel]) -> str:
    """The record's name, or that of its file where the two differ."""
    return {"RunSettings": "config", "ScoresFile": "scores"}.get(
        kind.__name__, kind.__name__.lower()
    )


def schema(kind: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema of a record as distill writes it: every field is there."""
    made = kind.model_json_schema(mode="serialization")
    known = {one.__name__: one for one in (kind, *_all_records(kind))}
    for name, part in made.get("$defs", {}).items():
        _complete(part, known.get(name))
    _complete(made, kind)
    return {"$schema": DIALECT, "$id": f"{schema_name(kind)}.schema.json", **made}


def _all_records(kind: type[BaseModel]) -> list[type[BaseModel]]:
    seen = [kind]
    for one in seen:
        for field in one.model_fields.values():
            seen += [inner for inner in _records_in(field.annotation) if inner not in seen]
    return seen[1:]


def _complete(part: dict[str, Any], kind: type[BaseModel] | None) -> None:
    """Require every field, describe those that are documented, leave out pydantic's titles."""
    properties = part.get("properties", {})
    if properties:
        part["required"] = list(properties)
    documented = docstrings(kind) if kind else {}
    for name, field in properties.items():
        field.pop("title", None)
        field.pop("default", None)
        if name in documented:
            field["description"] = documented[name]


def docstrings(kind: type[BaseModel]) -> dict[str, str]:
    """What stands under each field of a record and of those that it is derived from."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        if one is BaseModel or not issubclass(one, BaseModel):
            continue
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(one))).body
        assert isinstance(node, ast.ClassDef)
        for field, below in zip(node.body, node.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
            ):
                found[field.target.id] = " ".join(inspect.cleandoc(str(below.value.value)).split())
    own = {name: text.FIELDS.get(f"{kind.__name__}.{name}") for name in kind.model_fields}
    known = {name: found.get(name) or own[name] or text.FIELDS.get(name) for name in own}
    return {name: said for name, said in known.items() if said}


# --- errors ---


def errors_page() -> str:
    tree = [
        [f"{'· ' * depth}`{kind.__name__}`", str(kind.exit_code), _cell(first_line(kind))]
        for depth, kind in _error_tree(errors.DistillError, 0)
    ]
    parts = [text.ERRORS, table(["error", "exit code", "what it is"], tree)]
    for title, enumeration, meanings, intro in (
        ("Rejection reasons", Reason, text.REASONS, text.REASONS_INTRO),
        ("Failure reasons", FailureReason, text.FAILURES, text.FAILURES_INTRO),
        ("Outcomes", Outcome, text.OUTCOMES, text.OUTCOMES_INTRO),
    ):
        rows = [[f"`{member.value}`", _cell(meanings[member.name])] for member in enumeration]
        heads = [title.split()[-1].removesuffix("s").lower(), "what it means"]
        parts.append(f"## {title}\n\n{intro}\n\n{table(heads, rows)}")
    return "\n\n".join(parts)


def _error_tree(kind: type[errors.DistillError], depth: int) -> Iterator[tuple[int, Any]]:
    yield depth, kind
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from _error_tree(below, depth + 1)


# --- Markdown ---


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cell(said: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", " ".join(said.split()))


def first_line(kind: type) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join(inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0].split())


def _sentence(said: str) -> str:
    if not re.match(r"[\w.]+\.\w", said):  # the name of a file keeps its letters
        said = said[:1].upper() + said[1:]
    return said if said.endswith((".", "?", "!")) else f"{said}."


def anchor(heading: str) -> str:
    """The anchor that GitHub and MyST make of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 on a change")
    check = parser.parse_args().check
    changed = []
    for path, content in generated().items():
        if not path.exists() or path.read_text("utf-8") != content:
            changed.append(path)
            if not check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content, "utf-8")
    for path in changed:
        print(f"{'is not up to date' if check else 'written'}: {path.relative_to(ROOT)}")
    return 1 if check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
