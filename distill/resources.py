"""Where the prompts and the example workflows are: beside the code in a checkout, in the wheel."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def resource(*parts: str) -> Path:
    """The path of a shipped file or folder, as `resource("prompts", "write.md")`."""
    # A wheel carries the folders inside the package; a checkout has them at the top.
    installed = PACKAGE / "_shipped"
    return (installed if installed.is_dir() else PACKAGE.parent).joinpath(*parts)
