"""The declaration of a Python function: its signature as pydantic reads it, and its docstring."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable, Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import docstring_parser
from pydantic import BaseModel, TypeAdapter
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from distill import strict_json
from distill.records import Json
from distill.strict_json import JsonError
from distill.workflow.problems import did_you_mean
from distill.workflow.rewrite import rewritten
from distill.workflow.values import InvalidInputError

DOCSTRING = (
    "write a docstring: a summary, then Args: with a line for each argument; "
    'or annotate it, as: Annotated[str, "what it is"]'
)
# The first section of a docstring in the style of Google, NumPy, Sphinx or Epydoc.
_SECTION = re.compile(
    r"^(?:(?:Args|Arguments|Params|(?:Other )?Parameters|Returns?|Yields?|Raises|Except(?:ion)?s?)"
    r":?[ \t]*$|[:@](?:param|parameter|arg|argument|key|keyword|type|returns?|rtype|raises?)\b)",
    re.MULTILINE,
)
_CHOICES = re.compile(r"\(choices:\s*(.*?)\)\s*$", re.IGNORECASE)
_NULL: Json = {"type": "null"}


def declared_by(function: Callable[..., Any], name: str) -> Json:
    """The declaration of a function or bound method as `name`, `description`, `parameters`.

    As transformers' get_json_schema gives it, with the constraints of `Field` and `Annotated`.
    Raises InvalidInputError for what it cannot say.
    """
    doc = inspect.getdoc(function)
    if not doc:
        raise InvalidInputError("it has no docstring", DOCSTRING)
    section = _SECTION.search(doc)
    summary = doc[: section.start()].strip() if section else doc.strip()
    if not summary:
        raise InvalidInputError("its docstring has no description of what it does", DOCSTRING)
    signature, hints = _signature(function)
    parameters = _schema_of(signature, hints)
    said = {p.arg_name.lstrip("*"): p.description for p in docstring_parser.parse(doc).params}
    properties: Any = parameters["properties"]
    for argument, schema in properties.items():
        default = signature.parameters[argument].default
        field = default.description if isinstance(default, FieldInfo) else None
        stated = field or next(_annotated_texts(hints[argument]), None)
        text = stated or said.get(argument) or schema.get("description")
        if not text:
            others = did_you_mean(argument, said, "arguments in it") if said else DOCSTRING
            raise InvalidInputError(
                f"its docstring has no description of the argument '{argument}'",
                others if others.startswith("did") else DOCSTRING,
            )
        properties[argument] = _described(schema, " ".join(text.split()))
    return {"name": name, "description": summary, "parameters": parameters}


def exposed_by(value: Any) -> Json | None:
    """The declaration that a tool object of an agent SDK exposes; None where it exposes none.

    Known by their attributes: OpenAI Agents, LangChain, CrewAI, LlamaIndex, smolagents, PydanticAI,
    FastMCP, MCP, Anthropic, Haystack.
    """
    about = _attribute(value, "metadata") or value
    name, description = _attribute(about, "name"), _attribute(about, "description")
    if not isinstance(name, str) or not isinstance(description, str):
        return None
    for path in _EXPOSED:
        schema = value
        for step in path.split("."):
            schema = _attribute(schema, step)
        if isinstance(schema, type) and issubclass(schema, BaseModel):
            schema = _plain(schema.model_json_schema(schema_generator=_Generator))
            schema.pop("description", None)
        elif path == "inputs" and isinstance(schema, dict):
            schema = _of_inputs(schema)
        if isinstance(schema, dict) and schema.get("type") == "object":
            return {"name": name, "description": description, "parameters": schema}
    return None


_EXPOSED = (
    *("params_json_schema", "tool_call_schema", "args_schema", "function_schema.json_schema"),
    *("metadata.fn_schema", "input_schema", "inputSchema", "inputs", "parameters"),
)


def _attribute(value: Any, name: str) -> Any:
    try:
        return getattr(value, name, None)
    except Exception:  # what a property raises
        return None


def _of_inputs(inputs: Json) -> Json:
    """The schema of smolagents' `inputs`: what is not nullable is required."""
    properties: Any = {
        name: {key: part for key, part in schema.items() if (key, part) != ("type", "any")}
        for name, schema in inputs.items()
        if isinstance(schema, dict)
    }
    required: Any = [name for name, schema in properties.items() if not schema.get("nullable")]
    return {"type": "object", "properties": properties, "required": required}


