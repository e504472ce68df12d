"""Greedy decoding of many prompts at once, each as if it stood alone.

What a model says greedily to a prompt equals a draft if and only if the model, reading prompt and
draft, finds each of the draft's tokens the likeliest behind those before it. One pass tells that
for all tokens. Where it is so, nothing is generated. Where it is not, greedy decoding agrees with
the draft up to its first token that is not the likeliest, and says the likeliest there: decoding
goes on from that point, with the keys and values that the pass has left behind.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from distill.sharing.openings import can_score, path_probabilities
from distill.sharing.reading import (
    Layers,
    PrefillPass,
    PromptRow,
    TokenPath,
    accepted,
    length,
    prefill,
    supports_prefix_sharing,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel


_MOST_HELD = 2**29
"""Bytes of keys and values from which on prompts wait for no others to be decoded with.

A step of decoding reads every weight, for one row as for a hundred, and the longest answers decide
how many steps a batch takes.
"""


_LEFT = 0.75
"""Share of rows still going at which those that have ended leave: that copies all the others."""


class Completion(NamedTuple):
    """What a model says to a prompt."""

    ids: list[int]
    """Its stop token included where it came to one."""
    draft_nll: float | None = None
    """The mean negative log-likelihood of a draft's tokens; None without one."""
    path_probabilities: list[float] | None = None
    """How likely it was to begin with each of the paths; None where none were given."""


class _Waiting(NamedTuple):
    """A prompt that was read, and whose answer is not at its end."""

    prompt_index: int
    answer: Completion
    room: int
    prefix: Layers
    own: Layers
    """Keys and values of all but the prefix and the last token said."""


