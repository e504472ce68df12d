"""Models that think first: room for their thoughts is found out once, and no money burnt."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from kit import office

from distill.asking.pool import MAX_INITIAL_FAILURES
from distill.asking.thinking import THINKING_TOKENS, ThinkingRoom, ThinkingTeacher
from distill.asking.writing import write_request
from distill.config import TeacherConfig
from distill.data.generate import WORKERS_PER_SLOT, generate
from distill.errors import TeacherError
from distill.ledger.budget import Budget, MeteredTeacher
from distill.ledger.replies import ReplyStore
from distill.records import Candidate, Failure, FailureReason
from distill.teachers.make import make_teacher
from distill.testing import server
from distill.testing.server import Behaviour, Body, ChatServer, Response

COUNT = 40


def run(
    chat_server: ChatServer, notices: list[str], budget: Budget | None = None
) -> tuple[list[Candidate | Failure], ReplyStore]:
    """What becomes of COUNT scenarios, as the stages ask for them."""
    settings = TeacherConfig(kind="openai", model="kit", base_url=chat_server.url, concurrency=8)
    outcomes: list[Candidate | Failure] = []
    store = ReplyStore(Path(":memory:"))
    inner = make_teacher(settings, notice=notices.append)

    async def main() -> None:
        metered = MeteredTeacher(inner, store, budget or Budget(), "generate")
        teacher = ThinkingTeacher(metered, ThinkingRoom(notices.append))
        try:
            await generate(
                office.scenarios(COUNT),
                office.OFFICE,
                teacher,
                store,
                settings,
                lambda number, outcome: outcomes.append(outcome),
            )
        finally:
            await teacher.close()

    try:
        asyncio.run(main())
    except TeacherError as error:
        notices.append(str(error))
    return outcomes, store


def test_a_model_that_thinks_is_given_room_once(chat_server: ChatServer) -> None:
    chat_server.default = server.thinking(2000)
    notices: list[str] = []
    outcomes, store = run(chat_server, notices)
    assert sum(isinstance(outcome, Candidate) for outcome in outcomes) == COUNT
    [notice] = notices
    assert "cut off at 512 tokens while thinking" in notice
    assert f"{THINKING_TOKENS:,}" in notice
    small = sum(body["max_tokens"] == 512 for body in chat_server.requests)
    assert small <= 8 * WORKERS_PER_SLOT, "those that were under way before the first was cut"
    assert chat_server.count == COUNT + small
    # Every token of the replies that were cut is in the ledger.
    spent = store.spent()
    assert (spent.requests, spent.completion_tokens) == (COUNT + small, COUNT * 2007 + small * 512)


def test_replies_are_kept_under_what_was_asked_for(chat_server: ChatServer) -> None:
    chat_server.default = server.thinking(2000)
    settings = TeacherConfig()
    first = write_request(office.scenario(), office.OFFICE, settings)
    assert first.max_tokens == 512
    outcomes, store = run(chat_server, [])
    asked = chat_server.count
    inner = make_teacher(TeacherConfig(kind="openai", model="kit", base_url=chat_server.url))
    assert store.count() == len(outcomes) == COUNT
    asyncio.run(
        generate(office.scenarios(COUNT), office.OFFICE, inner, store, settings, lambda *_: None)
    )
    assert chat_server.count == asked, "nothing is asked twice"


@pytest.mark.parametrize(
    ("behaviour", "says"),
    [
        (server.thinking(100_000), "cut off at 8,192 tokens while thinking"),
        (
            lambda body: (
                server.failure(400, "'max_tokens' is too large: 8192")
                if body["max_tokens"] > 4000
                else server.thinking(3000)(body)
            ),
            "'max_tokens' is too large: 8192",
        ),
    ],
    ids=["longer", "no context for it"],
)
def test_thoughts_without_an_end_stop_the_run(
    chat_server: ChatServer, behaviour: Behaviour, says: str
) -> None:
    chat_server.default = behaviour
    notices: list[str] = []
    outcomes, store = run(chat_server, notices)
    assert all(isinstance(outcome, Failure) for outcome in outcomes)
    [stopped] = notices
    assert "the first 10 scenarios all failed (10 truncated)" in stopped
    assert "cut off at 512 tokens while thinking" in stopped
    assert "raise max_tokens in [teacher]" in stopped
    assert says in stopped, "also where the last of them was not the one that found out"
    assert all(says in outcome.detail for outcome in outcomes if isinstance(outcome, Failure))
    large = sum(body["max_tokens"] > 512 for body in chat_server.requests)
    assert large == 1, "one request finds out for all"
    most = MAX_INITIAL_FAILURES + 8 * WORKERS_PER_SLOT
    assert chat_server.count <= most
    assert store.spent().completion_tokens <= most * 512 + THINKING_TOKENS


def test_an_answer_that_is_too_long_is_not_asked_for_again(chat_server: ChatServer) -> None:
    chat_server.default = server.cut_off
    outcomes, _ = run(chat_server, [])
    assert {outcome.reason for outcome in outcomes if isinstance(outcome, Failure)} == {
        FailureReason.TRUNCATED
    }
    assert all(body["max_tokens"] == 512 for body in chat_server.requests)


def test_a_room_that_was_found_is_kept_after_a_reply_that_needs_more(
    chat_server: ChatServer,
) -> None:
    def answer(body: Body) -> Response:
        roomy = [one for one in chat_server.requests if one["max_tokens"] == THINKING_TOKENS]
        long = body["max_tokens"] == THINKING_TOKENS and len(roomy) % 10 == 5
        return server.thinking(100_000 if long else 2000)(body)

    chat_server.default = answer
    notices: list[str] = []
    outcomes, _ = run(chat_server, notices)
    assert len(outcomes) == COUNT
    failed = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    assert 0 < len(failed) < 8
    assert {failure.detail for failure in failed} == {
        "the reply was cut off at 8,192 tokens while thinking"
    }
    assert len(notices) == 1
