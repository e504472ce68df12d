"""Runs distill's commands in forked children that kill themselves, at a time or at an operation.

`python -m kit.killed` reads jobs as JSON lines on stdin and answers each on stdout. The libraries
are imported once, before the first fork: a child costs the command itself only.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Self

OPERATIONS = ("rename", "replace", "unlink", "remove", "rmdir", "mkdir")


class Ended(NamedTuple):
    """How a command ended: the signal as a negative code, and what was counted of it."""

    code: int
    seconds: float
    operations: int
    said: str


class Forks:
    """A parent of many short commands. Opened by `with`."""

    def __enter__(self) -> Self:
        path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
        self._parent = subprocess.Popen(
            [sys.executable, "-m", "kit.killed"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )
        return self

    def __exit__(self, *_: object) -> None:
        # Without more input it ends.
        self._parent.communicate()

    def run(
        self,
        *command: object,
        seconds: float | None = None,
        operation: int | None = None,
        below: Path | None = None,
    ) -> Ended:
        """A command, killed after `seconds`, or before the operation of that number, from 0.

        below: the folder whose operations are counted; those on other paths are not
        """
        assert self._parent.stdin
        assert self._parent.stdout
        job = {"argv": list(map(str, command)), "seconds": seconds, "operation": operation}
        self._parent.stdin.write(json.dumps({**job, "below": str(below or "/")}) + "\n")
        self._parent.stdin.flush()
        return Ended(*json.loads(self._parent.stdout.readline()))


def _serve() -> None:
    # Results go to the real stdout, whatever a library prints.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _import_all()
    for line in sys.stdin:
        print(json.dumps(_fork(json.loads(line))), file=answers, flush=True)


def _import_all() -> None:
    import datasets  # type: ignore[import-untyped] # noqa: F401
    import matplotlib.backends.backend_agg  # noqa: F401
    import sklearn.feature_extraction.text  # type: ignore[import-untyped]
    import sklearn.linear_model  # type: ignore[import-untyped] # noqa: F401
    import torch.utils.tensorboard
    import transformers
    import trl

    import distill.cli.main
    import distill.evaluate.arms
    import distill.export.export
    import distill.train.sampler
    import distill.train.sft  # noqa: F401

    torch.set_num_threads(1)
    _ = (transformers.AutoModelForCausalLM, transformers.Trainer, trl.SFTTrainer)


def _fork(job: Any) -> tuple[int, float, int, str]:
    begun = time.monotonic()
    read, write = os.pipe()
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if not child:
            os.close(read)
            for stream in (1, 2):
                os.dup2(output.fileno(), stream)
            _command(job, write)
        os.close(write)
        if job["seconds"] is not None:
            time.sleep(job["seconds"])
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        seconds = time.monotonic() - begun
        # One byte for each operation.
        with os.fdopen(read, "rb") as counted:
            operations = len(counted.read())
        output.seek(0)
        said = output.read().decode("utf-8", "replace")
    return os.waitstatus_to_exitcode(status), seconds, operations, said


def _command(job: Any, count: int) -> None:
    """Runs it in this process, which ends."""
    code = 1
    try:
        _patch(job["operation"], job["below"], count)
        sys.argv = ["distill", *job["argv"]]
        from distill.cli.main import main

        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _patch(operation: int | None, below: str, count: int) -> None:
    """Count the operations below a folder, and be killed before that of the number."""
    done = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *more: Any, **how: Any) -> Any:
            nonlocal done
            if how.get("dir_fd") is not None or str(path).startswith(below):
                if done == operation:
                    os.kill(os.getpid(), signal.SIGKILL)
                done += 1
                os.write(count, b".")
            return real(path, *more, **how)

        return call

    for name in OPERATIONS:
        setattr(os, name, counted(getattr(os, name)))


if __name__ == "__main__":
    _serve()
