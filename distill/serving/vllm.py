"""vLLM as a child of distill: started, waited for, and stopped on every way out.

The guardian (guardian.py) starts the server and stops it when distill is gone, however it went.
What the server writes goes to a log beside the run. Only loopback is bound.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self
from uuid import uuid4

from distill.errors import TeacherError, UsageError, WriteError

Notice = Callable[[str], None]

HOST = "127.0.0.1"
GUARDIAN = Path(__file__).with_name("guardian.py")
MODULE = "vllm.entrypoints.openai.api_server"
# Seconds.
START_TIMEOUT = 600.0
# vLLM needs two to three to leave in order.
GRACE = 5.0
POLL = 0.25
# The guardian needs far less, and a busy machine more.
STOPPING = 30.0
# Ports tried, should somebody else take one between its choice and its use.
PORTS = 3
TAIL = 15
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM takes for --max-lora-rank."""
RESERVED_FLAGS = ("--model", "--host", "--port", "--served-model-name", "--api-key", "--uds")
"""Flags that distill sets itself, or that would keep it from its server."""

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_ERROR = re.compile(r"\b[A-Z]\w*(Error|Exception|Interrupt): ")
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class ServerMetrics(NamedTuple):
    """What the server has counted since it started."""

    prompt_tokens: int
    completion_tokens: int
    prefix_hit_rate: float | None
    """Share of the prompt tokens looked for in the prefix cache that were there."""


class VllmServer:
    """One vLLM server, from start to stop; a stopped one is not started again.

    model: a hub id or a folder, and the name under which it is served
    command: the words that start vLLM, as from `vllm_command`
    arguments: flags for vLLM, which win over distill's own
    log: the file to which all that it writes is appended
    start_timeout: seconds until it must be ready
    adapters: LoRA adapters by the name that serves them, of at most `lora_rank`
    grace: seconds that it has to leave in order, before it is killed
    notice: told when it is being started, and when it is ready

    Raises UsageError for an argument that is distill's to set.
    """

    def __init__(
        self,
        model: str,
        *,
        command: Sequence[str],
        log: Path,
        arguments: Sequence[str] = (),
        start_timeout: float = START_TIMEOUT,
        adapters: Mapping[str, Path] = {},
        lora_rank: int | None = None,
        grace: float = GRACE,
        notice: Notice = logging.getLogger(__name__).info,
    ) -> None:
        _refuse_chosen(arguments)
        self.model = model
        self.log = log
        self._command = list(command)
        self._arguments = list(arguments)
        self._start_timeout = start_timeout
        self._adapters = dict(adapters)
        self._lora_rank = lora_rank
        self._grace = grace
        self._notice = notice
        # A second name, nobody else's: what answers to it on our port is our server.
        self._mark = f"distill-{uuid4().hex[:12]}"
        self._port = 0
        self._log_start = 0
        self._lock = threading.Lock()
        self._halted = threading.Event()
        self._guardian: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The base of its OpenAI-compatible API."""
        return f"http://{HOST}:{self._port}/v1"

    @property
    def alive(self) -> bool:
        """Whether the processes are there; `is_down` asks the server itself."""
        return self._guardian is not None and self._guardian.poll() is None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and wait until it is ready.

        Blocks; `cancel_start` or `stop` from another thread ends the wait. Raises TeacherError with
        the end of the log when it does not come up, WriteError when there can be no log.
        """
        self._notice(f"starting vLLM (log: {self.log})")
        begun = time.monotonic()
        try:
            for last in (*[False] * (PORTS - 1), True):
                self._port = _free_port()
                self._launch()
                if self._comes_up(begun + self._start_timeout):
                    break
                if last or not _taken(self._port):
                    raise self.exit_error()
                self._release()
        except BaseException:
            self.stop()
            raise
        self._notice(f"vLLM is ready after {time.monotonic() - begun:.0f} s")

    def cancel_start(self) -> None:
        """Have `start` give up; returns at once."""
        self._halted.set()

    def stop(self) -> None:
        """Stop the server and every process that came of it. May be called at any time, again."""
        with self._lock:
            self._halted.set()
        self._release()

    def is_down(self) -> bool:
        """Whether the server is gone or says that it is broken. One that is slow is not lost."""
        if not self.alive:
            return True
        try:
            self._get("/health")
        except urllib.error.HTTPError:
            return True
        except ConnectionError:
            return True
        except urllib.error.URLError as error:
            return isinstance(error.reason, ConnectionError)
        except OSError:
            return False
        return False

    def exit_error(self) -> TeacherError:
        """The error for a server that ended by itself, with the end of its log."""
        status = self._guardian.poll() if self._guardian else None
        ended = "vLLM ended" if status is None else f"vLLM ended with status {status}"
        return TeacherError(
            f"{ended}; the end of its log:\n{self._tail()}",
            place=self.log,
            hint="what the log names may be set with --vllm-arg, for example: "
            "--vllm-arg=--max-model-len=4096; then run the same command again: it goes on",
        )

    def metrics(self) -> ServerMetrics:
        """What the server has counted so far. Raises OSError when it does not answer."""
        return parse_metrics(self._get("/metrics"))

    def _launch(self) -> None:
        guard = [sys.executable, "-I", "-S", str(GUARDIAN), str(os.getpid()), f"{self._grace:g}"]
        with self._lock:
            if self._halted.is_set():
                raise self._given_up()
            with _opened_log(self.log) as log:
                self._log_start = log.tell()
                self._guardian = subprocess.Popen(
                    [*guard, *self._words()],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=_environment(self._command[0]),
                    start_new_session=True,
                )
        assert self._guardian.stdout is not None
        with self._guardian.stdout as said:
            verdict, _, rest = said.readline().decode("utf-8", "replace").strip().partition(" ")
        if verdict != "started":
            raise TeacherError(
                f"vLLM cannot be started: {rest or self._tail()}",
                place=self._command[0],
                hint=f'name another with --vllm-command, as "/opt/vllm/bin/python -m {MODULE}"',
            )

    def _words(self) -> list[str]:
        words = [*self._command]
        folder = Path(self.model).expanduser()
        source = str(folder) if folder.is_dir() else self.model
        # The subcommand wants the model first, the module wants a flag.
        words += [source] if words[-1] == "serve" else ["--model", source]
        words += ["--host", HOST, "--port", str(self._port)]
        words += ["--served-model-name", self.model, self._mark, "--enable-prefix-caching"]
        if self._adapters:
            wanted = self._lora_rank or LORA_RANKS[-1]
            rank = next((rank for rank in LORA_RANKS if rank >= wanted), wanted)
            words += ["--enable-lora", "--max-lora-rank", str(rank), "--lora-modules"]
            # As JSON, for a path may hold an equals sign.
            words += [
                json.dumps({"name": name, "path": str(path)})
                for name, path in self._adapters.items()
            ]
        return [*words, *self._arguments]

    def _comes_up(self, end: float) -> bool:
        """True when the server is ready, False when it has ended; TeacherError at the deadline."""
        while not self._is_ready():
            if not self.alive:
                return False
            if time.monotonic() > end:
                raise TeacherError(
                    f"vLLM was not ready after {self._start_timeout:g} s; the end of its log:\n"
                    f"{self._tail()}",
                    place=self.log,
                    hint="give it longer with start_timeout under [teacher], or less to do with "
                    "--vllm-arg, for example: --vllm-arg=--enforce-eager",
                )
            if self._halted.wait(POLL):
                raise self._given_up()
        return True

    def _is_ready(self) -> bool:
        try:
            self._get("/health")
            return self._mark in self._get("/v1/models")
        except (OSError, ValueError):
            return False

    def _get(self, path: str) -> str:
        with _OPENER.open(f"http://{HOST}:{self._port}{path}", timeout=10) as response:
            return str(response.read().decode("utf-8", "replace"))

    def _given_up(self) -> TeacherError:
        return TeacherError(
            "vLLM was stopped before it was ready",
            place=self.log,
            hint="run the same command again: it goes on",
        )

    def _release(self) -> None:
        """Let go of the guardian's lifeline, and wait until it has done its work."""
        guardian = self._guardian
        if guardian is None:
            return
        assert guardian.stdin is not None
        with contextlib.suppress(OSError):
            guardian.stdin.close()
        try:
            guardian.wait(STOPPING)
        except subprocess.TimeoutExpired:
            guardian.kill()
            guardian.wait()

    def _tail(self) -> str:
        """The log's last lines, and the first error before them: it is often the cause."""
        try:
            with open(self.log, "rb") as file:
                file.seek(self._log_start)
                text = file.read().decode("utf-8", "replace")
        except OSError as error:
            return f"  (the log cannot be read: {error.strerror})"
        lines = [line for line in map(_cleaned, text.split("\n")) if line]
        first = next((line for line in lines[:-TAIL] if _names_error(line)), None)
        shown = [*([first, "..."] if first else []), *lines[-TAIL:]]
        return "\n".join(f"  {line}" for line in shown) or "  (it wrote nothing)"


