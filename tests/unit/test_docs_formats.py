"""The JSON Schemas in schemas/formats: of what distill reads, and of what it writes."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from distill.ablate.model import Ablation
from distill.config import Config
from distill.errors import DistillError
from distill.files import iter_records
from distill.records import Case, Failure, FailureReason, Scenario
from distill.run import layout
from distill.run.folder import RunFolder, locked
from distill.stages.pipeline import make_data
from distill.stages.watcher import LogWatcher
from distill.workflow import load_workflow, read_cases

ROOT = Path(__file__).parents[2]
FORMATS = ROOT / "schemas" / "formats"

Row = dict[str, Any]


def validator(name: str) -> Draft202012Validator:
    schema = json.loads((FORMATS / f"{name}.schema.json").read_text("utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


GOLD = validator("gold")

# --- rows that are read: the schema of gold.jsonl beside its reader ---

words = st.text().filter(lambda text: text.strip())
names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
objects = st.dictionaries(st.text(), st.none() | st.integers() | st.text() | st.booleans())
arguments = (
    st.none() | objects | objects.map(json.dumps) | st.sampled_from(["", " \n", " {} ", '{"a": 1}'])
)
word_targets = st.sampled_from(["ask", "answer", "refuse"])
call_targets = st.sampled_from(["call", None])
texts = words | st.lists(st.fixed_dictionaries({"text": words}), min_size=1)
# What an assistant says is read for the markup of calls.
plain = st.text().filter(lambda text: text.strip() and not {*text} & {*"<>[]{}()|｜`:="})
replies = plain | st.lists(st.fixed_dictionaries({"text": plain}), min_size=1)
functions = st.fixed_dictionaries({"name": names}, optional={"arguments": arguments})
calls = functions | st.fixed_dictionaries(
    {"function": functions}, optional={"id": st.text(), "type": st.just("function")}
)
common = {"rule": st.none() | st.text(), "note": st.integers()}
prompts = st.one_of(
    st.fixed_dictionaries(
        {"user_content": words, "tool_name": names},
        optional={"tool_arguments": arguments, "target": call_targets, **common},
    ),
    st.fixed_dictionaries(
        {"user_content": words, "target": word_targets},
        optional={
            "tool_name": st.sampled_from(["", None]),
            "tool_arguments": st.sampled_from([None, {}, {"a": None}, "", " {} "]),
            "messages": st.none(),
            **common,
        },
    ),
)
system_turns = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "developer"]), "content": texts}
)
user_turns = st.fixed_dictionaries({"role": st.just("user"), "content": texts})
legacy_calls = st.fixed_dictionaries(
    {"role": st.just("assistant"), "function_call": functions}, optional={"content": st.none()}
)
saying_turns = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": replies},
    optional={"tool_calls": st.sampled_from([None, []]), "name": st.none() | st.text()},
)


@st.composite
def answered_calls(draw: st.DrawFn) -> list[Row]:
    """A turn with calls, and some of their results in any order."""
    made = draw(st.lists(calls, min_size=1, max_size=3))
    ids = [f"call-{number}" for number in range(len(made))]
    calling = [{**call, "id": identity} for call, identity in zip(made, ids, strict=True)]
    results = [
        {"role": "tool", "tool_call_id": identity, "content": draw(texts)}
        for identity in draw(st.permutations(ids))
    ]
    turn: Row = {"role": "assistant", "tool_calls": calling, "content": draw(st.none() | texts)}
    return [turn, *results[: draw(st.integers(0, len(results)))]]


@st.composite
def answered_legacy_calls(draw: st.DrawFn) -> list[Row]:
    calling = draw(legacy_calls)
    name = calling["function_call"]["name"]
    return [calling, {"role": "function", "name": name, "content": draw(texts)}]


turns = st.lists(
    st.one_of(
        st.tuples(st.one_of(system_turns, user_turns, saying_turns)),
        answered_calls(),
        answered_legacy_calls(),
    ),
    max_size=3,
).map(lambda parts: [turn for part in parts for turn in part])


@st.composite
def conversations(draw: st.DrawFn) -> Row:
    calling = draw(st.booleans())
    said = (
        {"tool_calls": draw(st.lists(calls, min_size=1))} if calling else {"content": draw(replies)}
    )
    last: Row = (
        draw(legacy_calls) if calling and draw(st.booleans()) else {"role": "assistant", **said}
    )
    row: Row = {
        "messages": [*draw(turns), {"role": "user", "content": draw(texts)}, *draw(turns), last]
    }
    if draw(st.booleans()):
        row["target"] = draw(call_targets if calling else word_targets)
    return row | draw(st.fixed_dictionaries({}, optional=common))


@st.composite
def rows_with_tools(draw: st.DrawFn) -> Row:
    """A row that brings its own tool, which it calls."""
    name = draw(names)
    query = {"type": "object", "properties": {"q": {"type": "string"}}}
    declared: Row = {"name": name, "description": draw(words)}
    given: Row = {}
    if draw(st.booleans()):
        key = draw(st.sampled_from(["parameters", "inputSchema", "input_schema"]))
        declared[key], given = query, {"q": draw(st.text())}
    elif draw(st.booleans()):
        declared["parameters"] = draw(st.sampled_from([None, {}, {"type": "object"}]))
    tool = draw(st.sampled_from([declared, {"type": "function", "function": declared}]))
    row = {"user_content": draw(words), "tool_name": name, "tool_arguments": given}
    key = draw(st.sampled_from(["tools", "functions"]))
    return {**row, key: draw(st.sampled_from([[tool], {"tools": [tool]}, json.dumps([tool])]))}


def is_read(row: Any) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gold.jsonl"
        path.write_text(json.dumps(row), "utf-8")
        try:
            return len(read_cases(path, tools=None)) == 1
        except DistillError:
            return False


@given(prompts | conversations() | rows_with_tools())
def test_rows_that_the_schema_accepts_are_read(row: Row) -> None:
    GOLD.validate(row)
    assert is_read(row), row


PROMPT: Row = {"user_content": "where is it?", "tool_name": "find", "tool_arguments": {"q": "it"}}
WORDS: Row = {"user_content": "thanks", "target": "answer"}
CHAT: Row = {
    "messages": [
        {"role": "user", "content": "where is it?"},
        {
            "role": "assistant",
            "tool_calls": [{"function": {"name": "find", "arguments": '{"q": "it"}'}}],
        },
    ]
}
ASIDE: Row = {
    "messages": [
        {"role": "assistant", "tool_calls": [{"id": "7", "name": "find"}]},
        {"role": "tool", "tool_call_id": "7", "content": "lost"},
        *CHAT["messages"],
    ]
}
SHARE_GPT: Row = {
    "conversations": [
        {"from": "human", "value": "where is it?"},
        {"from": "function_call", "value": '{"name": "find", "arguments": {"q": "it"}}'},
    ]
}
COMPLETION: Row = {"prompt": CHAT["messages"][:1], "completion": CHAT["messages"][1:]}
TOOLS: Row = {
    **PROMPT,
    "tools": [
        {
            "name": "find",
            "description": "Find.",
            "parameters": {"type": "object", "properties": {"q": {"type": "string"}}},
        }
    ],
}
REMOVED = object()


def changed(row: Row, path: tuple[str | int, ...], value: Any) -> Row:
    """A copy of the row with another value, or none, at a path."""
    made = copy.deepcopy(row)
    inner: Any = made
    for key in path[:-1]:
        inner = inner[key]
    if value is REMOVED:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return made


NEAR_MISSES: list[tuple[Row, tuple[str | int, ...], Any]] = [
    (PROMPT, ("user_content",), REMOVED),
    (PROMPT, ("user_content",), " \n"),
    (PROMPT, ("user_content",), 3),
    (PROMPT, ("user_content",), ["where is it?"]),
    (PROMPT, ("tool_name",), REMOVED),
    (PROMPT, ("tool_name",), None),
    (PROMPT, ("tool_name",), ""),
    (PROMPT, ("tool_name",), 3),
    (PROMPT, ("tool_name",), ["find"]),
    (PROMPT, ("tool_arguments",), 3),
    (PROMPT, ("tool_arguments",), ["it"]),
    (PROMPT, ("tool_arguments",), "[1]"),
    (PROMPT, ("tool_arguments",), '"it"'),
    (PROMPT, ("tool_arguments",), "q: it"),
    (PROMPT, ("target",), "answer"),
    (PROMPT, ("target",), "cal"),
    (PROMPT, ("target",), 3),
    (PROMPT, ("rule",), 3),
    (PROMPT, ("tools",), {}),
    (PROMPT, ("messages",), []),
    (WORDS, ("tool_arguments",), {"q": "it"}),
    (WORDS, ("target",), REMOVED),
    (WORDS, ("target",), "call"),
    (WORDS, ("target",), "Answer"),
    (CHAT, ("messages",), {}),
    (CHAT, ("messages",), []),
    (CHAT, ("messages", 0), "where is it?"),
    (CHAT, ("messages", 0), REMOVED),
    (CHAT, ("messages", 0, "content"), " "),
    (CHAT, ("messages", 0, "content"), None),
    (CHAT, ("messages", 0, "content"), 3),
    (CHAT, ("messages", 0, "content"), [{"type": "image_url"}]),
    (CHAT, ("messages", 0, "role"), "human"),
    (CHAT, ("messages", 0, "role"), REMOVED),
    (CHAT, ("messages", 1), REMOVED),
    (CHAT, ("messages", 1, "role"), "tool"),
    (CHAT, ("messages", 0, "tool_calls"), [{"name": "find"}]),
    (CHAT, ("messages", 0, "function_call"), {"name": "find"}),
    (CHAT, ("messages", 1, "tool_calls"), 5),
    (CHAT, ("messages", 1, "tool_calls"), True),
    (CHAT, ("messages", 1, "function_call"), {"arguments": "{}"}),
    (CHAT, ("messages", 1, "tool_calls", 0), "find"),
    (CHAT, ("messages", 1, "tool_calls", 0, "function"), "find"),
    (CHAT, ("messages", 1, "tool_calls", 0, "function", "name"), REMOVED),
    (CHAT, ("messages", 1, "tool_calls", 0, "function", "name"), 3),
    (CHAT, ("messages", 1, "tool_calls", 0, "function", "arguments"), ["it"]),
    (CHAT, ("messages", 1, "tool_calls", 0, "function", "arguments"), "[]"),
    (CHAT, ("target",), "wrong"),
    (SHARE_GPT, ("conversations", 0), REMOVED),
    (SHARE_GPT, ("conversations", 0, "from"), "robot"),
    (SHARE_GPT, ("conversations", 1, "value"), 3),
    (COMPLETION, ("completion",), REMOVED),
    (COMPLETION, ("completion",), "where?"),
    (COMPLETION, ("prompt",), "where is it?"),
    (COMPLETION, ("prompt", 0, "role"), "human"),
    (TOOLS, ("tools", 0, "name"), REMOVED),
    (TOOLS, ("tools", 0, "name"), "find it"),
    (TOOLS, ("tools", 0, "name"), "f" * 65),
    (TOOLS, ("tools", 0, "description"), REMOVED),
    (TOOLS, ("tools", 0, "description"), " "),
    (TOOLS, ("tools", 0, "parameters"), []),
    (TOOLS, ("tools", 0, "parameters", "type"), "string"),
    (TOOLS, ("tools", 0, "parameters", "properties"), []),
    (TOOLS, ("tools", 0, "parameters", "properties", "q", "type"), "text"),
]
BEYOND_THE_SCHEMA: list[tuple[Row, tuple[str | int, ...], Any]] = [
    (PROMPT, ("tool_arguments",), "{q: it}"),
    (CHAT, ("messages", 1, "tool_calls"), []),
    (CHAT, ("target",), "answer"),
    (CHAT, ("messages", 1, "function_call"), {"name": "find"}),
    (CHAT, ("messages", 1), {"role": "assistant", "content": "<tool_call>"}),
    (ASIDE, ("messages", 1, "tool_call_id"), "8"),
    (SHARE_GPT, ("conversations", 0, "value"), " "),
    (SHARE_GPT, ("conversations", 1, "value"), "find(it)"),
    (TOOLS, ("tool_name",), "fnd"),
    (TOOLS, ("tool_arguments", "q"), 3),
]
"""What only the reader refuses, as the schema's description says."""


