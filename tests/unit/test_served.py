"""What a server says for a student is judged as what the student says itself."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from test_evaluate_predict import CASES, CONTEXT, LEARNED, case, renderer, student  # noqa: F401

from distill.config import Config, TrainConfig
from distill.errors import StudentError, TeacherError
from distill.evaluate.predict import predict
from distill.evaluate.served import max_lora_rank, predict_served, serve_student
from distill.records import Outcome, Prediction
from distill.render import Renderer
from distill.sharing.decode import greedy_decode
from distill.testing.behaviours import too_long_for_vllm

Reply = Callable[[Any, list[int], str], dict[str, Any]]


def with_ids(body: Any, ids: list[int], finish: str) -> dict[str, Any]:
    assert body["return_token_ids"]
    return {"text": "", "token_ids": ids, "finish_reason": finish}


class Handler(BaseHTTPRequestHandler):
    """/v1/completions as vLLM has it, decoded by a model in this process."""

    model: ClassVar[Any]
    reply: ClassVar[Reply]
    status: ClassVar[int] = 200
    takes: ClassVar[int] = CONTEXT
    cards: ClassVar[list[Any]] = []
    lock: ClassVar[Any] = threading.Lock()
    bodies: ClassVar[list[Any]]
    under_way: ClassVar[list[int]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.bodies.append(body)
        assert self.path == "/v1/completions"
        stops = body["stop_token_ids"]
        with self.lock:
            (ids,) = greedy_decode(self.model, [body["prompt"]], stops, body["max_tokens"])
        finish = "stop" if ids[-1] in stops else "length"
        choice = {"index": 0, "logprobs": None, **type(self).reply(body, ids, finish)}
        said: dict[str, Any] = {"id": "1", "object": "text_completion", "created": 1}
        said |= {"model": "m", "choices": [choice] if choice["finish_reason"] else []}
        if self.status != 200:
            said = {"error": {"message": "the adapter is gone"}}
        status = self.status
        if len(body["prompt"]) + body["max_tokens"] > self.takes:
            refusal = too_long_for_vllm(body)
            status, said = refusal.status, json.loads(refusal.body)
        self.answer(status, said)

    def do_GET(self) -> None:
        assert self.path == "/v1/models"
        self.answer(200 if self.cards else 404, {"object": "list", "data": self.cards})

    def answer(self, status: int, said: dict[str, Any]) -> None:
        data = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(
    model: Any, reply: Reply = with_ids, status: int = 200, **more: Any
) -> Iterator[tuple[str, Any]]:
    fields = {"model": model, "reply": staticmethod(reply), "status": status, "bodies": [], **more}
    handler = type("Serving", (Handler,), fields)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1", handler
        finally:
            server.shutdown()
            thread.join()


def served(url: str, renderer: Renderer, cases: Any = CASES, **more: Any) -> list[Prediction]:  # noqa: F811
    fields = {"max_new_tokens": 48, "context": CONTEXT, "concurrency": 3, **more}
    return predict_served(url, "tuned", renderer, cases, arm="tuned", **fields)


@pytest.mark.parametrize("concurrency", [1, 3, 50])
def test_a_server_gives_the_same_predictions(
    renderer: Renderer,  # noqa: F811
    student: Any,  # noqa: F811
    concurrency: int,
) -> None:
    # The last one has less room than an answer may take.
    cases = (*CASES, case("hello " * 11))
    told: list[tuple[int, int, str]] = []
    with serving(student) as (url, handler):
        made = served(
            url,
            renderer,
            cases,
            concurrency=concurrency,
            progress=lambda *state: told.append(state),
        )
    own = predict(student, renderer, cases, arm="tuned", max_new_tokens=48, batch_size=1)
    # A server tells neither probabilities nor losses.
    untold = {"confidence": None, "label_nll": None}
    assert made == [one.model_copy(update=untold) for one in own]
    assert Outcome.MALFORMED in {p.outcome for p in made}
    assert told[-1] == (len(cases), len(cases), "tuned")
    assert len(handler.bodies) == len(cases) - 2
    assert all(body["temperature"] == 0 and body["ignore_eos"] for body in handler.bodies)
    assert all(isinstance(body["prompt"][0], int) for body in handler.bodies)


def test_a_server_without_ids_is_read_by_its_text(renderer: Renderer, student: Any) -> None:  # noqa: F811
    def with_text(body: Any, ids: list[int], finish: str) -> dict[str, Any]:
        said = ids[:-1] if finish == "stop" else ids
        # Both kinds of server: those that name the token that ended the answer, and others.
        stop = {"stop_reason": ids[-1]} if finish == "stop" and len(ids) % 2 else {}
        return {"text": renderer.decode(said), "finish_reason": finish, **stop}

    def essence(predictions: list[Prediction]) -> list[Any]:
        return [(p.outcome, p.calls, p.reply, p.detail) for p in predictions]

    with serving(student, with_text) as (url, _):
        for most in (48, 5):
            made = served(url, renderer, max_new_tokens=most)
            own = predict(student, renderer, CASES, arm="tuned", max_new_tokens=most, batch_size=1)
            assert essence(made) == essence(own)


def test_an_invalid_marker_is_malformed_in_text_too(renderer: Renderer, student: Any) -> None:  # noqa: F811
    invalid = renderer.invalid_marker_ids[0]
    with serving(
        student, lambda *_: {"text": "hello", "finish_reason": "stop", "stop_reason": invalid}
    ) as (url, _):
        made = served(url, renderer, CASES[:1])
    own = renderer.parse(f"hello{renderer.decode([invalid])}")
    assert made[0].malformed
    assert made[0].detail == own.detail


def test_a_request_that_fails_is_an_error_of_the_run(renderer: Renderer, student: Any) -> None:  # noqa: F811
    with serving(student, status=400) as (url, _), pytest.raises(StudentError) as caught:
        served(url, renderer)
    assert caught.value.problems[0].place == url
    assert "the adapter is gone" in str(caught.value)
    assert any(text[:20] in str(caught.value) for text in LEARNED)
    with (
        serving(student, lambda *_: {"text": "", "finish_reason": ""}) as (url, _),
        pytest.raises(StudentError, match="sent no choice"),
    ):
        served(url, renderer)
    with pytest.raises(StudentError, match="Connection error"):
        served(url, renderer, CASES[:1])


def test_a_prompt_longer_than_the_servers_context_is_malformed(
    renderer: Renderer,  # noqa: F811
    student: Any,  # noqa: F811
) -> None:
    cases = [case("hello"), case("hello " * 9)]
    short, long = (len(renderer.prompt(one.messages, one.tools)) for one in cases)
    assert short < long < CONTEXT - 8
    with serving(student, takes=short + 8) as (url, _):
        made = served(url, renderer, cases, max_new_tokens=8)
    (own,) = predict(student, renderer, cases[:1], arm="tuned", max_new_tokens=8, batch_size=1)
    assert made[0] == own.model_copy(update={"confidence": None, "label_nll": None})
    assert made[1].outcome == Outcome.MALFORMED
    assert f"a prompt of {long} tokens is refused: " in made[1].detail
    assert "maximum context length" in made[1].detail


@pytest.mark.parametrize("parent", [None, "base"])
def test_what_the_server_says_of_its_context_holds(
    renderer: Renderer,  # noqa: F811
    student: Any,  # noqa: F811
    parent: str | None,
) -> None:
    cases = [case("hello"), case("hello " * 9)]
    long = len(renderer.prompt(cases[1].messages, cases[1].tools))
    card = {"object": "model", "created": 1, "owned_by": "vllm"}
    cards = [
        {**card, "id": "tuned", "parent": parent, "max_model_len": None if parent else long},
        {**card, "id": "base", "max_model_len": long if parent else 3},
    ]
    with serving(student, takes=long, cards=cards) as (url, handler):
        made = served(url, renderer, cases)
    assert [one.outcome == Outcome.MALFORMED for one in made][1:] == [True]
    assert made[1].detail == f"a prompt of {long} tokens, and the server takes {long}"
    (body,) = handler.bodies
    assert len(body["prompt"]) + body["max_tokens"] <= long, "an answer is not asked beyond it"


def test_nothing_is_asked_where_nothing_can_be(renderer: Renderer) -> None:  # noqa: F811
    url = "http://127.0.0.1:1/v1"
    assert served(url, renderer, ()) == []
    (made,) = served(url, renderer, [case("meals " * CONTEXT)])
    assert made.outcome == Outcome.MALFORMED


def adapter(folder: Path, **config: Any) -> Path:
    made = folder / "adapter"
    made.mkdir(exist_ok=True)
    (made / "adapter_config.json").write_text(json.dumps({"r": 8, **config}))
    return made


def test_an_adapter_that_vllm_cannot_load_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudentError, match="holds no adapter"):
        max_lora_rank(tmp_path)
    assert max_lora_rank(adapter(tmp_path, modules_to_save=None, bias="none")) == 8
    assert max_lora_rank(adapter(tmp_path, rank_pattern={"q": 32, "k": 4})) == 32
    for bad, why in (
        ({"modules_to_save": ["embed_tokens"]}, "trained whole"),
        ({"use_dora": True}, "DoRA"),
        ({"lora_bias": True}, "LoRA biases"),
        ({"bias": "all", "use_dora": True}, "DoRA and trained biases"),
    ):
        with pytest.raises(StudentError, match=why) as caught:
            max_lora_rank(adapter(tmp_path, **bad))
        assert "--backend transformers" in caught.value.problems[0].hint


def test_a_student_that_cannot_be_served_is_an_error(tmp_path: Path) -> None:
    def serve(student: str, *command: str) -> None:  # noqa: F811
        run: Any = SimpleNamespace(config=Config(train=TrainConfig(student=student)))
        with serve_student(
            run,
            command=command,
            adapter=adapter(tmp_path),
            log=tmp_path / "8-evaluate" / "vllm.log",
            start_timeout=60,
            notice=lambda text: None,
        ):
            raise AssertionError("it was served")

    with pytest.raises(StudentError, match="embedded"):
        serve("embedded")
    with pytest.raises(StudentError, match="status 3") as caught:
        serve("owner/name", "/bin/sh", "-c", "echo KeyError: x; exit 3")
    assert not isinstance(caught.value, TeacherError)
    assert "KeyError: x" in str(caught.value)
    assert (tmp_path / "8-evaluate" / "vllm.log").read_text() == "KeyError: x\n"
