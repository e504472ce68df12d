"""examples -> examples without exact or near duplicates of each other or of gold (MinHash LSH).

Conversations are compared by `Conversation.key`. Near duplicates are keys whose sets of character
3-grams have a Jaccard similarity at or above the threshold; characters, as requests are short and
word n-grams miss typos and inflection. LSH finds candidates, the exact similarity decides.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rensa import RMinHash, RMinHashLSH  # type: ignore[import-untyped]

from distill.config import DataConfig
from distill.records import Case, Example, Reason, Rejection, Sifted, Target, canonical_json

GRAM_LENGTH = 3
PERMUTATIONS = 256
SEED = 1
MAX_MISS = 1e-4
"""Upper bound of the probability that MinHash misses a pair at the threshold."""


def dedup(examples: Iterable[Example], gold: Sequence[Case], data: DataConfig) -> Sifted[Example]:
    """Keep the first of prompts that are exact or near duplicates; none that is in gold.

    The team's own rows come first, and of them those held out by their own word; then the lowest
    id does. System turns are not compared: they say little of a request, in many words.
    Both lists are sorted by id; the order of `examples` does not matter.
    """
    gold_index = PromptIndex(data.near_duplicate)
    for case in gold:
        gold_index.add(case.conversation.without_system().key)
    index = PromptIndex(data.near_duplicate)
    sifted: Sifted[Example] = Sifted([], [])
    for example in sorted(examples, key=_precedence):
        rejection = _in_gold(example, gold, gold_index) or _duplicate(example, sifted.kept, index)
        if rejection:
            sifted.rejected.append(rejection)
        else:
            index.add(example.conversation.without_system().key)
            sifted.kept.append(example)
    sifted.kept.sort(key=lambda example: (example.id, example.place))
    sifted.rejected.sort(key=lambda rejection: (rejection.item.id, rejection.item.place))
    return sifted


def _precedence(example: Example) -> tuple[bool, int, str, str]:
    held_out = ("test", "dev").index(example.split) if example.split in ("test", "dev") else 2
    return (not example.is_own, held_out, example.id, example.place)


class PromptIndex:
    """An index of prompts by number, for exact and near-duplicate lookups (MinHash LSH)."""

    def __init__(self, threshold: float) -> None:
        """threshold: the least Jaccard similarity of character 3-grams of near duplicates"""
        bands = _LshBands.of(threshold)
        self._threshold = threshold
        self._permutations = bands.rows * bands.number
        self._lsh = RMinHashLSH(threshold, self._permutations, bands.number)
        self._exact: dict[str, int] = {}
        self._grams: list[frozenset[str]] = []

    def add(self, prompt: str) -> None:
        """Index `prompt` under the next number."""
        text = normalise(prompt)
        grams = _grams(text)
        self._exact.setdefault(text, len(self._grams))
        self._lsh.insert(len(self._grams), self._sketch(grams))
        self._grams.append(grams)

    def exact(self, prompt: str) -> int | None:
        """The first number with the same normalised prompt, or None."""
        return self._exact.get(normalise(prompt))

    def near(self, prompt: str) -> list[int]:
        """The numbers, ascending, of all prompts at or above the threshold."""
        grams = _grams(normalise(prompt))
        candidates = sorted(self._lsh.query(self._sketch(grams)))
        return [i for i in candidates if _is_near(grams, self._grams[i], self._threshold)]

    def _sketch(self, grams: frozenset[str]) -> RMinHash:
        sketch = RMinHash(self._permutations, SEED)
        sketch.update(list(grams))
        return sketch


def near_duplicate_pairs(prompts: Sequence[str], threshold: float) -> list[tuple[int, int]]:
    """Positions (i, j), i < j, of all prompts that are exact or near duplicates."""
    index = PromptIndex(threshold)
    pairs = []
    for position, prompt in enumerate(prompts):
        pairs += [(earlier, position) for earlier in index.near(prompt)]
        index.add(prompt)
    return pairs


def normalise(prompt: str) -> str:
    """The prompt without case, width, repeated blanks and punctuation.

    A prompt of nothing but punctuation keeps it.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", prompt).casefold())
    # MinHash takes UTF-8, which cannot encode lone surrogates.
    folded = folded.encode("utf-8", "backslashreplace").decode("utf-8")
    kept = (c if c.isalnum() or unicodedata.category(c)[0] not in "PZC" else " " for c in folded)
    return " ".join("".join(kept).split()) or folded.strip()


