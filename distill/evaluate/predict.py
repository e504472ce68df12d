"""What a student says to every case, greedily, and what that is worth."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from distill.evaluate.decode import batches, context_of, greedy
from distill.evaluate.score import judge
from distill.records import Case, Prediction
from distill.render import Parsed, Renderer, RenderError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Progress = Callable[[int, int, str], None]
"""Called with rows done, rows in all, and the arm."""


def predict(
    model: PreTrainedModel,
    renderer: Renderer,
    cases: Sequence[Case],
    *,
    arm: str,
    max_new_tokens: int,
    batch_size: int,
    progress: Progress | None = None,
) -> list[Prediction]:
    """The verdict on each case, in order.

    A case that cannot be rendered, or is longer than the student's context, is a malformed
    prediction whose detail says so; so is an answer that does not end in `max_new_tokens`.
    """
    limit = context_of(model) or math.inf
    prompts, verdicts = prepared(renderer, cases, arm, limit)
    waiting = list(prompts)
    lengths = [len(prompts[at]) for at in waiting]
    model.eval()  # type: ignore[no-untyped-call]
    # What can no longer be read is not decoded to its end: untuned students ramble.
    ends = (*renderer.stop_ids, *renderer.dead_ids)
    # What has no room for the longest answer is decoded alone, in the room that it has.
    for batch in batches(lengths, batch_size, alone_from=limit - max_new_tokens + 1):
        chosen = [waiting[index] for index in batch]
        longest = max(len(prompts[at]) for at in chosen)
        room = int(min(max_new_tokens, limit - longest))
        said = greedy(model, [prompts[at] for at in chosen], ends, room)
        for at, ids in zip(chosen, said, strict=True):
            parsed = renderer.parse(ids)
            verdicts[at] = judged(renderer, cases[at], parsed, arm, renderer.text(ids))
        if progress is not None:
            progress(len(verdicts), len(cases), arm)
    return [verdicts[at] for at in range(len(cases))]


def prepared(
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


def judged(renderer: Renderer, case: Case, parsed: Parsed, arm: str, raw: str) -> Prediction:
    """The verdict on what was said, with a note where the row's own tools were not shown."""
    note = ""
    if case.tools not in (None, renderer.tools) and renderer.declarations == "none":
        note = "the row's own tools were not shown: this student's prompts declare none"
    return judge(case, parsed, arm, raw, note=note)


def _prompt(renderer: Renderer, case: Case, limit: float) -> list[int]:
    prompt = renderer.prompt(case.messages, case.tools)
    if len(prompt) >= limit:
        raise RenderError(f"a prompt of {len(prompt)} tokens, and the student attends to {limit}")
    return prompt
