"""An arm's answers to predictions with a verdict, and predictions to scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from distill.evaluate.overlap import argument_f1, grounding_f1
from distill.evaluate.statistics import Interval, calibration_error, wilson
from distill.records import (
    Case,
    Example,
    ExpectedCall,
    Json,
    Outcome,
    Prediction,
    Record,
    ToolCall,
)
from distill.render import Parsed
from distill.workflow.model import Tool
from distill.workflow.schema import json_equal
from distill.workflow.strict import drop_nulls

CORRECT_OUTCOMES = frozenset({Outcome.RIGHT, Outcome.RIGHT_WORDS})


class Share(Record):
    """Tool accuracy over `n` rows: the right tools were called, or none where none is expected."""

    n: int
    tool_accuracy: float
    interval: Interval
    """Wilson, 95%."""


class Calibration(Record):
    """How well an arm's confidence predicts its accuracy, on the `n` rows where it has one."""

    n: int
    error: float
    """Expected calibration error with ten bins; 0 is best."""
    surer_half: float
    """Tool accuracy on the half of the rows with the higher confidence."""
    other_half: float


class Scores(Record):
    """The metrics of one arm; shares and F1 as fractions, None where no row has a value."""

    n: int
    tool_accuracy: float | None
    """Share of rows with exactly the expected tools, or with no call where none is expected."""
    tool_interval: Interval
    """Wilson, 95%, as all intervals here."""
    full_call_n: int
    """Number of rows whose expected arguments are known, for an arm that writes arguments."""
    full_call_accuracy: float | None
    """Share of those with names and arguments exactly as expected, calls in any order."""
    full_call_interval: Interval | None
    malformed_rate: float | None
    argument_f1: float | None
    """Mean over rows that expect arguments; 0 where the call is missing, wrong or malformed."""
    grounding_f1: float | None
    """Mean over rows that expect a call; 0 where none was made, or one without words."""
    outcomes: dict[Outcome, int]
    """Rows by outcome, every outcome in the order of their definition."""
    by_rule: dict[str, Share]
    by_target: dict[str, Share]
    repaired: int = 0
    """Rows whose answer was decoded again under constraint."""
    label_loss: float | None = None
    """The mean over rows of the expected call's loss in nats per token, where it was computed."""
    calibration: Calibration | None = None
    """None for arms without confidence, and for fewer than two rows."""


def cases_of(examples: Sequence[Example]) -> tuple[Case, ...]:
    """The examples as evaluation cases, in order."""
    return tuple(
        Case(
            id=example.id,
            messages=example.messages,
            kind=example.target.kind,
            calls=tuple(
                ExpectedCall(name=call.name, arguments=call.arguments)
                for call in example.target.calls
            ),
            rule=example.scenario.rule or None,
            tools=example.tools,
        )
        for example in examples
    )


def judge(
    case: Case,
    parsed: Parsed,
    arm: str,
    raw: str,
    *,
    tools: Sequence[Json] = (),
    note: str = "",
) -> Prediction:
    """The prediction of an arm that writes text.

    tools: what was offered, as OpenAI function schemas, where the case brings no tools of its own:
        a null that stands for an optional argument left out counts as left out, as in gold
    note: the detail if `parsed` has none
    """
    offered = tools if case.tools is None else case.tools
    calls = () if parsed.malformed else tuple(_without_nulls(parsed.calls, offered))
    outcome = _outcome(case, (call.name for call in calls))
    if parsed.malformed:
        outcome = Outcome.MALFORMED
    call_expected = case.kind == "call"
    arguments_known = call_expected and all(call.arguments is not None for call in case.calls)
    return Prediction(
        **_case_fields(case, arm),
        raw=raw,
        calls=calls,
        reply="" if parsed.malformed else parsed.reply,
        malformed=parsed.malformed,
        outcome=outcome,
        tool_correct=outcome in CORRECT_OUTCOMES,
        full_correct=_same_calls(calls, case.calls) if arguments_known else None,
        argument_f1=argument_f1(calls, case.calls) if arguments_known else None,
        grounding_f1=grounding_f1(calls, case.conversation.said) if call_expected else None,
        detail=parsed.detail or note,
    )