def parse_metrics(metrics: str) -> ServerMetrics:
    """The counts in what vLLM says at /metrics, summed over its engines."""
    totals: dict[str, float] = {}
    for line in metrics.split("\n"):
        name, _, value = line.rpartition(" ")
        if name.startswith("vllm:"):
            name = name.partition("{")[0].removeprefix("vllm:")
            totals[name] = totals.get(name, 0.0) + float(value)
    asked = totals.get("prefix_cache_queries_total", 0.0)
    return ServerMetrics(
        prompt_tokens=int(totals.get("prompt_tokens_total", 0)),
        completion_tokens=int(totals.get("generation_tokens_total", 0)),
        prefix_hit_rate=totals.get("prefix_cache_hits_total", 0.0) / asked if asked else None,
    )


def _refuse_chosen(arguments: Sequence[str]) -> None:
    for argument in arguments:
        flag = argument.partition("=")[0].replace("_", "-")
        if flag in RESERVED_FLAGS:
            raise UsageError(
                f"{flag} is set by distill itself",
                place=f"--vllm-arg={flag}",
                hint="leave it out; a server that you start yourself is used with --teacher openai "
                "--base-url",
            )


def _opened_log(path: Path) -> BinaryIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "ab")  # noqa: SIM115 - the caller's
    except OSError as error:
        raise WriteError.from_os(error, path) from None
    return file


def _environment(executable: str) -> dict[str, str]:
    """The user's, without keys and telemetry, and with the executable's folder on PATH."""
    kept = {
        name: value for name, value in os.environ.items() if not name.upper().endswith("_API_KEY")
    }
    # vLLM calls compilers that are installed with it, and its environment is not activated.
    path = os.pathsep.join([str(Path(executable).parent), kept.get("PATH", os.defpath)])
    ours = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_HOST_IP": HOST, "PATH": path}
    return {**kept, **ours}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _taken(port: int) -> bool:
    """Whether somebody listens at a port at which our server does not."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False


def _names_error(line: str) -> bool:
    return bool(_ERROR.search(line)) and "WARNING" not in line


def _cleaned(line: str) -> str:
    line = _ANSI.sub("", line)
    return "".join(c for c in line if c.isprintable() or c == "\t").rstrip()[:300]
