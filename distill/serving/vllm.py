"""A vLLM server as a subprocess: started, waited for, and stopped however distill ends.

The supervisor (supervisor.py) starts the server and stops it when distill has ended. The server's
output goes to a log file. Only loopback is bound.
"""

from __future__ import annotations

import contextlib
import logging
import os
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

from distill import strict_json
from distill.errors import TeacherError, UsageError, WriteError
from distill.serving.server_log import server_end

Notice = Callable[[str], None]

HOST = "127.0.0.1"
SUPERVISOR = Path(__file__).with_name("supervisor.py")
MODULE = "vllm.entrypoints.openai.api_server"
# Seconds.
START_TIMEOUT = 600.0
# vLLM needs two to three to shut down.
STOP_GRACE = 5.0
POLL_INTERVAL = 0.25
# The supervisor needs far less, and a busy machine more.
SUPERVISOR_TIMEOUT = 30.0
# Attempts to find a port: another process may take one between its choice and its use.
MAX_PORTS = 3
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM takes for --max-lora-rank."""
RESERVED_FLAGS = ("--model", "--host", "--port", "--served-model-name", "--api-key", "--uds")
"""Flags that distill sets itself, or with which it could not reach its server."""

_WITHOUT_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class ServerMetrics(NamedTuple):
    """The server's counters since it started."""

    prompt_tokens: int
    completion_tokens: int
    prefix_hit_rate: float | None
    """Share of prompt tokens looked up in the prefix cache that were found; None for no lookup."""


class VllmServer:
    """One vLLM server, from start to stop; a stopped one is not started again.

    model: a hub id or a folder, and the name under which it is served
    command: the command that starts vLLM, as from `vllm_command`
    arguments: flags for vLLM, which win over distill's own
    log: the file to which its output is appended
    start_timeout: seconds until it must be ready
    adapters: LoRA adapters, of at most `lora_rank`, by the model name that selects them
    grace: seconds from SIGTERM to SIGKILL
    notice: called when it is being started, and when it is ready

    Raises UsageError for an argument in RESERVED_FLAGS.
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
        grace: float = STOP_GRACE,
        notice: Notice = logging.getLogger(__name__).info,
    ) -> None:
        _refuse_reserved_flags(arguments)
        self.model = model
        self.log = log
        self._command = list(command)
        self._arguments = list(arguments)
        self._start_timeout = start_timeout
        self._adapters = dict(adapters)
        self._lora_rank = lora_rank
        self._grace = grace
        self._notice = notice
        # A second, unique model name: the server that has it at our port is ours.
        self._instance_name = f"distill-{uuid4().hex[:12]}"
        self._port = 0
        self._log_start = 0
        self._lock = threading.Lock()
        self._cancelled = threading.Event()
        self._supervisor: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The base URL of its OpenAI-compatible API."""
        return f"http://{HOST}:{self._port}/v1"

    @property
    def alive(self) -> bool:
        """Whether its process is running; `is_down` also asks the server."""
        return self._supervisor is not None and self._supervisor.poll() is None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and wait until it is ready.

        Blocks; `cancel_start` or `stop` from another thread ends the wait. Raises TeacherError with
        what its log says when it does not come up, WriteError when there can be no log.
        """
        self._notice(f"starting vLLM (log: {self.log})")
        started_at = time.monotonic()
        try:
            for last in (*[False] * (MAX_PORTS - 1), True):
                self._port = _free_port()
                self._launch()
                if self._wait_until_ready(started_at + self._start_timeout):
                    break
                if last or not _is_port_taken(self._port):
                    raise self.exit_error()
                self._stop_supervisor()
        except BaseException:
            self.stop()
            raise
        self._notice(f"vLLM is ready after {time.monotonic() - started_at:.0f} s")

    def cancel_start(self) -> None:
        """Make `start` raise TeacherError; returns at once."""
        self._cancelled.set()

    def stop(self) -> None:
        """Stop the server and all its descendants. May be called at any time and repeatedly."""
        with self._lock:
            self._cancelled.set()
        self._stop_supervisor()

    def is_down(self) -> bool:
        """Whether the server has exited or reports that it is unhealthy; a slow one is not down."""
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
        """The error for a server that exited by itself, with what its log says."""
        status = self._supervisor.poll() if self._supervisor else None
        ended = "vLLM ended" if status is None else f"vLLM ended with status {status}"
        return TeacherError(
            f"{ended}; its log says:\n{self._log_end()}",
            place=self.log,
            hint="what the log names may be set with --vllm-arg, for example: "
            "--vllm-arg=--max-model-len=4096; then run the same command again: it goes on",
        )

    def metrics(self) -> ServerMetrics:
        """The server's counters. Raises OSError when it does not answer."""
        return parse_metrics(self._get("/metrics"))

    def _launch(self) -> None:
        prefix = [sys.executable, "-I", "-S", str(SUPERVISOR), str(os.getpid()), f"{self._grace:g}"]
        with self._lock:
            if self._cancelled.is_set():
                raise self._cancelled_error()
            with _open_log(self.log) as log:
                self._log_start = log.tell()
                self._supervisor = subprocess.Popen(
                    [*prefix, *self._full_command()],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=_environment(self._command[0]),
                    start_new_session=True,
                )
        assert self._supervisor.stdout is not None
        with self._supervisor.stdout as stdout:
            line = stdout.readline().decode("utf-8", "replace").strip()
        state, _, reason = line.partition(" ")
        if state != "started":
            raise TeacherError(
                f"vLLM cannot be started: {reason or self._log_end()}",
                place=self._command[0],
                hint=f'name another with --vllm-command, as "/opt/vllm/bin/python -m {MODULE}"',
            )

    def _full_command(self) -> list[str]:
        command = [*self._command]
        folder = Path(self.model).expanduser()
        source = str(folder) if folder.is_dir() else self.model
        # `vllm serve` takes the model as an argument, the module as a flag.
        command += [source] if command[-1] == "serve" else ["--model", source]
        command += ["--host", HOST, "--port", str(self._port)]
        command += ["--served-model-name", self.model, self._instance_name]
        command += ["--enable-prefix-caching"]
        if self._adapters:
            needed = self._lora_rank or LORA_RANKS[-1]
            rank = next((rank for rank in LORA_RANKS if rank >= needed), needed)
            command += ["--enable-lora", "--max-lora-rank", str(rank), "--lora-modules"]
            # In the JSON form: in the form NAME=PATH, a path with an equals sign is ambiguous.
            command += [
                strict_json.encode({"name": name, "path": str(path)}, ensure_ascii=True)
                for name, path in self._adapters.items()
            ]
        return [*command, *self._arguments]

    def _wait_until_ready(self, deadline: float) -> bool:
        """True when the server is ready, False when it has exited; TeacherError at `deadline`."""
        while not self._is_ready():
            if not self.alive:
                return False
            if time.monotonic() > deadline:
                raise TeacherError(
                    f"vLLM was not ready after {self._start_timeout:g} s; its log says:\n"
                    f"{self._log_end()}",
                    place=self.log,
                    hint="give it longer with start_timeout under [teacher], or less to do with "
                    "--vllm-arg, for example: --vllm-arg=--enforce-eager",
                )
            if self._cancelled.wait(POLL_INTERVAL):
                raise self._cancelled_error()
        return True

    def _is_ready(self) -> bool:
        try:
            self._get("/health")
            return self._instance_name in self._get("/v1/models")
        except (OSError, ValueError):
            return False

    def _get(self, path: str) -> str:
        with _WITHOUT_PROXY.open(f"http://{HOST}:{self._port}{path}", timeout=10) as response:
            return str(response.read().decode("utf-8", "replace"))

    def _cancelled_error(self) -> TeacherError:
        return TeacherError(
            "vLLM was stopped before it was ready",
            place=self.log,
            hint="run the same command again: it goes on",
        )

    def _stop_supervisor(self) -> None:
        """Close the supervisor's stdin, and wait until it has stopped the server."""
        supervisor = self._supervisor
        if supervisor is None:
            return
        assert supervisor.stdin is not None
        with contextlib.suppress(OSError):
            supervisor.stdin.close()
        try:
            supervisor.wait(SUPERVISOR_TIMEOUT)
        except subprocess.TimeoutExpired:
            supervisor.kill()
            supervisor.wait()

    def _log_end(self) -> str:
        """The cause that the log names, or its last lines."""
        try:
            with open(self.log, "rb") as file:
                file.seek(self._log_start)
                text = file.read().decode("utf-8", "replace")
        except OSError as error:
            return f"  (the log cannot be read: {error.strerror})"
        return server_end(text)


