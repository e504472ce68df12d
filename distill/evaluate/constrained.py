"""Answers that are no valid call or reply, decoded again so that they are.

The tool, or words, is what the student itself finds likeliest; arguments are then the likeliest
tokens that a grammar of the tool's schema allows. An answer that would not end in the tokens that
it may have is decoded with tighter bounds on texts, lists and numbers, at last with the fewest and
shortest arguments that are valid.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

from distill import strict_json
from distill.config import Config
from distill.errors import MissingExtraError, StudentError, UsageError
from distill.evaluate.confidence import CallPrefixes
from distill.records import Json, Target, canonical_json
from distill.render import PROBE_CALL, PROBE_MESSAGE, Parsed, Renderer
from distill.render.decisions import PROBE_REPLY
from distill.render.grammars import (
    BOUNDS,
    Bounds,
    UnsupportedSchemaError,
    Words,
    call_grammar,
    reply_grammar,
)
from distill.students.load import EMBEDDED
from distill.workflow.model import Tool
from distill.workflow.schema import ArgumentsSchema, path_text, schema_of
from distill.workflow.strict import drop_nulls

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from distill.sharing.decode import Completion
    from distill.sharing.reading import TokenPath

_PURPOSE = "decoding under constraint"
_ANYTHING = ArgumentsSchema({"type": "object", "additionalProperties": True})


def require_constrainable(config: Config) -> None:
    """Raise what is wrong with a run whose answers are to be constrained, as far as is known."""
    if config.evaluate.constrained == "off":
        return
    if config.evaluate.backend == "vllm":
        raise UsageError(
            "answers are constrained by this program, not by vLLM",
            place="--backend vllm",
            hint="decode with --backend transformers, or without constraint: --no-constrained",
        )
    if find_spec("llguidance") is None:
        raise MissingExtraError.needing("llguidance", "constrained", _PURPOSE)
    if config.train.student == EMBEDDED:
        raise _unusable("the text of a token depends on those before it")


class Request(NamedTuple):
    """An answer to be decoded again."""

    case: int
    """The index of what it answers."""
    prompt: Sequence[int]
    prefixes: CallPrefixes
    """Of the tools that may be called."""
    probabilities: list[float] | None
    """Of the paths of `prefixes`; None where they are still to be computed."""
    max_new_tokens: int


class _Attempt(NamedTuple):
    request: Request
    tool: Json | None
    """None for words."""
    forced: TokenPath
    probabilities: list[float] | None

    def answer(self, ids: list[int]) -> tuple[int, Completion]:
        from distill.sharing.decode import Completion

        return self.request.case, Completion(ids, path_probabilities=self.probabilities)


class Constraint:
    """Decodes a renderer's answers again; grammars are compiled once.

    notice: told once of each tool whose schema no grammar can hold
    Raises MissingExtraError without llguidance, StudentError for a tokenizer that it cannot take.
    """

    def __init__(self, renderer: Renderer, notice: Callable[[str], None]) -> None:
        self._renderer = renderer
        self._notice = notice
        self._tokenizer = _byte_tokenizer(renderer)
        self._words = Words(self._pieces, (*renderer.format.markers, *renderer.stop_texts))
        self._grammars: dict[tuple[object, ...], _Grammar] = {}
        self._told: set[str] = set()

    def fault(self, parsed: Parsed, tools: Sequence[Json]) -> str:
        """Why an answer is not valid; nothing where it is. `tools` are those that it may call."""
        if parsed.malformed:
            return parsed.detail or "malformed"
        known = {tool.name: tool for tool in map(_tool, tools)}
        for call in parsed.calls:
            if (tool := known.get(call.name)) is None:
                return f"there is no tool {call.name}"
            errors = schema_of(tool).errors(drop_nulls(tool, call.arguments))
            if errors:
                place = path_text(errors[0].path)
                return f"{call.name}: {place}: {errors[0].message}"[:200]
        return ""

    def decode(
        self,
        model: PreTrainedModel,
        requests: Sequence[Request],
        *,
        bidirectional_start_ids: Sequence[int] = (),
        batch_size: int,
    ) -> Iterator[tuple[int, Completion]]:
        """The index of each request with an answer; valid as far as grammars can be."""
        from distill.sharing.decode import greedy_completions

        pending = [self._attempt(model, request) for request in requests]
        best: dict[int, list[int]] = {}
        # At last a call without arguments, whatever the schema says: it can be read.
        for bounds in (*BOUNDS, None):
            rows = [(attempt, *self._row(attempt, bounds)) for attempt in pending]
            completions = greedy_completions(
                model,
                [[*attempt.request.prompt, *forced] for attempt, forced, _ in rows],
                self._renderer.stop_ids,
                [attempt.request.max_new_tokens - len(forced) for attempt, forced, _ in rows],
                filters=[allowed for *_, allowed in rows],
                bidirectional_start_ids=bidirectional_start_ids,
                batch_size=batch_size,
            )
            pending = []
            for number, completion in completions:
                attempt, forced, _ = rows[number]
                ids, case = [*forced, *completion.ids], attempt.request.case
                if not self._fault_of(ids, attempt):
                    yield attempt.answer(ids)
                    continue
                pending.append(attempt)
                # A call that is refused is worth more than none that can be read.
                if case not in best or self._renderer.parse(best[case]).malformed:
                    best[case] = ids
        for attempt in pending:
            ids = best[attempt.request.case]
            if attempt.tool is not None:
                fault = self._fault_of(ids, attempt)
                self._tell(attempt.tool, f"no answer could be made valid under constraint: {fault}")
            yield attempt.answer(ids)

    def _fault_of(self, ids: list[int], attempt: _Attempt) -> str:
        return self.fault(self._renderer.parse(ids), attempt.request.prefixes.tools)

    def _tell(self, tool: Json, text: str) -> None:
        name = _tool(tool).name
        if name not in self._told:
            self._told.add(name)
            self._notice(f"{name}: {text}")

    def _attempt(self, model: PreTrainedModel, request: Request) -> _Attempt:
        """What is to be decoded: a call of the likeliest tool, or words."""
        from distill.sharing.openings import plain_path_probabilities

        found, prefixes = request.probabilities, request.prefixes
        fits = prefixes.longest < request.max_new_tokens
        if found is None and fits:
            found = plain_path_probabilities(model, request.prompt, prefixes.paths)
        if not found or not fits:
            return _Attempt(request, None, (), found)
        sure = prefixes.confidence(found)
        name = max(sure.tools, key=lambda name: sure.tools[name])
        if sure.no_call >= sure.tools[name]:
            return _Attempt(request, None, (), found)
        likely = dict(zip(prefixes.paths, found, strict=True))
        opening = max(prefixes.by_tool[name], key=lambda path: likely[path])
        tool = next(tool for tool in request.prefixes.tools if _tool(tool).name == name)
        return _Attempt(request, tool, opening, found)

    def _row(self, attempt: _Attempt, bounds: Bounds | None) -> tuple[TokenPath, _Filter]:
        """The ids that are forced, and what may follow them."""
        request, stops = attempt.request, self._renderer.stop_ids
        tools = request.prefixes.tools
        if attempt.tool is None:
            return (), _Filter(self._reply_grammar(tools), stops, request.max_new_tokens)
        allowed = _Filter(self._call_grammar(attempt.tool, tools, bounds), stops)
        return allowed.advance(attempt.forced), allowed

    def _call_grammar(self, schema: Json, tools: Sequence[Json], bounds: Bounds | None) -> _Grammar:
        """The grammar of the tool's calls; of calls with any arguments where there is none.

        bounds: None for calls without arguments, whatever the schema says
        """
        tool, syntax = _tool(schema), self._renderer.format.syntax
        call = PROBE_CALL.model_copy(update={"name": tool.name})

        def make(arguments: ArgumentsSchema) -> _Grammar:
            target, written = Target(kind="call", calls=(call,)), syntax.value(call.arguments)
            frame = self._frame(target, tools, written)
            to = bounds or BOUNDS[-1]
            text = call_grammar(frame.head, arguments, frame.tail, syntax, self._words, to)
            return self._grammar(text, frame)

        key = (canonical_json(schema), bounds)
        if key not in self._grammars:
            try:
                self._grammars[key] = make(schema_of(tool) if bounds else _ANYTHING)
            except UnsupportedSchemaError as error:
                self._tell(schema, f"no grammar can hold its arguments to its schema: {error}")
                self._grammars[key] = make(_ANYTHING)
        return self._grammars[key]

    def _reply_grammar(self, tools: Sequence[Json]) -> _Grammar:
        if () not in self._grammars:
            frame = self._frame(PROBE_REPLY, tools, PROBE_REPLY.reply)
            text = reply_grammar(frame.head, frame.tail, self._words)
            self._grammars[()] = self._grammar(text, frame)
        return self._grammars[()]

    def _grammar(self, text: str, frame: _Frame) -> _Grammar:
        import torch
        from llguidance import LLMatcher

        matcher = LLMatcher(self._tokenizer, text, log_level=0)
        if matcher.is_error():
            raise UnsupportedSchemaError(_cause(matcher.get_error()))
        controls = {*self._renderer.control.ids} - {*self._renderer.stop_ids} - frame.ids
        banned = [id for id in sorted(controls) if id < self._tokenizer.vocab_size]
        return _Grammar(matcher, torch.tensor(banned, dtype=torch.long))

    def _frame(self, target: Target, tools: Sequence[Json], part: str) -> _Frame:
        """What stands before and after `part` in the target's turn, without its stop token."""
        ids = self._renderer.example([PROBE_MESSAGE], target, tools).completion[:-1]
        text = self._renderer.decode(ids)
        if part not in text:
            # The template writes arguments with other blanks, or in another order.
            text = self._renderer.format.write(target.calls)
        head, _, tail = text.partition(part)
        return _Frame(head, tail, frozenset(ids))

    def _pieces(self, text: str) -> str:
        """Text as a Lark expression, its special tokens as tokens."""
        found = []
        for piece, token in self._renderer.control.split(text):
            special = token is not None and self._tokenizer.is_special_token(token)
            found.append(f"<[{token}]>" if special else strict_json.encode(piece))
        return " ".join(found)


