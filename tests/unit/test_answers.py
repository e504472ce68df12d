"""Replies as servers form them: parts, thoughts, tool calls, streams, and what is no answer."""

from __future__ import annotations

import gzip
import json
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_openai_teacher import ASKED, Client, usable

from distill.records import FailureReason
from distill.teachers.base import ReplyError, Usage
from distill.teachers.openai.answer import read_choice, without_thoughts
from distill.teachers.openai.stream import is_stream, merge_events
from distill.testing import server
from distill.testing.responses import completion, streamed
from distill.testing.server import Behaviour, Body, ChatServer, Response

JSON = '{"user": "who says </think> or <think>?", "calls": []}'
QUOTED = 'I could say {"user": "no"}; or {"a": 1} }{ '


def saying(change: Any, **choice: Any) -> Behaviour:
    """A good reply whose message is what `change` makes of its text."""

    def behaviour(body: Body) -> Response:
        content = json.loads(server.good(body).body)
        [first] = content["choices"]
        text = first["message"]["content"]
        content["choices"] = [{**first, "message": change(text), **choice}]
        return Response(body=json.dumps(content).encode())

    return behaviour


def called(text: str) -> dict[str, Any]:
    return {"function": {"name": "json_tool_call", "arguments": text}, "type": "function"}


UNDERSTOOD: dict[str, Behaviour] = {
    "parts": saying(lambda text: {"content": [{"type": "text", "text": text}]}),
    "parts in pieces": saying(
        lambda text: {"content": [{"type": "text", "text": text[:9]}, {"text": text[9:]}]}
    ),
    "strings in a list": saying(lambda text: {"content": [text[:5], text[5:]]}),
    "Responses parts": saying(lambda text: {"content": [{"type": "output_text", "text": text}]}),
    "one part": saying(lambda text: {"content": {"type": "text", "text": text}}),
    "parsed already": saying(lambda text: {"content": json.loads(text)}),
    "Magistral": saying(
        lambda text: {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": QUOTED}]},
                {"type": "text", "text": text},
            ]
        }
    ),
    "thoughts beside": saying(lambda text: {"content": text, "reasoning_content": QUOTED}),
    "thoughts beside, OpenRouter": saying(
        lambda text: {"content": text, "reasoning": QUOTED, "reasoning_details": [{"x": 1}]}
    ),
    "thoughts within": saying(lambda text: {"content": f"<think>\n{QUOTED}</think>\n\n{text}"}),
    "all of it taken for thoughts": saying(
        lambda text: {"content": None, "reasoning_content": text}
    ),
    "a tool call": saying(lambda text: {"content": None, "tool_calls": [called(text)]}),
    "a tool call, arguments as an object": saying(
        lambda text: {"content": "", "tool_calls": [called(json.loads(text))]},
        finish_reason="tool_calls",
    ),
    "a function call": saying(lambda text: {"content": None, "function_call": {"arguments": text}}),
    "a stream that was not asked for": server.streaming,
    "a stream only": server.stream_only,
}


@pytest.mark.parametrize("behaviour", UNDERSTOOD.values(), ids=UNDERSTOOD)
def test_an_answer_is_found_wherever_it_stands(
    chat_server: ChatServer, behaviour: Behaviour
) -> None:
    chat_server.default = behaviour
    client = Client(chat_server.url)
    replies = client.ask(ASKED, ASKED)
    assert all(usable(reply) for reply in replies)
    assert {reply.usage for reply in replies} == {Usage(prompt_tokens=11, completion_tokens=7)}
    notices = 1 if behaviour is server.stream_only else 0
    assert len(client.notices) == notices, "the format of the reply is held"
    assert chat_server.count == 2 + notices


