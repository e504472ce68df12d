"""Fuzzes one target in this process: `python -m fuzz.worker TARGET FOLDER`.

A process of its own, as an input may end it; `__main__` then sees from FOLDER/input which it was.
Atheris (libFuzzer) keeps what reaches new code in FOLDER/corpus. A finding does not stop it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import mmap
import signal
import ssl
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import atheris

from fuzz.mutate import Mutator
from fuzz.targets import FOUND, TARGETS

SLOW = 2.0
"""Seconds of processor time, as the clock runs for others too: more of it is a finding."""
MAX_LENGTH = 20_000
MAX_MEMORY = 1024
"""MB in all, most of them for what is imported."""
_ROOT = str(Path(__file__).parents[2])
_SHRINK_SECONDS = 5.0


class TooSlowError(BaseException):
    """An input took longer than SLOW; no handler of errors catches it."""


def main(name: str, folder: Path) -> None:
    # Atheris names each module on stderr.
    with contextlib.redirect_stderr(io.StringIO()), atheris.instrument_imports(include=["distill"]):
        check = TARGETS[name].check()
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    starts = list(TARGETS[name].seeds())
    for start in (*starts, *(path.read_bytes() for path in TARGETS[name].found())):
        (corpus / hashlib.sha1(start).hexdigest()).write_bytes(start)
    fuzzer = _Fuzzer(name, check, _Journal(folder / "input"))
    mutator = Mutator(starts, TARGETS[name].tokens)

    def mutate(data: bytes, limit: int, seed: int) -> bytes:
        # Bytes as libFuzzer changes them, led by what was compared; else what keeps the form.
        return atheris.Mutate(data, limit) if seed % 4 == 0 else mutator(data, seed)[:limit]

    # Each client reads all certificates, which takes longer than all else; none is used.
    ssl.SSLContext.load_verify_locations = _nothing  # type: ignore[assignment]
    signal.signal(signal.SIGVTALRM, _too_slow)
    options = (
        f"-max_len={MAX_LENGTH}",
        f"-rss_limit_mb={MAX_MEMORY}",
        "-timeout=3600",
        f"-artifact_prefix={folder}/",
    )
    atheris.Setup([sys.argv[0], *options, str(corpus)], fuzzer, custom_mutator=mutate)
    atheris.Fuzz()


def _too_slow(signum: int, frame: FrameType | None) -> None:
    raise TooSlowError


def _nothing(*_: object, **__: object) -> None:
    pass


class _Journal:
    """The input that is tried, and how many were, where another process can read them."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(16 + MAX_LENGTH))
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._tried = 0

    def write(self, data: bytes) -> None:
        self._tried += 1
        head = self._tried.to_bytes(8, "little") + len(data).to_bytes(8, "little")
        self._map[: 16 + len(data)] = head + data


def read_journal(path: Path) -> tuple[int, bytes]:
    """How many inputs were tried, and the last of them."""
    if not path.exists():
        return 0, b""
    data = path.read_bytes()
    length = int.from_bytes(data[8:16], "little")
    return int.from_bytes(data[:8], "little"), data[16 : 16 + length]


class _Fuzzer:
    """What is done with each input: a failure is kept once for each place where it is raised."""

    def __init__(self, name: str, check: Callable[[bytes], None], journal: _Journal) -> None:
        self._name, self._check, self._journal = name, check, journal
        self._known: set[str] = set()

    def __call__(self, data: bytes) -> None:
        data = data[:MAX_LENGTH]
        self._journal.write(data)
        error = self._failure(data)
        if error is None or (where := place_of(error)) in self._known:
            return
        self._known.add(where)
        data = self._shrunk(data, where)
        path = keep(self._name, data)
        print(f"FOUND {path}\n{_told(error)}", file=sys.stderr, flush=True)

    def _failure(self, data: bytes) -> BaseException | None:
        signal.setitimer(signal.ITIMER_VIRTUAL, SLOW)
        try:
            self._check(data)
        except (Exception, TooSlowError) as error:
            return error
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        return None

    def _shrunk(self, data: bytes, where: str) -> bytes:
        """`data` without the parts that its failure does not need, by halves and less."""
        end, size = time.monotonic() + _SHRINK_SECONDS, len(data) // 2
        while size and time.monotonic() < end:
            at = 0
            while at < len(data) and time.monotonic() < end:
                less = data[:at] + data[at + size :]
                self._journal.write(less)
                error = self._failure(less)
                if error is not None and place_of(error) == where:
                    data = less
                else:
                    at += size
            size //= 2
        return data


def keep(name: str, data: bytes) -> Path:
    """Store an input that broke a target; from now on it is a test."""
    path = FOUND / name / hashlib.sha1(data).hexdigest()[:12]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def place_of(error: BaseException) -> str:
    """The error's kind, and where it left this repository's code."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(_ROOT)]
    # Where a slow input is interrupted differs from time to time; who asked for it does not.
    frame = frames[min(3, len(frames) - 1) if isinstance(error, TooSlowError) else -1]
    return f"{type(error).__name__} {Path(frame.filename).name}:{frame.lineno}"


def _told(error: BaseException) -> str:
    """The error, and the frames of this repository that led there."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(_ROOT)]
    lines = [f"  {frame.filename}:{frame.lineno} in {frame.name}\n" for frame in frames[1:]]
    return "".join([*lines[:4], *lines[4:][-12:], f"  {type(error).__name__}: {str(error)[:1000]}"])


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
