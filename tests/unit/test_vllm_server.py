"""A server that distill starts is found, waited for, watched, and gone on every way out."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.office import task
from kit.processes import alive, descendants, wait_for_exit

from distill.errors import DistillError, MissingExtraError, TeacherError, UsageError, WriteError
from distill.records import FailureReason
from distill.serving import vllm as vllm_server
from distill.serving.command import vllm_command
from distill.serving.vllm import LORA_RANKS, RESERVED_FLAGS, VllmServer, parse_metrics
from distill.teachers.base import ChatReply, ChatRequest, DrainingError, ReplyError
from distill.teachers.vllm import VllmTeacher

ROOT = Path(__file__).parents[2]
# -P: a folder that holds an http.py must not be looked into.
FAKE = (sys.executable, "-P", str(ROOT / "tests" / "kit" / "fake_vllm.py"))


class Bench:
    """Makes servers from the fake vLLM, knows their processes, and ends what a test left."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "2-generate" / "vllm.log"
        self.pids_file = folder / "pids"
        self.notices: list[str] = []

    def server(self, *flags: str, command: tuple[str, ...] = FAKE, **more: Any) -> VllmServer:
        fields = {"grace": 0.3, "start_timeout": 60.0, "notice": self.notices.append, **more}
        return VllmServer("tiny", command=(*command, *flags), log=self.log, **fields)

    def starts(self) -> list[list[int]]:
        """The processes of every start so far."""
        if not self.pids_file.exists():
            return []
        lines = self.pids_file.read_text().split("\n")[:-1]
        return [[int(pid) for pid in line.split()] for line in lines]

    def pids(self) -> list[int]:
        return [pid for start in self.starts() for pid in start]

    def await_start(self) -> list[int]:
        end = time.monotonic() + 60
        while not self.starts():
            assert time.monotonic() < end
            time.sleep(0.02)
        return self.pids()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    made = Bench(tmp_path)
    monkeypatch.setenv("FAKE_VLLM_PIDS", str(made.pids_file))
    yield made
    left = alive(made.pids())
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []


def get(server: VllmServer, path: str) -> str:
    with urllib.request.urlopen(server.url.removesuffix("/v1") + path, timeout=30) as response:
        return str(response.read().decode())


def die(server: VllmServer) -> None:
    request = urllib.request.Request(server.url.removesuffix("/v1") + "/die", data=b"{}")
    with pytest.raises(OSError, match=r"closed|reset"):
        urllib.request.urlopen(request, timeout=30)


def test_a_server_is_waited_for_used_and_gone(bench: Bench) -> None:
    with bench.server("--delay", "0.6", "--ignore-sigterm") as server:
        assert server.alive
        assert not server.is_down()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/v1", server.url)
        assert '"tiny"' in get(server, "/v1/models")
        assert len(alive(bench.pids())) == 3
        assert server.metrics() == (0, 0, 0.25)
    assert alive(bench.pids()) == []
    assert not server.alive
    assert server.is_down()
    server.stop()
    assert [re.sub(r"\d+ s", "N s", text) for text in bench.notices] == [
        f"starting vLLM (log: {bench.log})",
        "vLLM is ready after N s",
    ]


def test_the_child_sees_no_key_and_no_telemetry(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "VLLM_API_KEY", "my_api_key"):
        monkeypatch.setenv(name, "sk-secret")
    monkeypatch.setenv("HF_TOKEN", "theirs")
    with bench.server() as server:
        (pid,) = bench.pids()
        server_process = psutil.Process(pid)
        environment = [f"{name}={value}" for name, value in server_process.environ().items()]
        names = server_process.cmdline()
    assert "sk-secret" not in str(environment)
    wanted = [
        "VLLM_NO_USAGE_STATS=1",
        "DO_NOT_TRACK=1",
        "VLLM_HOST_IP=127.0.0.1",
        "HF_TOKEN=theirs",
    ]
    assert set(wanted) <= set(environment)
    assert f"PATH={Path(sys.executable).parent}:{os.environ['PATH']}" in environment
    assert names[names.index("--host") + 1] == "127.0.0.1"
    assert "sk-secret" not in bench.log.read_text()
    assert server.model == "tiny"


