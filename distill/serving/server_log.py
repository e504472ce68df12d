"""What vLLM's log says about its end: the error that is the cause, without the frames.

A start that fails leaves several tracebacks: that of the engine, which names the cause, the same
again as its process ends, and that of the API server, which only says that the engine failed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

TAIL_LINES = 15
# Survived errors of a long run lie further back.
_SEARCHED_LINES = 500
_DETAIL_LINES = 2

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_PREFIX = re.compile(
    r"(?:\([^()]*\bpid=\d+\) ?)*"
    r"(?:(?P<level>[A-Z]+) \d\d-\d\d \d\d:\d\d:\d\d(?:[.,]\d+)? \[[^\]]*\] ?)?"
)
_ERROR = re.compile(
    r"(?:[a-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Exit)(?:: |$)|[\w.-]+: error: "
)
_FRAME = re.compile(r"\s*Traceback \(most recent|\s+File \"|\s{4,}|\s*[\^~]+\s*$|\s*$")
_CHAINED = re.compile(r"(?:The above exception was|During handling of the above)")
_CONSEQUENCE = re.compile(
    r"Engine core initialization failed|Failed core proc|WorkerProc initialization failed"
    r"|Engine process failed to start|EngineCore encountered an issue|EngineDeadError"
)
"""What other processes of vLLM say when one has failed."""


class _Line(NamedTuple):
    level: str
    text: str


def server_end(log: str) -> str:
    """The line of the log that names the cause of the server's end, or else the log's last lines.

    The first error counts that is no consequence of another. Where errors are chained, it is the
    last of the chain: it is written for the user.
    """
    lines = [_read(line) for line in log.split("\n")]
    errors = [*_errors(lines[-_SEARCHED_LINES:])]
    causes = [error for error in errors if not _CONSEQUENCE.search(error)]
    if found := (causes or errors)[:1]:
        return f"  {found[0]}"
    told = [line.text for line in lines if not _FRAME.match(line.text)]
    return "\n".join(f"  {text}" for text in told[-TAIL_LINES:]) or "  (it wrote nothing)"


def _errors(lines: Sequence[_Line]) -> Iterator[str]:
    """The errors, without those of which another was made."""
    held, chained = "", False
    for at, line in enumerate(lines):
        if line.level in ("INFO", "WARNING", "DEBUG") or not _ERROR.match(line.text):
            chained = chained or bool(_CHAINED.match(line.text))
            continue
        error = " ".join([line.text, *_details(lines[at + 1 :])])
        if chained and _CONSEQUENCE.search(error):
            error = held
        elif held and not chained:
            yield held
        held, chained = error, False
    if held:
        yield held


def _details(lines: Sequence[_Line]) -> Iterator[str]:
    """What an error says on further, indented lines, as those of pydantic do."""
    for line in lines[:_DETAIL_LINES]:
        if not re.match(r"\s{1,3}\S", line.text) or _FRAME.match(line.text):
            return
        yield line.text.strip()


def _read(line: str) -> _Line:
    line = _ANSI.sub("", line)
    line = "".join(c for c in line if c.isprintable() or c == "\t").rstrip()
    prefix = _PREFIX.match(line)
    assert prefix is not None
    level = prefix["level"] or line.split(" ", 1)[0]
    return _Line(level, line[prefix.end() :][:300])