THOUGHTS = {
    "think": f"<think>{QUOTED}</think>{JSON}",
    "thinking": f" \n<thinking>\n{QUOTED}</thinking>\n{JSON}",
    "thought": f"<thought>{QUOTED}</thought>{JSON}",
    "reasoning": f"<reasoning>{QUOTED}</reasoning>{JSON}",
    "Kimi": f"◁think▷{QUOTED}◁/think▷{JSON}",
    "Magistral": f"[THINK]{QUOTED}[/THINK]{JSON}",
    "Seed": f"<seed:think>{QUOTED}</seed:think>{JSON}",
    "opened by the template": f"{QUOTED}</think>\n{JSON}",
    "twice": f"<think>{QUOTED}</think><think></think>{JSON}",
    "empty": f"<think>\n\n</think>\n\n{JSON}",
    "gpt-oss": f"<|channel|>analysis<|message|>{QUOTED}<|end|><|start|>assistant<|channel|>final"
    f"<|message|>{JSON}<|return|>",
    "gpt-oss, constrained": f"<|channel|>analysis<|message|>{QUOTED}<|end|><|start|>assistant"
    f"<|channel|>final <|constrain|>JSON<|message|>{JSON}",
    "gpt-oss without its tokens": f"analysis{QUOTED}assistantfinal{JSON}",
}


@pytest.mark.parametrize("key", ["message", "delta", "text"])
def test_a_choice_may_name_its_message_otherwise(key: str) -> None:
    assert read_choice({key: JSON if key == "text" else {"content": JSON}}).text == JSON


@pytest.mark.parametrize("text", THOUGHTS.values(), ids=THOUGHTS)
def test_thoughts_are_no_part_of_an_answer(text: str) -> None:
    assert without_thoughts(text) == (JSON, True)


UNFINISHED = [
    f"<think>{QUOTED}",
    "<think>",
    f"◁think▷{QUOTED}",
    f"<|channel|>analysis<|message|>{QUOTED}",
    f"<|channel|>analysis<|message|>{QUOTED}<|end|><|start|>assistant",
]


@pytest.mark.parametrize("text", UNFINISHED)
@pytest.mark.parametrize("finish", ["stop", "length"])
def test_thoughts_without_an_end_are_no_answer(
    chat_server: ChatServer, text: str, finish: str
) -> None:
    chat_server.default = saying(lambda _: {"content": text}, finish_reason=finish)
    with pytest.raises(ReplyError) as caught:
        Client(chat_server.url).ask()
    cut = finish == "length"
    assert caught.value.reason is (FailureReason.TRUNCATED if cut else FailureReason.EMPTY)
    assert caught.value.thinking is cut
    assert ("cut off at 7 tokens while thinking" if cut else "thoughts alone") in str(caught.value)
    assert caught.value.usage == Usage(prompt_tokens=11, completion_tokens=7)


@given(st.text(), st.text())
def test_an_answer_that_is_json_is_left_alone(before: str, after: str) -> None:
    text = json.dumps({before: after}, ensure_ascii=False)
    assert without_thoughts(text) == (text, False)


@given(st.text("<think>/ {}◁▷|channelfinalmessage[]THINK:seed"))
def test_any_text_ends_as_a_part_of_itself(text: str) -> None:
    rest, _ = without_thoughts(text)
    assert rest in text
    assert without_thoughts("</think>{" * 300 + text)[0]


NO_ANSWER: dict[str, tuple[Any, FailureReason, str]] = {
    "no choice": ({"choices": [], "usage": None}, FailureReason.EMPTY, "no choice"),
    "null choices": ({"choices": None}, FailureReason.EMPTY, "no choice"),
    "null message": ({"choices": [{"message": None}]}, FailureReason.EMPTY, "no text"),
    "null choice": ({"choices": [None]}, FailureReason.EMPTY, "no text"),
    "two calls": (
        {"choices": [{"message": {"tool_calls": [called("{}"), called("{}")]}}]},
        FailureReason.EMPTY,
        "2 tool calls",
    ),
    "filtered": (
        {"choices": [{"message": {"content": ""}, "finish_reason": "SAFETY"}]},
        FailureReason.REFUSED,
        "content filter",
    ),
    "refused": (
        {"choices": [{"message": {"refusal": "I will not"}}]},
        FailureReason.REFUSED,
        "I will not",
    ),
    "a refusal among the parts": (
        {"choices": [{"message": {"content": [{"type": "refusal", "refusal": "I will not"}]}}]},
        FailureReason.REFUSED,
        "I will not",
    ),
    "the same as Gemini says it": (
        {"choices": [{"message": {"role": "assistant"}, "finish_reason": "MAX_TOKENS"}]},
        FailureReason.TRUNCATED,
        "cut off at 512 tokens while thinking",
    ),
}