def test_the_users_arguments_come_last_and_adapters_as_json(bench: Bench) -> None:
    adapters = {"tuned": Path("/runs/a=b, c/adapter")}
    arguments = ("--max-model-len", "512", "--max-lora-rank=64")
    with bench.server(adapters=adapters, lora_rank=9, arguments=arguments):
        log = bench.log.read_text()
    given = re.search(r"args: (\[.*?\]) on", log)
    assert given is not None
    assert given[1] == str(
        [
            *("--enable-prefix-caching", "--enable-lora", "--max-lora-rank", "16"),
            *("--lora-modules", '{"name": "tuned", "path": "/runs/a=b, c/adapter"}'),
            *arguments,
        ]
    )


@given(st.integers(1, 600))
def test_the_rank_is_the_smallest_that_vllm_takes(rank: int) -> None:
    server = VllmServer(
        "m", command=["v", "serve"], log=Path("log"), adapters={"t": Path("a")}, lora_rank=rank
    )
    words = server._full_command()
    assert words[:3] == ["v", "serve", "m"]
    chosen = int(words[words.index("--max-lora-rank") + 1])
    assert chosen == min((r for r in LORA_RANKS if r >= rank), default=rank)


@pytest.mark.parametrize("flag", RESERVED_FLAGS)
def test_what_distill_sets_itself_is_refused(flag: str) -> None:
    for argument in (flag, f"{flag}=0.0.0.0", f"--{flag[2:].replace('-', '_')}=x"):
        with pytest.raises(UsageError, match="set by distill itself"):
            VllmServer("m", command=["v"], log=Path("log"), arguments=["--seed", "1", argument])


def test_one_that_dies_at_the_start_is_an_error_with_the_logs_cause(bench: Bench) -> None:
    server = bench.server("--die-at-start", "7", "--ignore-sigterm")
    with pytest.raises(TeacherError) as caught:
        server.start()
    assert alive(bench.pids()) == []
    said = str(caught.value)
    assert said.startswith(f"{bench.log}: vLLM ended with status 7; its log says:\n")
    assert "\n  RuntimeError: Failed core proc(s): {}\n" in said
    assert "INFO" not in said
    assert "\x1b" not in said
    assert "--vllm-arg" in said


def test_the_error_of_a_long_log_is_shown(bench: Bench, tmp_path: Path) -> None:
    lines = ["WARNING OSError: no", "ValueError: the cause", *["after"] * 90]
    code = f"print({chr(10).join(lines)!r}); raise SystemExit(2)"
    server = bench.server(command=(sys.executable, "-c", code))
    bench.log.parent.mkdir()
    bench.log.write_text("ValueError: of an earlier start\n")
    with pytest.raises(TeacherError) as caught:
        server.start()
    shown = caught.value.problems[0].cause.split("\n")[1:]
    assert shown == ["  ValueError: the cause"]
    assert bench.log.read_text().startswith("ValueError: of an earlier start\n")


def test_a_deadline_stops_it(bench: Bench) -> None:
    server = bench.server("--no-health", "--ignore-sigterm", start_timeout=0.5)
    with pytest.raises(TeacherError, match=r"not ready after 0\.5 s") as caught:
        server.start()
    assert alive(bench.pids()) == []
    assert "start_timeout" in caught.value.problems[0].hint


def test_another_thread_ends_the_wait(bench: Bench) -> None:
    for end in ("cancel_start", "stop"):
        server = bench.server("--no-health")
        timer = threading.Timer(0.3, getattr(server, end))
        timer.start()
        with pytest.raises(TeacherError, match="stopped before it was ready"):
            server.start()
        timer.join()
    with pytest.raises(TeacherError, match="stopped before it was ready"):
        server.start()
    assert alive(bench.pids()) == []


