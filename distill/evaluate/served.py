"""Predictions by a student on a vLLM server, with the Renderer's prompts and parser."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from distill.asking.loop import LoopRunner
from distill.errors import StudentError, TeacherError
from distill.evaluate.predict import Progress, judge_answer, judge_unasked, render_prompts
from distill.files import parse_json, read_text
from distill.records import Case, Prediction
from distill.render import Parsed, Renderer
from distill.run.folder import RunFolder
from distill.serving.vllm import Notice, VllmServer
from distill.students.load import EMBEDDED, weights_source

if TYPE_CHECKING:
    import openai

TUNED = "tuned"
TIMEOUT = 600.0
"""Seconds for one request: a server with a long queue is slow, not broken."""


class ServedStudent(NamedTuple):
    """A student on a server; `base` and `tuned` are the names of its models there."""

    url: str
    base: str
    tuned: str


def predict_served(
    base_url: str,
    model: str,
    renderer: Renderer,
    cases: Sequence[Case],
    *,
    arm: str,
    max_new_tokens: int,
    context: int,
    concurrency: int,
    progress: Progress | None = None,
) -> list[Prediction]:
    """The prediction for each case, in order, as by `predict`; decoding is greedy.

    Prompts are sent as token ids, at most `concurrency` at a time; `context` is the student's
    context length in tokens. A case that is longer than the server's is malformed as well. Raises
    StudentError when the server does not answer a case.
    """
    prompts, predictions = render_prompts(renderer, cases, arm, context)
    completer = _Completer(base_url, model, renderer, max_new_tokens, context)

    async def work(client: openai.AsyncOpenAI, indices: Iterator[int]) -> None:
        for index in indices:
            try:
                parsed, raw = await completer.complete(client, cases[index], prompts[index])
            except _TooLongError as error:
                predictions[index] = judge_unasked(cases[index], arm, str(error))
            else:
                predictions[index] = judge_answer(renderer, cases[index], parsed, arm, raw)
            if progress is not None:
                progress(len(predictions), len(cases), arm)

    async def run_workers() -> None:
        async with _client(base_url) as client:
            await completer.read_context(client)
            async with asyncio.TaskGroup() as group:
                indices = iter(prompts)
                for _ in range(min(concurrency, len(prompts))):
                    group.create_task(work(client, indices))

    if prompts:
        try:
            with LoopRunner() as runner:
                runner.run(run_workers())
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
    return [predictions[index] for index in range(len(cases))]


@contextmanager
def serve_student(
    run: RunFolder,
    *,
    command: Sequence[str],
    adapter: Path,
    log: Path,
    arguments: Sequence[str] = (),
    start_timeout: float,
    notice: Notice,
) -> Iterator[ServedStudent]:
    """The run's student, base and with `adapter`, served by vLLM inside the `with` block.

    Raises StudentError for a student or an adapter that vLLM cannot serve, or if the server does
    not start.
    """
    name = run.config.train.student
    if name == EMBEDDED:
        raise StudentError(
            "vLLM cannot serve the embedded student",
            place="--backend vllm",
            hint="use --backend transformers, or train another student",
        )
    try:
        with VllmServer(
            weights_source(name),
            command=command,
            log=log,
            arguments=arguments,
            start_timeout=start_timeout,
            adapters={TUNED: adapter.resolve()},
            lora_rank=max_lora_rank(adapter),
            notice=notice,
        ) as server:
            yield ServedStudent(server.url, server.model, TUNED)
    except TeacherError as error:
        # The server is the student's, not a teacher's.
        raise StudentError.of(error.problems) from None


def max_lora_rank(adapter: Path) -> int:
    """The largest LoRA rank in an adapter. Raises StudentError for one that vLLM cannot load."""
    path = adapter / "adapter_config.json"
    if not path.is_file():
        raise StudentError(
            "holds no adapter", place=adapter, hint="train one first: distill train RUN"
        )
    config: Any = parse_json(read_text(path), path)
    features = [
        feature
        for setting, feature in _UNSUPPORTED.items()
        if config.get(setting) not in (None, False, [])
    ]
    if config.get("bias", "none") != "none":
        features.append("trained biases")
    if features:
        raise StudentError(
            f"vLLM cannot load an adapter with {' and '.join(features)}",
            place=adapter,
            hint="evaluate it with --backend transformers",
        )
    ranks = [config["r"], *(config.get("rank_pattern") or {}).values()]
    return max(int(rank) for rank in ranks)


_UNSUPPORTED = {
    "modules_to_save": "modules that were trained whole",
    "use_dora": "DoRA",
    "lora_bias": "LoRA biases",
}
"""The features that vLLM does not support, by setting in adapter_config.json."""


_TOO_LONG = re.compile(
    r"context[ _](length|window|size)|max_model_len|maximum (model|input) length"
    r"|(prompt|input) (is|are) (too long|longer)",
    re.IGNORECASE,
)


class _TooLongError(Exception):
    """A prompt is longer than the server takes; str() says so."""


class _Completer:
    """Requests completions of prompts that are token ids."""

    def __init__(
        self, base_url: str, model: str, renderer: Renderer, max_new_tokens: int, context: int
    ) -> None:
        self._base_url = base_url
        self._model = model
        self._renderer = renderer
        self._max_new_tokens = max_new_tokens
        self._context = context

    async def read_context(self, client: openai.AsyncOpenAI) -> None:
        """Keep to the server's context length, as by --max-model-len, where it names one."""
        import openai

        try:
            listed = await client.with_options(max_retries=0).models.list()
        except openai.OpenAIError:
            return  # what a server takes, it tells by what it answers
        cards = {card.id: card for card in listed.data or ()}
        # Adapters have none of their own, but name the model below.
        card = cards.get(self._model)
        for named in (card, cards.get(str(getattr(card, "parent", "")))):
            limit = getattr(named, "max_model_len", None)
            if isinstance(limit, int):
                self._context = min(self._context, limit)

    async def complete(
        self, client: openai.AsyncOpenAI, case: Case, prompt: list[int]
    ) -> tuple[Parsed, str]:
        """The model's answer to the prompt, parsed and as raw text. Raises _TooLongError."""
        import openai

        if len(prompt) >= self._context:
            detail = f"a prompt of {len(prompt)} tokens, and the server takes {self._context}"
            raise _TooLongError(detail)
        max_tokens = min(self._max_new_tokens, self._context - len(prompt))
        # A malformed answer is not decoded to its end, as in `predict`.
        stop_ids = [*self._renderer.stop_ids, *self._renderer.invalid_marker_ids]
        try:
            completion = await client.completions.create(
                model=self._model,
                prompt=prompt,
                max_tokens=max_tokens,
                temperature=0,
                extra_body={"stop_token_ids": stop_ids, **_GREEDY},
            )
        except openai.OpenAIError as error:
            status = getattr(error, "status_code", None)
            if status in (400, 413, 422) and _TOO_LONG.search(str(error)):
                detail = f"a prompt of {len(prompt)} tokens is refused: {_words(error)}"
                raise _TooLongError(detail) from None
            raise self._error(case, error) from None
        if not completion.choices:
            raise self._error(case, "the server sent no choice")
        return self._parse(completion.choices[0], max_tokens)

    def _parse(self, choice: Any, max_tokens: int) -> tuple[Parsed, str]:
        if ids := getattr(choice, "token_ids", None):
            return self._renderer.parse(ids), self._renderer.decode(ids)
        # Servers without return_token_ids send the text alone, without its stop token.
        if choice.finish_reason == "length":
            detail = f"no end of turn in {max_tokens} tokens"
            return Parsed(malformed=True, detail=detail), choice.text
        stop = getattr(choice, "stop_reason", None)
        raw = choice.text + (self._renderer.decode([stop]) if isinstance(stop, int) else "")
        return self._renderer.parse(raw), raw

    def _error(self, case: Case, error: object) -> StudentError:
        return StudentError(
            f'the server does not answer "{case.conversation.last_user[:60]}": {_words(error)}',
            place=self._base_url,
            hint="its log says more",
        )


def _words(error: object) -> str:
    return " ".join(str(getattr(error, "message", None) or error).split())[:300]


_GREEDY = {
    "ignore_eos": True,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "skip_special_tokens": False,
    "spaces_between_special_tokens": False,
    "return_token_ids": True,
}
"""Overrides the model's own generation_config, and has ids and special tokens returned."""


def _client(base_url: str) -> openai.AsyncOpenAI:
    import openai

    # No key and no proxy: distill started the server on this machine.
    transport = openai.DefaultAsyncHttpxClient(trust_env=False)
    return openai.AsyncOpenAI(
        api_key="none", base_url=base_url, timeout=TIMEOUT, http_client=transport
    )
