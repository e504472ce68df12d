"""What must hold of any rules.md, tools, gold and front matter."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jsonschema import Draft202012Validator

from distill.asking.ask import MalformedReplyError
from distill.asking.writing import read_reply, write_request
from distill.config import DataConfig, TeacherConfig
from distill.data.checks import validate
from distill.data.plan import scenarios
from distill.errors import DistillError, Problem
from distill.evaluate.score import judge, score
from distill.files import encoded, record_line
from distill.records import Case, Outcome, ToolCall, canonical_json
from distill.render import Parsed
from distill.teachers.base import WriteTask
from distill.teachers.grammar.teacher import write_reply
from distill.workflow import lint, load_workflow, read_cases, read_tools
from distill.workflow.arguments import read_arguments
from distill.workflow.model import Tool, Workflow
from distill.workflow.schema import schema_of
from distill.workflow.strict import drop_nulls, strict_call_schema
from distill.workflow.values import InvalidInputError, argument_errors, typed_argument
from fuzz import bundle

STARTER = Path(__file__).parents[2] / "schemas" / "starter"
RULES, TOOLS, WORDS, GOLD = "rules.md", "tools.json", "words.md", "gold.jsonl"
_DATA = DataConfig()
_SETTINGS = TeacherConfig()

_PAGE = b"""## hours: Opening hours

**When** the customer asks when the shop is open.

