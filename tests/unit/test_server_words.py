"""Servers in their own words: parameters refused, and errors of every form and status."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest
from test_openai_teacher import ASKED, Client, usable

from distill.errors import TeacherError
from distill.records import FailureReason
from distill.teachers.base import ReplyError, Usage
from distill.teachers.openai.server_error import read_error
from distill.testing import server
from distill.testing.server import Body, ChatServer, Response


def openai(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", **more}}


def fastapi(name: str, value: object = 1) -> dict[str, Any]:
    """Pydantic's complaint, which repeats the value that it is about."""
    fault = {"type": "extra_forbidden", "loc": ["body", name], "input": value}
    return {"detail": [{**fault, "msg": "Extra inputs are not permitted"}]}


class Refusal(NamedTuple):
    """What a server says to a request with a parameter that it does not take."""

    parameter: str
    body: Any
    status: int = 400


# As they were reported by people who met them.
REFUSALS: dict[str, Refusal] = {
    "OpenAI": Refusal(
        "temperature",
        openai(
            "Unsupported parameter: 'temperature' is not supported with this model.",
            param="temperature",
            code="unsupported_parameter",
        ),
    ),
    "OpenAI, value": Refusal(
        "temperature",
        openai(
            "Unsupported value: 'temperature' does not support 0 with this model. Only the "
            "default (1) value is supported.",
            param="temperature",
            code="unsupported_value",
        ),
    ),
    "OpenAI, max_tokens": Refusal(
        "max_tokens",
        openai(
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
            "'max_completion_tokens' instead.",
            param="max_tokens",
            code="unsupported_parameter",
        ),
    ),
    "GitHub, words alone": Refusal(
        "temperature", "Unsupported parameter: 'temperature' is not supported with this model."
    ),
    "a gateway with status 500": Refusal(
        "temperature",
        {
            "error": {
                "cause": json.dumps(openai("…")),
                "code": 500,
                "message": "Unsupported value: 'temperature' does not support 0.1 with this model",
            }
        },
        500,
    ),
    "Azure": Refusal("seed", openai("Unrecognized request argument supplied: seed", param=None)),
    "Azure, Mistral's model": Refusal(
        "seed",
        {"error": {"code": "Invalid input", "message": json.dumps(fastapi("seed")), "status": 422}},
        422,
    ),
    "Mistral": Refusal("seed", fastapi("seed", 123), 422),
    "Mistral, wrapped": Refusal(
        "seed",
        {"object": "error", "message": fastapi("seed"), "type": "invalid_request_error"},
        422,
    ),
    "Mistral, wrapped in a string": Refusal(
        "seed",
        {"object": "error", "message": json.dumps(fastapi("seed")), "code": "1000", "param": None},
        422,
    ),
    "Mistral, lists": Refusal(
        "seed",
        {"object": "Error", **fastapi("seed"), "message": fastapi("seed")["detail"], "code": 3001},
        422,
    ),
    "Gemini": Refusal(
        "seed",
        [
            {
                "error": {
                    "code": 400,
                    "message": 'Invalid JSON payload received. Unknown name "frequency_penalty": '
                    "Cannot find field.\nInvalid JSON payload received. Unknown name "
                    '"seed": Cannot find field.',
                    "status": "INVALID_ARGUMENT",
                    "details": [{"@type": "type.googleapis.com/google.rpc.BadRequest"}],
                }
            }
        ],
    ),
    "LiteLLM": Refusal(
        "seed",
        openai(
            "litellm.UnsupportedParamsError: anthropic does not support parameters: "
            "{'seed': 12345}, for model=claude-3-5-sonnet-20241022. To drop these, set "
            "`litellm.drop_params=True` or for proxy:",
            code="400",
        ),
    ),
    "LiteLLM, GPT-5": Refusal(
        "temperature",
        openai(
            "litellm.UnsupportedParamsError: gpt-5-nano doesn't support temperature=0.1 while "
            "reasoning is active. Only temperature=1 is supported.",
            param=None,
            code="400",
        ),
    ),
    "LiteLLM, before another": Refusal(
        "seed",
        openai(f"litellm.BadRequestError: MistralException - {json.dumps(fastapi('seed'))}"),
    ),
    "Cohere": Refusal(
        "seed",
        {"id": "3d7", "message": "unknown field: parameter 'seed' is not a valid field."},
    ),
    "LlamaEdge": Refusal("seed", "unknown field `seed`"),
    "Bedrock": Refusal(
        "seed", {"message": "Malformed input request: #: extraneous key [seed] is not permitted"}
    ),
    "Groq": Refusal("seed", openai("property 'seed' is unsupported, did you mean 'stop'?")),
    "Cerebras": Refusal(
        "seed",
        {
            "message": "seed: property 'seed' is unsupported",
            "param": "validation_error",
            "code": "wrong_api_format",
        },
        422,
    ),
    "xAI": Refusal(
        "seed",
        {
            "code": "Client specified an invalid argument",
            "error": "Argument not supported on this model: seed",
        },
    ),
    "Anthropic": Refusal(
        "temperature",
        {
            "type": "error",
            "error": {
                "type": "invalid_request_error",
                "message": "`temperature` may only be set to 1 when thinking is enabled.",
            },
        },
    ),
    "Anthropic, later": Refusal(
        "temperature", openai("`temperature` is deprecated for this model.")
    ),
    "Moonshot": Refusal(
        "temperature", openai("invalid temperature: only 1 is allowed for this model")
    ),
    "a newer server": Refusal(
        "max_tokens", openai("max_tokens is no longer supported; use max_completion_tokens")
    ),
    "DeepSeek": Refusal("response_format", openai("This response_format type is unavailable now")),
    "DeepSeek, serde": Refusal(
        "response_format",
        "Failed to deserialize the JSON body into the target type: response_format.type: unknown "
        "variant `json_schema`, expected `text` or `json_object` at line 1 column 132",
        422,
    ),
    "xAI, format": Refusal(
        "response_format",
        {
            "code": "Client specified an invalid argument",
            "error": "The response_format parameter is unsupported at the moment. Leave it unset.",
        },
    ),
    "Fireworks": Refusal(
        "response_format",
        openai("Extra inputs are not permitted, field: 'response_format.schema_field'"),
    ),
    "Together by LiteLLM": Refusal(
        "response_format",
        openai(
            "litellm.UnsupportedParamsError: together_ai does not support parameters: "
            "['response_format'], for model=m. To drop these, set `litellm.drop_params=True`"
        ),
    ),
    "llama.cpp": Refusal(
        "response_format",
        {"error": {"code": 400, "message": "Failed to parse grammar", "type": "invalid_request"}},
    ),
    "Groq, format": Refusal(
        "response_format",
        openai("'response_format.type' : value is not one of the allowed values ['text']"),
    ),
}


