"""Python tools as people write them: docstrings of every style, types, decorated objects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distill.errors import DistillError
from distill.records import Json
from distill.workflow import read_tools
from distill.workflow.model import Tool
from distill.workflow.schema import schema_of

IMPORTS = """
from __future__ import annotations
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import *
from uuid import UUID
from pydantic import BaseModel, Field
"""


def read(folder: Path, text: str) -> list[Tool]:
    (folder / "tools.py").write_text(IMPORTS + text, encoding="utf-8")
    return list(read_tools(folder / "tools.py"))


def refusal(folder: Path, text: str) -> tuple[int, str]:
    with pytest.raises(DistillError) as caught:
        read(folder, text)
    (problem,) = caught.value.problems
    assert problem.hint
    return int(problem.place.rpartition(":")[2]) - IMPORTS.count("\n"), problem.cause


PLAIN = "query: str, limit: int = 10"
STYLES = {
    "Google": (PLAIN, "Args:\n    query: the words\n    limit: how many"),
    "Google with types": (
        PLAIN, "Args:\n    query (str): the words\n    limit (int, optional): how many"),
    "Google with lines": (
        PLAIN,
        "Args:\n    query (str): the\n        words\n\n    limit: how many\n\nReturns:\n    all"),
    "Google, Arguments": (
        PLAIN, "Arguments:\n    query: the words\n    limit: how many\n\nRaises:\n    X: y"),
    "NumPy": (
        PLAIN,
        "Parameters\n----------\nquery : str\n    the words\nlimit : int, optional\n    how many\n"
        "\nReturns\n-------\nstr\n    all"),
    "Sphinx": (
        PLAIN, ":param query: the words\n:type query: str\n:param int limit: how many\n:return: x"),
    "Epydoc": (PLAIN, "@param query: the words\n@param limit: how many\n@return: x"),
    "Annotated": (
        "query: Annotated[str, 'the words'], limit: Annotated[int, 'how many'] | None = 10", ""),
    "Field": (
        "query: str = Field(description='the words'), "
        "limit: Annotated[int, Field(description='how many')] = 10", ""),
    "both": ("query: Annotated[str, 'the words'], limit: int = 10", "Args:\n    limit: how many"),
    "by position": (
        "query: str, /, limit: int = 10", "Args:\n    query: the words\n    limit: how many"),
}  # fmt: skip


@pytest.mark.parametrize("style", STYLES)
def test_every_style_says_the_same(tmp_path: Path, style: str) -> None:
    signature, sections = STYLES[style]
    doc = f"Search it.\n\nArgs are words.\n\n{sections}".replace("\n", "\n    ")
    (tool,) = read(tmp_path, f'def search({signature}):\n    """{doc}\n    """\n')
    limit: Json = {"type": "integer", "description": "how many"}
    if "None" in signature:
        limit = {"type": "integer", "nullable": True, "description": "how many"}
    assert tool.description == "Search it.\n\nArgs are words."
    assert tool.parameters == {
        "type": "object",
        "properties": {"query": {"type": "string", "description": "the words"}, "limit": limit},
        "required": ["query"],
    }


CLASSES = '''
class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Address(BaseModel):
    """Where somebody lives."""

    street: str = Field(description="and number")
    floor: Optional[int] = None
    title: str = ""


@dataclass
class Point:
    x: int
    y: int = 0


class Window(TypedDict, total=False):
    start: Required[date]
    end: date


class Node(BaseModel):
    name: str
    inner: list["Node"] = []
'''
ADDRESS: Json = {
    "type": "object",
    "properties": {
        "street": {"type": "string", "description": "and number"},
        "floor": {"type": "integer", "nullable": True, "default": None},
        "title": {"type": "string", "default": ""},
    },
    "required": ["street"],
    "description": "Where somebody lives.",
}
COLOR: Json = {"enum": ["red", "blue"], "type": "string"}
HINTS: dict[str, tuple[str, Json]] = {
    "date": ("date", {"type": "string", "format": "date"}),
    "datetime": ("datetime", {"type": "string", "format": "date-time"}),
    "time": ("time", {"type": "string", "format": "time"}),
    "UUID": ("UUID", {"type": "string", "format": "uuid"}),
    "Decimal": ("Decimal", {"type": "number"}),
    "Literal": ("Literal['a', 'b']", {"type": "string", "enum": ["a", "b"]}),
    "one Literal": ("Literal['a']", {"type": "string", "const": "a"}),
    "Enum": ("Color", COLOR),
    "Enums": ("list[Color]", {"type": "array", "items": COLOR}),
    "optional Enum": ("Color | None", {**COLOR, "nullable": True}),
    "model": ("Address", ADDRESS),
    "models": ("list[Address]", {"type": "array", "items": ADDRESS}),
    "dataclass": ("Point", {
        "type": "object",
        "properties": {"x": {"type": "integer"}, "y": {"type": "integer", "default": 0}},
        "required": ["x"]}),
    "TypedDict": ("Window", {
        "type": "object",
        "properties": {
            "start": {"type": "string", "format": "date"},
            "end": {"type": "string", "format": "date"}},
        "required": ["start"]}),
    "union": ("int | str", {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
    "bounds": (
        "Annotated[int, Field(ge=1, le=50)]", {"type": "integer", "minimum": 1, "maximum": 50}),
    "length": ("Annotated[list[str], Field(max_length=3)]",
        {"type": "array", "items": {"type": "string"}, "maxItems": 3}),
    "pattern": ("Annotated[str, Field(pattern='^A')]", {"type": "string", "pattern": "^A"}),
    "mapping": ("dict[str, int]", {"type": "object", "additionalProperties": {"type": "integer"}}),
    "default Field": ("int = Field(ge=1)", {"type": "integer", "minimum": 1}),
    "Any": ("Any", {}),
}  # fmt: skip


@pytest.mark.parametrize("hint", HINTS)
def test_types_reach_the_schema(tmp_path: Path, hint: str) -> None:
    written, expected = HINTS[hint]
    doc = '"""Do.\n\n    Args:\n        it: the thing\n    """'
    (tool,) = read(tmp_path, f"{CLASSES}\n\ndef act(it: {written}):\n    {doc}\n")
    described = {**expected, "description": "the thing"}
    assert tool.parameters == {
        "type": "object",
        "properties": {"it": described},
        "required": ["it"],
    }


def test_a_default_is_no_description(tmp_path: Path) -> None:
    doc = '"""Do.\n\n    Args:\n        it: the thing\n    """'
    for default in ("'x'", "Field('x')", "None", "object()", "[]"):
        (tool,) = read(tmp_path, f"def act(it: str = {default}):\n    {doc}\n")
        properties = {"it": {"type": "string", "description": "the thing"}}
        assert tool.parameters == {"type": "object", "properties": properties}


def test_a_model_may_hold_itself(tmp_path: Path) -> None:
    (tool,) = read(tmp_path, CLASSES + "def act(it: Annotated[Node, 'a tree']):\n    'Do.'\n")
    inner = {"name": "a", "inner": [{"name": "b", "inner": []}]}
    assert not schema_of(tool).errors({"it": inner})
    assert schema_of(tool).errors({"it": {"name": "a", "inner": [{"inner": []}]}})
    assert "title" not in json.dumps(tool.parameters)


def test_choices_of_a_list_are_those_of_its_items(tmp_path: Path) -> None:
    doc = '"""Do.\n\n    Args:\n        tags: labels (choices: ["a", "b"])\n    """'
    (tool,) = read(tmp_path, f"def act(tags: list[str]):\n    {doc}\n")
    assert not schema_of(tool).errors({"tags": ["a", "b"]})
    assert schema_of(tool).errors({"tags": ["c"]})


SDKS = {
    "OpenAI Agents": "params_json_schema=SCHEMA",
    "LangChain": "args_schema=Arguments",
    "LangChain over MCP": "args_schema=SCHEMA",
    "MCP": "inputSchema=SCHEMA",
    "Anthropic": "input_schema=SCHEMA",
    "FastMCP": "parameters=SCHEMA",
    "PydanticAI": "function_schema=Object(json_schema=SCHEMA)",
    "LlamaIndex": "metadata=Object(name='act', description='Do.', fn_schema=Arguments)",
    "smolagents": "inputs={'it': {'type': 'string', 'description': 'the thing'},"
    " 'more': {'type': 'any', 'nullable': True}}",
}
SDK = """
from types import SimpleNamespace as Object