def parse_metrics(metrics: str) -> ServerMetrics:
    """The counters in the text of vLLM's /metrics, summed over its engines."""
    totals: dict[str, float] = {}
    for line in metrics.split("\n"):
        name, _, value = line.rpartition(" ")
        if name.startswith("vllm:"):
            name = name.partition("{")[0].removeprefix("vllm:")
            totals[name] = totals.get(name, 0.0) + float(value)
    lookups = totals.get("prefix_cache_queries_total", 0.0)
    return ServerMetrics(
        prompt_tokens=int(totals.get("prompt_tokens_total", 0)),
        completion_tokens=int(totals.get("generation_tokens_total", 0)),
        prefix_hit_rate=totals.get("prefix_cache_hits_total", 0.0) / lookups if lookups else None,
    )


def _refuse_reserved_flags(arguments: Sequence[str]) -> None:
    for argument in arguments:
        flag = argument.partition("=")[0].replace("_", "-")
        if flag in RESERVED_FLAGS:
            raise UsageError(
                f"{flag} is set by distill itself",
                place=f"--vllm-arg={flag}",
                hint="leave it out; a server that you start yourself is used with --teacher openai "
                "--base-url",
            )


def _open_log(path: Path) -> BinaryIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "ab")  # noqa: SIM115 - the caller's
    except OSError as error:
        raise WriteError.from_os(error, path) from None
    return file


def _environment(executable: str) -> dict[str, str]:
    """The user's environment, without keys and telemetry, with the executable's folder on PATH."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.upper().endswith("_API_KEY")
    }
    # vLLM calls compilers of its virtual environment, which is not activated.
    path = os.pathsep.join([str(Path(executable).parent), inherited.get("PATH", os.defpath)])
    own = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_HOST_IP": HOST, "PATH": path}
    return {**inherited, **own}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _is_port_taken(port: int) -> bool:
    """Whether another process listens at the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False