def encoded(body: Any) -> bytes:
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_a_refused_parameter_is_left_out_and_named_once(
    chat_server: ChatServer, refusal: Refusal
) -> None:
    name = refusal.parameter
    chat_server.default = server.refusing(refusal.status, encoded(refusal.body), name)
    client = Client(chat_server.url)
    assert all(usable(reply) for reply in client.ask(ASKED, ASKED, ASKED))
    first, *_, last = chat_server.requests
    assert set(first) - set(last) == {name}
    assert set(last) - set(first) == ({"max_completion_tokens"} & {f"max_completion_{name[4:]}"})
    steps = 2 if name == "response_format" else 1
    assert chat_server.count == 3 + steps
    assert len(client.notices) == steps
    assert all(name.split("_")[-1] in notice for notice in client.notices)


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_that_does_not_end_is_one_failure(
    chat_server: ChatServer, refusal: Refusal
) -> None:
    chat_server.default = lambda body: Response(refusal.status, encoded(refusal.body))
    with pytest.raises(ReplyError) as caught:
        Client(chat_server.url, attempts=2).ask()
    assert str(refusal.status) in caught.value.detail
    # Once without each of the four, formats in two steps, and 500 as often as the policy says.
    assert chat_server.count <= 7


def test_both_names_of_a_bound_may_be_refused(chat_server: ChatServer) -> None:
    def refuse(body: Body) -> Response:
        for name in ("max_tokens", "max_completion_tokens"):
            if name in body:
                words = f"Unrecognized request argument supplied: {name}"
                return server.failure(400, words)
        return server.good(body)

    chat_server.default = refuse
    client = Client(chat_server.url)
    assert usable(client.ask()[0])
    assert [len(client.notices), chat_server.count] == [2, 3]


OTHER_REFUSALS = {
    "too long": "This model's maximum context length is 4097 tokens. However, you requested 5000 "
    "tokens (4488 in the messages, 512 in the completion). Please reduce the length.",
    "vLLM": "'max_tokens' or 'max_completion_tokens' is too large: 512. This model's maximum "
    "context length is 1024 tokens and your request has 600 input tokens (512 > 1024 - 600).",
    "OpenAI": "max_tokens is too large: 100000. This model supports at most 16384 completion "
    "tokens, whereas you provided 100000.",
    "roles": "Only user and assistant roles are supported!",
    "model": "The model 'm' is not supported.",
    "seed elsewhere": "Unsupported region. " + "x" * 200 + " seed",
}


@pytest.mark.parametrize("words", OTHER_REFUSALS.values(), ids=OTHER_REFUSALS)
def test_what_is_wrong_for_another_reason_is_no_refusal(
    chat_server: ChatServer, words: str
) -> None:
    chat_server.default = lambda body: server.failure(400, words)
    client = Client(chat_server.url)
    with pytest.raises(ReplyError) as caught:
        client.ask()
    assert words[:60] in caught.value.detail
    assert (chat_server.count, client.notices) == (1, [])