def judge_label(case: Case, tools: Sequence[str], arm: str) -> Prediction:
    """The prediction of an arm that only classifies: it chose `tools`, or none."""
    outcome = _outcome(case, tools)
    return Prediction(
        **_case_fields(case, arm),
        raw="",
        calls=tuple(ToolCall(name=name) for name in tools),
        reply="",
        malformed=None,
        outcome=outcome,
        tool_correct=outcome in CORRECT_OUTCOMES,
        full_correct=None,
        argument_f1=None,
        grounding_f1=None,
    )


def score(predictions: Sequence[Prediction]) -> Scores:
    """The scores of one arm's predictions."""
    correct = sum(p.tool_correct for p in predictions)
    full = [p.full_correct for p in predictions if p.full_correct is not None]
    outcomes = Counter(p.outcome for p in predictions)
    return Scores(
        n=len(predictions),
        tool_accuracy=_mean(p.tool_correct for p in predictions),
        tool_interval=wilson(correct, len(predictions)),
        full_call_n=len(full),
        full_call_accuracy=_mean(full),
        full_call_interval=wilson(sum(full), len(full)) if full else None,
        malformed_rate=_mean(p.malformed for p in predictions),
        argument_f1=_mean(p.argument_f1 for p in predictions),
        grounding_f1=_mean(p.grounding_f1 for p in predictions),
        outcomes={outcome: outcomes[outcome] for outcome in Outcome},
        by_rule=_shares_by(lambda p: p.rule, predictions),
        by_target=_shares_by(lambda p: p.kind, predictions),
        repaired=sum(p.repaired for p in predictions),
        label_loss=_mean(p.label_nll for p in predictions),
        calibration=_calibration(predictions),
    )


def _case_fields(case: Case, arm: str) -> dict[str, object]:
    return {
        "case": case.id,
        "arm": arm,
        "prompt": case.conversation.last_user,
        "kind": case.kind,
        "expected": case.calls,
        "rule": case.rule,
    }


def _outcome(case: Case, tools: Iterable[str]) -> Outcome:
    """The outcome of an answer that is not malformed; a second call of a tool counts as extra."""
    called, expected = Counter(tools), Counter(call.name for call in case.calls)
    if case.kind != "call":
        return Outcome.OVER_CALL if called else Outcome.RIGHT_WORDS
    if called == expected:
        return Outcome.RIGHT
    if called >= expected:
        return Outcome.EXTRA
    return Outcome.WRONG if called - expected else Outcome.MISSING


def _same_calls(called: Iterable[ToolCall], expected: Iterable[ExpectedCall]) -> bool:
    """Equal as JSON values (1 is 1.0, true is not), in any order."""
    left = list(expected)
    for call in called:
        same = (one for one in left if one.name == call.name)
        equal = (one for one in same if json_equal(one.arguments, call.arguments))
        if (found := next(equal, None)) is None:
            return False
        left.remove(found)
    return not left


def _without_nulls(calls: Iterable[ToolCall], offered: Sequence[Json]) -> Iterator[ToolCall]:
    """The calls, without the nulls of optional arguments of the tools that are offered."""
    functions: list[Any] = [schema["function"] for schema in offered]
    tools = {function["name"]: Tool.model_validate(function) for function in functions}
    for call in calls:
        tool = tools.get(call.name)
        arguments = drop_nulls(tool, call.arguments) if tool else call.arguments
        yield ToolCall(name=call.name, arguments=arguments)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _shares_by(
    key: Callable[[Prediction], str | None], predictions: Sequence[Prediction]
) -> dict[str, Share]:
    """The tool accuracy of each group of predictions, sorted by key; those with None left out."""
    groups: dict[str, list[bool]] = {}
    for prediction in predictions:
        if (name := key(prediction)) is not None:
            groups.setdefault(name, []).append(prediction.tool_correct)
    return {
        name: Share(
            n=len(correct),
            tool_accuracy=sum(correct) / len(correct),
            interval=wilson(sum(correct), len(correct)),
        )
        for name, correct in sorted(groups.items())
    }


def _calibration(predictions: Sequence[Prediction]) -> Calibration | None:
    rows = [(p.confidence, p.tool_correct) for p in predictions if p.confidence is not None]
    if len(rows) < 2:
        return None
    # Among rows of equal confidence the wrong ones sort last: ties must not flatter the surer half.
    rows.sort(key=lambda row: (row[0], not row[1]))
    confidences, correct = zip(*rows, strict=True)
    half = len(rows) // 2
    return Calibration(
        n=len(rows),
        error=calibration_error(confidences, correct),
        surer_half=sum(correct[-half:]) / half,
        other_half=sum(correct[:-half]) / (len(rows) - half),
    )
