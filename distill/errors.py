"""Every error that a user can meet.

DistillError                 exit 1   the user can fix it
├── UsageError               exit 2   the command line or distill.toml is wrong
├── WorkflowError            exit 1   rules, tools, words or gold; holds every problem found
├── InputFileError           exit 1   a file that cannot be read as what it should be
├── RunError                 exit 1   a run folder that cannot be used as asked
│   ├── RunLockedError                another process writes there
│   ├── StaleRunError                 made from other rules, settings or version
│   └── AlteredRunError               an artefact was edited, truncated or removed
├── WriteError               exit 1   the disk is full, or the folder is read-only
├── TeacherError             exit 1   the teacher cannot be used at all
├── StudentError             exit 1   the student cannot be loaded or used
│   └── DivergenceError               its training has no finite loss any more
├── ExportError              exit 1   a student that cannot be written or published as asked
├── MissingExtraError        exit 1   an optional part of distill is not installed
├── PlatformError            exit 1   an operating system that distill does not run on
└── GateError                exit 3   the run worked, the result is not good enough
    └── BudgetError          exit 3   the next request would not fit into the budget

A bad item is data (a Rejection or a Failure in `distill.records`); a bad run is one of these.
Each says the place, the cause and the way out, and knows its exit code.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterable
from typing import ClassVar, NamedTuple


class Problem(NamedTuple):
    """One thing that is wrong: where, what, and how to get out."""

    place: str
    cause: str
    hint: str

    def __str__(self) -> str:
        place = f"{self.place}: " if self.place else ""
        return f"{place}{self.cause}\n  {self.hint}"


class DistillError(Exception):
    """An error with a way out: `place: cause`, then the hint on a line of its own."""

    exit_code: ClassVar[int] = 1

    def __init__(self, cause: str, *, place: object = "", hint: str) -> None:
        self.problems: tuple[Problem, ...] = (Problem(str(place), cause, hint),)
        super().__init__(cause)

    @classmethod
    def of(cls, problems: Iterable[Problem]) -> DistillError:
        """Several problems of one kind, reported together so that they are fixed together."""
        found = tuple(problems)
        error = cls(found[0].cause, place=found[0].place, hint=found[0].hint)
        error.problems = found
        return error

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


class UsageError(DistillError):
    """A flag, a command or a setting that means nothing here."""

    exit_code = 2


class WorkflowError(DistillError):
    """The rules, tools, words or gold set contradict themselves or each other."""


class InputFileError(DistillError):
    """A file that is missing, unreadable, not UTF-8, or not in the format that it should have."""


class RunError(DistillError):
    """A run folder that cannot be used as asked."""


class RunLockedError(RunError):
    """Another process is writing into the run folder."""


class StaleRunError(RunError):
    """The run folder was made from another workflow, other settings or another version."""


class AlteredRunError(RunError):
    """A finished stage's file is not what the stage wrote."""


class WriteError(DistillError):
    """Something could not be written; nothing half-written was left behind."""

    @classmethod
    def from_os(cls, error: OSError, path: object) -> WriteError:
        """The error for a write that the operating system refused."""
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            hint = "free some space, then run the same command again: it goes on"
        else:
            hint = "choose another folder, or change this one's permissions"
        return cls(f"cannot be written: {error.strerror or error}", place=path, hint=hint)


class TeacherError(DistillError):
    """The teacher cannot serve this run: no key, unknown model, unreachable, or always failing."""


class StudentError(DistillError):
    """The student cannot be found, verified, loaded or trained."""


class DivergenceError(StudentError):
    """A training whose loss, gradient or weights are not finite any more."""


class ExportError(DistillError):
    """A trained student that cannot be written in a format, or published at a model hub."""


class MissingExtraError(DistillError):
    """A part of distill that is installed separately is needed and absent."""

    @classmethod
    def needing(cls, package: str, extra: str, purpose: str) -> MissingExtraError:
        """The error for `package`, which `purpose` needs and `distill[extra]` installs."""
        hint = f"install it with: pip install 'distill[{extra}]'"
        return cls(f"{purpose} needs the package {package}, which is not installed", hint=hint)


class PlatformError(DistillError):
    """An operating system without what run folders and servers need (flock, process groups)."""


def require_supported_platform() -> None:
    """Raise PlatformError where distill cannot run: it needs POSIX, so Windows needs WSL."""
    if sys.platform == "win32":
        raise PlatformError(
            "distill runs on Linux and macOS, not on Windows itself",
            hint="run it inside WSL: https://learn.microsoft.com/windows/wsl/install",
        )


class GateError(DistillError):
    """The run finished, and its result is below the bar that was set."""

    exit_code = 3


class BudgetError(GateError):
    """What the run may spend is spent: it stopped before the first request that did not fit."""