WORDS: dict[str, tuple[bytes, str]] = {
    "HTML": (
        b"<!DOCTYPE html><html><head><title>413 Too Large</title><style>a{b:c}</style></head>"
        b"<body><h1>Request&nbsp;too large</h1></body></html>",
        "413 Too Large Request too large",
    ),
    "text": (b"no such deployment\n", "no such deployment"),
    "nothing": (b"", "no words"),
    "not UTF-8": (b"ung\xfcltig", "ung\ufffdltig"),
    "a string": (b'"quota"', '"quota"'),
    "a list of strings": (b'{"detail": ["one", "two"]}', "one; two"),
    "detail": (b'{"detail": "Not Found"}', "Not Found"),
    "unknown names": (b'{"oops": {"why": 3}}', '{"oops": {"why": 3}}'),
    "an error in an error": (b'{"error": {"error": "deep"}}', "deep"),
    "many brackets": (b"[" * 100_000, "[" * 2000),
    "many digits": (b"9" * 5_000, "9" * 2000),
    "many tags": (b"<html>" + b"<" * 100_000, "<" * 2000),
}


@pytest.mark.parametrize(("body", "words"), WORDS.values(), ids=WORDS)
def test_an_error_keeps_the_servers_words(body: bytes, words: str) -> None:
    assert read_error(418, body).words[:1900] == words[:1900]


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 413, 418, 422, 451, 501])
def test_words_are_bounded_and_obeyed_by_no_terminal(chat_server: ChatServer, status: int) -> None:
    words = "no\x1b[31m \x9b2J \u202etxt\x07 " + "x" * 5000
    chat_server.default = lambda body: Response(status, words.encode())
    with pytest.raises((TeacherError, ReplyError)) as caught:
        Client(chat_server.url).ask()
    said = caught.value.detail if isinstance(caught.value, ReplyError) else str(caught.value)
    assert rf"{status}: no\x1b[31m \x9b2J \u202etxt\x07 xxx" in said
    assert len(said) < 700


ERRORS_IN_200: dict[str, tuple[Any, int]] = {
    "a number": ({"error": {"code": 429, "message": "slow down"}}, 429),
    "a number in a string": ({"error": {"code": "503", "message": "busy"}}, 503),
    "a name": ({"error": {"code": "rate_limit_exceeded", "message": "slow down"}}, 429),
    "a type": ({"error": {"type": "overloaded_error", "message": "Overloaded"}}, 503),
    "a string": ({"error": "something broke"}, 500),
    "beside it": ({"error": "slow down", "code": 429}, 429),
    "in a choice": (
        {"choices": [{"error": {"code": 502, "message": "bad"}, "finish_reason": "error"}]},
        502,
    ),
    "in a list": ([{"error": {"code": 500, "message": "internal"}}], 500),
    "FastChat": ({"object": "error", "message": "worker is gone", "code": 50005}, 500),
    "MiniMax": ({"base_resp": {"status_code": 1000, "status_msg": "unknown"}}, 500),
}


@pytest.mark.parametrize(("body", "status"), ERRORS_IN_200.values(), ids=ERRORS_IN_200)
def test_an_error_with_status_200_is_an_error(
    chat_server: ChatServer, body: Any, status: int
) -> None:
    chat_server.script(lambda asked: Response(body=json.dumps(body).encode()))
    client = Client(chat_server.url)
    [reply] = client.ask()
    assert usable(reply)
    assert (client.teacher.stats.retries, client.teacher.stats.rate_limited) == (1, status == 429)
    assert reply.usage == Usage(prompt_tokens=11, completion_tokens=7), "none is invented"


def test_an_error_with_status_200_may_end_the_run_or_name_a_parameter(
    chat_server: ChatServer,
) -> None:
    chat_server.script(
        lambda body: Response(body=b'{"error": {"message": "unknown field `seed`"}}'),
        server.good,
        lambda body: Response(body=b'{"error": {"code": 401, "message": "no such key"}}'),
    )
    client = Client(chat_server.url)
    with pytest.raises(TeacherError, match="no such key"):
        client.ask(ASKED, ASKED)
    assert [("seed" in body) for body in chat_server.requests] == [True, False, False]


def test_usage_of_attempts_that_failed_counts(chat_server: ChatServer) -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 5}
    broken = {"error": {"code": 502, "message": "bad"}, "usage": usage}
    chat_server.script(*[lambda body: Response(body=json.dumps(broken).encode())] * 2)
    [reply] = Client(chat_server.url).ask()
    assert reply.usage == Usage(prompt_tokens=211, completion_tokens=17)
    chat_server.default = lambda body: Response(body=json.dumps(broken).encode())
    with pytest.raises(ReplyError) as caught:
        Client(chat_server.url).ask()
    assert caught.value.usage == Usage(prompt_tokens=300, completion_tokens=15)


def test_a_reply_that_groq_could_not_parse_is_malformed(chat_server: ChatServer) -> None:
    words = "Failed to generate JSON. Please adjust your prompt. See 'failed_generation'."
    chat_server.default = lambda body: server.failure(400, words, code="json_validate_failed")
    with pytest.raises(ReplyError) as caught:
        Client(chat_server.url).ask()
    assert caught.value.reason is FailureReason.MALFORMED
    assert chat_server.count == 1