class Arguments(BaseModel):
    it: str = Field(description='the thing')
    more: Any = None

SCHEMA = {'type': 'object', 'properties': {
    'it': {'type': 'string', 'description': 'the thing'}, 'more': {}}, 'required': ['it']}

def _tool(function):
    return Object(name=function.__name__, description=function.__doc__, %s)

@_tool
def act(it: str, more: Any = None):
    'Do.'

later = act
"""


@pytest.mark.parametrize("sdk", SDKS)
def test_tool_objects_are_read_by_the_schema_they_expose(tmp_path: Path, sdk: str) -> None:
    text = SDK % SDKS[sdk] + "\n\ndef plain(it: Annotated[str, 'the thing']):\n    'Do.'\n"
    act, plain = read(tmp_path, text)
    assert (act.name, act.description, plain.name) == ("act", "Do.", "plain")
    assert act.parameters["required"] == ["it"]
    properties: Any = act.parameters["properties"]
    assert properties["it"] == {"type": "string", "description": "the thing"}
    assert properties["more"].get("type") is None


METHODS = """
class Desk:
    def __init__(self, city):
        self.city = city

    def find(self, it: Annotated[str, 'the thing']):
        'Find it.'

    def hidden(self, it):
        pass

ghent = Desk('Ghent').find
bruges = Desk('Bruges').find
"""


def test_bound_methods_are_tools_under_the_names_of_the_file(tmp_path: Path) -> None:
    tools = read(tmp_path, METHODS)
    assert [tool.name for tool in tools] == ["ghent", "bruges"]
    assert tools[0].parameters["required"] == ["it"]


UNREADABLE = {
    "decorator": (
"@list\n@str.split\n@str\ndef act(it: int): 'Do.'\n", 1, 'makes a list of it'),
    "factory": (
        "def _make():\n    def act(it: Annotated[int, 'x']): 'Do.'\n    return act\n"
        "one = _make()\nother = _make()\n", 2, 'tool "act" is defined twice'),
    "callable": ("def act(it: Callable): 'Do.'\n", 1, "no JSON Schema says"),
    "class": ("class Thing: pass\ndef act(it: Thing): 'Do.'\n", 2, "Thing"),
    "none": ("class Desk:\n    def find(self): 'Find.'\n", -8, "no public function"),
    "argument elsewhere": (
        "def act(it: int):\n    'Do.\\n\\nArgs:\\n        its: x\\n    '\n", 1, "argument 'it'"),
}  # fmt: skip


@pytest.mark.parametrize("slip", UNREADABLE)
def test_what_cannot_be_read_says_what_it_is(tmp_path: Path, slip: str) -> None:
    text, line, cause = UNREADABLE[slip]
    found_line, found_cause = refusal(tmp_path, text)
    assert cause in found_cause
    assert found_line == line


RAISED = (
    "raise SystemExit(3)", "raise BaseException('x')", "raise GeneratorExit",
    "import asyncio; raise asyncio.CancelledError",
    "raise ExceptionGroup('g', [ValueError(1)])", "raise SyntaxError('made up')",
    "def _f(): _f()\n_f()", "class _E(Exception):\n    def __str__(self): 1 / 0\nraise _E",
    "exit()",
    "class _E(Exception):\n    def __str__(self): raise SystemExit\nraise _E",
    "class _M(type): __name__ = property(lambda _: 1 / 0)\nclass _E(Exception, metaclass=_M): ...\n"
    "raise _E", "class _E(SyntaxError): filename = msg = property(lambda _: 1 / 0)\nraise _E",
    "import sys; sys.setrecursionlimit(9)", "raise MemoryError", "eval('(' * 5000)",
)  # fmt: skip


@pytest.mark.parametrize("statement", RAISED)
def test_whatever_the_file_raises_is_one_message_with_its_place(
    tmp_path: Path, statement: str
) -> None:
    _, cause = refusal(tmp_path, f"{statement}\n")
    assert "fails when it is run" in cause or "not valid Python" in cause


EVIL = """
class _Evil:
    def __getattr__(self, name):
        raise RuntimeError('no ' + name)

    __wrapped__ = property(lambda self: self)

    def __call__(self): ...