def context_length(model: PreTrainedModel) -> int | None:
    """Positions that a model has; None where it names no limit."""
    config = model.config.get_text_config(decoder=True)
    found = getattr(config, "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else None


def batches_by_length(lengths: Sequence[int], size: int, alone_from: float) -> Iterator[list[int]]:
    """Indices of prompts in batches of similar length; those from `alone_from` on stand alone."""
    order = sorted(range(len(lengths)), key=lambda at: (lengths[at], at))
    short = [at for at in order if lengths[at] < alone_from]
    for start in range(0, len(short), size):
        yield short[start : start + size]
    for at in order[len(short) :]:
        yield [at]


def greedy_decode(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    stop_ids: Collection[int],
    max_new_tokens: int,
    *,
    bidirectional_start_ids: Sequence[int] = (),
) -> list[list[int]]:
    """The likeliest continuation of each prompt, its stop token included where it came to one.

    All prompts are decoded together; see `greedy_completions`.
    """
    limits = [max_new_tokens] * len(prompts)
    together = max(1, len(prompts))
    found = dict(
        greedy_completions(
            model,
            prompts,
            stop_ids,
            limits,
            bidirectional_start_ids=bidirectional_start_ids,
            batch_size=together,
        )
    )
    return [found[at].ids for at in range(len(prompts))]


def greedy_completions(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    stop_ids: Collection[int],
    max_new_tokens: Sequence[int],
    *,
    drafts: Sequence[Sequence[int]] | None = None,
    paths: Sequence[Sequence[TokenPath]] | None = None,
    bidirectional_start_ids: Sequence[int] = (),
    batch_size: int,
) -> Iterator[tuple[int, Completion]]:
    """The index of each prompt with the model's answer, as they come.

    rooms: how many tokens each answer may have, its stop token counted.
    drafts: what each answer may be, empty where nothing is known. They change no answer; they
        save the work of generating those that are right. Prompt and draft must fit the model.
    paths: ways in which each answer may begin, whose probability is asked.
    bidirectional_start_ids: see `reading.prefill`.

    Of the model's own generation settings none applies: no sampling, no penalties. Rows that have
    ended leave the batch. Positions are counted from a prompt's first token, so that a prompt's
    answer does not depend on its neighbours beyond the rounding of floats. A model whose past
    cannot be shared reads each prompt for itself, and neither drafts nor paths.
    """
    if not supports_prefix_sharing(model):
        yield from _unshared(model, prompts, stop_ids, max_new_tokens, batch_size)
        return
    asked = paths if can_score(model) else None
    rows = list(_rows(model, prompts, drafts, asked, bidirectional_start_ids))
    waiting: list[_Waiting] = []
    for done in prefill(model, rows, batch_size, bidirectional_start_ids):
        likely = path_probabilities(model, done) if asked else [None] * len(done.rows)
        for state in _followed(done, likely, stop_ids, max_new_tokens):
            if isinstance(state, _Waiting):
                waiting.append(state)
            else:
                yield state
        if len(waiting) >= batch_size and _held(waiting) > _MOST_HELD:
            yield from _finished(model, waiting, stop_ids)
            waiting = []
    if waiting:
        yield from _finished(model, waiting, stop_ids)


def _rows(
    model: Any,
    prompts: Sequence[Sequence[int]],
    drafts: Sequence[Sequence[int]] | None,
    paths: Sequence[Sequence[TokenPath]] | None,
    bidirectional_start_ids: Sequence[int],
) -> Iterator[PromptRow]:
    # The head of a turn in a draft would change how such a model reads the prompt before it.
    turns = {*bidirectional_start_ids, *getattr(model.config, "model_heads", ())}
    for at, prompt in enumerate(prompts):
        draft = drafts[at] if drafts else ()
        yield PromptRow(at, prompt, () if turns & {*draft} else draft, paths[at] if paths else ())


def _followed(
    done: PrefillPass,
    likely: Sequence[list[float] | None],
    stops: Collection[int],
    max_new_tokens: Sequence[int],
) -> Iterator[tuple[int, Completion] | _Waiting]:
    """Each row's answer as far as its draft is what the model says, and one token further."""
    for at, row in enumerate(done.rows):
        room = max_new_tokens[row.prompt_index]
        said = _agreed(done.chosen[at][:room], row.draft, stops)
        answer = Completion(said, done.draft_nll[at], likely[at])
        if len(said) >= room or said[-1] in stops:
            yield row.prompt_index, answer
        else:
            own = done.own(at, len(row.prompt) + len(said) - 1)
            yield _Waiting(row.prompt_index, answer, room, done.prefix, own)


def _agreed(chosen: Sequence[int], draft: Sequence[int], stops: Collection[int]) -> list[int]:
    """What was chosen as long as it is the draft, the first token that is not included."""
    said: list[int] = []
    for at, token in enumerate(chosen):
        said.append(token)
        if token in stops or list(draft[at : at + 1]) != [token]:
            break
    return said


@torch.inference_mode()
def _finished(
    model: Any, waiting: Sequence[_Waiting], stops: Collection[int]
) -> list[tuple[int, Completion]]:
    """Every answer said to its end."""
    lengths = [length(one.prefix) + length(one.own) for one in waiting]
    max_new_tokens = [one.room for one in waiting]
    longest = max(lengths)
    said = [one.answer.ids for one in waiting]
    ahead = max(room - len(ids) for room, ids in zip(max_new_tokens, said, strict=True))
    cache = DynamicCache()
    cache.layers = [
        _Roomy([_laid_out(waiting, at, kind, longest, ahead) for kind in (0, 1)], longest)
        for at in range(len(waiting[0].own))
    ]
    ids = torch.tensor([[one[-1]] for one in said], device=model.device)
    slots = torch.arange(longest + 1, device=model.device)
    mask = (slots >= longest - ids.new_tensor(lengths)[:, None]).long()
    _extend(model, cache, ids, mask, said, max_new_tokens, stops)
    return [(one.prompt_index, one.answer) for one in waiting]


def _held(waiting: Sequence[_Waiting]) -> int:
    """Bytes that the keys and values of these rows take, each up to the end of its room."""
    key, value = waiting[0].own[0]
    token = len(waiting[0].own) * (key[:, 0].numel() + value[:, 0].numel()) * key.element_size()
    longest = max(length(one.prefix) + length(one.own) + one.room for one in waiting)
    return token * longest * len(waiting)


def _laid_out(
    waiting: Sequence[_Waiting], layer: int, kind: int, longest: int, ahead: int
) -> Tensor:
    """Keys (0) or values (1) of a layer, [rows, heads, longest + ahead, dimensions].

    Padded on the left, with room on the right for what is to be said, and without gaps between,
    as masks of sliding windows count slots.
    """
    some = waiting[0].own[layer][kind]
    made = some.new_zeros(len(waiting), some.shape[0], longest + ahead, some.shape[2])
    for row, one in zip(made, waiting, strict=True):
        own = one.own[layer][kind]
        row[:, longest - own.shape[1] : longest] = own
        if one.prefix:
            prefix = one.prefix[layer][kind]
            start = longest - own.shape[1] - prefix.shape[1]
            row[:, start : start + prefix.shape[1]] = prefix
    return made


class _Roomy(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values with room for what is to be said: no token moves those before it."""

    def __init__(self, parts: list[Tensor], used: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(*parts)
        self._all = parts
        self._show(used)

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        start, end = self._used, self._used + key_states.shape[-2]
        for part, new in zip(self._all, (key_states, value_states), strict=True):
            part[:, :, start:end] = new
        return self._show(end)

    def batch_select_indices(self, indices: Tensor) -> None:
        self._all = [part[indices] for part in self._all]
        self._show(self._used)

    def _show(self, used: int) -> tuple[Tensor, Tensor]:
        self._used = used
        keys, values = (part[:, :, :used] for part in self._all)
        self.keys, self.values = keys, values
        return keys, values


def _extend(
    model: Any,
    cache: Any,
    ids: Tensor,
    mask: Tensor,
    said: Sequence[list[int]],
    max_new_tokens: Sequence[int],
    stops: Collection[int],
) -> None:
    """Decode every row to its end; `said` grows. ids: what each row was not yet read of."""
    takes, limit = accepted(model), context_length(model)
    rows = list(range(len(said)))
    while rows:
        output = model(**_inputs(takes, ids, mask, cache, limit))
        cache = output.past_key_values
        token = output.logits[:, -1].argmax(-1)
        for row, chosen in zip(rows, token.tolist(), strict=True):
            if not _ended(said[row], max_new_tokens[row], stops):
                said[row].append(chosen)
        going = [
            at for at, row in enumerate(rows) if not _ended(said[row], max_new_tokens[row], stops)
        ]
        if len(going) <= _LEFT * len(rows):
            kept = torch.tensor(going, device=ids.device, dtype=torch.long)
            token, mask = token[kept], mask[kept]
            rows = [rows[at] for at in going]
            if rows:
                cache.batch_select_indices(kept)
        ids = token.unsqueeze(-1)
        mask = torch.nn.functional.pad(mask, (0, 1), value=1)


def _ended(said: Sequence[int], room: int, stops: Collection[int]) -> bool:
    return len(said) >= room or bool(said and said[-1] in stops)


def _inputs(
    takes: Collection[str], ids: Tensor, mask: Tensor, cache: Any, limit: int | None
) -> dict[str, Any]:
    """What the model is called with; only the last position's scores where it can leave others."""
    inputs = {"input_ids": ids, "attention_mask": mask, "use_cache": True}
    if cache is not None:
        inputs["past_key_values"] = cache
    if "position_ids" in takes:
        # Rows that have ended go on past the last position; what they say is not heard.
        positions = (mask.cumsum(-1) - 1).clamp(min=0, max=limit and limit - 1)
        inputs["position_ids"] = positions[:, -ids.shape[1] :]
    if "logits_to_keep" in takes:
        inputs["logits_to_keep"] = 1
    return inputs


def _unshared(
    model: Any,
    prompts: Sequence[Sequence[int]],
    stops: Collection[int],
    max_new_tokens: Sequence[int],
    batch_size: int,
) -> Iterator[tuple[int, Completion]]:
    """The same for a model whose past cannot be shared: whole prompts, padded on the left."""
    lengths = [len(prompt) for prompt in prompts]
    # What has no room for the longest answer is decoded alone, in the room that it has.
    short = [
        n for n, room in zip(lengths, max_new_tokens, strict=True) if room < max(max_new_tokens)
    ]
    for batch in batches_by_length(
        lengths, batch_size, alone_from=min(short, default=float("inf"))
    ):
        said: list[list[int]] = [[] for _ in batch]
        _read_whole(
            model, [prompts[at] for at in batch], said, [max_new_tokens[at] for at in batch], stops
        )
        yield from ((at, Completion(ids)) for at, ids in zip(batch, said, strict=True))


@torch.inference_mode()
def _read_whole(
    model: Any,
    prompts: Sequence[Sequence[int]],
    said: Sequence[list[int]],
    max_new_tokens: Sequence[int],
    stops: Collection[int],
) -> None:
    longest = max(map(len, prompts))
    # Padding is masked and read by nothing: any id serves.
    ids = torch.tensor([[0] * (longest - len(prompt)) + [*prompt] for prompt in prompts])
    real = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    _extend(model, None, ids.to(model.device), real.to(model.device), said, max_new_tokens, stops)
