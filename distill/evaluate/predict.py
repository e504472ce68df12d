"""What a student says to every case, greedily, and what that is worth."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from distill.evaluate.confidence import CallPrefixCache
from distill.evaluate.score import judge
from distill.records import Case, Prediction, Target, ToolCall
from distill.render import Parsed, Renderer, RenderError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Progress = Callable[[int, int, str], None]
"""Called with rows done, rows in all, and the arm."""
_NOTES = {
    "none": "the row's own tools were not shown: this student's prompts declare none",
    # A tool that was never trained on is then a name whose arguments nobody said.
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
    progress: Progress | None = None,
) -> list[Prediction]:
    """The verdict on each case, in order.

    A case that cannot be rendered, or is longer than the student's context, is a malformed
    prediction whose detail says so; so is an answer that does not end in `max_new_tokens`.
    bidirectional_start_ids: see `distill.sharing.decode.greedy_completions`.
    """
    from distill.sharing.decode import context_length, greedy_completions

    limit = context_length(model) or math.inf
    prompts, verdicts = render_prompts(renderer, cases, arm, limit)
    openings_of = CallPrefixCache(renderer)
    waiting = list(prompts)
    positions_left = {at: int(min(limit - len(prompts[at]), sys.maxsize)) for at in waiting}
    openings = {at: openings_of(cases[at].tools) for at in waiting}
    model.eval()  # type: ignore[no-untyped-call]
    found = greedy_completions(
        model,
        [prompts[at] for at in waiting],
        # What can no longer be read is not decoded to its end: untuned students ramble.
        (*renderer.stop_ids, *renderer.invalid_marker_ids),
        [min(max_new_tokens, positions_left[at]) for at in waiting],
        drafts=[_label(renderer, cases[at], prompts[at], limit) for at in waiting],
        paths=[
            openings[at].paths if openings[at].longest <= positions_left[at] else ()
            for at in waiting
        ],
        bidirectional_start_ids=bidirectional_start_ids,
        batch_size=batch_size,
    )
    for index, answer in found:
        at = waiting[index]
        parsed, raw = renderer.parse(answer.ids), renderer.decode(answer.ids)
        verdict = judge_answer(renderer, cases[at], parsed, arm, raw)
        sure = (
            openings[at].confidence(answer.path_probabilities).of(parsed)
            if answer.path_probabilities
            else None
        )
        verdicts[at] = verdict.model_copy(
            update={"confidence": sure, "label_nll": answer.draft_nll}
        )
        if progress is not None:
            progress(len(verdicts), len(cases), arm)
    return [verdicts[at] for at in range(len(cases))]


def render_prompts(
    renderer: Renderer, cases: Sequence[Case], arm: str, limit: float
) -> tuple[dict[int, list[int]], dict[int, Prediction]]:
    """The prompts of the cases that can be asked, and the verdicts on those that cannot."""
    prompts: dict[int, list[int]] = {}
    verdicts: dict[int, Prediction] = {}
    for at, case in enumerate(cases):
        try:
            prompts[at] = _prompt(renderer, case, limit)
        except RenderError as error:
            verdicts[at] = judge(case, Parsed(malformed=True, detail=str(error)), arm, raw="")
    return prompts, verdicts


def judge_answer(renderer: Renderer, case: Case, parsed: Parsed, arm: str, raw: str) -> Prediction:
    """The verdict on what was said, with a note where the row's own tools were not shown whole."""
    own = case.tools not in (None, renderer.tools)
    note = _NOTES.get(renderer.declarations, "") if own else ""
    return judge(case, parsed, arm, raw, note=note)


def _prompt(renderer: Renderer, case: Case, limit: float) -> list[int]:
    prompt = renderer.prompt(case.messages, case.tools)
    if len(prompt) >= limit:
        raise RenderError(f"a prompt of {len(prompt)} tokens, and the student attends to {limit}")
    return prompt


def _label(renderer: Renderer, case: Case, prompt: Sequence[int], limit: float) -> list[int]:
    """The ids of the answer that the case expects; none where it leaves a word of it open."""
    calls = tuple(
        ToolCall(name=call.name, arguments=call.arguments)
        for call in case.calls
        if call.arguments is not None
    )
    if case.kind != "call" or not calls or len(calls) < len(case.calls):
        return []
    try:
        row = renderer.example(case.messages, Target(kind="call", calls=calls), case.tools)
    except RenderError:
        return []
    answer = [token for token, own in zip(row.ids, row.mask, strict=True) if own]
    return answer if len(prompt) + len(answer) <= limit else []