class _Frame(NamedTuple):
    """A turn of the assistant around its arguments or words."""

    head: str
    tail: str
    ids: frozenset[int]


class _Grammar(NamedTuple):
    matcher: Any
    """An LLMatcher at its start."""
    banned: torch.Tensor
    """Ids of the control tokens that are no part of the turn."""


class _Filter:
    """What a grammar allows after a completion.

    limit: the tokens of a text that may stop anywhere, and must at the last of them
    """

    def __init__(
        self, grammar: _Grammar, stop_ids: Sequence[int], limit: int | None = None
    ) -> None:
        self._matcher = grammar.matcher.deep_copy()
        self._banned = grammar.banned
        self._stop_ids = list(stop_ids)
        self._limit = limit
        self._seen = 0

    def advance(self, ids: TokenPath) -> TokenPath:
        """Go on by the longest beginning of `ids` that the grammar takes, and return it."""
        taken = ids[: self._matcher.validate_tokens(list(ids))]
        self._matcher.consume_tokens(list(taken))
        return taken

    def __call__(self, ids: Sequence[int]) -> torch.Tensor:
        import torch

        self._matcher.consume_tokens(list(ids[self._seen :]))
        self._seen = len(ids)
        bias = bytearray(self._matcher.compute_logit_bias())
        allowed = torch.frombuffer(bias, dtype=torch.uint8).bool()
        allowed[self._banned] = False
        if len(ids) + 1 == self._limit or self._matcher.is_error() or not allowed.any():
            allowed[:] = False
            allowed[self._stop_ids] = True
        return allowed


