"""Makes the teacher that the settings name."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from distill.config import TeacherConfig, redacted_url
from distill.errors import TeacherError, UsageError
from distill.teachers.base import Teacher


def make_teacher(
    settings: TeacherConfig,
    *,
    notice: Callable[[str], None] = logging.getLogger(__name__).warning,
    log: Path = Path("vllm.log"),
) -> Teacher:
    """The teacher, ready for requests.

    notice: called with what it finds out about its server
    log: the log of a server that it starts
    Raises UsageError for invalid settings, TeacherError where the key is missing.
    """
    match settings.kind:
        case "grammar":
            from distill.teachers.grammar.teacher import GrammarTeacher

            return GrammarTeacher()
        case "openai":
            return _openai_teacher(settings, notice)
        case "vllm":
            from distill.serving.command import vllm_command

            return _vllm_teacher(settings, notice, log, vllm_command(settings.vllm_command))


def offline_teacher(settings: TeacherConfig) -> Teacher:
    """The teacher for its reply keys alone: it needs neither a key nor a server."""
    if settings.kind == "vllm":
        return _vllm_teacher(settings, lambda text: None, Path("vllm.log"), [])
    # With a base URL, no key is needed.
    update = {"base_url": settings.base_url or "http://127.0.0.1"}
    return make_teacher(settings.model_copy(update=update))


def _vllm_teacher(
    settings: TeacherConfig, notice: Callable[[str], None], log: Path, command: Sequence[str]
) -> Teacher:
    from distill.serving.vllm import VllmServer
    from distill.teachers.openai.client import OpenAITeacher
    from distill.teachers.vllm import VllmTeacher

    _require_model(settings, "give a hub id or a folder, for example: --model Qwen/Qwen3-8B")

    def make_server() -> VllmServer:
        return VllmServer(
            settings.model,
            command=command,
            arguments=settings.vllm_args,
            log=log,
            start_timeout=settings.start_timeout,
            notice=notice,
        )

    make_server()  # not started: checks the arguments
    return VllmTeacher(
        settings.model,
        make_server=make_server,
        make_client=lambda url: OpenAITeacher(
            model=settings.model,
            base_url=url,
            api_key="none",
            **_limit_settings(settings),
            notice=notice,
        ),
        notice=notice,
    )


def _openai_teacher(settings: TeacherConfig, notice: Callable[[str], None]) -> Teacher:
    from distill.teachers.openai.client import OpenAITeacher

    _require_model(settings, "name it as the server does, for example: --model gpt-5-mini")
    base_url = settings.address
    if base_url and not _is_url(base_url):
        raise UsageError(
            f'"{redacted_url(base_url)}" is not the address of a server',
            place="--base-url",
            hint="give it with its scheme and path, for example: http://localhost:8000/v1",
        )
    return OpenAITeacher(
        model=settings.model,
        base_url=base_url,
        api_key=_api_key(settings.api_key_env, needed=not base_url),
        **_limit_settings(settings),
        key_env=settings.api_key_env,
        notice=notice,
    )


def _require_model(settings: TeacherConfig, hint: str) -> None:
    if not settings.model.strip():
        raise UsageError(
            f"the {settings.kind} teacher needs to know which model", place="--model", hint=hint
        )


def _limit_settings(settings: TeacherConfig) -> dict[str, Any]:
    names = ("timeout", "attempts", "patience", "concurrency")
    rates = ("requests_per_minute", "tokens_per_minute")
    return {name: getattr(settings, name) for name in (*names, *rates)}


def _is_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _api_key(variable: str, *, needed: bool) -> str:
    key = os.environ.get(variable, "").strip()
    if not key and needed:
        raise TeacherError(
            f"there is no key: the environment variable {variable} is not set",
            place="--teacher openai",
            hint=f"set it with: export {variable}=… or name a server of your own with --base-url",
        )
    if not key.isascii() or not key.isprintable():
        raise TeacherError(
            f"the key in {variable} has characters that no key has",
            place="--teacher openai",
            hint="copy it again, without quotes or line breaks",
        )
    # The header is sent to servers without keys too.
    return key or "none"