def test_the_rows_before_a_change_are_right() -> None:
    for row in (PROMPT, WORDS, CHAT, ASIDE, SHARE_GPT, COMPLETION, TOOLS):
        GOLD.validate(row)
        assert is_read(row)


@pytest.mark.parametrize(("row", "path", "value"), NEAR_MISSES)
def test_near_misses_are_refused_by_schema_and_reader(
    row: Row, path: tuple[str | int, ...], value: Any
) -> None:
    near = changed(row, path, value)
    assert not GOLD.is_valid(near)
    assert not is_read(near)


@pytest.mark.parametrize(("row", "path", "value"), BEYOND_THE_SCHEMA)
def test_what_only_the_reader_refuses(row: Row, path: tuple[str | int, ...], value: Any) -> None:
    near = changed(row, path, value)
    assert GOLD.is_valid(near)
    assert not is_read(near)


@pytest.mark.parametrize("row", [None, 3, "row", []])
def test_a_row_is_an_object(row: Any) -> None:
    assert not GOLD.is_valid(row)
    assert not is_read(row)


@pytest.mark.parametrize("path", sorted(ROOT.glob("schemas/*/gold.jsonl")), ids=str)
def test_shipped_gold_sets_meet_the_schema(path: Path) -> None:
    for line in path.read_text("utf-8").splitlines():
        GOLD.validate(json.loads(line))


