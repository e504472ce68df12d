"""The teacher that distill serves itself: vLLM, found, started when it is needed, and stopped."""

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
    """A model that distill serves with vLLM, from the first request until it is closed.

    A run whose replies are all kept never starts the server. Its fingerprint is the model's hub
    id, or a digest of what the model's folder holds.

    make_server: makes the server, not yet started
    make_client: makes the teacher that asks it, from its URL
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
        self._starting: asyncio.Task[Teacher] | None = None
        self._draining = False
        self._since = self._until = 0.0

    @property
    def name(self) -> str:
        return f"vllm:{self._model}"

    @cached_property
    def fingerprint(self) -> str:
        return f"vllm/{_identity(self._model)}"

    async def complete(self, request: ChatRequest) -> ChatReply:
        """The reply. Raises as the client does, and TeacherError when the server is lost."""
        client = await self._served()
        self._since = self._since or time.monotonic()
        try:
            return await client.complete(request)
        except ReplyError as error:
            if error.is_server_failure:
                await self._require_server()
            raise
        except TeacherError:
            await self._require_server()
            raise
        finally:
            self._until = time.monotonic()

    def drain(self) -> None:
        self._draining = True
        if self._client is not None:
            self._client.drain()
        elif self._server is not None:
            self._server.cancel_start()

    async def close(self) -> None:
        """Say how fast the server was, release connections and stop it."""
        server, self._server = self._server, None
        client, self._client = self._client, None
        starting, self._starting = self._starting, None
        if server is None or starting is None:
            return
        try:
            if client is not None:
                await asyncio.to_thread(self._tell_speed, server)
                await client.close()
        finally:
            # Waited for here even when cancelled: without this, its end would be the guardian's.
            await asyncio.to_thread(server.stop)
            await asyncio.wait([starting])
            if not starting.cancelled():
                starting.exception()

    async def _served(self) -> Teacher:
        """The client of the one server, which the first caller starts and all wait for."""
        if self._draining and self._client is None:
            raise DrainingError
        if self._starting is None:
            self._server = self._make_server()
            self._starting = asyncio.create_task(self._start(self._server))
        try:
            return await asyncio.shield(self._starting)
        except TeacherError:
            if self._draining:
                raise DrainingError from None
            raise

    async def _start(self, server: VllmServer) -> Teacher:
        await asyncio.to_thread(server.start)
        self._client = self._make_client(server.url)
        if self._draining:
            self._client.drain()
        return self._client

    async def _require_server(self) -> None:
        server = self._server
        if server is not None and await asyncio.to_thread(server.is_down):
            await asyncio.to_thread(server.stop)
            raise server.exit_error() from None

    def _tell_speed(self, server: VllmServer) -> None:
        try:
            metrics = server.metrics()
        except (OSError, ValueError):
            return
        seconds = self._until - self._since
        if seconds <= 0 or not metrics.completion_tokens:
            return
        hits = metrics.prefix_hit_rate
        self._notice(
            f"vLLM wrote {metrics.completion_tokens:,} tokens in {seconds:.0f} s "
            f"({metrics.completion_tokens / seconds:,.0f} tokens/s) and read "
            f"{metrics.prompt_tokens:,}"
            + ("" if hits is None else f", {hits:.0%} of them from its prefix cache")
        )


def _identity(model: str) -> str:
    """A hub id as it is; a folder's contents, so that another model at its path is another one."""
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return model
    files = sorted(path for path in folder.iterdir() if path.is_file())
    # Weights by name and size: reading gigabytes at each start would cost minutes.
    small = [path for path in files if path.suffix in (".json", ".jinja", ".model", ".txt")]
    sizes = [[path.name, path.stat().st_size] for path in files if path not in small]
    return f"folder@{digest([sizes, [[path.name, file_digest(path)] for path in small]])}"