**Then** answer "Every day."
"""
_ROW = b'{"user_content": "When are you open?", "target": "answer"}'


@cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="distill-fuzz-"))


@cache
def _starter(name: str) -> bytes:
    return (STARTER / name).read_bytes()


@cache
def _starter_tools() -> tuple[Tool, ...]:
    return read_tools(STARTER / TOOLS)


def _unpacked(files: dict[str, bytes], *defaults: str) -> Path:
    """A folder with these files, and those of the starter that are missing."""
    files = {**{name: _starter(name) for name in defaults}, **files}
    bundle.unpack(files, _folder(), (RULES, TOOLS, WORDS, GOLD))
    return _folder()


def check_rules(data: bytes) -> None:
    """A page of rules, its tools and its words load to what can be used, or are refused."""
    if workflow := _loaded(_unpacked(bundle.split(data), RULES, TOOLS)):
        _check_usable(workflow)


def check_front_matter(data: bytes) -> None:
    """As `check_rules`; the input is what stands between the lines of hyphens."""
    files = {RULES: b"---\n%b\n---\n%b" % (data, _PAGE), WORDS: b"", GOLD: _ROW}
    _loaded(_unpacked(files, TOOLS))


def _loaded(folder: Path) -> Workflow | None:
    """The workflow in `folder`, which is written and read to the same; None if it is refused."""
    try:
        workflow = load_workflow(folder / RULES)
    except DistillError as error:
        _check_refusal(error)
        return None
    _check_problems(lint(workflow))
    _check_same_again(workflow)
    return workflow


def check_tools(data: bytes) -> None:
    """A list of tools is read to valid schemas, or refused; arguments are held to them."""
    folder = _unpacked(bundle.split(data), TOOLS)
    try:
        tools = read_tools(folder / TOOLS)
    except DistillError as error:
        _check_refusal(error)
        return
    assert tools
    written = json.dumps([tool.openai() for tool in tools])
    (folder / TOOLS).write_text(written, "utf-8")
    assert read_tools(folder / TOOLS) == tools
    arguments = _arguments(bundle.split(data).get("arguments.json", b"{}"))
    for tool in tools:
        _check_schema(tool)
        for given in arguments:
            _check_arguments(tool, given)


def check_gold(data: bytes) -> None:
    """Rows are read to cases, or refused; what is read is written and read to the same."""
    folder = _unpacked({GOLD: b"", **bundle.split(data)})
    tools: Sequence[Tool] | None = _starter_tools()
    for known in (tools, None):
        try:
            cases = read_cases(folder / GOLD, tools=known)
        except DistillError as error:
            _check_refusal(error)
            continue
        assert cases
        assert len({case.id for case in cases}) == len(cases)
        (folder / "again.jsonl").write_bytes(encoded("".join(map(_row, cases))))
        again = read_cases(folder / "again.jsonl", tools=known)
        assert [*map(_as_written, cases)] == [*map(_as_written, again)]
        _check_scored(cases)


def _check_refusal(error: DistillError) -> None:
    assert error.problems
    _check_problems(error.problems)


def _check_problems(problems: Sequence[Problem]) -> None:
    """Each problem has a place that exists, a cause and a way out."""
    for problem in problems:
        assert problem.cause.strip()
        assert problem.hint.strip()
        file, _, line = problem.place.rpartition(":")
        if not file:
            assert Path(problem.place).exists(), problem
            continue
        text = Path(file).read_bytes().replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        assert 1 <= int(line) <= text.count(b"\n") + 1, problem


def _check_same_again(workflow: Workflow) -> None:
    """What was loaded is written and read to the same."""
    line = encoded(record_line(workflow)).decode()
    assert Workflow.model_validate(json.loads(line)).fingerprint == workflow.fingerprint


def _check_usable(workflow: Workflow) -> None:
    """Every rule can be asked for and generated from; what its Then fixes is valid."""
    for rule in workflow.rules:
        for call in rule.then.calls:
            schema_of(workflow.by_name[call.tool])
        for example in rule.examples:
            if example.arguments is not None:
                tool = workflow.by_name[rule.then.calls[0].tool]
                assert not argument_errors(tool, example.arguments, partial=True)
        for counter in rule.counter_examples:
            assert counter.winner in workflow.by_id
    counts = {rule.cell: 2 for rule in workflow.rules[:3]}
    for scenario in scenarios(workflow, _DATA, counts):
        request = write_request(scenario, workflow, _SETTINGS)
        Draft202012Validator.check_schema(request.reply_schema)
        assert isinstance(request.task, WriteTask)
        try:
            text = json.dumps(write_reply(request.task))
            candidate = read_reply(text, request.task, "grammar")
        except (DistillError, MalformedReplyError):
            continue
        assert len(validate([candidate], workflow, _DATA)) == 2


def _check_schema(tool: Tool) -> None:
    definitions: dict[str, object] = {}
    strict = strict_call_schema(tool, definitions)  # type: ignore[arg-type]
    Draft202012Validator.check_schema({**strict, "$defs": definitions})
    for name in schema_of(tool).required:
        assert name in schema_of(tool).properties
    for name in schema_of(tool).properties:
        for text in ("3", "true", "null", "[]", '"', "text"):
            typed_argument(tool, name, text)
    for text in ("text", "query: 3", '{"a": 1}', 'order_id: "x", b: `2`'):
        try:
            read = read_arguments(text, tool)
        except InvalidInputError:
            continue
        argument_errors(tool, read)


def _arguments(data: bytes) -> list[dict[str, object]]:
    try:
        value = json.loads(data)
        # What can be asked of arguments at all: JSON that can be written again.
        encoded(json.dumps(value, allow_nan=False))
    except (ValueError, RecursionError):
        return []
    values = value if isinstance(value, list) else [value]
    return [each for each in values if isinstance(each, dict)]


def _check_arguments(tool: Tool, arguments: dict[str, object]) -> None:
    """What is accepted meets the schema as JSON Schema has it, with nulls or without."""
    dropped = drop_nulls(tool, arguments)  # type: ignore[arg-type]
    assert drop_nulls(tool, dropped) == dropped
    for value in (arguments, dropped):
        faults = argument_errors(tool, value)  # type: ignore[arg-type]
        assert all(fault.cause and fault.hint for fault in faults)
        if not faults:
            assert Draft202012Validator(tool.parameters).is_valid(value)
            assert not argument_errors(tool, value, partial=True)  # type: ignore[arg-type]


def _reply(case: Case) -> str:
    return "" if case.calls else case.reply or "Yes."


def _as_written(case: Case) -> Case:
    return case.model_copy(update={"place": "", "unscored": 0, "reply": _reply(case)})


def _row(case: Case) -> str:
    """A case as a row in the form of chat APIs."""
    turns: list[dict[str, object]] = []
    for message in case.messages:
        turn: dict[str, object] = {"role": message.role, "content": message.content}
        if message.tool_calls:
            turn["tool_calls"] = [{"function": call.model_dump()} for call in message.tool_calls]
        if message.name is not None:
            turn["name"] = message.name
        turns.append(turn)
    last: dict[str, object] = {"role": "assistant", "content": _reply(case)}
    if case.calls:
        last["tool_calls"] = [{"function": call.model_dump()} for call in case.calls]
    row: dict[str, object] = {"messages": [*turns, last], "target": case.kind}
    if case.rule is not None:
        row["rule"] = case.rule
    if case.tools is not None:
        row["tools"] = case.tools
    return json.dumps(row, ensure_ascii=False) + "\n"


def _check_scored(cases: Sequence[Case]) -> None:
    """The expected answer is right, and can be scored."""
    predictions = []
    for case in cases:
        calls = tuple(
            ToolCall(name=call.name, arguments=call.arguments or {}) for call in case.calls
        )
        said = judge(case, Parsed(calls, "" if calls else "Yes."), "fuzz", "")
        assert said.tool_correct, case
        assert said.outcome in (Outcome.RIGHT, Outcome.RIGHT_WORDS)
        assert said.full_correct in (True, None), canonical_json(case.model_dump())
        predictions.append(said)
    assert score(predictions).tool_accuracy == 1.0
