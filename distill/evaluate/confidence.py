"""The probability that a student's answer begins with a call of each tool.

A call prefix is a token sequence with which calls of one tool begin and calls of no other tool do.
It is found from several calls of each tool as the student's own renderer writes them, so it holds
for every format and tokenizer. What all calls of a tool have in common is one prefix; where that
also begins calls of another tool (`search` and `search_web`), it is extended to the tokens at which
the two diverge, with one prefix for each continuation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from distill.records import Json, canonical_json
from distill.render import Parsed, Renderer
from distill.render.decisions import sample_calls

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from distill.sharing.reading import TokenPath


class Confidence(NamedTuple):
    """The probability of each tool to be called, and of no call; all of them sum to 1."""

    tools: dict[str, float]
    """By tool, that the answer begins with a call of it."""
    no_call: float
    """That it begins with anything else."""

    def of(self, answer: Parsed) -> float | None:
        """The probability of what the answer does; None if malformed, or for an unknown tool."""
        if answer.malformed:
            return None
        return self.tools.get(answer.calls[0].name) if answer.calls else self.no_call


class CallPrefixes:
    """The call prefixes of each tool; none of them is a prefix of another."""

    def __init__(self, renderer: Renderer, tools: Sequence[Json]) -> None:
        self.tools = tools
        """Those that may be called, as OpenAI function schemas."""
        calls = dict(sample_calls(renderer, tool, tools) for tool in tools)
        self.by_tool = {name: _distinct_prefixes(name, calls) for name in calls}
        self.paths: list[TokenPath] = [path for paths in self.by_tool.values() for path in paths]

    @property
    def longest(self) -> int:
        """The tokens of the longest prefix."""
        return max(map(len, self.paths), default=0)

    def confidence(self, probabilities: Sequence[float]) -> Confidence:
        """The probability of each tool, from that of each of `paths`."""
        by_path = dict(zip(self.paths, probabilities, strict=True))
        tools = {name: sum(by_path[path] for path in paths) for name, paths in self.by_tool.items()}
        # Rounding may bring the sum a hair above one.
        return Confidence(tools, max(0.0, 1.0 - sum(tools.values())))


class CallPrefixCache:
    """The call prefixes of each set of tools that a renderer declares, each computed once."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self._by_tools: dict[str, CallPrefixes] = {}

    def __call__(self, tools: Sequence[Json] | None) -> CallPrefixes:
        if tools is None or self._renderer.declarations == "none":
            tools = self._renderer.tools
        key = canonical_json(list(tools))
        if key not in self._by_tools:
            self._by_tools[key] = CallPrefixes(self._renderer, tools)
        return self._by_tools[key]


def tool_probabilities(
    model: PreTrainedModel,
    renderer: Renderer,
    prompts: Sequence[Sequence[int]],
    tools: Sequence[Json],
    *,
    bidirectional_start_ids: Sequence[int] = (),
    batch_size: int = 32,
) -> list[Confidence]:
    """For each prompt, the probability that the answer begins with a call of each tool.

    tools: OpenAI function schemas
    bidirectional_start_ids: see `distill.sharing.reading.prefill`

    The model's attention must be eager or sdpa, and its cache keys and values alone.
    """
    from distill.sharing.openings import path_probabilities
    from distill.sharing.reading import PromptRow, prefill

    prefixes = CallPrefixes(renderer, tools)
    rows = [PromptRow(index, prompt, paths=prefixes.paths) for index, prompt in enumerate(prompts)]
    found: dict[int, Confidence] = {}
    for batch in prefill(model, rows, batch_size, bidirectional_start_ids):
        for row, probabilities in zip(batch.rows, path_probabilities(model, batch), strict=True):
            found[row.prompt_index] = prefixes.confidence(probabilities)
    return [found[index] for index in range(len(prompts))]


def _distinct_prefixes(name: str, calls: Mapping[str, set[TokenPath]]) -> list[TokenPath]:
    """The shortest prefixes of the tool's calls that are no prefix of another tool's call."""
    from distill.sharing.reading import common_prefix_length

    others = {call for other in calls if other != name for call in calls[other]}
    taken = {call[:length] for call in others for length in range(len(call) + 1)}
    # All members of a set of sequences share what its smallest and its largest share.
    shared = common_prefix_length(min(calls[name], default=()), max(calls[name], default=()))
    prefixes = {
        next(call[:n] for n in range(shared, len(call) + 1) if call[:n] not in taken)
        for call in calls[name]
    }
    return sorted(prefixes)
