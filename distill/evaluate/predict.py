"""A student's greedily decoded answer to every case, as a prediction with its verdict."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from distill.evaluate.confidence import CallPrefixCache, CallPrefixes
from distill.evaluate.constrained import Constraint, Request
from distill.evaluate.score import judge
from distill.records import Case, Prediction, Target, ToolCall
from distill.render import Parsed, Renderer, RenderError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from distill.sharing.decode import Completion
    from distill.sharing.reading import TokenPath

Progress = Callable[[int, int, str], None]
"""Called with rows done, rows in all, and the arm."""
_NOTES = {
    "none": "the row's own tools were not shown: this student's prompts declare none",
    # Of a tool that it was not trained on, the student then cannot know the arguments.
    "names": "of the row's own tools the names were shown, and nothing else",
}


def predict(
    model: PreTrainedModel,
    renderer: Renderer,
    cases: Sequence[Case],
    *,
    arm: str,
    max_new_tokens: int,
    batch_size: int,
    bidirectional_start_ids: Sequence[int] = (),
    constraint: Constraint | None = None,
    progress: Progress | None = None,
) -> list[Prediction]:
    """The prediction for each case, in order.

    constraint: decodes answers again that are no valid call or reply; None leaves them as they are

    A case that cannot be rendered, or is longer than the student's context, is a malformed
    prediction whose detail says so; so is an answer without a stop token in `max_new_tokens`.
    bidirectional_start_ids: see `distill.sharing.decode.greedy_completions`.
    """
    from distill.sharing.decode import context_length, greedy_completions

    limit = context_length(model) or math.inf
    prompts, predictions = render_prompts(renderer, cases, arm, limit)
    indices = list(prompts)
    rooms = [int(min(limit - len(prompts[at]), sys.maxsize)) for at in indices]
    limits = [min(max_new_tokens, room) for room in rooms]
    prefix_cache = CallPrefixCache(renderer)
    prefixes = [prefix_cache(cases[at].tools) for at in indices]
    answers = _Answers(renderer, cases, arm, predictions, progress)
    model.eval()  # type: ignore[no-untyped-call]
    completions = greedy_completions(
        model,
        [prompts[at] for at in indices],
        # Untuned students ramble: a malformed answer is not decoded to its end.
        (*renderer.stop_ids, *renderer.invalid_marker_ids),
        limits,
        drafts=[_expected_ids(renderer, cases[at], prompts[at], limit) for at in indices],
        paths=list(map(_fitting_paths, prefixes, rooms)),
        bidirectional_start_ids=bidirectional_start_ids,
        batch_size=batch_size,
    )
    refused: dict[int, _Refused] = {}
    for number, completion in completions:
        at, found = indices[number], prefixes[number]
        parsed = renderer.parse(completion.ids)
        if constraint and (fault := constraint.fault(parsed, found.tools)):
            request = Request(at, prompts[at], found, completion.path_probabilities, limits[number])
            refused[at] = _Refused(request, completion, fault)
        else:
            answers.add(at, found, completion, parsed)
    if constraint and refused:
        again = constraint.decode(
            model,
            [request for request, *_ in refused.values()],
            bidirectional_start_ids=bidirectional_start_ids,
            batch_size=batch_size,
        )
        answers.add_repaired(again, refused)
    return [predictions[index] for index in range(len(cases))]


def _fitting_paths(prefixes: CallPrefixes, room: int) -> Sequence[TokenPath]:
    return prefixes.paths if prefixes.longest <= room else ()


class _Refused(NamedTuple):
    """An answer that is no valid call or reply, and what to decode instead."""

    request: Request
    answer: Completion
    fault: str


class _Answers(NamedTuple):
    """Where the answers of an arm are judged and kept, by the index of their cases."""

    renderer: Renderer
    cases: Sequence[Case]
    arm: str
    predictions: dict[int, Prediction]
    progress: Progress | None

    def add(
        self, index: int, found: CallPrefixes, answer: Completion, parsed: Parsed, fault: str = ""
    ) -> None:
        """Judge an answer; `fault` says why it was decoded again."""
        raw = self.renderer.decode(answer.ids)
        made = judge_answer(self.renderer, self.cases[index], parsed, self.arm, raw)
        sure = None
        if answer.path_probabilities:
            sure = found.confidence(answer.path_probabilities).of(parsed)
        changes: dict[str, Any] = {"confidence": sure, "label_nll": answer.draft_nll}
        if fault:
            detail = "; ".join(filter(None, [made.detail, f"decoded again: {fault}"]))
            changes |= {"repaired": True, "detail": detail}
        self.predictions[index] = made.model_copy(update=changes)
        if self.progress is not None:
            self.progress(len(self.predictions), len(self.cases), self.arm)

    def add_repaired(
        self, answers: Iterable[tuple[int, Completion]], refused: Mapping[int, _Refused]
    ) -> None:
        for at, again in answers:
            request, answer, fault = refused[at]
            made = again._replace(draft_nll=answer.draft_nll)
            self.add(at, request.prefixes, made, self.renderer.parse(again.ids), fault)


def render_prompts(
    renderer: Renderer, cases: Sequence[Case], arm: str, limit: float
) -> tuple[dict[int, list[int]], dict[int, Prediction]]:
    """By index, the prompts shorter than `limit` tokens, malformed predictions of the others."""
    prompts: dict[int, list[int]] = {}
    malformed: dict[int, Prediction] = {}
    for index, case in enumerate(cases):
        try:
            prompt = renderer.prompt(case.messages, case.tools)
        except RenderError as error:
            detail = str(error)
        else:
            if len(prompt) < limit:
                prompts[index] = prompt
                continue
            detail = f"a prompt of {len(prompt)} tokens, and the student attends to {limit}"
        malformed[index] = judge_unasked(case, arm, detail)
    return prompts, malformed


def judge_unasked(case: Case, arm: str, detail: str) -> Prediction:
    """The malformed prediction of a case that the student could not be asked; `detail` says why."""
    return judge(case, Parsed(malformed=True, detail=detail), arm, raw="")


def judge_answer(renderer: Renderer, case: Case, parsed: Parsed, arm: str, raw: str) -> Prediction:
    """The prediction of an answer, with a note if the row's own tools were not declared in full."""
    has_own_tools = case.tools not in (None, renderer.tools)
    note = _NOTES.get(renderer.declarations, "") if has_own_tools else ""
    return judge(case, parsed, arm, raw, tools=renderer.tools, note=note)


def _expected_ids(renderer: Renderer, case: Case, prompt: Sequence[int], limit: float) -> list[int]:
    """The ids of the expected answer; none unless it is calls with known arguments, and fits."""
    calls = tuple(
        ToolCall(name=call.name, arguments=call.arguments)
        for call in case.calls
        if call.arguments is not None
    )
    if case.kind != "call" or not calls or len(calls) < len(case.calls):
        return []
    try:
        target = Target(kind="call", calls=calls)
        answer = renderer.example(case.messages, target, case.tools).completion
    except RenderError:
        return []
    return answer if len(prompt) + len(answer) <= limit else []
