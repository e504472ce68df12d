"""README.md is run: every command by the real command line, its output compared with what is said.

Commands that take minutes are run with less data or a tiny student, and commands that spend money
against a local server: `INSTEAD` says what is added. Numbers that follow from the training, and
seconds, are masked on both sides; the numbers of data are not, as they are the same everywhere.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from jsonschema import Draft202012Validator

from distill.run import layout
from distill.testing.server import ChatServer
from distill.workflow import load_workflow

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
MOST_WORDS = 1300

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Command(NamedTuple):
    """A command of the README, and the output that is printed below its block."""

    line: str
    output: str


def commands() -> Iterator[Command]:
    """Each line of the sh blocks; a text block right behind is the last one's output."""
    blocks = [(found[1], found[2], found.end()) for found in BLOCK.finditer(README)]
    for at, (language, text, end) in enumerate(blocks):
        if language != "sh":
            continue
        lines = [shlex.join(shlex.split(line, comments=True)) for line in text.splitlines()]
        following = blocks[at + 1] if at + 1 < len(blocks) else None
        output = ""
        if following and following[0] == "text" and README[end:].startswith("\n\n```text\n"):
            output = following[1]
        yield from (Command(line, output if line == lines[-1] else "") for line in lines if line)


COMMANDS = tuple(commands())
# Set-up, which `make test` has done before it gets here: looked at, not done again.
SETUP = ("make train", "make test", ". .venv/bin/activate", "pip install '.[embedded]'")

RULES = "--rules schemas/knowledge_router/rules.md"
HUB = "distill train runs/api --student google/functiongemma-270m-it"
API = "--rules shop/rules.md --teacher openai --model gpt-5-mini --out runs/api"
INSTEAD = {
    f"distill run {RULES}": "--target 400 --epochs 3 --config quick.toml --redo",
    "distill run --rules shop/rules.md": "--target 70 --config tiny.toml --student {student}",
    f"distill gen {API}": "--target 28 --gate 0 --base-url {url}",
    HUB: "--student {student} --epochs 1",
}
"""What is added to a command, so that it takes seconds and reaches nothing but this machine."""
QUICK = "[evaluate]\nmax_new_tokens = 48\n"
TINY = "[train]\nepochs = 1\n[evaluate]\nmax_new_tokens = 8\n"
# The local server writes words at random, so few rows are accepted: the quotas are not met.
EXIT_CODES = {f"distill gen {API}": 3}


