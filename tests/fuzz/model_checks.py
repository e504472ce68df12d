"""What must hold of anything that a server or a student says."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from functools import cache
from pathlib import Path

from jsonschema import Draft202012Validator
from kit.office import OFFICE, RULES, task

from distill.asking.ask import MalformedReplyError
from distill.asking.routing import read_route, route_request
from distill.asking.writing import batch_request, read_reply, split_batch, write_request
from distill.config import DataConfig, TeacherConfig
from distill.data.checks import validate
from distill.errors import DistillError
from distill.evaluate.predict import judge_answer
from distill.files import encoded, record_line
from distill.ledger.replies import ReplyStore
from distill.records import Candidate, Case, Message, Prediction, Target, ToolCall, canonical_json
from distill.render import FORMATS, Format, Parsed, Renderer, RenderError
from distill.render.syntax import MalformedError
from distill.students.embedded import embedded_student
from distill.teachers.base import ChatReply, ReplyError
from distill.teachers.openai.client import OpenAITeacher
from distill.workflow.values import argument_errors

_SETTINGS = TeacherConfig()
_CASE = Case(id="", messages=(Message(role="user", content="Where is it?"),), kind="answer")
_REQUESTS = [write_request(task(rule.id).scenario, OFFICE, _SETTINGS) for rule in RULES]
_BATCH = batch_request(_REQUESTS[:2])


def check_reply(data: bytes) -> None:
    """Whatever bytes a server sends: a reply or a typed failure, and what is read is valid."""
    reply = _runner().run(_complete(data))
    if reply is None:
        return
    _check_stored(reply)
    for text in [reply.text, *(part.text for part in split_batch(reply, 2))]:
        _check_written(text)
        _check_routed(text)


def check_answer(data: bytes) -> None:
    """Whatever a student writes: calls, words, or malformed; calls that are read can be written."""
    text = data.decode("utf-8", "replace")
    for format in FORMATS:
        try:
            said = format.read(text)
        except MalformedError as error:
            assert str(error)
            continue
        _check_written_again(format, said.calls)
    for renderer in _renderers():
        _check_parsed(renderer, text)


@cache
def _runner() -> asyncio.Runner:
    return asyncio.Runner()


async def _complete(response: bytes) -> ChatReply | None:
    """What the client makes of these bytes; None for a failure that a run can meet."""

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
            await reader.readexactly(int(length or 0))
            writer.write(response)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(respond, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        teacher = OpenAITeacher(
            "m",
            f"http://127.0.0.1:{port}/v1",
            "sk-not-a-key",
            timeout=5.0,
            attempts=1,
            patience=0.0,
            notice=lambda _: None,
        )
        try:
            return await teacher.complete(_REQUESTS[0])
        except ReplyError as error:
            assert error.detail
            return None
        except DistillError as error:
            assert all(problem.cause and problem.hint for problem in error.problems)
            return None
        finally:
            await teacher.close()


@cache
def _store() -> ReplyStore:
    return ReplyStore(Path(tempfile.mkdtemp(prefix="distill-fuzz-")) / "replies.sqlite")


def _check_stored(reply: ChatReply) -> None:
    """What was paid for is stored, and read as it was."""
    _store().drop(["key"])
    assert _store().put("key", reply) == reply
    assert _store().get("key") == reply


def _check_written(text: str) -> None:
    """A conversation that is accepted is of its plan, meets the schemas, and can be stored."""
    for request in _REQUESTS:
        try:
            candidate = read_reply(text, request.task, "fuzz")  # type: ignore[arg-type]
        except MalformedReplyError as error:
            assert str(error)
            continue
        rule = OFFICE.by_id[candidate.scenario.rule]
        assert candidate.target.kind == rule.then.kind
        assert [call.name for call in candidate.target.calls] == [c.tool for c in rule.then.calls]
        for call in candidate.target.calls:
            tool = OFFICE.by_name[call.name]
            assert not argument_errors(tool, call.arguments)
            assert Draft202012Validator(tool.parameters).is_valid(call.arguments)
        line = record_line(candidate).encode()
        assert Candidate.model_validate_json(line) == candidate
        sifted = validate([candidate], OFFICE, DataConfig())
        assert len(sifted.kept) + len(sifted.rejected) == 1


def _check_routed(text: str) -> None:
    route_request(_CASE, OFFICE, _SETTINGS)
    try:
        parsed = read_route(text, _CASE, OFFICE)
    except MalformedReplyError:
        return
    assert all(call.name in OFFICE.by_name for call in parsed.calls)


def _check_written_again(format: Format, calls: tuple[ToolCall, ...]) -> None:
    if not calls:
        return
    try:
        written = format.write(calls)
    except RenderError:
        return
    assert _json(format.read(written).calls) == _json(calls), written


@cache
def _renderers() -> tuple[Renderer, ...]:
    tokenizer = embedded_student(OFFICE.tools).tokenizer
    tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
    return tuple(
        Renderer(tokenizer, OFFICE.tools, declarations=declared) for declared in ("none", "full")
    )


def _check_parsed(renderer: Renderer, text: str) -> None:
    """The verdict on the text, and on its tokens; a call that is parsed is rendered to itself."""
    ids = [*renderer.tokenizer.encode(text, add_special_tokens=False), renderer.stop_ids[0]]
    for answer in (text, ids):
        parsed = renderer.parse(answer)
        assert not (parsed.malformed and parsed.calls)
        prediction = judge_answer(renderer, _CASE, parsed, "fuzz", text)
        again = Prediction.model_validate_json(encoded(record_line(prediction)))
        assert again == prediction
        _check_rendered(renderer, parsed)


def _check_rendered(renderer: Renderer, parsed: Parsed) -> None:
    """Twice, as the embedded student's tokenizer drops case and accents the first time."""
    with contextlib.suppress(RenderError):
        once = _rendered(renderer, parsed.calls)
        assert _json(_rendered(renderer, once)) == _json(once)


def _rendered(renderer: Renderer, calls: tuple[ToolCall, ...]) -> tuple[ToolCall, ...]:
    """The calls as they are read from a training row of theirs."""
    if not calls:
        return ()
    target = Target(kind="call", calls=calls)
    said = renderer.parse(renderer.example(_CASE.messages, target).completion)
    assert len(said.calls) == len(calls)
    return said.calls


def _json(calls: tuple[ToolCall, ...]) -> str:
    return canonical_json([call.model_dump() for call in calls])