@pytest.mark.parametrize(("body", "reason", "says"), NO_ANSWER.values(), ids=NO_ANSWER)
def test_what_is_no_answer_says_so(
    chat_server: ChatServer, body: Any, reason: FailureReason, says: str
) -> None:
    chat_server.default = lambda asked: Response(body=json.dumps(body).encode())
    with pytest.raises(ReplyError, match=says) as caught:
        Client(chat_server.url).ask()
    assert caught.value.reason is reason
    assert chat_server.count == 1
    charged = caught.value.usage
    assert charged is None or charged.estimated


def test_a_server_that_gives_up_in_the_middle_is_asked_again(chat_server: ChatServer) -> None:
    chat_server.script(saying(lambda text: {"content": text[:3]}, finish_reason="error"))
    [reply] = Client(chat_server.url).ask()
    assert usable(reply)
    assert reply.usage == Usage(prompt_tokens=22, completion_tokens=14)


COUNTED = Usage(prompt_tokens=9, completion_tokens=4)
USAGES: dict[str, tuple[Any, Usage | None]] = {
    "in and out": ({"input_tokens": 9, "output_tokens": 4}, COUNTED),
    "a sum": ({"prompt_tokens": 9, "total_tokens": 13}, COUNTED),
    "floats": ({"prompt_tokens": 9.0, "completion_tokens": 4.0}, COUNTED),
    "DeepSeek": (
        {"prompt_tokens": 9, "completion_tokens": 4, "prompt_cache_hit_tokens": 8},
        COUNTED.model_copy(update={"cached_tokens": 8}),
    ),
    "nothing of the reply": ({"prompt_tokens": 9}, None),
    "zeros": ({"prompt_tokens": 0, "completion_tokens": 0}, None),
    "too many": ({"prompt_tokens": 10**30, "completion_tokens": 4}, None),
    "infinite": ({"prompt_tokens": float("inf"), "completion_tokens": float("nan")}, None),
    "truth": ({"prompt_tokens": True, "completion_tokens": True}, None),
}


@pytest.mark.parametrize(("said", "usage"), USAGES.values(), ids=USAGES)
def test_usage_is_counted_or_called_an_estimate(
    chat_server: ChatServer, said: Any, usage: Usage | None
) -> None:
    content = {"choices": [{"message": {"content": "{}"}}], "usage": said}
    chat_server.default = lambda body: Response(body=json.dumps(content).encode())
    [reply] = Client(chat_server.url).ask()
    assert reply.usage == usage if usage else reply.usage.estimated


@pytest.mark.parametrize("name", ["\ud800", "\x1b[2J", "x" * 10_000, "", 3, None, ["m"]])
def test_an_odd_name_of_a_model_is_not_believed(chat_server: ChatServer, name: Any) -> None:
    content = {"model": name, "choices": [{"message": {"content": "{}"}}]}
    chat_server.default = lambda body: Response(body=json.dumps(content).encode())
    assert Client(chat_server.url).ask()[0].model == "kit"


@given(st.text(max_size=40), st.sampled_from(["\n", "\r\n", "\r"]))
def test_a_stream_makes_the_completion_that_it_was_made_of(text: str, line_end: str) -> None:
    whole = completion(text)
    body = streamed(whole).body.replace(b"\n", line_end.encode())
    body = b": a comment" + line_end.encode() * 2 + body
    assert is_stream(body)
    assert not is_stream(whole.body)
    merged, meant = merge_events(body), json.loads(whole.body)
    assert merged["choices"][0]["message"]["content"] == text
    assert merged["choices"][0]["finish_reason"] == "stop"
    assert merged["usage"] == meant["usage"]