def _byte_tokenizer(renderer: Renderer) -> Any:
    """The renderer's tokenizer as llguidance takes it: each token some bytes of its own."""
    try:
        from llguidance.hf import from_tokenizer
    except ModuleNotFoundError:
        raise MissingExtraError.needing("llguidance", "constrained", _PURPOSE) from None
    try:
        made = from_tokenizer(renderer.tokenizer, eos_token=list(renderer.stop_ids))  # type: ignore[arg-type]
    except Exception as error:
        # Errors of its own and of Rust have no class in common.
        raise _unusable(str(error).split("\n")[0][:200]) from None
    ids = renderer.example([PROBE_MESSAGE], Target(kind="call", calls=(PROBE_CALL,))).completion
    # Of some tokenizers a word begins with a blank, unless it follows a mark or begins the text.
    if made.decode_bytes(ids).decode("utf-8", "replace") != renderer.decode(ids):
        raise _unusable("the text of a token depends on those before it")
    return made


def _cause(error: str) -> str:
    """What llguidance says, without the place in the grammar and the lines around it."""
    named = re.search(r"^error: (.+)", error, re.MULTILINE)
    return named[1] if named else re.sub(r"^at \d+\(\d+\): ", "", error.split("\n")[0])[:200]


def _unusable(cause: str) -> StudentError:
    return StudentError(
        f"grammars cannot be written in this student's tokens: {cause}",
        place="--constrained",
        hint="decode without it (--no-constrained), or train another student (--student smollm2)",
    )


def _tool(schema: Json) -> Tool:
    return Tool.model_validate(schema.get("function", schema))