from unittest.mock import MagicMock
evil, mock = _Evil(), MagicMock()

def act(it: Annotated[str, 'the thing']):
    'Do.'
"""


def test_objects_that_misbehave_are_left_alone(tmp_path: Path) -> None:
    assert [tool.name for tool in read(tmp_path, EVIL)] == ["act"]


INSPECTED = {
    "attribute": "class Tool:\n    def __getattr__(self, name): raise %s\n\ntool = Tool()\n",
    "class": "class Tool:\n    __class__ = property(lambda self: _fail())\n\ntool = Tool()\n",
    "annotation": "class Kind:\n    def __get_pydantic_core_schema__(*_): raise %s\n\n"
    "def tool(it: Annotated[Kind, 'the thing']): 'Do.'\n",
    "file": "class _Module(type(sys)):\n    __dict__ = property(lambda self: _fail())\n"
    "sys.modules[__name__].__class__ = _Module\ndef tool(it): 'Do.'\n",
}


@pytest.mark.parametrize("error", ["SystemExit(3)", "_Base('x')", "_Silent()"])
@pytest.mark.parametrize("place", INSPECTED)
def test_whatever_an_object_raises_when_it_is_looked_at_is_one_message(
    tmp_path: Path, place: str, error: str
) -> None:
    errors = "import sys\nclass _Base(BaseException): pass\nclass _Silent(BaseException):\n"
    errors += f"    def __str__(self): raise SystemExit\ndef _fail(): raise {error}\n"
    line, cause = refusal(tmp_path, errors + INSPECTED[place].replace("%s", error))
    assert cause.startswith('function "tool": ')
    assert line == 9


NO_JSON = ("object()", "{1}", "b'a'", "float('nan')", "10**5000", "inputs")


@pytest.mark.parametrize("value", NO_JSON)
def test_a_tool_object_whose_schema_is_no_json_is_one_message(tmp_path: Path, value: str) -> None:
    text = "class _Tool:\n    name = description = 'act'\n    inputs = {'it': {}}\n"
    text += f"    inputs['it']['const'] = {value}\n\ntool = _Tool()\n"
    line, cause = refusal(tmp_path, text)
    assert 'function "tool": it cannot be read: ' in cause
    assert line == 6


def test_an_interrupt_is_the_users(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        read(tmp_path, "raise KeyboardInterrupt\n")
