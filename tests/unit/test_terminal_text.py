"""Text from replies, servers and files: a terminal obeys none of it, and Markdown stays text."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from distill.cli import terminal
from distill.stages.watcher import PlainConsole, ProgressWatcher
from distill.workflow.problems import as_markdown

OBEYED = [
    *(chr(code) for code in (*range(9), *range(11, 32), *range(0x7F, 0xA0))),
    *(chr(code) for code in (0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))),
    *("\ud800", "\udfff"),
]
STARTER = Path(__file__).parents[2] / "schemas" / "starter"


def shown(*, style: bool = False) -> tuple[PlainConsole, io.StringIO]:
    console = PlainConsole(width=100)
    file = io.StringIO()
    console.file = file
    if style:
        console._force_terminal = True
    return console, file


@pytest.mark.parametrize("printing", ["plain", "styled", "markup", "table", "notice", "progress"])
def test_no_character_reaches_a_terminal_that_it_obeys(printing: str) -> None:
    for character in OBEYED:
        text = f"a{character}[31mb"
        console, file = shown()
        watcher = ProgressWatcher(console)
        if printing == "plain":
            console.print(text, markup=False)
        elif printing == "styled":
            console.print(text, style="red", markup=False)
        elif printing == "markup":
            console.print(f"[bold]x[/bold] {text}")
        elif printing == "table":
            console.print(terminal.table(text, ["one", "two"], [[text, 1]]))
        elif printing == "notice":
            watcher.notice(text)
        else:
            watcher.ends("train", {text: 1}, 1.0)
        assert not {*file.getvalue()} & {*OBEYED}, repr(character)
        assert "a" in file.getvalue()
        file.getvalue().encode("utf-8")


def test_styles_are_the_consoles_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    console, file = shown(style=True)
    console.print("a\x1b[2Jb", style="red", markup=False)
    assert "\\x1b[2Jb" in file.getvalue()
    assert "\x1b[2J" not in file.getvalue()


def test_json_on_a_terminal_is_the_same_json(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"a": " ".join(OBEYED) + "é 🦄\n\t", "b": ["\x1b]0;x\x07"]}
    terminal.print_json(value)
    printed = capsys.readouterr().out
    assert not {*printed} & {*OBEYED}
    assert "é 🦄" in printed
    assert json.loads(printed) == value


def test_a_page_with_escapes_is_shown_by_the_real_command(tmp_path: Path) -> None:
    page = (STARTER / "rules.md").read_text("utf-8")
    odd = "\n## odd: T\x1b[2J\x9b31m\u202e\n\n**When** x.\n\n**Then** ask “y?”\n\n## "
    title = page.replace("\n## ", odd, 1)
    for path in STARTER.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "rules.md").write_text(title, "utf-8")
    missing = str(tmp_path / "no\x1b[2J.md")
    rules = str(tmp_path / "rules.md")
    for words in (
        ["check", "--rules", rules, "--explain"],
        ["check", "--rules", missing],
        ["check", "--\x1b[2J"],
    ):
        command = [sys.executable, "-m", "distill", *words]
        done = subprocess.run(command, capture_output=True, env=ASCII, check=False)
        text = (done.stdout + done.stderr).decode("utf-8", "strict")
        assert "Traceback" not in text
        assert not {*text} & {*OBEYED}
        assert "\\x1b[2J" in text


ASCII = {"PATH": "/usr/bin:/bin", "PYTHONIOENCODING": "ascii", "PYTHONPATH": ":".join(sys.path)}


@pytest.mark.parametrize(
    "text", ["a|b", "<script>alert(1)</script>", "[x](javascript:1)", "`code`", "a\n# b", "&lt;"]
)
def test_markdown_of_others_stays_text(text: str) -> None:
    said = as_markdown(text)
    assert "\n" not in said
    for mark in "|<[`":
        assert said.count(mark) == said.count(f"\\{mark}")
