"""examples -> examples without duplicates of each other or of gold: exact, then MinHash.

A conversation is compared by its key: a single request as it stands, else all of its turns. Near
duplicates are keys whose sets of character 3-grams overlap: on short requests characters
find what words miss. MinHash finds candidates, the exact Jaccard similarity decides.
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
    """Keep the first, by id, of prompts that are exact or near duplicates; none that is in gold.

    Both lists come back in the order of ids, whatever the order of `examples`.
    """
    held_out = PromptIndex(data.near_duplicate)
    for case in gold:
        held_out.add(case.conversation.key)
    index = PromptIndex(data.near_duplicate)
    sifted: Sifted[Example] = Sifted([], [])
    for example in sorted(examples, key=lambda e: e.id):
        rejection = _in_gold(example, gold, held_out) or _duplicate(example, sifted.kept, index)
        if rejection:
            sifted.rejected.append(rejection)
        else:
            index.add(example.conversation.key)
            sifted.kept.append(example)
    return sifted


class PromptIndex:
    """An index of prompts by number, for exact and near-duplicate lookups (MinHash LSH)."""

    def __init__(self, threshold: float) -> None:
        """`threshold`: the Jaccard similarity of character 3-grams from which on two are near."""
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
        proposed = sorted(self._lsh.query(self._sketch(grams)))
        return [i for i in proposed if _similar(grams, self._grams[i], self._threshold)]

    def _sketch(self, grams: frozenset[str]) -> RMinHash:
        sketch = RMinHash(self._permutations, SEED)
        sketch.update(list(grams))
        return sketch


def near_duplicate_pairs(prompts: Sequence[str], threshold: float) -> list[tuple[int, int]]:
    """Positions of every two prompts that are exact or near duplicates, the smaller first."""
    index = PromptIndex(threshold)
    pairs = []
    for position, prompt in enumerate(prompts):
        pairs += [(earlier, position) for earlier in index.near(prompt)]
        index.add(prompt)
    return pairs


def normalise(prompt: str) -> str:
    """The prompt without case, width, repeated blanks and punctuation."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", prompt).casefold())
    # Lone surrogates have no UTF-8, which MinHash needs.
    folded = folded.encode("utf-8", "backslashreplace").decode("utf-8")
    words = "".join(" " if _is_ignored(char) else char for char in folded).split()
    return " ".join(words) or folded.strip()


def similarity(one: str, other: str) -> float:
    """The Jaccard similarity of two prompts' character 3-grams, after normalisation."""
    a, b = _grams(normalise(one)), _grams(normalise(other))
    return len(a & b) / len(a | b)


def _is_ignored(char: str) -> bool:
    return not char.isalnum() and unicodedata.category(char)[0] in "PZC"


def _grams(text: str) -> frozenset[str]:
    return frozenset(text[i : i + GRAM_LENGTH] for i in range(max(1, len(text) - GRAM_LENGTH + 1)))


def _similar(a: frozenset[str], b: frozenset[str], threshold: float) -> bool:
    small, large = sorted((len(a), len(b)))
    if small < threshold * large:
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
    near = index.near(example.conversation.key)
    if not near:
        return None
    found = index.exact(example.conversation.key)
    case, how = (gold[near[0]], "near to") if found is None else (gold[found], "the same as")
    detail = (
        f"{how} the gold prompt {case.place or case.id}: {_quoted(case.conversation.last_user)}"
    )
    return Rejection(stage="dedup", reason=Reason.IN_GOLD, detail=detail, item=example)


def _duplicate(example: Example, kept: Sequence[Example], index: PromptIndex) -> Rejection | None:
    found = index.exact(example.conversation.key)
    reason, how = Reason.EXACT_DUPLICATE, "the same prompt as"
    if found is None:
        near = index.near(example.conversation.key)
        if not near:
            return None
        found, reason, how = near[0], Reason.NEAR_DUPLICATE, "nearly the prompt of"
    first = kept[found]
    detail = f"{how} {first.id}: {_quoted(first.conversation.last_user)}"
    if _labels_differ(example.target, first.target, exact=reason is Reason.EXACT_DUPLICATE):
        detail += f"; the labels disagree: {_label(first.target)} there, "
        detail += f"{_label(example.target)} here"
    return Rejection(stage="dedup", reason=reason, detail=detail, item=example)


def _labels_differ(one: Target, other: Target, *, exact: bool) -> bool:
    """Whether the labels differ; near duplicates may differ in argument values."""
    # Arguments are compared as prompts are: their case follows how the user typed.
    arguments_differ = normalise(_label(one)) != normalise(_label(other))
    return _tools(one) != _tools(other) or (exact and arguments_differ)


def _tools(target: Target) -> tuple[str, ...]:
    return (target.kind, *(call.name for call in target.calls))


def _label(target: Target) -> str:
    calls = [f"{call.name} {canonical_json(call.arguments)}" for call in target.calls]
    return " and ".join(calls) or target.kind


def _quoted(prompt: str, limit: int = 120) -> str:
    text = " ".join(prompt.split())
    return f'"{text}"' if len(text) <= limit else f'"{text[: limit - 1]}…"'
