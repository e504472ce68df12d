"""A teacher on a vLLM server that distill starts with the first request, and stops."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from distill.errors import TeacherError
from distill.files import file_digest
from distill.records import digest
from distill.serving.vllm import Notice, VllmServer
from distill.teachers.base import ChatReply, ChatRequest, DrainingError, ReplyError, Teacher


class VllmTeacher:
    """A model served by vLLM from the first request until `close`.

    A run whose replies are all cached never starts the server. The fingerprint is the model's hub
    id, or a digest of its folder.

    make_server: makes a server, not yet started
    make_client: makes the teacher that sends requests to the URL of the server
    """

    messages_only = True

    def __init__(
        self,
        model: str,
        *,
        make_server: Callable[[], VllmServer],
        make_client: Callable[[str], Teacher],
        notice: Notice = logging.getLogger(__name__).info,
    ) -> None:
        self._model = model
        self._make_server = make_server
        self._make_client = make_client
        self._notice = notice
        self._server: VllmServer | None = None
        self._client: Teacher | None = None
        self._startup: asyncio.Task[Teacher] | None = None
        self._draining = False
        self._first_sent = self._last_reply = 0.0

    @property
    def name(self) -> str:
        return f"vllm:{self._model}"

    @cached_property
    def fingerprint(self) -> str:
        return f"vllm/{_model_identity(self._model)}"

    async def complete(self, request: ChatRequest) -> ChatReply:
        """The reply. Raises what the client raises, and TeacherError when the server is down."""
        client = await self._started_client()
        self._first_sent = self._first_sent or time.monotonic()
        try:
            return await client.complete(request)
        except ReplyError as error:
            if error.is_server_failure:
                await self._raise_if_down()
            raise
        except TeacherError:
            await self._raise_if_down()
            raise
        finally:
            self._last_reply = time.monotonic()

    def drain(self) -> None:
        self._draining = True
        if self._client is not None:
            self._client.drain()
        elif self._server is not None:
            self._server.cancel_start()

    async def close(self) -> None:
        """Report the throughput of the server, release connections and stop it."""
        server, self._server = self._server, None
        client, self._client = self._client, None
        startup, self._startup = self._startup, None
        if server is None or startup is None:
            return
        try:
            if client is not None:
                await asyncio.to_thread(self._report_throughput, server)
                await client.close()
        finally:
            # Also when cancelled: else the supervisor alone would stop it, after distill's exit.
            await asyncio.to_thread(server.stop)
            await asyncio.wait([startup])
            if not startup.cancelled():
                startup.exception()

    async def _started_client(self) -> Teacher:
        """The client of the server, which the first caller starts and every caller waits for."""
        if self._draining and self._client is None:
            raise DrainingError
        if self._startup is None:
            self._server = self._make_server()
            self._startup = asyncio.create_task(self._start_server(self._server))
        try:
            return await asyncio.shield(self._startup)
        except TeacherError:
            if self._draining:
                raise DrainingError from None
            raise

    async def _start_server(self, server: VllmServer) -> Teacher:
        await asyncio.to_thread(server.start)
        self._client = self._make_client(server.url)
        if self._draining:
            self._client.drain()
        return self._client

    async def _raise_if_down(self) -> None:
        server = self._server
        if server is not None and await asyncio.to_thread(server.is_down):
            await asyncio.to_thread(server.stop)
            raise server.exit_error() from None

    def _report_throughput(self, server: VllmServer) -> None:
        try:
            metrics = server.metrics()
        except (OSError, ValueError):
            return
        seconds = self._last_reply - self._first_sent
        if seconds <= 0 or not metrics.completion_tokens:
            return
        hit_rate = metrics.prefix_hit_rate
        self._notice(
            f"vLLM wrote {metrics.completion_tokens:,} tokens in {seconds:.0f} s "
            f"({metrics.completion_tokens / seconds:,.0f} tokens/s) and read "
            f"{metrics.prompt_tokens:,}"
            + ("" if hit_rate is None else f", {hit_rate:.0%} of them from its prefix cache")
        )


def _model_identity(model: str) -> str:
    """A hub id as it is; for a folder a digest of its files, which may change at one path."""
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return model
    files = sorted(path for path in folder.iterdir() if path.is_file())
    # Weights by name and size alone: to hash gigabytes would take minutes.
    small = [path for path in files if path.suffix in (".json", ".jinja", ".model", ".txt")]
    sizes = [[path.name, path.stat().st_size] for path in files if path not in small]
    return f"folder@{digest([sizes, [[path.name, file_digest(path)] for path in small]])}"
