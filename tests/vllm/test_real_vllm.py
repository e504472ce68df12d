"""What only a real vLLM can show: it writes to a schema, serves an adapter, and leaves nobody."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ARGUMENTS, CONTEXT, Made, Running
from kit.office import OFFICE, scenarios, task
from kit.processes import alive, descendants, wait_for_exit

from distill.config import TeacherConfig
from distill.data.generate import generate
from distill.errors import TeacherError
from distill.evaluate.predict import predict
from distill.evaluate.served import predict_served
from distill.ledger.replies import ReplyStore
from distill.records import Candidate, Case, Failure, Message, Prediction
from distill.render import Renderer
from distill.serving.vllm import VllmServer, parse_metrics
from distill.students import load_student
from distill.teachers.base import ChatRequest, ReplyError
from distill.teachers.make import make_teacher
from distill.teachers.vllm import VllmTeacher

pytestmark = pytest.mark.vllm

ROOT = Path(__file__).parents[2]
ASKED = 16
SETTINGS = TeacherConfig(
    kind="openai", model="tiny", max_tokens=1500, concurrency=8, timeout=600, gate=0
)


def say(*words: object) -> None:
    """Numbers for whoever runs this with -s, and for the log of one that fails."""
    print("\n ", *words)


def served_counts(running: Running) -> Any:
    import urllib.request

    with urllib.request.urlopen(running.student.url.removesuffix("v1") + "metrics") as response:
        return parse_metrics(response.read().decode())


def test_a_workflow_is_written_for_in_its_schema(running: Running, tmp_path: Path) -> None:
    """A random model writes nonsense; the grammar makes it nonsense of the right shape."""
    settings = SETTINGS.model_copy(
        update={"model": running.student.base, "base_url": running.student.url}
    )
    settled: dict[int, Candidate | Failure] = {}

    async def ask() -> None:
        teacher = make_teacher(settings, notice=lambda text: say("notice:", text))
        try:
            with ReplyStore(tmp_path / "replies.sqlite") as replies:
                work = scenarios(ASKED)
                await generate(work, OFFICE, teacher, replies, settings, settled.__setitem__)
        finally:
            await teacher.close()

    begun = time.monotonic()
    asyncio.run(ask())
    seconds = time.monotonic() - begun
    counts = served_counts(running)
    assert sorted(settled) == list(range(ASKED))
    written = [each for each in settled.values() if isinstance(each, Candidate)]
    failed = [each.reason for each in settled.values() if isinstance(each, Failure)]
    say(f"{len(written)} candidates, {len(failed)} failures {sorted(map(str, failed))}")
    say(f"{counts.completion_tokens} tokens in {seconds:.1f} s:")
    say(f"{counts.completion_tokens / seconds:.0f} tokens/s, {counts}")
    assert written
    # Every prompt begins with the rules, and only the first ones are read in full.
    assert counts.prefix_hit_rate is not None
    assert counts.prefix_hit_rate > 0.2


CASES = [
    Case(id=f"{number}", messages=(Message(role="user", content=text),), kind="answer")
    for number, text in enumerate(
        f"{verb} the {noun}{end}"
        for verb in ("find", "book", "what is")
        for noun in ("travel policy", "room", "weather in Lisbon", "weather in Rome")
        for end in ("", " please")
    )
]


def both(running: Running, made: Made, tuned: bool) -> tuple[list[Prediction], list[Prediction]]:
    """What the server and transformers say to the same cases."""
    student = load_student(str(made.model), OFFICE.tools)
    renderer = Renderer(student.tokenizer, OFFICE.tools)
    served = predict_served(
        running.student.url,
        running.student.tuned if tuned else running.student.base,
        renderer,
        CASES,
        arm="tuned" if tuned else "base",
        max_new_tokens=24,
        context=CONTEXT,
        concurrency=8,
    )
    own = predict(
        student.load(made.adapter if tuned else None),
        renderer,
        CASES,
        arm="tuned" if tuned else "base",
        max_new_tokens=24,
        batch_size=8,
    )
    return served, own


def test_base_and_adapter_say_what_they_say_in_transformers(running: Running, made: Made) -> None:
    said = {}
    for tuned in (False, True):
        served, own = both(running, made, tuned)
        same = sum(one == other for one, other in zip(served, own, strict=True))
        say(f"{served[0].arm}: {same} of {len(CASES)} answers of up to 24 tokens are the same")
        assert all(prediction.raw for prediction in served)
        # Kernels add in another order, and a random model's two likeliest tokens may be a hair
        # apart: where one token flips, the rest of that answer differs.
        assert same >= 0.9 * len(CASES)
        said[tuned] = [prediction.raw for prediction in served]
    differing = sum(one != other for one, other in zip(*said.values(), strict=True))
    say(f"the adapter changes {differing} of {len(CASES)} answers")
    assert differing > len(CASES) / 2


def test_only_loopback_is_bound(running: Running) -> None:
    pids = descendants(os.getpid())
    found = sorted({address for pid in pids for address in listening(pid)})
    say("listening:", ", ".join(found))
    assert found
    assert all(address.startswith("127.0.0.1:") for address in found)


def listening(pid: int) -> Iterator[str]:
    """Addresses at which a process accepts connections, over IPv4 and IPv6."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            inodes.add(os.readlink(link).removeprefix("socket:[").removesuffix("]"))
        except OSError:
            continue
    for table in ("tcp", "tcp6"):
        for row in Path(f"/proc/net/{table}").read_text().split("\n")[1:-1]:
            fields = row.split()
            if fields[3] == "0A" and fields[9] in inodes:
                address, port = fields[1].split(":")
                quad = ".".join(str(byte) for byte in reversed(bytes.fromhex(address)))
                yield f"{quad}:{int(port, 16)}" if table == "tcp" else f"[{address}]:{port}"