class Reader:
    """Somebody who types what the README says, in a checkout of their own."""

    def __init__(self, folder: Path, student: Path, url: str) -> None:
        self.folder = folder
        self.added = {"student": student, "url": url}
        shutil.copytree(ROOT / "schemas", folder / "schemas")
        own = (ROOT / "schemas" / "knowledge_router" / "distill.toml").read_text("utf-8")
        (folder / "quick.toml").write_text(own.partition("[train]")[0] + QUICK, "utf-8")
        (folder / "tiny.toml").write_text(TINY, "utf-8")
        programs = folder / "bin"
        programs.mkdir()
        (programs / "distill").write_text(f'#!/bin/sh\nexec {sys.executable} -m distill "$@"\n')
        (programs / "distill").chmod(0o755)
        self.environment = {
            **os.environ,
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "OPENAI_API_KEY": "sk-none",
            "NO_COLOR": "1",
            "COLUMNS": "120",
        }

    def types(self, line: str) -> subprocess.CompletedProcess[str]:
        """Run a line by the shell; stdout and stderr come as one, as on a terminal."""
        return subprocess.run(
            ["sh", "-c", f"{line} {INSTEAD.get(line, '').format(**self.added)}"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def masked(line: str) -> str:
    """A line without what follows from time and training: seconds, scores, the choice of a tool."""
    line = re.sub(r"\d+\.\d+ s$", "S", line.strip())
    if line.startswith(("plan", "generate", "validate", "dedup", "balance", "split")):
        return line
    if line.startswith("search_"):
        return re.sub(r'^search_\w+ \{"query": "[^"]*"\}$', "TOOL QUERY", line)
    if line.startswith("confidence"):
        first, *shares = re.sub(r"\d+\.\d%", "N", line).split("; ")[0], *line.split("; ")[1:]
        names = sorted(part.split()[0] for part in "".join(shares).split(", "))
        return f"{first}; {', '.join(names)}"
    cells = re.sub(r"[┏┳┓┡╇┩└┴┘━─]+", "─", line)
    return re.sub(r"\s+", " ", re.sub(r"\d+(\.\d+)?", "N", cells))


def test_readme_is_short() -> None:
    assert len(README.split()) <= MOST_WORDS


def test_every_substitution_is_of_a_command_in_the_readme() -> None:
    lines = [command.line for command in COMMANDS]
    assert len(lines) == len(set(lines))
    assert {*SETUP, *INSTEAD, *EXIT_CODES} <= set(lines)
    assert len(lines) > len(SETUP) + len(INSTEAD)
    assert sum(bool(command.output) for command in COMMANDS) >= 3


def test_commands_do_what_the_readme_says(tmp_path: Path, tiny_student: Path) -> None:
    """All of them in order: exit codes, the lines of each output, and the files of a whole run."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    with ChatServer() as server:
        reader = Reader(folder, tiny_student, server.url)
        for command in COMMANDS:
            if command.line in SETUP:
                continue
            ran = reader.types(command.line)
            assert ran.returncode == EXIT_CODES.get(command.line, 0), (command.line, ran.stdout)
            assert "Traceback" not in ran.stdout
            printed = iter([masked(line) for line in ran.stdout.splitlines()])
            for line in command.output.splitlines():
                assert masked(line) in printed, f"{line!r} is not, in its place, in: {ran.stdout}"
        assert server.count > 0
    require_schemas(folder / "runs" / "knowledge_router")


def test_masks_keep_what_is_stable() -> None:
    assert masked("split      train 7350, dev 326, test 324 3.1 s") == (
        "split      train 7350, dev 326, test 324 S"
    )
    one, other = "│ tuned │ 120 │ 86.7 [79.4, 91.6] │", "│ tuned    │  20 │ 5.0 [1.4, 9.6] │"
    assert masked(one) == masked(other)
    assert masked(one) != masked(one.replace("tuned", "base"))
    assert masked('search_google {"query": "a b"}') == masked('search_web {"query": "c"}')
    assert masked('search_google {"topic": "a"}') != masked('search_google {"query": "a"}')
    assert masked("confidence 9.1%; a 9.1%, b 0.3%") == masked("confidence 1.0%; b 0.3%, a 1.1%")
    assert masked("confidence 9.1%; a 9.1%, b 0.3%") != masked("confidence 9.1%; a 9.1%")


def require_schemas(run: Path) -> None:
    """What evaluation and report wrote meets the schemas in schemas/formats."""

    def validator(name: str) -> Draft202012Validator:
        path = ROOT / "schemas" / "formats" / f"{name}.schema.json"
        return Draft202012Validator(json.loads(path.read_text("utf-8")))

    validator("report").validate(json.loads((run / layout.REPORT).read_text("utf-8")))
    validator("manifest").validate(json.loads((run / layout.MANIFEST).read_text("utf-8")))
    for dataset in ("gold", "test"):
        scores = json.loads((run / layout.scores(dataset)).read_text("utf-8"))
        validator("scores").validate(scores)
        for arm in scores["arms"]:
            lines = (run / layout.predictions(dataset, arm)).read_text("utf-8").splitlines()
            assert lines
            for line in lines:
                validator("prediction").validate(json.loads(line))


@pytest.mark.parametrize("target", ["train", "test"])
def test_make_does_what_the_readme_says(target: str) -> None:
    ran = subprocess.run(
        ["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True
    )
    wanted = {"train": f"distill run {RULES} --out runs/knowledge_router", "test": "pytest"}
    assert f".venv/bin/{wanted[target]}" in ran.stdout
    assert "VENV := .venv\n" in (ROOT / "Makefile").read_text("utf-8")


def test_pip_can_install_what_the_readme_names(tmp_path: Path) -> None:
    """Pip reads the project and its extras; what it would download is left out."""
    line = next(line for line in SETUP if line.startswith("pip"))
    offline = ["--dry-run", "--no-deps", "--no-index", "--no-build-isolation"]
    command = [sys.executable, "-m", *shlex.split(line), *offline]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "Would install distill" in ran.stdout
    assert "does not provide the extra" not in ran.stdout + ran.stderr
    (named,) = re.findall(r"\[(\w+)\]", line)
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert re.search(rf"pip install .* -e '\.\[{named},[\w,]*dev\]'", makefile)


def test_the_rules_in_the_readme_are_rules(tmp_path: Path) -> None:
    (page,) = [text for language, text in BLOCK.findall(README) if language == "markdown"]
    (tmp_path / "rules.md").write_text(page, "utf-8")
    argument = {"type": "object", "properties": {"topic": {"type": "string"}}}
    other = {"type": "object", "properties": {"query": {"type": "string"}}}
    tools = [
        {"name": "visitor_info", "description": "Hours and prices.", "parameters": argument},
        {"name": "search_collection", "description": "Search works.", "parameters": other},
    ]
    (tmp_path / "tools.json").write_text(json.dumps(tools), "utf-8")
    workflow = load_workflow(tmp_path / "rules.md")
    assert [rule.id for rule in workflow.rules] == ["opening", "collection"]


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_to_files_and_headings(name: str) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", (ROOT / name).read_text("utf-8"))
    assert links
    for link in links:
        path, _, heading = link.partition("#")
        assert (ROOT / path).is_file(), link
        if heading:
            titles = re.findall(r"^#+ (.+)$", (ROOT / path).read_text("utf-8"), re.MULTILINE)
            assert heading in {
                re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles
            }
