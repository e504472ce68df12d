"""A team's own labelled rows: read like gold, sieved like what is generated, counted apart."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import export_students as tiny
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from kit.training import RULES
from stage_data import SEARCH, WORKFLOW, case, example, example_lists, prompts, rule

import distill
from distill import sources
from distill.cards.dataset import dataset_card
from distill.cli.main import cli
from distill.config import Config, DataConfig
from distill.data.balance import balance
from distill.data.chat import chat_row
from distill.data.checks import validate
from distill.data.dedup import dedup
from distill.data.plan import open_quotas, quotas
from distill.data.split import leaks, split
from distill.errors import GateError, StaleRunError, UsageError, WorkflowError
from distill.evaluate.score import cases_of
from distill.files import file_digest, read_records
from distill.records import SPLITS, Candidate, Case, Cell, Example, Message, Rejection, digest
from distill.render import Renderer
from distill.report import render
from distill.run import layout
from distill.run.folder import RunFolder
from distill.train.rows import render_rows
from distill.workflow.model import Then, Workflow
from distill.workflow.own_rows import with_rows

Row = dict[str, Any]
WORDED = Workflow.model_validate(
    {
        **dict(WORKFLOW),
        "rules": (
            *WORKFLOW.rules,
            rule("fixed", Then(kind="refuse", reply="I may not.", text='refuse "I may not."')),
            rule("slotted", Then(kind="ask", reply="Which {room}?", text="ask")),
        ),
    }
)
CALL: Row = {"tool_name": "search", "tool_arguments": {"query": "leave"}}
OPEN_DOOR: Row = {
    "type": "function",
    "function": {
        "name": "open_door",
        "description": "Open a door.",
        "parameters": {"type": "object", "properties": {"door": {"enum": ["front", "back"]}}},
    },
}


def read(rows: Iterable[Row], workflow: Workflow = WORDED) -> Workflow:
    with TemporaryDirectory() as folder:
        return with_rows(workflow, write(Path(folder), rows))


def write(folder: Path, rows: Iterable[Row]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def ask(text: str, **more: Any) -> Row:
    return {"user_content": text, **CALL, **more}


def said(*turns: str) -> list[Row]:
    """Turns of the user and the assistant in turn."""
    return [
        {"role": ("user", "assistant")[number % 2], "content": turn}
        for number, turn in enumerate(turns)
    ]


labels = st.sampled_from(
    [
        CALL,
        {**CALL, "rule": "docs"},
        {"rule": "fixed"},
        {"tools": [OPEN_DOOR], "tool_name": "open_door", "tool_arguments": {"door": "back"}},
    ]
)
row_lists = st.lists(
    st.builds(
        lambda text, label, told: {"user_content": text, **label, "split": told},
        prompts,
        labels,
        st.sampled_from([None, None, *SPLITS]),
    ),
    min_size=1,
    max_size=25,
)


@given(row_lists, example_lists, st.lists(prompts, max_size=2))
def test_every_own_row_ends_in_one_split_or_is_rejected(
    rows: list[Row], generated: list[Example], gold: list[str]
) -> None:
    data, workflow = DataConfig(target=4, max_prompt_chars=25), read(rows)
    left: list[Any] = [*workflow.rows, *generated]
    rejected: list[Rejection] = []
    for sieve in (
        lambda items: validate(items, workflow, data),
        lambda items: dedup(items, [case(text) for text in gold], data),
        lambda items: balance(
            items, open_quotas(workflow, 4, [e for e in items if e.is_own]), data.seed
        ),
    ):
        kept, dropped = sieve(left)
        left, rejected = kept, [*rejected, *dropped]
    parts = split(left, data)[:3]

    ends = Counter(e.place for part in parts for e in part if e.is_own)
    ends.update(r.item.place for r in rejected if r.item.is_own)
    assert ends == Counter(f"rows.jsonl:{line}" for line in range(1, len(rows) + 1))
    for name, part in zip(SPLITS, parts, strict=True):
        assert {e.split for e in part} <= {None, name}
    for one, other in combinations(parts, 2):
        assert leaks(one, other, data.near_duplicate) == []
    for dropped_row in (r for r in rejected if r.item.is_own):
        assert dropped_row.reason.value != "over_quota"
        assert dropped_row.told.startswith(f"{dropped_row.item.place}: ")
        lost = rows[int(dropped_row.item.place.rpartition(":")[2]) - 1]
        # A held-out row yields to gold, to one that is held out as well, and to nothing else.
        if lost["split"] == "test" and dropped_row.reason.value.endswith("_duplicate"):
            winner = int(dropped_row.detail.partition("rows.jsonl:")[2].partition(":")[0])
            assert rows[winner - 1]["split"] == "test"


@given(row_lists, st.randoms())
def test_the_order_in_which_rows_are_sieved_does_not_matter(rows: list[Row], random: Any) -> None:
    examples = [Example.promote(row) for row in read(rows).rows]
    shuffled = random.sample(examples, len(examples))
    assert dedup(examples, (), DataConfig()) == dedup(shuffled, (), DataConfig())
    assert split(examples, DataConfig()) == split(shuffled, DataConfig())


@given(row_lists, st.integers(0, 60))
def test_generation_is_asked_for_what_own_rows_leave(rows: list[Row], target: int) -> None:
    own = read(rows).rows
    cells = Counter(row.scenario.cell for row in own)
    loose = sum(n for cell, n in cells.items() if not cell.rule)
    wanted = quotas(WORDED, max(0, target - loose))
    assert open_quotas(WORDED, target, own) == {
        cell: max(0, n - cells[cell]) for cell, n in wanted.items()
    }
    assert open_quotas(WORDED, target, ()) == quotas(WORDED, target)


def test_rows_that_are_told_where_they_belong_count_to_the_shares() -> None:
    def distinct(number: int) -> str:
        return "".join(chr(0x4E00 + 8 * number + at) for at in range(8))

    told = ["test"] * 10 + ["dev"] * 4 + ["train"] + [None] * 85
    rows = read(ask(distinct(n), rule="docs", split=where) for n, where in enumerate(told))
    splits = split(map(Example.promote, rows.rows), DataConfig())
    assert [len(part) for part in splits[:3]] == [80, 10, 10]
    alone = split(map(Example.promote, read([ask("go", split="test")]).rows), DataConfig())
    assert ([*map(len, alone[:3])], alone.notes) == (
        [0, 0, 1],
        ("no rule/call has no examples in train and dev: each of its rows says its split",),
    )


def test_a_family_stays_with_the_row_that_is_told() -> None:
    (row,) = read([ask("where is the handbook", rule="docs", split="test")]).rows
    twin = example("could you tell me about leave", topic="where is the handbook")
    assert twin.scenario.family == row.scenario.family
    assert len(split([Example.promote(row), twin], DataConfig()).test) == 2


REFUSED: dict[str, tuple[Row, str]] = {
    "no arguments": ({"user_content": "a", "tool_name": "search"}, '"search" without its argum'),
    "unknown split": (ask("a", split="validation"), 'unknown split "validation"'),
    "split of two": (ask("a", split=["dev"]), 'unknown split ["dev"]'),
    "split misspelt": (ask("a", splits="dev"), 'unknown key "splits"'),
    "Split": (ask("a", Split="dev"), 'unknown key "Split"'),
    "no words": ({"user_content": "a", "target": "refuse"}, "with which words to refuse"),
    "words of a model": ({"user_content": "a", "rule": "chat"}, "with which words to answer"),
    "words with a slot": ({"user_content": "a", "rule": "slotted"}, "with which words to ask"),
    "unknown tool": ({"user_content": "a", "tool_name": "find", "tool_arguments": {}}, '"find"'),
    "wrong argument": (ask("a", tool_arguments={"query": 3}), "wrong value"),
    "unknown rule": (ask("a", rule="dcos"), 'unknown rule "dcos"'),
    "another rule's": (ask("a", rule="pay"), 'names the rule "pay", which refuses'),
    "not what its rule fixes": (
        {"user_content": "a", "rule": "rooms", "tool_name": "book"}
        | {"tool_arguments": {"room": "a", "unit": "days"}},
        "rooms",
    ),
    "no label": ({"messages": said("a")}, "does not end with the assistant's turn"),
    "a list": ([1], "is not a JSON object"),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_row_that_cannot_be_trained_on_is_refused_by_its_line(name: str) -> None:
    row, cause = REFUSED[name]
    with pytest.raises(WorkflowError) as caught:
        read([ask("fine"), row, ask("fine too"), row])
    assert [problem.place.rpartition("/")[2] for problem in caught.value.problems] == [
        "rows.jsonl:2",
        "rows.jsonl:4",
    ]
    assert cause in caught.value.problems[0].cause
    assert caught.value.problems[0].hint


def test_rows_are_read_in_every_form_of_gold() -> None:
    words = {"messages": said("hi", "Hello!"), "target": "answer"}
    called = {"role": "assistant", "content": "", "function_call": None}
    call = {"name": "search", "arguments": '{"query": "leave"}'}
    workflow = read(
        [
            ask("one", split=None),
            {"messages": [*said("two"), {**called, "tool_calls": [{"function": call}]}]},
            {"conversations": [{"from": "human", "value": "three"},
             {"from": "function_call", "value": json.dumps(call)}]},
            {"prompt": said("four"), "completion": words["messages"][1:], "target": "ask"},
            {**words, "system": "You route.", "split": "dev"},
            {"user_content": "six", "rule": "fixed"},
            ask("seven", tools=[tool.openai() for tool in WORDED.tools]),
            ask("eight", tools=[SEARCH.openai()]),
        ]
    )  # fmt: skip
    rows = workflow.rows
    assert [row.target.kind for row in rows] == [
        *("call", "call", "call", "ask", "answer", "refuse", "call", "call"),
    ]
    assert [row.target.reply for row in rows if row.target.reply] == ["Hello!"] * 2 + ["I may not."]
    assert all(row.target.calls == rows[0].target.calls for row in rows if row.target.calls)
    assert [row.split for row in rows if row.split] == ["dev"]
    assert rows[4].messages[0] == Message(role="system", content="You route.")
    # Tools that are the workflow's are none of the row's own.
    assert [row.tools for row in rows if row.tools] == [(SEARCH.openai(),)]
    assert workflow.sources[-1].name == "rows.jsonl"
    assert workflow.fingerprint != WORDED.fingerprint
    assert WORDED.fingerprint == digest(WORDED.model_dump(mode="json", exclude={"rows"}))


def test_labels_of_own_rows_are_the_teams() -> None:
    rows = read([ask("the usual please"), ask("what again", rule="docs")]).rows
    assert validate(rows, WORDED, DataConfig()).rejected == []


def test_system_turns_do_not_make_rows_alike() -> None:
    system = "You are the router of a large company. " * 20
    texts = ["book the red room", "how much leave is left", "who runs payroll"]
    rows = [Example.promote(row) for row in read(ask(text, system=system) for text in texts).rows]
    assert len(dedup(rows, (), DataConfig()).kept) == 3
    assert len(dedup([*rows, example(texts[0])], (), DataConfig()).kept) == 3


def test_a_row_offers_its_own_tools() -> None:
    rows = read(
        [
            {"user_content": "let me in", "tools": [OPEN_DOOR], "tool_name": "open_door"}
            | {"tool_arguments": {"door": "back"}},
            ask("find leave"),
        ]
    ).rows
    examples = [Example.promote(row) for row in rows]
    assert [row["tools"] for row in (chat_row(e, WORDED) for e in examples)] == [
        [OPEN_DOOR],
        [tool.openai() for tool in WORDED.tools],
    ]
    assert [(found.tools, found.rule) for found in cases_of(examples)] == [
        ((OPEN_DOOR,), None),
        (None, None),
    ]
    assert not any(isinstance(found, Case) and found.place for found in cases_of(examples))
    full = Renderer(tiny.tokenizer("qwen3"), WORDED.tools)
    kept = render_rows(examples, full, 10_000).kept
    assert ["open_door" in full.decode(row.ids).partition("let me in")[0] for row in kept] == [
        True,
        False,
    ]
    assert any(kept[0].decision)
    undeclared = Renderer(tiny.tokenizer("qwen3"), WORDED.tools, declarations="none")
    rows_of_none = render_rows(examples, undeclared, 10_000)
    assert len(rows_of_none.kept) == 1
    assert "has tools of its own" in rows_of_none.rejected[0].detail


# Whole runs.

PROMPTS = [
    f"{opening} {thing}"
    for opening, things in (
        ("who looks after", ("the falcon archive", "our Lisbon printers", "quarterly audits")),
        ("find the page on", ("sabbaticals", "visitor badges", "bicycle storage", "jury duty")),
        ("what is new in", ("Peruvian cinema", "tidal power", "chess engines")),
    )
    for thing in things
]


def rows_file(folder: Path, *more: Row) -> Path:
    tool = {"tool_name": "search_knowledge_base", "tool_arguments": {"query": "x"}}
    told = [*SPLITS, *[None] * 7]
    return write(
        folder,
        [{"user_content": t, **tool, "split": s} for t, s in zip(PROMPTS, told, strict=True)]
        + [*more],
    )


def made(folder: Path, name: str = "run", target: int = 0, **teacher: Any) -> distill.Run:
    data = {"rows": folder / "rows.jsonl", "target": target}
    return distill.make_data(RULES, folder / name, data=data, teacher=teacher, progress=False)


def data_files(path: Path) -> dict[str, str]:
    found = (p for p in path.rglob("*") if p.suffix in {".jsonl", ".md"})
    return {p.relative_to(path).as_posix(): file_digest(p) for p in found}


def in_splits(run: distill.Run) -> dict[str, list[Example]]:
    return {name: read_records(run.path / layout.SPLITS[name], Example) for name in SPLITS}


GOLD_ROW = {"user_content": "Can I split my parental leave into two blocks?", "rule": None} | {
    "tool_name": "search_knowledge_base", "tool_arguments": {"query": "parental leave"}
}  # fmt: skip


def test_rows_alone_need_no_teacher_and_end_in_the_same_bytes(tmp_path: Path) -> None:
    rows_file(tmp_path, GOLD_ROW)
    unreachable = {"kind": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1"}
    run = made(tmp_path, **unreachable)
    parts = in_splits(run)
    assert sum(map(len, parts.values())) == len(PROMPTS)
    for name in SPLITS:
        assert PROMPTS[SPLITS.index(name)] in [e.conversation.last_user for e in parts[name]]
    assert read_records(run.path / layout.SCENARIOS, Candidate) == []
    (rejected,) = read_records(run.path / layout.REJECTED["dedup"], Rejection)
    assert rejected.told.startswith("rows.jsonl:11: the same as the gold prompt gold.jsonl:1")
    assert file_digest(run.path / "inputs/rows.jsonl") == file_digest(tmp_path / "rows.jsonl")

    assert data_files(made(tmp_path, "again").path) == data_files(run.path)
    # What a run that was cut while it sieved leaves behind is made again, in the same bytes.
    expected = data_files(run.path)
    for cut, lost in (("plan", "1-plan"), ("generate", "2-generate"), ("split", "6-split")):
        order = list(run.folder.manifest.stages)
        run.folder.forget(order[order.index(cut) :])
        shutil.rmtree(run.path / lost)
        assert data_files(made(tmp_path, **unreachable).path) == expected


def test_a_changed_file_makes_the_run_another(tmp_path: Path) -> None:
    rows_file(tmp_path)
    run = made(tmp_path)
    assert {state.state for state in run.status()[:6]} == {"done"}
    rows_file(tmp_path, {**GOLD_ROW, "user_content": "one more row"})
    with pytest.raises(StaleRunError, match="the file of own rows changed"):
        made(tmp_path)
    with pytest.raises(StaleRunError, match="the file of own rows is gone"):
        distill.make_data(RULES, run.path, data={"target": 5}, progress=False)
    assert RunFolder.open(run.path).workflow.rows == run.workflow.rows


def test_the_teacher_writes_what_own_rows_leave(tmp_path: Path) -> None:
    rows_file(tmp_path, {**GOLD_ROW, "rule": "policies-and-benefits", "user_content": "a lone one"})
    run = made(tmp_path, target=41)
    rows = [example for part in in_splits(run).values() for example in part]
    assert Counter(e.is_own for e in rows) == {True: 11, False: 30}
    assert Counter(e.scenario.cell for e in rows)[Cell("policies-and-benefits", "call")] == 4
    report = run.report()
    stages = {count.stage: (count.came_in, count.kept) for count in report.funnel.stages}
    asked = sum(cell.asked for cell in report.funnel.cells)
    assert stages["own rows"] == (11, 11)
    assert stages["generate"] == (asked, asked)
    assert stages["validate"][0] == asked + 11
    for cell in report.funnel.cells:
        out = cell.failed + cell.rejected + cell.over_quota + cell.accepted
        assert cell.asked + cell.own == out
        assert cell.accepted == cell.quota
    assert sum(report.own.values()) == 11
    assert "| own rows | 11 | 11 | none |" in render(report)
    card = (run.path / layout.DATASET_CARD).read_text()
    assert "are the team's own labelled rows" in card
    assert "no human has read the rows" in card
    alone = dataset_card(run.workflow, split(map(Example.promote, run.workflow.rows), DataConfig()),
                         run.config)  # fmt: skip
    assert "no human has read the rows" not in alone
    assert "synthetic" not in alone.partition("\n# ")[0]


def test_a_run_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no rows of your own"):
        distill.make_data(RULES, tmp_path / "run", data={"target": 0}, progress=False)
    assert not (tmp_path / "run").exists()
    write(tmp_path, [GOLD_ROW])
    for _ in range(2):
        with pytest.raises(GateError, match="0 of 1 own rows were kept; of the others: in gold 1"):
            made(tmp_path)


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(cli, [*map(str, arguments)])


def test_check_and_plan_say_what_is_in_the_rows(tmp_path: Path) -> None:
    folder = tmp_path / "workflow"
    shutil.copytree(RULES.parent, folder)
    rows_file(folder, {**GOLD_ROW, "rule": "policies-and-benefits", "tools": [OPEN_DOOR]}
              | {"tool_name": "open_door", "tool_arguments": {}, "rule": None})  # fmt: skip
    line = "11 own rows (0 name a rule, 1 in train, 1 in dev, 1 in test, 1 with tools of their own)"
    rules, rows = folder / "rules.md", folder / "rows.jsonl"
    told = invoke("check", "--rules", rules, "--rows", rows)
    assert (told.exit_code, line in told.output.replace("\n", " ")) == (0, True)
    assert "own rows" not in invoke("check", "--rules", rules).output
    toml = folder / "distill.toml"
    toml.write_text(toml.read_text().replace("[data]", '[data]\nrows = "rows.jsonl"'))
    as_json = invoke("check", "--rules", rules, "--json")
    assert json.loads(as_json.stdout)["rows"] == 11
    planned = invoke("plan", "--rules", rules, "--target", 11, "--out", tmp_path / "r", "--json")
    assert json.loads(planned.stdout)["planned"] == 0
    assert not (tmp_path / "r").exists()
    rows.write_text(rows.read_text() + '{"user_content": "a", "tool_name": "search_google"}\n')
    refused = invoke("check", "--rules", rules)
    assert "rows.jsonl:12" in str(refused.exception) + refused.output


def test_of_a_whole_conversation_check_says_which_turn_is_trained_on() -> None:
    turns = [*said("find leave"), {"role": "assistant", "tool_calls": [
        {"id": "1", "function": {"name": "search", "arguments": {"query": "leave"}}}]},
        {"role": "tool", "tool_call_id": "1", "content": "30 days"},
        {"role": "assistant", "content": "You have 30 days."}]  # fmt: skip
    workflow = read([{"messages": turns}])
    assert workflow.rows[0].target.kind == "call"
    (note,) = workflow.remarks
    assert "is trained on, what follows it is not" in note.cause
    assert "scored" not in str(note)
    wordy = [*turns[:1], {**turns[1], "content": "One moment."}]
    (note,) = read([ask("fine"), {"messages": wordy}]).remarks
    assert note.place.endswith("rows.jsonl:2")
    assert "1 row has words beside the call" in note.cause


def test_the_users_own_file_names_no_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    sources.user_file().parent.mkdir(parents=True)
    sources.user_file().write_text('[data]\nrows = "rows.jsonl"\n')
    with pytest.raises(UsageError, match=r"data\.rows decides what is made"):
        sources.load_settings(None, None, {})
    toml = tmp_path / "own.toml"
    toml.write_text('[data]\nrows = "rows.jsonl"\n')
    assert Config.load(toml).data.rows == tmp_path / "rows.jsonl"
    assert Config.load(toml, {"data": {"rows": "here.jsonl"}}).data.rows == Path("here.jsonl")
