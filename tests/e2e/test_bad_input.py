"""What people get wrong: one message with place, cause and way out, and no traceback."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from distill.run.folder import locked

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def refused(done: subprocess.CompletedProcess[str], *said: str, code: int = 1) -> None:
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == code, done.stderr
    for words in said:
        assert words in done.stderr, done.stderr


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


RULES_EDITS = [
    ("call `search_collection`", "call `serch_collection`", "did you mean", "serch_collection"),
    ("## collection: The", "## opening: The", "opening", "rules.md:"),
    (
        "**When** the visitor asks about a work",
        "The visitor asks about a work",
        "When",
        "collection",
    ),
    ("**Then** answer", "Perhaps answer", "Then", "thanks"),
    ("→ opening\n", "→ openings\n", "openings", "did you mean"),
    ("`query` = ", "`quary` = ", "quary", "rules.md:"),
    ("title: Front desk", "title: [", "rules.md", "front matter"),
]


@pytest.mark.parametrize(("old", "new", "cause", "also"), RULES_EDITS)
def test_rules(desk: Path, distill: Run, old: str, new: str, cause: str, also: str) -> None:
    edit(desk / "rules.md", old, new)
    refused(distill("check", "--rules", desk / "rules.md"), cause, also)


TOOLS_EDITS = [
    ('"required": ["query"]', '"required": ["query"', "JSON"),
    ('"type": "string"', '"type": "strng"', "strng"),
    ('"name": "search_collection"', '"name": "visitor_info"', "visitor_info"),
]


@pytest.mark.parametrize(("old", "new", "cause"), TOOLS_EDITS)
def test_tools(desk: Path, distill: Run, old: str, new: str, cause: str) -> None:
    edit(desk / "tools.json", old, new)
    refused(distill("check", "--rules", desk / "rules.md"), cause, "tools.json")


PYTHON_TOOLS = [
    ('def find(query: str) -> str:\n    return ""\n', "docstring"),
    ('def find(query) -> str:\n    """Find.\n\n    Args:\n        query: What.\n    """\n', "type"),
    ("def find(:\n", "tools.py:1"),
    ("raise SystemExit(7)\n", "tools.py"),
]


@pytest.mark.parametrize(("source", "cause"), PYTHON_TOOLS)
def test_python_tools(desk: Path, distill: Run, source: str, cause: str) -> None:
    (desk / "tools.py").write_text(source)
    done = distill("check", "--rules", desk / "rules.md", "--tools", desk / "tools.py")
    refused(done, cause, "tools.py")


@pytest.mark.parametrize(
    ("name", "data", "cause"),
    [
        ("rules.md", None, "no such file"),
        ("rules.md", b"", "rules.md"),
        ("rules.md", b"---\ntitle: x\n---\nOnly prose.\n", "rule"),
        ("rules.md", b"\x89PNG\0\0", "binary"),
        ("rules.md", "## café".encode("latin1"), "not UTF-8"),
        ("tools.json", None, "tools"),
        ("tools.json", b"", "tools.json"),
        (
            "gold.jsonl",
            b'{"user_content": "hi", "tool_name": "serch_collection"}\n',
            "gold.jsonl:1",
        ),
        ("gold.jsonl", b'{"user_content": "hi"\n', "gold.jsonl:1"),
        ("distill.toml", b"[data]\ntagret = 3\n", "tagret"),
    ],
)
def test_files(desk: Path, distill: Run, name: str, data: bytes | None, cause: str) -> None:
    (desk / name).unlink(missing_ok=True)
    if data is not None:
        (desk / name).write_bytes(data)
    code = 2 if name == "distill.toml" else 1
    refused(distill("gen", "--rules", desk / "rules.md"), cause, code=code)


def test_a_run_folder_of_something_else(desk: Path, distill: Run, tmp_path: Path) -> None:
    gen = ("gen", "--rules", desk / "rules.md", "--target", 12, "--out", "run")
    assert distill(*gen).returncode == 0
    assert distill(*gen).returncode == 0, "the same command again is no error"
    refused(distill(*gen, "--seed", 5), "data.seed: 0 -> 5", "--out", "--redo")
    edit(desk / "rules.md", "or what it costs", "or the price")
    refused(distill(*gen), 'rule "opening" changed', "--out")
    config = tmp_path / "run" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "format": 0}))
    refused(distill("status", "run"), "run format 0", "--out")


def test_an_edited_artefact(desk: Path, distill: Run, tmp_path: Path) -> None:
    gen = ("gen", "--rules", desk / "rules.md", "--target", 12, "--out", "run")
    assert distill(*gen).returncode == 0
    edit(tmp_path / "run" / "3-validate" / "examples.jsonl", '"style"', '"style" ')
    refused(distill(*gen), "3-validate/examples.jsonl", "--redo")
    assert "altered" in distill("status", "run").stdout
    assert distill(*gen, "--redo").returncode == 0
    assert "altered" not in distill("status", "run").stdout


def test_two_processes_in_one_run_folder(desk: Path, distill: Run, tmp_path: Path) -> None:
    with locked(tmp_path / "run", create=True):
        done = distill("gen", "--rules", desk / "rules.md", "--out", "run")
    refused(done, f"process {os.getpid()}", "--out")


def test_a_file_size_limit_like_a_full_disk(desk: Path, tmp_path: Path) -> None:
    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    # Python ignores SIGXFSZ, so that a write beyond the limit fails as on a full disk.
    command = [sys.executable, "-m", "distill", "gen", "--rules", str(desk / "rules.md")]
    done = subprocess.run(
        [*command, "--target", "40"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=small_disk,
    )
    refused(done, "cannot be written")


@pytest.mark.parametrize("command", ["train", "eval", "report", "status", "show"])
def test_a_run_folder_that_is_not_there(distill: Run, tmp_path: Path, command: str) -> None:
    refused(distill(command, "runs/none"), "runs/none", "distill gen")
    assert not (tmp_path / "runs").exists()


def test_stages_out_of_order(desk: Path, distill: Run) -> None:
    gen = ("gen", "--rules", desk / "rules.md", "--target", 12, "--out", "run")
    assert distill(*gen).returncode == 0
    refused(distill("eval", "run"), "train has not run yet", "distill train run")
    refused(distill("route", "run", "hello"), "distill train run")


def test_an_unknown_student(desk: Path, distill: Run) -> None:
    gen = ("gen", "--rules", desk / "rules.md", "--target", 12, "--out", "run")
    assert distill(*gen).returncode == 0
    refused(distill("train", "run", "--student", "no/such-student"), "no/such-student")
    refused(distill("train", "run", "--student", "./no-folder"), "no-folder")


def test_no_key(desk: Path, distill: Run) -> None:
    gen = ("gen", "--rules", desk / "rules.md", "--teacher", "openai", "--model", "m")
    refused(distill(*gen), "OPENAI_API_KEY")


def test_no_model(desk: Path, distill: Run) -> None:
    done = distill("gen", "--rules", desk / "rules.md", "--teacher", "openai")
    refused(done, "--model", code=2)


@pytest.mark.parametrize(
    "arguments", [("gen",), ("gen", "--rulse", "x"), ("nonsense",), ("show", "x", "-n", "0")]
)
def test_usage(distill: Run, arguments: tuple[str, ...]) -> None:
    refused(distill(*arguments), "Usage", code=2)


def test_a_teacher_that_cannot_be_made_begins_no_run(
    desk: Path, distill: Run, tmp_path: Path
) -> None:
    gen = ("gen", "--rules", desk / "rules.md", "--teacher", "openai", "--out", "run")
    refused(distill(*gen), "--model", code=2)
    assert not (tmp_path / "run").exists()


def test_places_are_printed_as_they_are(distill: Run) -> None:
    refused(distill("check", "--rules", "nope:m:[bold]x.md"), "nope:m:[bold]x.md: there is no")


def test_what_follows_from_an_altered_stage_is_stale(
    desk: Path, distill: Run, tmp_path: Path
) -> None:
    gen = ("gen", "--rules", desk / "rules.md", "--target", 12, "--out", "run")
    assert distill(*gen).returncode == 0
    (tmp_path / "run" / "6-split" / "train.jsonl").unlink()
    refused(distill("show", "run"), "6-split/train.jsonl", "--redo")
    refused(distill("report", "run"), "6-split/train.jsonl", "--redo")
    edit(tmp_path / "run" / "4-dedup" / "examples.jsonl", '"style"', '"style" ')
    found = json.loads(distill("status", "run", "--json").stdout)
    states = {one["stage"]: one["state"] for one in found["stages"]}
    assert [states[name] for name in ("validate", "dedup", "balance")] == [
        "done",
        "altered",
        "stale",
    ]


@pytest.mark.parametrize("name", ["config.json", "manifest.json"])
@pytest.mark.parametrize("text", ["", "[]", '{"distill": 1}', "{"])
def test_a_damaged_run_is_no_empty_run(
    desk: Path, distill: Run, tmp_path: Path, name: str, text: str
) -> None:
    gen = ("gen", "--rules", desk / "rules.md", "--target", 12, "--out", "run")
    assert distill(*gen).returncode == 0
    (tmp_path / "run" / name).write_text(text)
    refused(distill("status", "run"), f"run/{name}", "--out")


@pytest.mark.parametrize(
    "line", ["target = true", "target = 9223372036854775808", "dev_share = inf", "target = 1.5"]
)
def test_numbers_that_are_none(desk: Path, distill: Run, line: str) -> None:
    (desk / "distill.toml").write_text(f"[data]\n{line}\n")
    refused(distill("gen", "--rules", desk / "rules.md"), f"data.{line.split()[0]}", code=2)


def test_what_cannot_be_constrained_is_said_before_training(
    desk: Path, distill: Run, tmp_path: Path
) -> None:
    (desk / "distill.toml").write_text('[evaluate]\nconstrained = "on"\n')
    run = ("run", "--rules", desk / "rules.md", "--target", 12, "--out", "run")
    refused(
        distill(*run), "grammars cannot be written in this student's tokens", "--no-constrained"
    )
    assert (tmp_path / "run" / "6-split").is_dir()
    assert not (tmp_path / "run" / "7-train").exists()
