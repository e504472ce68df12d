"""What each finished stage was made from and what it wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from distill.records import Json, Record, digest


class StageEntry(Record):
    """A finished stage, as manifest.json holds it."""

    settings: Json
    """The identity settings that it ran with, flat, by dotted key."""
    inputs: dict[str, str]
    """SHA-256 of each file that it read, by path within the run folder."""
    outputs: dict[str, str]
    """SHA-256 of each file that it wrote."""
    counts: Json
    """What it has to say of its result: in, kept, rejected by reason, and the like."""
    seconds: float

    @property
    def fingerprint(self) -> str:
        return digest([self.settings, self.inputs])


class Manifest(Record):
    """manifest.json: the truth about which stages are finished. Written last."""

    stages: dict[str, StageEntry] = {}


State = Literal["missing", "partial", "done", "stale", "altered"]


class StageStatus(NamedTuple):
    """Where a stage stands, and why."""

    stage: str
    state: State
    detail: str = ""


def flatten(settings: Mapping[str, Any], prefix: str = "") -> Json:
    """Nested settings as dotted keys, so that a difference can be named."""
    flat: Json = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def changes(then: Json, now: Json) -> list[str]:
    """What differs between two flat settings, as `train.seed: 0 -> 1`, ready for a message."""
    keys = [key for key in {**then, **now} if then.get(key) != now.get(key)]
    return [_change(key, then.get(key), now.get(key)) for key in sorted(keys)]


def _change(key: str, then: Any, now: Any) -> str:
    if "digest" in key or key.startswith("workflow."):
        return f"{key.removeprefix('workflow.')} {_verb(then, now)}"
    return f"{key}: {then} -> {now}"


def _verb(then: Any, now: Any) -> str:
    if then is None:
        return "is new"
    return "is gone" if now is None else "changed"