def test_a_port_that_somebody_takes_first_is_left_to_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even when the one who listens there answers as vLLM would."""
    with bench.server() as other:
        taken = int(other.url.split(":")[2].removesuffix("/v1"))
        ports = iter([taken, taken, vllm_server._free_port()])
        monkeypatch.setattr(vllm_server, "_free_port", lambda: next(ports))
        with bench.server() as server:
            assert server.url != other.url
            assert len(bench.starts()) == 4
            monkeypatch.setattr(vllm_server, "_free_port", lambda: taken)
            with pytest.raises(TeacherError, match="Address already in use"):
                bench.server().start()


def test_what_cannot_be_started_is_said(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="cannot be started: No such file") as caught:
        bench.server(command=("/nowhere/vllm",)).start()
    assert caught.value.problems[0].place == "/nowhere/vllm"
    bench.log.parent.rmdir() if not bench.log.exists() else bench.log.unlink()
    bench.log.mkdir(parents=True)
    with pytest.raises(WriteError):
        bench.server().start()


def test_commands_are_found_or_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = tmp_path / "plain"
    plain.write_text("")
    for bad, cause in (
        ("/nowhere/python -m vllm", "is no command here"),
        (str(plain), "is not executable"),
        ('python "unclosed', "cannot be read"),
    ):
        with pytest.raises(UsageError, match=cause) as caught:
            vllm_command(bad)
        assert caught.value.problems[0].place == "--vllm-command"
    assert vllm_command(f"'{sys.executable}' -m x") == [sys.executable, "-m", "x"]
    # A folder of that name is no vLLM, and there is none here.
    (tmp_path / "vllm").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtraError, match="--vllm-command"):
        vllm_command()
    on_path = tmp_path / "bin" / "vllm"
    on_path.parent.mkdir()
    on_path.touch(0o755)
    monkeypatch.setenv("PATH", str(on_path.parent))
    assert vllm_command(" ") == [str(on_path), "serve"]
    (tmp_path / "vllm" / "__init__.py").touch()
    assert vllm_command() == [sys.executable, "-P", "-m", vllm_server.MODULE]


PARENT = """
import os, signal, sys, time
from pathlib import Path
from distill.serving.vllm import VllmServer
# Under nohup it is ignored, by every child as well.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
log, how, *command = sys.argv[1:]
server = VllmServer("tiny", command=command, log=Path(log), grace=0.3, start_timeout=600)
server.start()
print("ready", flush=True)
match how:
    case "leaves in order":
        server.stop()
    case "forgets to stop":
        os._exit(0)
    case "crashes":
        raise RuntimeError("a bug")
    case "aborts":
        os.abort()
    case "leaves forks behind":
        if os.fork():
            os._exit(0)