def server_of(made: Made, command: list[str], log: Path, notices: list[str]) -> VllmServer:
    return VllmServer(
        str(made.model), command=command, log=log, arguments=ARGUMENTS, notice=notices.append
    )


REQUEST = ChatRequest(
    messages=(Message(role="user", content="Answer yes or no."),),
    reply_schema={
        "type": "object",
        "properties": {"answer": {"type": "string", "enum": ["yes", "no"]}},
        "required": ["answer"],
        "additionalProperties": False,
    },
    task=task("thanks"),
    max_tokens=64,
)


def test_an_engine_that_dies_ends_the_run_and_leaves_nobody(
    made: Made, command: list[str], tmp_path: Path
) -> None:
    notices: list[str] = []
    log = tmp_path / "vllm.log"
    settings = SETTINGS.model_copy(update={"model": str(made.model), "attempts": 2})
    teacher = VllmTeacher(
        str(made.model),
        make_server=lambda: server_of(made, command, log, notices),
        make_client=lambda url: make_teacher(settings.model_copy(update={"base_url": url})),
        notice=notices.append,
    )

    async def ask() -> list[int]:
        reply = await teacher.complete(REQUEST)
        assert reply.text.replace(" ", "") in ('{"answer":"yes"}', '{"answer":"no"}')
        assert teacher._server is not None
        assert teacher._server._supervisor is not None
        pids = descendants(teacher._server._supervisor.pid)
        (engine,) = (pid for pid in pids if "EngineCore" in title(pid))
        os.kill(engine, signal.SIGKILL)
        begun = time.monotonic()
        with pytest.raises(TeacherError) as caught:
            await until_it_fails(teacher)
        say(f"noticed after {time.monotonic() - begun:.1f} s:", caught.value)
        say(f"{len(alive(pids))} of {len(pids)} processes left")
        assert alive(pids) == []
        await teacher.close()
        return pids

    asyncio.run(ask())
    say(*notices)


async def until_it_fails(teacher: VllmTeacher) -> None:
    for _ in range(50):
        try:
            await teacher.complete(REQUEST)
        except ReplyError as error:
            say("before the server noticed:", error)


def title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")


PARENT = """
import sys, time
from pathlib import Path
from distill.serving.vllm import VllmServer
model, log, *words = sys.argv[1:]
cut = words.index("--")
server = VllmServer(model, command=words[:cut], arguments=words[cut + 1:], log=Path(log))
server.start()
print("ready", flush=True)
try:
    time.sleep(600)
finally:
    server.stop()
"""


@pytest.mark.parametrize(
    "end", ["SIGKILL", "SIGINT", "SIGTERM", "SIGKILL of the supervisor", "SIGKILL while it loads"]
)
def test_no_way_out_leaves_a_process(
    made: Made, command: list[str], tmp_path: Path, end: str
) -> None:
    log = tmp_path / "vllm.log"
    words = [*command, "--", *ARGUMENTS]
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(made.model), str(log), *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert parent.stdout is not None
    try:
        begun = time.monotonic()
        with parent.stdout as said:
            if end.endswith("loads"):
                pids = until_loading(parent.pid)
            else:
                assert said.readline() == b"ready\n"
                pids = descendants(parent.pid)
        say(f"{len(pids)} processes after {time.monotonic() - begun:.0f} s")
        assert len(pids) >= 5
        outer = next(pid for pid in pids if "supervisor.py" in title(pid))
        os.kill(
            outer if end.endswith("supervisor") else parent.pid,
            signal.SIGINT if end == "SIGINT" else signal.Signals[end.split()[0]],
        )
        say(f"{end}: the last process is gone after {wait_for_exit(pids):.1f} s")
    finally:
        parent.kill()
        parent.wait()


def until_loading(parent: int) -> list[int]:
    """The processes once the engine has begun to load."""
    end = time.monotonic() + 300
    while not loading(pids := descendants(parent)):
        assert time.monotonic() < end
        time.sleep(0.1)
    return pids


def loading(pids: Iterable[int]) -> bool:
    return any("VLLM::" in title(pid) for pid in pids if alive([pid]))
