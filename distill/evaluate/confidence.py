"""How sure a student is of the tool that it calls: the probability that it opens a call of it.

The opening of a call is what all calls of a tool begin with, whatever their arguments: the common
beginning of several of them as the student's own renderer writes them. That holds for every
notation and every tokenizer. Where the opening of one tool begins a call of another (`search` and
`search_web`), it is followed on to where the two part, into each way in which they do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from distill.records import Json, Message, Target, ToolCall, canonical_json
from distill.render import Parsed, Renderer, RenderError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from distill.sharing.reading import TokenPath

_PROBE = Message(role="user", content="Where is the north gate?")


class Confidence(NamedTuple):
    """What a student is about to do, each with its probability; all of them sum to 1."""

    tools: dict[str, float]
    """By allowed tool, that the answer begins with a call of it."""
    no_call: float
    """That it begins with anything else."""

    @property
    def allowed(self) -> dict[str, float]:
        """By tool, the probability among allowed tools: if it calls one, which?"""
        total = sum(self.tools.values())
        return {name: p / total if total else 0.0 for name, p in self.tools.items()}

    def of(self, said: Parsed) -> float | None:
        """The probability of what was done; None for what is malformed or not allowed."""
        if said.malformed:
            return None
        return self.tools.get(said.calls[0].name) if said.calls else self.no_call


class CallPrefixes:
    """The ways in which calls of each tool begin, none of them the beginning of another."""

    def __init__(self, renderer: Renderer, tools: Sequence[Json]) -> None:
        written = {name: _written(renderer, name, args, tools) for name, args in _functions(tools)}
        self.by_tool = {name: _apart(name, written) for name in written}
        self.paths: list[TokenPath] = [path for paths in self.by_tool.values() for path in paths]

    @property
    def longest(self) -> int:
        """The tokens of the longest path."""
        return max(map(len, self.paths), default=0)

    def confidence(self, probabilities: Sequence[float]) -> Confidence:
        """From the probability of each path to that of each tool."""
        found = dict(zip(self.paths, probabilities, strict=True))
        tools = {name: sum(found[path] for path in own) for name, own in self.by_tool.items()}
        # Rounding may bring the sum a hair above one.
        return Confidence(tools, max(0.0, 1.0 - sum(tools.values())))


class CallPrefixCache:
    """The openings for each set of tools that a renderer shows, each found once."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self._found: dict[str, CallPrefixes] = {}

    def __call__(self, tools: Sequence[Json] | None) -> CallPrefixes:
        if tools is None or self._renderer.declarations == "none":
            tools = self._renderer.tools
        key = canonical_json(list(tools))
        if key not in self._found:
            self._found[key] = CallPrefixes(self._renderer, tools)
        return self._found[key]


def tool_probabilities(
    model: PreTrainedModel,
    renderer: Renderer,
    prompts: Sequence[Sequence[int]],
    tools: Sequence[Json],
    *,
    bidirectional_start_ids: Sequence[int] = (),
    batch_size: int = 32,
) -> list[Confidence]:
    """For each prompt, how likely the model begins its answer with a call of each tool.

    tools: OpenAI function schemas; bidirectional_start_ids: see `distill.sharing.reading.prefill`.
    The model's
    attention must be eager or sdpa, and its past keys and values alone.
    """
    from distill.sharing.openings import path_probabilities
    from distill.sharing.reading import PromptRow, prefill

    openings = CallPrefixes(renderer, tools)
    rows = [PromptRow(at, prompt, paths=openings.paths) for at, prompt in enumerate(prompts)]
    found: dict[int, Confidence] = {}
    for done in prefill(model, rows, batch_size, bidirectional_start_ids):
        for row, probabilities in zip(done.rows, path_probabilities(model, done), strict=True):
            found[row.prompt_index] = openings.confidence(probabilities)
    return [found[at] for at in range(len(prompts))]


def _functions(tools: Iterable[Json]) -> Iterator[tuple[str, list[str]]]:
    """The name of each tool, and those of its arguments."""
    for tool in tools:
        function = tool.get("function", tool)
        assert isinstance(function, dict)
        parameters = function.get("parameters")
        properties = parameters.get("properties") if isinstance(parameters, dict) else None
        yield str(function["name"]), [*properties] if isinstance(properties, dict) else []


def _written(
    renderer: Renderer, name: str, arguments: Sequence[str], tools: Sequence[Json]
) -> set[TokenPath]:
    """The ids of several calls of a tool; those that cannot be written are left out."""
    tried: list[Json] = [{}, {"place": "north gate", "count": 2}]
    tried += [{argument: value} for argument in arguments for value in ("north", 2)]
    found: set[TokenPath] = set()
    for one in tried:
        target = Target(kind="call", calls=(ToolCall(name=name, arguments=one),))
        try:
            row = renderer.example([_PROBE], target, tools)
        except RenderError:
            continue
        found.add(tuple(token for token, own in zip(row.ids, row.mask, strict=True) if own))
    return found


def _apart(name: str, written: Mapping[str, set[TokenPath]]) -> list[TokenPath]:
    """The shortest beginnings of the tool's calls that begin no call of another tool."""
    from distill.sharing.reading import common_prefix_length

    own = written[name]
    others = {call for other, calls in written.items() if other != name for call in calls}
    taken = {call[:at] for call in others for at in range(len(call) + 1)}
    # Of a set of sequences, the first and the last in order have in common what all have.
    least = common_prefix_length(min(own, default=()), max(own, default=()))
    return sorted(
        {
            next(call[:at] for at in range(least, len(call) + 1) if call[:at] not in taken)
            for call in own
        }
    )