sys.stdout.close()
time.sleep(600)
"""
SIGNALS = ("SIGINT", "SIGTERM", "SIGKILL", "SIGHUP", "SIGQUIT")
EXITS = ("leaves in order", "forgets to stop", "crashes", "aborts", "leaves forks behind")


@pytest.mark.parametrize("how", [*SIGNALS, *EXITS, "SIGKILL at the start", "SIGINT at the start"])
def test_no_way_out_leaves_a_process(bench: Bench, how: str) -> None:
    early = how.endswith("at the start")
    flags = ["--ignore-sigterm", *(["--no-health"] if early else [])]
    command = [sys.executable, "-c", PARENT, str(bench.log), how, *FAKE, *flags]
    parent = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    assert parent.stdout is not None
    try:
        with parent.stdout as said:
            if early:
                bench.await_start()
            else:
                assert said.readline() == b"ready\n"
            if how.startswith("SIG"):
                assert len(descendants(parent.pid)) == 5
                os.kill(parent.pid, signal.Signals[how.split()[0]])
        wait_for_exit(bench.pids())
        assert len(bench.pids()) == 3
    finally:
        parent.kill()
        parent.wait()
        # What it forked is in its session, and not distill's to stop.
        if how == "leaves forks behind":
            os.killpg(parent.pid, signal.SIGKILL)


@pytest.mark.parametrize("which", ["outer", "inner", "both"])
def test_a_killed_supervisor_leaves_nothing_either(bench: Bench, which: str) -> None:
    server = bench.server(*(["--ignore-sigterm"] if which != "both" else []))
    server.start()
    assert server._supervisor is not None
    outer = server._supervisor.pid
    (inner,) = (pid for pid in descendants(outer) if bench.pids()[0] in descendants(pid))
    for pid in {"outer": [outer], "inner": [inner], "both": [inner, outer]}[which]:
        os.kill(pid, signal.SIGKILL)
    wait_for_exit([*bench.pids(), outer, inner])
    server.stop()


def test_a_server_that_is_killed_takes_its_offspring_along(bench: Bench) -> None:
    with bench.server("--ignore-sigterm") as server:
        os.kill(bench.pids()[0], signal.SIGKILL)
        wait_for_exit(bench.pids())
        assert server.is_down()
    assert "status 137" in str(server.exit_error())


def test_a_slow_server_is_not_lost(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with bench.server() as server:
        for error, is_down in ((TimeoutError(), False), (ConnectionResetError(), True)):
            with monkeypatch.context() as patch:
                patch.setattr(server, "_get", _raiser(error))
                assert server.is_down() is is_down


def _raiser(error: Exception) -> Any:
    def raising(path: str) -> str:
        raise error

    return raising


COUNTS = st.integers(0, 10**9)


@given(COUNTS, COUNTS, st.integers(0, 1000), st.integers(0, 1000))
def test_counts_are_summed_over_engines(one: int, two: int, hits: int, missed: int) -> None:
    text = (
        "# HELP vllm:prompt_tokens_total Number of tokens.\n"
        f'vllm:prompt_tokens_total{{engine="0",model_name="my model"}} {float(one)}\n'
        f'vllm:prompt_tokens_total{{engine="1",model_name="my model"}} {float(two)}\n'
        f'vllm:prompt_tokens_created{{engine="0"}} 1.79e+09\nother_total 5.0\n'
        f"vllm:generation_tokens_total {two}\n"
        f"vllm:prefix_cache_queries_total {hits + missed}\nvllm:prefix_cache_hits_total {hits}\n"
    )
    counts = parse_metrics(text)
    assert counts.prompt_tokens == one + two
    assert counts.completion_tokens == two
    if hits + missed:
        assert counts.prefix_hit_rate == hits / (hits + missed)
    else:
        assert counts.prefix_hit_rate is None


REQUEST = ChatRequest(messages=(), reply_schema={}, task=task("thanks"))


class Client:
    """A teacher that asks the server in the plainest way."""

    name = fingerprint = "client"

    def __init__(self, url: str, reason: FailureReason = FailureReason.SERVER) -> None:
        self.url = url
        self.reason = reason
        self.drained = self.closed = False

    async def complete(self, request: ChatRequest) -> ChatReply:
        if self.drained:
            raise DrainingError
        return await asyncio.to_thread(self._post)

    def _post(self) -> ChatReply:
        data = urllib.request.Request(f"{self.url}/chat/completions", data=b"{}")
        try:
            with urllib.request.urlopen(data, timeout=30) as response:
                return ChatReply(text=response.read().decode(), model="tiny")
        except OSError as error:
            raise ReplyError(self.reason, str(error)) from None

    def drain(self) -> None:
        self.drained = True

    async def close(self) -> None:
        self.closed = True


def teacher(bench: Bench, *flags: str, model: str = "tiny") -> VllmTeacher:
    return VllmTeacher(
        model,
        make_server=lambda: bench.server(*flags),
        make_client=Client,
        notice=bench.notices.append,
    )


def test_the_server_starts_once_with_the_first_requests(bench: Bench) -> None:
    async def ask() -> None:
        made = teacher(bench)
        assert made.name == "vllm:tiny"
        assert made.messages_only
        await made.close()
        assert bench.starts() == []
        replies = await asyncio.gather(*(made.complete(REQUEST) for _ in range(20)))
        assert all("policy" in reply.text for reply in replies)
        assert len(bench.starts()) == 1
        await made.close()
        assert alive(bench.pids()) == []
        # Closed is not the end: the next request starts another.
        await made.complete(REQUEST)
        assert len(bench.starts()) == 2
        await made.close()

    asyncio.run(ask())
    speeds = [text for text in bench.notices if "tokens/s" in text]
    assert len(speeds) == 2
    assert re.fullmatch(
        r"vLLM wrote 100 tokens in \d+ s \([\d,]+ tokens/s\) and read 200, "
        r"25% of them from its prefix cache",
        speeds[0],
    )


def test_a_server_that_dies_in_a_run_ends_the_run(bench: Bench) -> None:
    async def ask() -> None:
        made = teacher(bench, "--ignore-sigterm")
        await made.complete(REQUEST)
        assert made._server is not None
        await asyncio.to_thread(die, made._server)
        with pytest.raises(TeacherError, match="ValueError: the engine died on request"):
            await made.complete(REQUEST)
        assert alive(bench.pids()) == []
        await made.close()

    asyncio.run(ask())


def test_a_failed_request_is_no_dead_server(bench: Bench) -> None:
    async def ask() -> None:
        made = teacher(bench)
        await made.complete(REQUEST)
        assert isinstance(made._client, Client)
        made._client.url += "/nowhere"
        for reason in (FailureReason.SERVER, FailureReason.MALFORMED):
            made._client.reason = reason
            with pytest.raises(ReplyError):
                await made.complete(REQUEST)
        await made.close()

    asyncio.run(ask())


def test_a_server_that_does_not_start_fails_every_request_once(bench: Bench) -> None:
    async def ask() -> None:
        made = teacher(bench, "--die-at-start", "1")
        errors = await asyncio.gather(
            *(made.complete(REQUEST) for _ in range(5)), return_exceptions=True
        )
        assert all(isinstance(error, TeacherError) for error in errors)
        assert len(bench.starts()) == 1
        await made.close()

    asyncio.run(ask())


def test_an_interrupt_while_it_starts_stops_it(bench: Bench) -> None:
    async def ask() -> None:
        made = teacher(bench, "--no-health", "--ignore-sigterm")
        asking = asyncio.gather(*(made.complete(REQUEST) for _ in range(3)))
        await asyncio.to_thread(bench.await_start)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await made.close()
        assert alive(bench.pids()) == []

    asyncio.run(ask())


def test_draining_sends_nothing_more(bench: Bench) -> None:
    async def ask() -> None:
        made = teacher(bench, "--no-health")
        asking = asyncio.gather(*(made.complete(REQUEST) for _ in range(3)), return_exceptions=True)
        await asyncio.to_thread(bench.await_start)
        made.drain()
        assert all(isinstance(error, DrainingError) for error in await asking)
        await made.close()
        with pytest.raises(DrainingError):
            await made.complete(REQUEST)
        ready = teacher(bench)
        await ready.complete(REQUEST)
        ready.drain()
        with pytest.raises(DrainingError):
            await ready.complete(REQUEST)
        await ready.close()

    asyncio.run(ask())


def test_a_folder_is_known_by_what_it_holds(bench: Bench, tmp_path: Path) -> None:
    def prints(folder: Path) -> str:
        return teacher(bench, model=str(folder)).fingerprint

    assert teacher(bench, model="owner/name").fingerprint == "vllm/owner/name"
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"1234")
    assert prints(one) == prints(two)
    assert str(tmp_path) not in prints(one)
    (two / "config.json").write_text("[]")
    assert prints(one) != prints(two)
    (one / "config.json").write_text("[]")
    assert prints(one) == prints(two)
    (one / "model.safetensors").write_bytes(b"12345")
    assert prints(one) != prints(two)


def test_a_folder_of_the_users_home_is_found(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    words = VllmServer("~/model", command=["v"], log=bench.log)._full_command()
    assert words[words.index("--model") + 1] == str(tmp_path / "model")
    assert words[words.index("--served-model-name") + 1] == "~/model"


def test_every_error_has_a_way_out(bench: Bench) -> None:
    server = bench.server()
    errors: list[DistillError] = [server.exit_error(), server._cancelled_error()]
    assert all(error.problems[0].hint for error in errors)


def test_only_loopback_is_bound(bench: Bench) -> None:
    with bench.server() as server:
        port = int(server.url.split(":")[2].removesuffix("/v1"))
        sockets = [one for pid in bench.pids() for one in psutil.Process(pid).net_connections()]
        bound = {one.laddr for one in sockets if one.status == psutil.CONN_LISTEN}
        assert bound == {("127.0.0.1", port)}
