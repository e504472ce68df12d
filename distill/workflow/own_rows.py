"""A team's own labelled rows, in the forms of gold, as candidates that no teacher has to write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from distill import strict_json
from distill.errors import Problem
from distill.files import given_path
from distill.records import (
    OWN,
    SPLITS,
    Candidate,
    Case,
    Scenario,
    Split,
    Target,
    ToolCall,
)
from distill.workflow.cases import read_rows, unscored_note
from distill.workflow.given import require_known_keys
from distill.workflow.model import Rule, Workflow
from distill.workflow.problems import did_you_mean
from distill.workflow.rows import Known, read_row
from distill.workflow.values import InvalidInputError, slots_in

STYLE = "own"
"""In place of the style that a plan asks for."""


def with_rows(workflow: Workflow, file: Path) -> Workflow:
    """The workflow with the rows of a JSON Lines file, of which each must be fit to train on.

    Raises InputFileError for a file that cannot be read, WorkflowError with every wrong row.
    """
    path = given_path(file, "rows")
    known = Known(workflow.by_name, workflow.by_id)
    cases: list[Case] = []

    def read(row: Any, place: str) -> Candidate:
        split = None
        if isinstance(row, dict):
            split = _split(row)
            row = {key: value for key, value in row.items() if key != "split"}
        case = read_row(row, known, place)
        cases.append(case)
        return _candidate(case, split, workflow)

    rows = read_rows(path, read)
    remarks = (note._replace(place=str(path.with_name(note.place))) for note in _notes(cases))
    return workflow.model_copy(
        update={
            "rows": rows,
            "sources": (*workflow.sources, path),
            "remarks": (*workflow.remarks, *remarks),
        }
    )


def own_rows_line(workflow: Workflow) -> str:
    """How many rows of its own a workflow has, and what they say of themselves."""
    rows = workflow.rows
    ruled = sum(bool(row.scenario.rule) for row in rows)
    told = Counter(row.split for row in rows if row.split)
    splits = [f"{told[split]} in {split}" for split in SPLITS if told[split]]
    with_tools = sum(row.tools is not None for row in rows)
    tools = [f"{with_tools} with tools of their own"] * bool(with_tools)
    said = ", ".join([f"{ruled} name a rule", *splits, *tools])
    return f"{len(rows)} own rows ({said})"


def _notes(cases: Sequence[Case]) -> Iterator[Problem]:
    """What rows say and students are not trained on."""
    if note := unscored_note(cases):
        cause, hint = (text.replace("scored", "trained on") for text in (note.cause, note.hint))
        yield Problem(note.place, cause, hint)
    wordy = [case for case in cases if case.calls and case.reply.strip()]
    if wordy:
        rows = "1 row has" if len(wordy) == 1 else f"{len(wordy)} rows have"
        yield Problem(
            wordy[0].place,
            f"{rows} words beside the call: the call is trained on, the words are not",
            "leave the words out, or write them as a row of their own, without the call",
        )


def _split(row: Mapping[str, Any]) -> Split | None:
    require_known_keys(row, ("split",), {}, "the row")
    given = row.get("split")
    if given is None:
        return None
    for split in SPLITS:
        if given == split:
            return split
    raise InvalidInputError(
        f"has the unknown split {strict_json.encode(given)}",
        did_you_mean(str(given), SPLITS, "splits"),
    )


def _candidate(case: Case, split: Split | None, workflow: Workflow) -> Candidate:
    rule = workflow.by_id[case.rule] if case.rule is not None else None
    offered = tuple(tool.openai() for tool in workflow.tools)
    own = case.tools if case.tools != offered else None
    scenario = Scenario.of(
        rule=case.rule or "",
        target=case.kind,
        tools=tuple(workflow.by_name) if own is None else tuple(map(_name, own)),
        style=STYLE,
        language="und",
        # Each row is a family of its own, until the split finds rows that are near to it.
        topic=str(case.conversation.without_system()),
        seed=0,
    )
    return Candidate.of(
        scenario, case.messages, _target(case, rule), OWN, tools=own, split=split, place=case.place
    )


def _name(tool: Mapping[str, Any]) -> str:
    return str(tool["function"]["name"])


def _target(case: Case, rule: Rule | None) -> Target:
    if case.kind != "call":
        return Target(kind=case.kind, reply=_words(case, rule))
    calls = []
    for call in case.calls:
        if call.arguments is None:
            raise InvalidInputError(
                f'names the tool "{call.name}" without its arguments, and cannot be trained on',
                'add "tool_arguments": {…}, which is {} for a call without any',
            )
        calls.append(ToolCall(name=call.name, arguments=call.arguments))
    return Target(kind="call", calls=tuple(calls))


def _words(case: Case, rule: Rule | None) -> str:
    """The words of the row, or those that its rule fixes."""
    fixed = rule.then.reply if rule is not None and not [*slots_in(rule.then.reply)] else ""
    if words := case.reply if case.reply.strip() else fixed:
        return words
    raise InvalidInputError(
        f"does not say with which words to {case.kind}, and cannot be trained on",
        'write {"messages": […]}, whose last message has them; or name a rule that says them',
    )
