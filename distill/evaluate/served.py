"""The same predictions from a server: vLLM speaks for the student, the Renderer reads it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from distill.asking.loop import LoopRunner
from distill.errors import StudentError, TeacherError
from distill.evaluate.predict import Progress, judge_answer, render_prompts
from distill.files import parse_json, read_text
from distill.records import Case, Prediction
from distill.render import Parsed, Renderer
from distill.run.folder import RunFolder
from distill.serving.vllm import Notice, VllmServer
from distill.students.load import EMBEDDED

if TYPE_CHECKING:
    import openai

TUNED = "tuned"
# Seconds for one answer: a server with many others in its queue is slow, not broken.
TIMEOUT = 600.0


class ServedStudent(NamedTuple):
    """A student behind a server; `base` and `tuned` are the names of its models there."""

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
    """The verdict on each case, in order, as `predict` gives them; decoding is greedy.

    Prompts are sent as token ids, at most `concurrency` of them at a time, and `context` is the
    student's, in tokens. Raises StudentError when the server does not answer a case.
    """
    prompts, verdicts = render_prompts(renderer, cases, arm, context)
    speaker = _Speaker(base_url, model, renderer, max_new_tokens, context)

    async def work(client: openai.AsyncOpenAI, waiting: Iterator[int]) -> None:
        for at in waiting:
            parsed, raw = await speaker.says(client, cases[at], prompts[at])
            verdicts[at] = judge_answer(renderer, cases[at], parsed, arm, raw)
            if progress is not None:
                progress(len(verdicts), len(cases), arm)

    async def ask() -> None:
        async with _client(base_url) as client, asyncio.TaskGroup() as group:
            waiting = iter(prompts)
            for _ in range(min(concurrency, len(prompts))):
                group.create_task(work(client, waiting))

    if prompts:
        try:
            with LoopRunner() as runner:
                runner.run(ask())
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
    return [verdicts[at] for at in range(len(cases))]


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
    """The run's student, base and with `adapter`, served by vLLM as long as the block lasts.

    Raises StudentError for a student or an adapter that vLLM cannot serve, or when it does not
    come up.
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
            name,
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
        # A server that does not start teaches nobody here.
        raise StudentError.of(error.problems) from None


def max_lora_rank(adapter: Path) -> int:
    """The largest LoRA rank in an adapter. Raises StudentError for one that vLLM cannot load."""
    path = adapter / "adapter_config.json"
    if not path.is_file():
        raise StudentError(
            "holds no adapter", place=adapter, hint="train one first: distill train RUN"
        )
    config: Any = parse_json(read_text(path), path)
    found = [why for name, why in _UNSERVED.items() if config.get(name) not in (None, False, [])]
    if config.get("bias", "none") != "none":
        found.append("trained biases")
    if found:
        raise StudentError(
            f"vLLM cannot load an adapter with {' and '.join(found)}",
            place=adapter,
            hint="evaluate it with --backend transformers",
        )
    ranks = [config["r"], *(config.get("rank_pattern") or {}).values()]
    return max(int(rank) for rank in ranks)


_UNSERVED = {
    "modules_to_save": "modules that were trained whole",
    "use_dora": "DoRA",
    "lora_bias": "LoRA biases",
}
"""Settings of an adapter that vLLM does not take, and what they mean."""


class _Speaker:
    def __init__(
        self, base_url: str, model: str, renderer: Renderer, max_new_tokens: int, context: int
    ) -> None:
        self._base_url = base_url
        self._model = model
        self._renderer = renderer
        self._most = max_new_tokens
        self._context = context
        # What can no longer be read is not decoded to its end, as in `predict`.
        self._stops = [*renderer.stop_ids, *renderer.invalid_marker_ids]

    async def says(
        self, client: openai.AsyncOpenAI, case: Case, prompt: list[int]
    ) -> tuple[Parsed, str]:
        """What the model answers to a prompt, read and as it came."""
        import openai

        room = min(self._most, self._context - len(prompt))
        try:
            completion = await client.completions.create(
                model=self._model,
                prompt=prompt,
                max_tokens=room,
                temperature=0,
                extra_body=self._greedy(),
            )
        except openai.OpenAIError as error:
            raise self._failed(case, error) from None
        if not completion.choices:
            raise self._failed(case, "the server sent no choice")
        return self._read(completion.choices[0], room)

    def _greedy(self) -> dict[str, object]:
        """What keeps the model's own generation settings out, and brings the ids back."""
        return {
            "stop_token_ids": self._stops,
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

    def _read(self, choice: Any, room: int) -> tuple[Parsed, str]:
        ids = getattr(choice, "token_ids", None)
        if ids:
            return self._renderer.parse(ids), self._renderer.decode(ids)
        # Servers before return_token_ids send text alone, without the token that ended it.
        if choice.finish_reason == "length":
            return Parsed(malformed=True, detail=f"no end of turn in {room} tokens"), choice.text
        stop = getattr(choice, "stop_reason", None)
        raw = choice.text + (self._renderer.decode([stop]) if isinstance(stop, int) else "")
        return self._renderer.parse(raw), raw

    def _failed(self, case: Case, error: object) -> StudentError:
        said = getattr(error, "message", None) or error
        return StudentError(
            f'the server does not answer "{case.prompt[:60]}": {" ".join(str(said).split())[:300]}',
            place=self._base_url,
            hint="its log says more; a smaller --max-model-len than the student's is one cause",
        )


def _client(base_url: str) -> openai.AsyncOpenAI:
    import openai

    # No key and no proxy: the server is distill's own, on this machine.
    transport = openai.DefaultAsyncHttpxClient(trust_env=False)
    return openai.AsyncOpenAI(
        api_key="none", base_url=base_url, timeout=TIMEOUT, http_client=transport
    )