def _signature(function: Callable[..., Any]) -> tuple[inspect.Signature, dict[str, Any]]:
    """The parameters that a call gives by name, and their types."""
    try:
        signature, hints = (
            inspect.signature(function),
            get_type_hints(function, include_extras=True),
        )
    except (NameError, TypeError, ValueError) as error:
        raise InvalidInputError(
            f"its signature cannot be read: {error}", "annotate with what the file imports"
        ) from None
    parameters = list(signature.parameters.values())
    if parameters and parameters[0].name in ("self", "cls") and parameters[0].name not in hints:
        parameters = parameters[1:]
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise InvalidInputError(
                f"{parameter} stands for any number of arguments", "name every argument"
            )
        if parameter.name not in hints:
            raise InvalidInputError(
                f"the argument '{parameter.name}' is missing a type hint",
                "annotate every argument with str, int, list[str], Literal, …",
            )
    return inspect.Signature(parameters), hints


def _schema_of(signature: inspect.Signature, hints: dict[str, Any]) -> Json:
    def function() -> None: ...

    called_by_name: Any = function
    # Of a default, all that matters is that there is one.
    parameters = [
        inspect.Parameter(
            p.name,
            p.KEYWORD_ONLY,
            annotation=hints[p.name],
            default=p.default if p.default is p.empty or isinstance(p.default, FieldInfo) else None,
        )
        for p in signature.parameters.values()
    ]
    called_by_name.__annotations__ = {p.name: hints[p.name] for p in parameters}
    called_by_name.__signature__ = inspect.Signature(parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            schema = TypeAdapter(called_by_name).json_schema(schema_generator=_Generator)
        except PydanticUserError as error:
            raise InvalidInputError(
                f"it has a type hint that no JSON Schema says: {error.message.splitlines()[0]}",
                "annotate every argument with str, int, list[str], Literal, a dataclass, …",
            ) from None
    plain = _plain(schema)
    for part in plain["properties"].values():
        part.pop("default", None)
    kept = ("type", "properties", "required", "$defs")
    return {key: plain[key] for key in kept if key in plain}


class _Generator(GenerateJsonSchema):
    def sort(self, value: JsonSchemaValue, parent_key: str | None = None) -> JsonSchemaValue:
        return value

    def decimal_schema(self, schema: Any) -> JsonSchemaValue:
        number: JsonSchemaValue = super().decimal_schema(schema)["anyOf"][0]
        return number


def _plain(schema: Json) -> Any:
    """Pydantic's schema without titles; definitions in place, but for those that loop."""
    definitions: Any = schema.pop("$defs", {})
    looping = {name for name in definitions if name in _reached(name, definitions)}

    def change(node: Json) -> Json:
        while (name := _referred(node)) and name not in looping:
            node = {**definitions[name], **{k: part for k, part in node.items() if k != "$ref"}}
        branches = node.get("anyOf")
        if isinstance(branches, list) and len(branches) == 2 and branches[1] == _NULL:
            rest = {key: part for key, part in node.items() if key != "anyOf"}
            inner: Any = branches[0]
            if _referred(inner) not in looping:
                node = {**change(inner), "nullable": True, **rest}
        return {key: part for key, part in node.items() if key != "title"}

    plain: Any = rewritten(schema, change)
    if looping:
        plain["$defs"] = {name: rewritten(definitions[name], change) for name in sorted(looping)}
    return plain


def _referred(node: Any) -> str | None:
    reference = node.get("$ref")
    return reference.removeprefix("#/$defs/") if isinstance(reference, str) else None


def _reached(name: str, definitions: Json) -> set[str]:
    """The definitions to which one leads."""
    found: set[str] = set()
    queue = [name]

    def note(node: Json) -> Json:
        if (other := _referred(node)) and other not in found:
            found.add(other)
            queue.append(other)
        return node

    for each in queue:
        rewritten(definitions[each], note)
    return found


def _described(schema: Json, text: str) -> Json:
    """`schema` with a description; choices at its end are an enum, of the items of a list."""
    choices = _CHOICES.search(text)
    if choices is None:
        return {**schema, "description": text}
    try:
        values = strict_json.decode(choices[1])
    except JsonError:
        values = None
    if not isinstance(values, list) or not values:
        raise InvalidInputError(
            f"its {choices[0].strip()} is no list", 'write choices as a JSON list, as ["a", "b"]'
        )
    values = [value.strip() if isinstance(value, str) else value for value in values]
    if schema.get("type") == "array":
        items: Any = schema.get("items") or {}
        schema = {**schema, "items": {**items, "enum": values}}
    else:
        schema = {**schema, "enum": values}
    return {**schema, "description": text[: choices.start()].strip()}


def _annotated_texts(hint: Any) -> Iterator[str]:
    """The texts in `Annotated[…]`, of a union's members as well."""
    origin = get_origin(hint)
    if origin is Annotated:
        for extra in hint.__metadata__:
            text = extra if isinstance(extra, str) else _attribute(extra, "documentation")
            text = extra.description if isinstance(extra, FieldInfo) else text
            if isinstance(text, str):
                yield text
        yield from _annotated_texts(hint.__origin__)
    elif origin in (Union, UnionType):
        for part in get_args(hint):
            yield from _annotated_texts(part)