BROKEN_STREAMS: dict[str, bytes] = {
    "no JSON": b"data: {\n\n",
    "no object": b"data: []\n\n",
    "comments alone": b": keep-alive\n\n" * 50,
    "no end": b'data: {"choices": [{"delta": {"content": "{"}}]}\n\n',
    "deep": b"data: " + b"[" * 100_000 + b"\n\n",
}


@pytest.mark.parametrize("body", BROKEN_STREAMS.values(), ids=BROKEN_STREAMS)
def test_a_stream_that_breaks_off_is_asked_for_again(chat_server: ChatServer, body: bytes) -> None:
    chat_server.script(lambda asked: Response(body=body))
    assert usable(Client(chat_server.url).ask()[0])
    assert chat_server.count == 2


def test_an_error_in_a_stream_is_an_error(chat_server: ChatServer) -> None:
    error = b'data: {"error": {"code": 429, "message": "slow down"}}\n\n'
    chat_server.script(lambda asked: Response(body=error))
    client = Client(chat_server.url)
    assert usable(client.ask()[0])
    assert client.teacher.stats.rate_limited == 1


def test_a_stream_without_the_option_for_usage(chat_server: ChatServer) -> None:
    refusal = server.failure(400, "Unrecognized request argument supplied: stream_options").body
    refuse = server.refusing(400, refusal, "stream_options")
    chat_server.default = lambda body: (
        refuse(body) if body.get("stream") else server.stream_only(body)
    )
    client = Client(chat_server.url)
    assert usable(client.ask()[0])
    assert len(client.notices) == 2
    assert "stream_options" not in chat_server.requests[-1]


def test_a_calls_arguments_come_in_parts() -> None:
    parts = ({"index": 0, "function": {"arguments": part}} for part in ('{"a"', ": 1}"))
    events = [{"choices": [{"delta": {"tool_calls": [part]}}]} for part in parts]
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    merged = merge_events(body + b"data: [DONE]\n\n")
    assert read_choice(merged["choices"][0]).text == '{"a": 1}'


def endless(filler: bytes) -> Behaviour:
    return lambda body: Response(body=filler * (64 * 2**20 // len(filler)), chunks=1024)


ENDLESS = {
    "whitespace": b" " * 1024,
    "comments": b": keep-alive\n\n" * 64,
    "brackets": b"[" * 1024,
    "text": b'{"choices": [{"message": {"content": "' + b"x" * 1024,
}


@pytest.mark.parametrize("filler", ENDLESS.values(), ids=ENDLESS)
@pytest.mark.parametrize("status", [200, 400])
def test_a_body_without_end_is_not_read_to_it(
    chat_server: ChatServer, filler: bytes, status: int
) -> None:
    chat_server.default = lambda body: replace(endless(filler)(body), status=status)
    with pytest.raises(ReplyError, match="larger than 8,192 KiB") as caught:
        Client(chat_server.url).ask()
    assert caught.value.reason is FailureReason.SERVER
    assert chat_server.count == 1
    assert chat_server.by_status["abandoned"] <= 1


def test_a_compressed_body_may_not_unfold_without_end(chat_server: ChatServer) -> None:
    bomb = gzip.compress(b" " * 2**28, compresslevel=1)
    headers = {"Content-Encoding": "gzip"}
    chat_server.script(lambda body: Response(body=bomb, headers=headers))
    with pytest.raises(ReplyError, match="larger than 64 KiB"):
        Client(chat_server.url).ask()
    assert chat_server.headers[0]["accept-encoding"] == "identity"
    chat_server.default = lambda body: Response(
        body=gzip.compress(server.good(body).body), headers=headers
    )
    assert usable(Client(chat_server.url).ask()[0])


def test_a_body_that_trickles_has_as_long_as_any_other(chat_server: ChatServer) -> None:
    chat_server.default = server.trickling(30, chunks=300)
    began = time.monotonic()
    with pytest.raises(ReplyError, match=r"within 0\.3 s"):
        Client(chat_server.url, timeout=0.3, attempts=2).ask()
    assert time.monotonic() - began < 5