def similarity(one: str, other: str) -> float:
    """The Jaccard similarity of two prompts' character 3-grams, after normalisation."""
    a, b = _grams(normalise(one)), _grams(normalise(other))
    return len(a & b) / len(a | b)


def _grams(text: str) -> frozenset[str]:
    return frozenset(text[i : i + GRAM_LENGTH] for i in range(max(1, len(text) - GRAM_LENGTH + 1)))


def _is_near(a: frozenset[str], b: frozenset[str], threshold: float) -> bool:
    small, large = sorted((len(a), len(b)))
    if small < threshold * large:  # an upper bound of the similarity is small / large
        return False
    shared = len(a & b)
    return shared >= threshold * (small + large - shared)


class _LshBands(NamedTuple):
    """LSH banding: prompts whose sketches agree in all rows of one band are candidates."""

    rows: int
    number: int

    @classmethod
    def of(cls, threshold: float) -> _LshBands:
        """The longest bands within MAX_MISS: the longer, the fewer false candidates."""
        fitting = (cls(rows, PERMUTATIONS // rows) for rows in range(PERMUTATIONS, 1, -1))
        enough = (b for b in fitting if (1 - threshold**b.rows) ** b.number <= MAX_MISS)
        return next(enough, cls(1, PERMUTATIONS))


def _in_gold(example: Example, gold: Sequence[Case], index: PromptIndex) -> Rejection | None:
    # Gold rows often begin with a system turn that teachers do not write; the request is the same.
    key = example.conversation.without_system().key
    near = index.near(key)
    if not near:
        return None
    exact = index.exact(key)
    case = gold[near[0] if exact is None else exact]
    detail = (
        f"{'near to' if exact is None else 'the same as'} the gold prompt "
        f"{case.place or case.id}: {_quoted(case.conversation.last_user)}"
    )
    return Rejection(stage="dedup", reason=Reason.IN_GOLD, detail=detail, item=example)


def _duplicate(example: Example, kept: Sequence[Example], index: PromptIndex) -> Rejection | None:
    key = example.conversation.without_system().key
    position = index.exact(key)
    reason, relation = Reason.EXACT_DUPLICATE, "the same prompt as"
    if position is None:
        near = index.near(key)
        if not near:
            return None
        position, reason, relation = near[0], Reason.NEAR_DUPLICATE, "nearly the prompt of"
    first = kept[position]
    detail = f"{relation} {first.place or first.id}: {_quoted(first.conversation.last_user)}"
    if _labels_differ(example.target, first.target, exact=reason is Reason.EXACT_DUPLICATE):
        detail += f"; the labels disagree: {_label(first.target)} there, "
        detail += f"{_label(example.target)} here"
    return Rejection(stage="dedup", reason=reason, detail=detail, item=example)


def _labels_differ(one: Target, other: Target, *, exact: bool) -> bool:
    """Whether the labels differ; near duplicates may differ in argument values."""
    one_tools, other_tools = ([call.name for call in target.calls] for target in (one, other))
    if one.kind != other.kind or one_tools != other_tools:
        return True
    # Normalised as prompts are, since arguments are copied from them in the user's spelling.
    return exact and normalise(_label(one)) != normalise(_label(other))


def _label(target: Target) -> str:
    calls = [f"{call.name} {canonical_json(call.arguments)}" for call in target.calls]
    return " and ".join(calls) or target.kind


def _quoted(prompt: str, limit: int = 120) -> str:
    text = " ".join(prompt.split())
    return f'"{text}"' if len(text) <= limit else f'"{text[: limit - 1]}…"'
