"""From what an arm said to a verdict for each case, and from verdicts to scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from distill.evaluate.overlap import argument_f1, grounding_f1
from distill.evaluate.statistics import Interval, calibration_error, wilson
from distill.records import (
    Case,
    Example,
    ExpectedCall,
    Outcome,
    Prediction,
    Record,
    ToolCall,
    canonical_json,
)
from distill.render import Parsed

RIGHT = frozenset({Outcome.RIGHT, Outcome.RIGHT_WORDS})


class Share(Record):
    """How many of `n` rows named the right tool, or rightly none."""

    n: int
    tool_accuracy: float
    interval: Interval
    """Wilson, 95%."""


class Calibration(Record):
    """How far an arm's confidence can be trusted, on the `n` rows where it has one."""

    n: int
    error: float
    """The expected calibration error, of ten bins; 0 is best."""
    surer_half: float
    """The right tool's share in the half of the rows of which the arm is surer."""
    other_half: float


class Scores(Record):
    """What an arm's predictions are worth; shares and F1 as fractions, None where it has none."""

    n: int
    tool_accuracy: float | None
    """Rows with exactly the expected tools, or with no call where none is expected."""
    tool_interval: Interval
    """Wilson, 95%, as all intervals here."""
    full_call_n: int
    """Rows whose expected arguments are known, for an arm that writes arguments."""
    full_call_accuracy: float | None
    """Of those: names and arguments exactly as expected, in any order."""
    full_call_interval: Interval | None
    malformed_rate: float | None
    argument_f1: float | None
    """Mean over rows that expect arguments; 0 where the call is missing, wrong or malformed."""
    grounding_f1: float | None
    """Mean over rows that expect a call; 0 where none was made, or one without words."""
    outcomes: dict[Outcome, int]
    """Every outcome, in the order of their definition."""
    by_rule: dict[str, Share]
    by_target: dict[str, Share]
    label_loss: float | None = None
    """The mean over rows of the expected call's loss per token, where that was computed."""
    calibration: Calibration | None = None
    """None for arms without confidence, and for fewer than two rows."""


def cases_of(examples: Sequence[Example]) -> tuple[Case, ...]:
    """The examples as rows to be evaluated on, in order."""
    return tuple(
        Case(
            id=example.id,
            messages=example.messages,
            kind=example.target.kind,
            calls=tuple(
                ExpectedCall(name=call.name, arguments=call.arguments)
                for call in example.target.calls
            ),
            rule=example.scenario.rule,
        )
        for example in examples
    )


def judge(case: Case, parsed: Parsed, arm: str, raw: str, *, note: str = "") -> Prediction:
    """The verdict on what an arm wrote for a case; `note` stands in for an absent detail."""
    calls = () if parsed.malformed else parsed.calls
    outcome = Outcome.MALFORMED if parsed.malformed else _outcome(case, _names(calls))
    call_expected = case.kind == "call"
    arguments_known = call_expected and all(call.arguments is not None for call in case.calls)
    return Prediction(
        **_labels(case, arm),
        raw=raw,
        calls=calls,
        reply="" if parsed.malformed else parsed.reply,
        malformed=parsed.malformed,
        outcome=outcome,
        tool_correct=outcome in RIGHT,
        full_correct=_same_calls(calls, case.calls) if arguments_known else None,
        argument_f1=argument_f1(calls, case.calls) if arguments_known else None,
        grounding_f1=grounding_f1(calls, case.prompt) if call_expected else None,
        detail=parsed.detail or note,
    )


def judge_label(case: Case, tools: Sequence[str], arm: str) -> Prediction:
    """The verdict on an arm that only classifies: the tools that it chose, or none of them."""
    outcome = _outcome(case, Counter(tools))
    return Prediction(
        **_labels(case, arm),
        raw="",
        calls=tuple(ToolCall(name=name) for name in tools),
        reply="",
        malformed=None,
        outcome=outcome,
        tool_correct=outcome in RIGHT,
        full_correct=None,
        argument_f1=None,
        grounding_f1=None,
    )


def score(predictions: Sequence[Prediction]) -> Scores:
    """The scores of one arm's predictions."""
    right = sum(p.tool_correct for p in predictions)
    full = [p.full_correct for p in predictions if p.full_correct is not None]
    counted = Counter(p.outcome for p in predictions)
    return Scores(
        n=len(predictions),
        tool_accuracy=_mean(p.tool_correct for p in predictions),
        tool_interval=wilson(right, len(predictions)),
        full_call_n=len(full),
        full_call_accuracy=_mean(full),
        full_call_interval=wilson(sum(full), len(full)) if full else None,
        malformed_rate=_mean(p.malformed for p in predictions),
        argument_f1=_mean(p.argument_f1 for p in predictions),
        grounding_f1=_mean(p.grounding_f1 for p in predictions),
        outcomes={outcome: counted[outcome] for outcome in Outcome},
        by_rule=_shares(predictions, lambda p: p.rule),
        by_target=_shares(predictions, lambda p: p.kind),
        label_loss=_mean(p.label_nll for p in predictions),
        calibration=_calibration(predictions),
    )


def _labels(case: Case, arm: str) -> dict[str, object]:
    return {
        "case": case.id,
        "arm": arm,
        "prompt": case.prompt,
        "kind": case.kind,
        "expected": case.calls,
        "rule": case.rule,
    }


def _names(calls: Iterable[ToolCall | ExpectedCall]) -> Counter[str]:
    return Counter(call.name for call in calls)


def _outcome(case: Case, made: Counter[str]) -> Outcome:
    """The outcome of readable output; a tool called twice counts as another one too."""
    if case.kind != "call":
        return Outcome.OVER_CALL if made else Outcome.RIGHT_WORDS
    expected = _names(case.calls)
    if made == expected:
        return Outcome.RIGHT
    if made >= expected:
        return Outcome.EXTRA
    return Outcome.WRONG if made - expected else Outcome.MISSING


def _same_calls(made: Iterable[ToolCall], expected: Iterable[ExpectedCall]) -> bool:
    """Equal as canonical JSON (1, 1.0 and true differ), in any order."""
    one, other = (
        sorted(canonical_json([call.name, call.arguments]) for call in calls)
        for calls in (made, expected)
    )
    return one == other


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _shares(
    predictions: Sequence[Prediction], key: Callable[[Prediction], str | None]
) -> dict[str, Share]:
    groups: dict[str, list[bool]] = {}
    for prediction in predictions:
        if (name := key(prediction)) is not None:
            groups.setdefault(name, []).append(prediction.tool_correct)
    return {name: _share(groups[name]) for name in sorted(groups)}


def _calibration(predictions: Sequence[Prediction]) -> Calibration | None:
    known = [(p.confidence, p.tool_correct) for p in predictions if p.confidence is not None]
    if len(known) < 2:
        return None
    # Of equally sure rows the wrong ones come last, that the surer half be not flattered.
    known.sort(key=lambda row: (row[0], not row[1]))
    sure, right = zip(*known, strict=True)
    half = len(known) // 2
    return Calibration(
        n=len(known),
        error=calibration_error(sure, right),
        surer_half=sum(right[-half:]) / half,
        other_half=sum(right[:-half]) / (len(known) - half),
    )


def _share(right: Sequence[bool]) -> Share:
    interval = wilson(sum(right), len(right))
    return Share(n=len(right), tool_accuracy=sum(right) / len(right), interval=interval)
