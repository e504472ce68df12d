"""The command that starts vLLM: given by the user, of this environment, or on PATH."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from importlib.util import find_spec

from distill.errors import MissingExtraError, UsageError
from distill.serving.vllm import MODULE


def vllm_command(given: str = "") -> list[str]:
    """The arguments that start vLLM: those given, else of this environment, else from PATH.

    Raises UsageError for a command that cannot be run, MissingExtraError where there is no vLLM.
    """
    if given.strip():
        return _checked_command(given)
    spec = find_spec("vllm")
    # A folder that happens to be called vllm is a namespace package, without an origin.
    if spec is not None and spec.origin is not None:
        # -P: a folder called vllm where this was started is not run instead.
        return [sys.executable, "-P", "-m", MODULE]
    found = shutil.which("vllm")
    if found:
        return [found, "serve"]
    raise MissingExtraError(
        "vLLM is neither in this environment nor on PATH",
        hint="install it into an environment of its own and name that one: "
        f'--vllm-command "/opt/vllm/bin/python -m {MODULE}"',
    )


def _checked_command(given: str) -> list[str]:
    try:
        first, *rest = shlex.split(given)
    except ValueError as error:
        raise UsageError(
            f"cannot be read: {error}", place="--vllm-command", hint=f"it was given as: {given}"
        ) from None
    path = os.path.expanduser(first)
    found = shutil.which(path)
    if found is None:
        cause = "is not executable" if os.path.isfile(path) else "is no command here"
        raise UsageError(
            f'"{first}" {cause}',
            place="--vllm-command",
            hint=f'name it as, for example: "/opt/vllm/bin/python -m {MODULE}"',
        )
    return [found, *rest]