# --- files that distill writes ---


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of the starter workflow, up to the split."""
    path = tmp_path_factory.mktemp("run") / "run"
    workflow = load_workflow(ROOT / "schemas" / "starter" / "rules.md")
    config = Config.load(None, {"data": {"target": 70}})
    with locked(path, create=True):
        make_data(RunFolder.create(path, workflow, config), LogWatcher())
    return path


def json_file(path: Path) -> list[Any]:
    return [json.loads(path.read_text("utf-8"))]


def json_lines_file(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


WRITTEN: list[tuple[str, str, Callable[[Path], list[Any]]]] = [
    ("scenario", layout.SCENARIOS, json_lines_file),
    ("candidate", layout.CANDIDATES, json_lines_file),
    *[("example", name, json_lines_file) for name in layout.EXAMPLES.values()],
    ("rejection", layout.REJECTED["balance"], json_lines_file),
    ("example", layout.SPLITS["train"], json_lines_file),
    ("manifest", layout.MANIFEST, json_file),
    ("config", layout.CONFIG, json_file),
    ("workflow", layout.WORKFLOW, json_file),
]


@pytest.mark.parametrize(("schema", "name", "read"), WRITTEN)
def test_what_a_run_writes_meets_its_schema(
    run: Path, schema: str, name: str, read: Callable[[Path], list[Any]]
) -> None:
    rows, expected = read(run / name), validator(schema)
    assert rows
    for row in rows:
        expected.validate(row)
        assert not expected.is_valid({**row, "surplus": 1})
        assert not expected.is_valid(dict(list(row.items())[1:]))


def test_records_without_a_file_in_that_run_meet_their_schemas(run: Path) -> None:
    scenario = next(iter_records(run / layout.SCENARIOS, Scenario))
    failure = Failure(scenario=scenario, reason=FailureReason.EMPTY, detail="no text")
    validator("failure").validate(failure.model_dump(mode="json"))
    assert not validator("failure").is_valid({**failure.model_dump(mode="json"), "reason": "odd"})
    case = Case(id="a", messages=(), kind="ask")
    validator("case").validate(case.model_dump(mode="json"))
    ablation = Ablation(student="s", modes=(), contests=(), choice=None, advice="none")
    validator("ablation").validate(ablation.model_dump(mode="json"))
