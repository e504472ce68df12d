"""A report says what a run holds, no more than the numbers allow, and survives any text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from stage_data import WORKFLOW, candidate, scenario, search

from distill.config import Config, DataConfig, TeacherConfig
from distill.data.balance import balance
from distill.data.checks import validate
from distill.data.dedup import dedup
from distill.data.plan import quotas
from distill.data.split import split
from distill.evaluate.score import Calibration, judge, judge_label, score
from distill.files import write_records, write_text
from distill.records import (
    Case,
    ExpectedCall,
    Failure,
    FailureReason,
    Message,
    StageCount,
    Target,
    ToolCall,
)
from distill.records import Prediction as Row
from distill.render import Parsed
from distill.report import Report, collect, render, verdict, write_report
from distill.report.markdown import sparkline
from distill.report.model import (
    CellCount,
    Comparison,
    Funnel,
    LossPoint,
    RejectionExample,
    TeacherNote,
    Training,
    WorstCase,
)
from distill.run.folder import RunFolder
from distill.run.manifest import StageEntry
from distill.workflow.problems import as_markdown

GOLDEN = Path(__file__).parents[1] / "golden" / "report.md"
MARKDOWN = MarkdownIt("commonmark").enable("table")


def case(number: int) -> Case:
    expected = ExpectedCall(name="search", arguments={"query": f"leave {number}"})
    said = (Message(role="user", content=f"leave {number} | `now`?\nplease"),)
    return Case(id=f"{number:03}", messages=said, kind="call", calls=(expected,), rule="docs")


def arm(name: str, right: int, total: int, *, offset: int = 0) -> list[Row]:
    """Predictions of which `right` are right, beginning at `offset`."""
    rows = []
    for number in range(total):
        good = offset <= number < offset + right
        tool = ToolCall(name="search" if good else "book", arguments={"query": f"leave {number}"})
        if name in ("majority", "tfidf"):
            rows.append(judge_label(case(number), [tool.name], name))
        else:
            raw = f"<call>{tool.name}|`{{}}`"
            rows.append(judge(case(number), Parsed(calls=(tool,)), name, raw))
    return rows


def report(**fields: Any) -> Report:
    given: dict[str, Any] = {
        "title": WORKFLOW.title,
        "workflow": "office",
        "fingerprint": "0123456789abcdef",
        "distill": "0.1.0",
        "teacher": TeacherNote(name="grammar", limits="It writes only what the rules hold."),
    }
    return Report(**{**given, **fields})


def evaluated(
    tuned: int, base: int, tfidf: int, total: int, *, teacher: int | None = None, offset: int = 0
) -> Report:
    arms = {
        "base": arm("base", base, total),
        "tuned": arm("tuned", tuned, total),
        "tfidf": arm("tfidf", tfidf, total, offset=offset),
    }
    if teacher is not None:
        arms["teacher"] = arm("teacher", teacher, total)
    comparisons = [
        Comparison(dataset="gold", arm=name, **_paired(arms["tuned"], arms[name]))
        for name in arms
        if name != "tuned"
    ]
    return report(
        evaluations={"gold": {name: score(rows) for name, rows in arms.items()}},
        comparisons=comparisons,
    )


def _paired(one: list[Row], other: list[Row]) -> dict[str, Any]:
    from distill.evaluate.statistics import mcnemar

    a, b = [p.tool_correct for p in one], [p.tool_correct for p in other]
    better = sum(x and not y for x, y in zip(a, b, strict=True))
    worse = sum(y and not x for x, y in zip(a, b, strict=True))
    return {"better": better, "worse": worse, "p": mcnemar(a, b).p}


def test_a_verdict_claims_what_the_rows_establish() -> None:
    said = verdict(evaluated(tuned=80, base=5, tfidf=75, total=84))
    assert said == (
        "On 84 gold prompts the tuned student finds the right tool in 95.2% "
        "(95% interval 88.4 to 98.1); the untuned student: 6.0% (2.6 to 13.2), which it beats; "
        "the baseline tfidf: 89.3% (80.9 to 94.3), a difference that these rows do not establish."
    )
    assert "which it falls short of" in verdict(evaluated(tuned=5, base=1, tfidf=80, total=84))
    assert "beats" not in verdict(evaluated(tuned=3, base=1, tfidf=2, total=4))


def test_a_teacher_that_routed_gold_is_compared_with_and_is_no_baseline() -> None:
    taught = evaluated(tuned=70, base=5, tfidf=60, total=84, teacher=84)
    assert verdict(taught).endswith(
        "the baseline tfidf: 71.4% (61.0 to 80.0), which it beats; "
        "the teacher, with the rules before it: 100.0% (95.6 to 100.0), which it falls short of."
    )
    assert "The teacher on gold" not in render(taught)
    assert "it was not asked to route" in render(evaluated(tuned=7, base=5, tfidf=6, total=8))


def test_a_verdict_on_the_test_split_names_its_origin() -> None:
    whole = evaluated(tuned=8, base=1, tfidf=2, total=10)
    only_test = whole.model_copy(update={"evaluations": {"test": whole.evaluations["gold"]}})
    assert verdict(only_test).startswith("On 10 held-out prompts of the teacher's own")
    assert "beats" not in verdict(only_test)


def test_nothing_is_claimed_without_an_evaluation() -> None:
    assert verdict(report()).startswith("Nothing can be said yet")
    empty = report(evaluations={"test": {"tuned": score([])}})
    assert "test has no rows" in verdict(empty)
    assert "- |" in render(empty)


def full_report() -> Report:
    evaluations = evaluated(tuned=7, base=1, tfidf=6, total=8, teacher=8)
    return evaluations.model_copy(
        update={
            "settings": {"train": {"train.seed": 0, "train.student": "embedded"}},
            "funnel": Funnel(
                stages=(
                    StageCount(stage="generate", came_in=5, kept=4, dropped={"timeout": 1}),
                    StageCount(stage="validate", came_in=4, kept=4),
                ),
                cells=(
                    CellCount(
                        rule="docs",
                        target="call",
                        quota=3,
                        asked=5,
                        failed=1,
                        rejected=0,
                        over_quota=1,
                        accepted=3,
                    ),
                ),
                examples=(
                    RejectionExample(
                        stage="dedup",
                        reason="in_gold",
                        detail='the same as the gold prompt gold.jsonl:3: "a | b"',
                        prompt="a | b\n# `c` <b>",
                    ),
                ),
            ),
            "splits": {"train": 3, "dev": 0, "test": 0},
            "training": Training(
                student="embedded",
                steps=4,
                seconds=12.3,
                best_dev_loss=0.5,
                best_dev_accuracy=0.9,
                curve=(
                    LossPoint(step=1, epoch=0.5, train_loss=4.0),
                    LossPoint(step=2, epoch=1.0, train_loss=2.0),
                    LossPoint(step=2, epoch=1.0, dev_loss=0.5),
                ),
                rejected={"too_long_for_student": 1},
            ),
            "worst": (
                WorstCase(
                    dataset="gold",
                    rule="docs",
                    prompt="what | is\n`this`? " + "long " * 80,
                    expected='search {"query":"this"}',
                    raw="<start_function_call>call:book{}",
                    outcome="wrong tool",
                    wrong_arguments=False,
                ),
                WorstCase(
                    dataset="test",
                    rule=None,
                    prompt="hi",
                    expected='search {"query":"hi"}',
                    raw="",
                    outcome="right tool alone",
                    wrong_arguments=True,
                ),
            ),
            "missing": ("evaluate",),
        }
    )


def test_the_page_is_the_golden_one() -> None:
    assert render(full_report()) == GOLDEN.read_text(encoding="utf-8")


def test_the_page_says_what_confidence_is_worth_where_there_is_one() -> None:
    report = full_report()
    gold = report.evaluations["gold"]
    found = Calibration(n=8, error=0.0712, surer_half=1.0, other_half=0.75)
    tuned = gold["tuned"].model_copy(update={"calibration": found})
    told = report.model_copy(update={"evaluations": {"gold": {**gold, "tuned": tuned}}})
    assert (
        "confidence: right tool 100.0 in the half of the 8 rows of which it is surer, "
        "75.0 in the other; expected calibration error 7.1."
    ) in render(told)


def test_a_report_is_itself_again_after_json() -> None:
    whole = full_report()
    assert Report.model_validate_json(json.dumps(whole.model_dump(mode="json"))) == whole


@given(st.text())
def test_any_text_is_one_cell_and_only_text(text: str) -> None:
    tokens = MARKDOWN.parse(f"| a | b |\n|---|---|\n| {as_markdown(text)} | end |\n")
    cells = [t for i, t in enumerate(tokens) if tokens[i - 1].type == "td_open"]
    assert [t.type for t in tokens].count("td_open") == 2
    assert {child.type for child in cells[0].children or []} <= {"text", "text_special"}
    shown = "".join(child.content for child in cells[0].children or [])
    assert shown == re.sub(r"\\([\\`*_\[\]<>|~&$#])", r"\1", as_markdown(text))
    assert cells[1].content == "end"


def test_what_a_cell_shows() -> None:
    assert as_markdown("a\n\nb\r\nc") == "a ⏎ ⏎ b ⏎ c"
    assert as_markdown("a\0b") == r"a\<U+0000\>b"
    assert as_markdown("search_google **now**") == r"search\_google \*\*now\*\*"
    assert as_markdown("שלום 👋 é") == "שלום 👋 é"


@given(st.lists(st.floats(0, 100), min_size=1))
def test_sparklines_have_a_block_a_value(values: list[float]) -> None:
    line = sparkline(values)
    assert len(line) == len(values)
    assert max(values) == min(values) or (line.count("█") and line.count("▁"))


CONFIG = Config(data=DataConfig(target=7, max_prompt_chars=100))


def entry(**counts: Any) -> StageEntry:
    return StageEntry(settings={"version": 1}, inputs={}, outputs={}, counts=counts, seconds=1.5)


def started(path: Path, config: Config = CONFIG) -> RunFolder:
    return RunFolder.create(path, WORKFLOW, config)


def with_data(path: Path) -> RunFolder:
    """A run with every data stage done, by the stages themselves."""
    run = started(path)
    failed = scenario(topic="never")
    made = [candidate(f"the {word} policy", topic=word) for word in ("leave", "travel", "sick")]
    made += [candidate("The LEAVE policy!", topic="leave"), candidate("", topic="void")]
    made += [candidate("pay me", Target(kind="refuse", reply="No."), rule="pay")]
    plan = [failed, *(item.scenario for item in made)]
    write_records(path / "1-plan/scenarios.jsonl", plan)
    failure = Failure(scenario=failed, reason=FailureReason.TIMEOUT, detail="60 s")
    write_records(path / "2-generate/failures.jsonl", [failure])
    write_records(path / "2-generate/candidates.jsonl", made)
    checked = validate(made, WORKFLOW, CONFIG.data)
    unique = dedup(checked.kept, WORKFLOW.gold, CONFIG.data)
    even = balance(unique.kept, quotas(WORKFLOW, CONFIG.data.target), 0)
    for folder, sifted in (("3-validate", checked), ("4-dedup", unique), ("5-balance", even)):
        write_records(path / folder / "examples.jsonl", sifted.kept)
        write_records(path / folder / "rejected.jsonl", sifted.rejected)
    splits = split(even.kept, CONFIG.data)
    for name in ("train", "dev", "test"):
        write_records(path / f"6-split/{name}.jsonl", getattr(splits, name))
    for stage in ("plan", "generate", "validate", "dedup", "balance", "split"):
        run.remember(stage, entry())
    return run


def test_the_funnel_is_counted_from_the_files(tmp_path: Path) -> None:
    with_data(tmp_path)
    found = collect(tmp_path)
    assert [(s.stage, s.came_in, s.kept, s.dropped) for s in found.funnel.stages] == [
        ("plan", 7, 7, {}),
        ("generate", 7, 6, {"timeout": 1}),
        ("validate", 6, 5, {"empty_prompt": 1}),
        ("dedup", 5, 4, {"exact_duplicate": 1}),
        ("balance", 4, 2, {"over_quota": 2}),
    ]
    docs = next(cell for cell in found.funnel.cells if cell.rule == "docs")
    assert docs.model_dump(exclude={"rule", "target"}) == {
        "quota": 1,
        "asked": 6,
        "failed": 1,
        "rejected": 2,
        "over_quota": 2,
        "accepted": 1,
        "own": 0,
    }
    for cell in found.funnel.cells:
        assert cell.asked == cell.failed + cell.rejected + cell.over_quota + cell.accepted
    reasons = [shown.reason for shown in found.funnel.examples]
    assert reasons == ["empty_prompt", "exact_duplicate", "over_quota"]
    assert found.splits == {"train": 2, "dev": 0, "test": 0}
    assert found.missing == ("train", "evaluate")


def test_a_run_that_has_just_begun_says_so(tmp_path: Path) -> None:
    started(tmp_path, Config(teacher=TeacherConfig(kind="openai", model="gpt-5-mini")))
    found = collect(tmp_path)
    assert len(found.missing) == 8
    assert found.teacher.name == "openai:gpt-5-mini"
    page = render(found)
    assert "Not run yet: plan, generate, validate, dedup, balance, split, train, evaluate." in page
    assert "## Data" not in page
    assert "## Scores" not in page
    assert "## Training" not in page


def trained(path: Path) -> RunFolder:
    run = with_data(path)
    write_text(
        path / "7-train/metrics.jsonl",
        '{"epoch": 0.5, "loss": 4.0, "learning_rate": 0.1, "step": 1}\n'
        '{"epoch": 1.0, "eval_loss": 0.5, "eval_decision_accuracy": 0.9, "step": 2}\n'
        '{"epoch": 2.0, "eval_loss": 0.7, "step": 4}\n'
        '{"epoch": 2.0, "train_loss": 2.2, "step": 4}\n',
    )
    write_records(path / "7-train/rejected.jsonl", [])
    run.remember("train", entry(student="embedded", steps=4, best_dev_loss=0.5))
    return run


def add_predictions(path: Path, dataset: str, *arms: list[Row]) -> None:
    for rows in arms:
        write_records(path / "8-evaluate" / dataset / f"{rows[0].arm}.jsonl", rows)


def test_training_and_scores_are_collected(tmp_path: Path) -> None:
    run = trained(tmp_path)
    add_predictions(tmp_path, "test", arm("tuned", 2, 4), arm("base", 0, 4))
    add_predictions(tmp_path, "gold", arm("tuned", 9, 20), arm("tfidf", 20, 20))
    add_predictions(tmp_path, "gold", arm("teacher", 19, 20))
    add_predictions(tmp_path, "a-file", arm("tuned", 1, 1))
    run.remember("evaluate", entry())
    found = collect(tmp_path)
    assert found.training is not None
    assert (found.training.student, found.training.steps, found.training.seconds) == (
        "embedded",
        4,
        1.5,
    )
    assert found.training.best_dev_loss == 0.5
    assert [(p.train_loss, p.dev_loss) for p in found.training.curve] == [
        (4.0, None),
        (None, 0.5),
        (None, 0.7),
    ]
    assert [*found.evaluations] == ["gold", "test", "a-file"]
    assert found.evaluations["gold"]["tuned"] == score(arm("tuned", 9, 20))
    assert found.evaluations["gold"]["teacher"] == score(arm("teacher", 19, 20))
    assert [(c.dataset, c.arm, c.better, c.worse) for c in found.comparisons] == [
        ("gold", "teacher", 0, 10),
        ("gold", "tfidf", 0, 11),
        ("test", "base", 2, 0),
    ]
    assert [case.dataset for case in found.worst] == ["gold"] * 10
    assert found.missing == ()


def test_scores_of_a_student_that_is_gone_are_not_shown(tmp_path: Path) -> None:
    run = trained(tmp_path)
    add_predictions(tmp_path, "test", arm("tuned", 2, 4))
    add_predictions(tmp_path, "a-file", arm("tuned", 2, 4))
    assert [*collect(tmp_path).evaluations] == ["a-file"]
    run.forget(["train", "evaluate"])
    assert collect(tmp_path).evaluations == {}


def test_wrong_arguments_come_after_wrong_tools(tmp_path: Path) -> None:
    run = trained(tmp_path)
    inexact = judge(case(0), Parsed(calls=search("leave").calls), "tuned", "<raw>")
    wrong = judge(case(1), Parsed(calls=()), "tuned", "no")
    malformed = judge(case(2), Parsed(malformed=True, detail="no end"), "tuned", "<")
    add_predictions(tmp_path, "test", [inexact, wrong, malformed])
    run.remember("evaluate", entry())
    worst = collect(tmp_path).worst
    assert [case.outcome for case in worst] == [
        "malformed output",
        "expected tool missing",
        "right tool alone",
    ]
    assert [case.wrong_arguments for case in worst] == [False, False, True]


def test_a_report_is_written_whole(tmp_path: Path) -> None:
    with_data(tmp_path)
    counts = write_report(tmp_path)
    assert counts["missing"] == ["train", "evaluate"]
    written = Report.model_validate_json((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert written == collect(tmp_path)
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == render(written)
