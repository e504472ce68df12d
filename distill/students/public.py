"""Names for what is published: the path of a local folder means nothing elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

from distill.files import parse_json, read_text, write_json

_ADAPTER = "adapter_config.json"
_BASE = "base_model_name_or_path"


def without_path(name: str) -> str:
    """The last part of a path; hub ids and the names of served models stay as they are."""
    return _last_part(name) if name.startswith((".", "~", "/")) else name


def _last_part(path: str) -> str:
    return os.path.basename(os.path.abspath(path)) or "model"


def remove_local_path(adapter: Path, fingerprint: str) -> None:
    """Replace the path of the base model in an adapter's config by its last part and fingerprint.

    fingerprint: the student's; a hub id, which it begins with, stays. distill loads the base model
    itself, and a server is told both, so that nobody needs the path.
    """
    path = adapter / _ADAPTER
    if not path.is_file():
        return
    config = parse_json(read_text(path), path)
    base = config.get(_BASE)
    if base and not fingerprint.startswith(f"{base}@"):
        neutral = "-".join(part for part in (_last_part(base), fingerprint) if part)
        write_json(path, config | {_BASE: neutral})
