"""Tools from JSON and from Python functions."""

from __future__ import annotations

import json
import sys

import pytest

import distill
from distill.cli.main import cli
from distill.errors import DistillError, InputFileError, WorkflowError
from distill.workflow import load_workflow, read_tools, scaffold

FIND = {
    "name": "find",
    "description": "Find a document.",
    "parameters": {
        "type": "object",
        "properties": {"query": {"type": "string"}},
        "required": ["query"],
    },
}


def read(folder, text, name="tools.json"):
    (folder / name).write_text(text, encoding="utf-8")
    return read_tools(folder / name)


def faults(folder, text, name="tools.json"):
    with pytest.raises(DistillError) as caught:
        read(folder, text, name)
    found = caught.value.problems
    assert all(problem.hint for problem in found)
    return [(p.place.removeprefix(f"{folder}/"), p.cause, p.hint) for p in found]


@pytest.mark.parametrize(
    "value",
    [
        [FIND],
        {"tools": [FIND]},
        [{"type": "function", "function": FIND}],
        {"name": "my tools", "tools": [{"type": "function", "function": FIND}]},
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_every_form_of_a_list_is_read(tmp_path, value, indent):
    (tool,) = read(tmp_path, json.dumps(value, indent=indent))
    assert tool.openai() == {"type": "function", "function": FIND}


@pytest.mark.parametrize("parameters", [{}, None])
def test_a_tool_may_take_no_arguments(tmp_path, parameters):
    (tool,) = read(tmp_path, json.dumps([{**FIND, "parameters": parameters}]))
    assert tool.parameters == {"type": "object", "properties": {}}


def test_schemas_keep_all_that_they_say(tmp_path):
    parameters = {
        "type": "object",
        "properties": {
            "a": {"$ref": "#/$defs/a"},
            "b": {"type": "array", "items": {"type": "object", "properties": {"$ref": {}}}},
        },
        "$defs": {"a": {"enum": ["é", "\u2028", None, 1.5]}},
    }
    (tool,) = read(tmp_path, json.dumps([{**FIND, "parameters": parameters}]))
    assert tool.parameters == parameters


def changed(**fields):
    return json.dumps([{**FIND, **fields}], indent=1)


def schema(**fields):
    return changed(parameters={**FIND["parameters"], **fields})


SLIPS = {
    "no JSON": ('[{"name": }]', "tools.json", "not valid JSON", "column 11"),
    "no list": ("{}", "tools.json:1", "no list", "function schemas"),
    "empty list": ("[]", "tools.json:1", "empty", "function schemas"),
    "no schema": ("[\n3]", "tools.json:2", "no name", '"description"'),
    "no name": ("[{}]", "tools.json:1", "no name", '"description"'),
    "name": (changed(name="find it"), "tools.json:2", '"find it" has a name', "64"),
    "name number": (changed(name=3), "tools.json:2", "tool 3 has a name", "64"),
    "name long": (changed(name="x" * 65), "tools.json:2", "has a name", "64"),
    "description": (changed(description=" "), "tools.json:2", '"find" has no descr', "sentence"),
    "description kind": (changed(description=3), "tools.json:2", "has no description", "sentence"),
    "parameters": (changed(parameters=[1]), "tools.json:2", 'of type "object"', '"properties"'),
    "type": (schema(type="string"), "tools.json:2", 'of type "object"', '"properties"'),
    "schema": (
        schema(properties={"query": {"type": "strng"}}),
        "tools.json:2", "properties.query.type", "json-schema.org"),
    "pattern": (
        schema(properties={"query": {"pattern": "["}}),
        "tools.json:2", "properties.query.pattern", "json-schema.org"),
    "required": (
        schema(required=["qury"]), "tools.json:2", 'requires "qury"', 'did you mean "query"?'),
    "reference": (
        schema(properties={"query": {"$ref": "#/$defs/q"}}), "tools.json:2", "#/$defs/q", "$defs"),
    "endless reference": (
        schema(properties={"query": {"$ref": "#/properties/query"}}),
        "tools.json:2", "refers to itself", '"$ref"'),
    "remote reference": (
        schema(properties={"query": {"$ref": "https://example.com/q.json"}}),
        "tools.json:2", "https://example.com/q.json", "nothing is fetched"),
    "bounds": (
        schema(properties={"query": {"type": "integer", "minimum": 5, "maximum": 3}}),
        "tools.json:2", "has minimum 5 and maximum 3", "correct one"),
    "strict bounds": (
        schema(properties={"query": {"minimum": 5, "exclusiveMaximum": 5}}),
        "tools.json:2", "has minimum 5 and exclusiveMaximum 5", "correct one"),
    "lengths": (
        schema(properties={"query": {"items": {"minLength": 5, "maxLength": 3}}}),
        "tools.json:2", "has minLength 5 and maxLength 3", "correct one"),
    "an enum of another type": (
        schema(properties={"query": {"type": "integer", "enum": ["1", "2"]}}),
        "tools.json:2", 'has enum ["1", "2"], which the rest', "correct one"),
    "no value at all": (
        schema(properties={"query": {"enum": []}}),
        "tools.json:2", "has enum [], which the rest", "correct one"),
    "a constant out of bounds": (
        schema(properties={"query": {"maximum": 3, "const": 4}}),
        "tools.json:2", "has const 4, which the rest", "correct one"),
}  # fmt: skip


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_in_tools_json(tmp_path, slip):
    text, place, cause, hint = SLIPS[slip]
    ((found_place, found_cause, found_hint),) = faults(tmp_path, text)
    assert found_place == place
    assert cause in found_cause
    assert hint in found_hint + found_cause


def test_slips_of_several_tools_are_told_together(tmp_path):
    tools = [FIND, {**FIND, "description": ""}, FIND, {**FIND, "name": "?"}]
    found = faults(tmp_path, json.dumps({"tools": tools}, indent=1))
    assert [place for place, _, _ in found] == [f"tools.json:{line}" for line in (18, 33, 48)]
    assert found[1][1] == 'tool "find" is defined twice, first at line 3'


FUNCTIONS = '''\
"""Tools of the desk."""

import datetime
from typing import Literal

print("loaded")


def _helper(x):
    return x


class Thing:
    pass


def refund(order_id: str, reason: Literal["late", "broken"], amount: float = 0.0) -> dict:
    """Refund an order.

    Args:
        order_id: the order's number
        reason: why
        amount: how much, in euros
    """
    return {}


async def find(query: str, tags: list[str] | None = None, sort: bool = False) -> str:
    """Find a document
    by its words.

    Args:
        query: what is looked for (choices: ["a", "b", "c"])
        tags: labels
        sort: whether to sort

    Returns:
        The document.
    """
    return query
'''


def test_functions_are_read_in_source_order(tmp_path, capsys):
    refund, find = read(tmp_path, FUNCTIONS, "tools.py")
    assert refund.name == "refund"
    assert refund.description == "Refund an order."
    assert refund.parameters == {
        "type": "object",
        "properties": {
            "order_id": {"type": "string", "description": "the order's number"},
            "reason": {"type": "string", "enum": ["late", "broken"], "description": "why"},
            "amount": {"type": "number", "description": "how much, in euros"},
        },
        "required": ["order_id", "reason"],
    }
    assert find.parameters["required"] == ["query"]
    assert "loaded" not in capsys.readouterr().out
    assert "_distill_tools" not in sys.modules
    assert not list(tmp_path.glob("__pycache__"))


def test_functions_agree_with_the_reference(tmp_path):
    from transformers.utils.chat_template_utils import get_json_schema

    space: dict = {}
    exec(compile(FUNCTIONS, "tools.py", "exec", dont_inherit=True), space)
    for tool in read(tmp_path, FUNCTIONS, "tools.py"):
        expected = get_json_schema(space[tool.name])["function"]
        expected.pop("return", None)
        assert tool.openai()["function"] == expected


def test_a_neighbour_and_a_decorator_may_be_used(tmp_path):
    (tmp_path / "distill_test_neighbour.py").write_text(
        "def imported(x: int):\n    'Not a tool here.'\n", encoding="utf-8"
    )
    text = (
        "from __future__ import annotations\nimport functools\n"
        "from distill_test_neighbour import imported\n"
        "def _plain(f):\n    @functools.wraps(f)\n    def inner(*a):\n        return f(*a)\n"
        "    return inner\n"
        "@_plain\ndef tool(x: int):\n    '''Do.\n\n    Args:\n        x: it\n    '''\n"
    )
    before = list(sys.path)
    (tool,) = read(tmp_path, text, "tools.py")
    del sys.modules["distill_test_neighbour"]
    assert tool.parameters["properties"] == {"x": {"type": "integer", "description": "it"}}
    assert sys.path == before


def function(signature="x: int", doc="Do.\n\n    Args:\n        x: it\n    "):
    return f"\ndef tool({signature}):\n    '''{doc}'''\n"


PYTHON_SLIPS = {
    "syntax": ("def tool(:\n", 1, "not valid Python", "correct"),
    "error": ("x = 1\nx / 0\n", 2, "ZeroDivisionError", "by itself"),
    "exit": ("\n\nraise SystemExit(3)\n", 3, "SystemExit: 3", "by itself"),
    "import": ("import distill_no_such\n", 1, "distill_no_such", "by itself"),
    "none": ("x = 1\n\ndef _hidden(): pass\n", 1, "no public function", "def"),
    "no docstring": ("def tool(x: int): pass\n", 1, "no docstring", "Args:"),
    "no type": (function("x"), 2, "missing a type hint", "annotate"),
    "odd type": (function("x: type"), 2, "type hint", "annotate"),
    "unknown type": (function("x: 'Nothing'"), 2, "Nothing", "imports"),
    "no argument description": (function(doc="Do."), 2, "'x'", "Args:"),
    "no summary": (function(doc="Args:\n        x: it\n    "), 2, "no description", "Args:"),
    "choices": (
        function(doc="Do.\n\n    Args:\n        x: it (choices: a)\n    "), 2, "choices", "JSON"),
    "variadic": (function("*x: int"), 2, "any number", "name every argument"),
    "binary": ("\0", 1, "binary", "UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("slip", PYTHON_SLIPS)
def test_a_slip_in_tools_py(tmp_path, slip):
    text, line, cause, hint = PYTHON_SLIPS[slip]
    ((place, found_cause, found_hint),) = faults(tmp_path, text, "tools.py")
    assert place == f"tools.py:{line}"
    assert cause in found_cause
    assert hint in found_hint


BESIDE = """
from typing import Annotated
from distill_test_star import *
def find(query: Annotated[str, "words"]):
    "Find."
def _low(x: Annotated[int, "it"]):
    "Lower."
def timed(function):
    return function
RATE = 3
"""


@pytest.mark.parametrize(
    ("exported", "expected"),
    [
        ('["find"]', ["find"]),
        ('("find", "RATE", "Sdk")', ["find"]),
        ('["find", "_low", "find"]', ["find", "_low"]),
    ],
)
def test_of_a_file_with_all_its_names_alone_are_tools(tmp_path, exported, expected):
    (tmp_path / "distill_test_star.py").write_text(
        "class Sdk:\n    name, description, input_schema = 'sdk', 'S.', {'type': 'object'}\n"
        "sdk = Sdk()\n"
    )
    try:
        tools = read(tmp_path, f"{BESIDE}__all__ = {exported}\n", "tools.py")
        assert [tool.name for tool in tools] == expected
        # Without it the helper is a slip, and what is imported is no tool.
        ((_, cause, _),) = faults(tmp_path, BESIDE, "tools.py")
        assert 'function "timed": it has no docstring' in cause
    finally:
        sys.modules.pop("distill_test_star", None)


@pytest.mark.parametrize(
    ("exported", "cause", "hint"),
    [
        ('["fin"]', '__all__ names "fin", which the file does not define', 'mean "find"'),
        ("3", "__all__ is not a list of names", '["find"]'),
    ],
)
def test_a_slip_in_all_is_told(tmp_path, exported, cause, hint):
    text = f"__all__ = {exported}\ndef find(): 'Find.'\n"
    ((place, found, found_hint),) = faults(tmp_path, text, "tools.py")
    assert (place, found) == ("tools.py:1", cause)
    assert hint in found_hint


def test_slips_of_several_functions_are_told_together(tmp_path):
    text = "def a(x): 'A.'\n\ndef b(x: int): pass\n"
    found = faults(tmp_path, text, "tools.py")
    assert [place for place, _, _ in found] == ["tools.py:1", "tools.py:3"]
    assert 'function "a"' in found[0][1]


def test_a_workflow_may_have_python_tools(tmp_path):
    (tmp_path / "tools.py").write_text(FUNCTIONS, encoding="utf-8")
    rules = "## a: A\n\n**When** x.\n\n**Then** call `find`.\n\n### Examples\n- b → query: c\n"
    (tmp_path / "rules.md").write_text(rules, encoding="utf-8")
    workflow = load_workflow(tmp_path / "rules.md")
    assert [tool.name for tool in workflow.tools] == ["refund", "find"]
    assert workflow.sources[1].name == "tools.py"


def test_a_file_that_may_not_be_executed_is_not(tmp_path, capsys):
    written = tmp_path / "ran"
    scaffold(tmp_path / "shop")
    rules, path = tmp_path / "shop" / "rules.md", tmp_path / "other.py"
    path.write_text(f"open({str(written)!r}, 'w').close()\n" + function(), encoding="utf-8")
    refused = "is Python, which may not be executed here"
    with pytest.raises(WorkflowError, match=refused):
        distill.load_workflow(rules, tools=path, python=False)
    for command in ("check", "plan", "gen", "run"):
        words = [command, "--rules", str(rules), "--tools", str(path), "--no-python"]
        with pytest.raises(WorkflowError, match=refused):
            cli.main(words, standalone_mode=False)
    assert not written.exists()
    assert "note:" not in capsys.readouterr().err
    with pytest.raises(WorkflowError):  # its tools are others than those of the rules
        cli.main(["check", "--rules", str(rules), "--tools", str(path)], standalone_mode=False)
    assert written.exists()
    assert f"note: {path} is Python, and is executed" in capsys.readouterr().err
    assert distill.load_workflow(rules, python=False).tools


def test_making_data_from_a_path_says_that_tools_are_executed(tmp_path, caplog):
    (tmp_path / "tools.py").write_text(FUNCTIONS, encoding="utf-8")
    rules = "## a: A\n\n**When** x.\n\n**Then** call `find`.\n\n### Examples\n- b → query: c\n"
    (tmp_path / "rules.md").write_text(rules, encoding="utf-8")
    with pytest.raises(DistillError, match="nosuch"):
        distill.make_data(tmp_path / "rules.md", data={"nosuch": 1}, progress=False)
    (record,) = (record for record in caplog.records if record.levelname == "WARNING")
    assert record.getMessage().startswith(f"{tmp_path / 'tools.py'} is Python, and is executed")


def test_a_folder_is_no_tools_file(tmp_path):
    with pytest.raises(InputFileError):
        read_tools(tmp_path)
    assert issubclass(WorkflowError, DistillError)
