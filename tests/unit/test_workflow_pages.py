"""Pages at their worst: odd front matter, odd bytes, great size and depth: one message, soon."""

from __future__ import annotations

import contextlib
import json
import time

import pytest

from distill.errors import DistillError
from distill.workflow import load_workflow

TOOL = {
    "name": "find",
    "description": "Find.",
    "parameters": {
        "type": "object",
        "properties": {"query": {"type": "string"}},
        "required": ["query"],
    },
}
RULE = "## a: A\n\n**When** it is asked.\n\n**Then** call `find`\n\n"
BOMB = "a: &a [x, x, x, x]\n" + "".join(
    f"{name}: &{name} [*{before}, *{before}, *{before}, *{before}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
SECONDS = 2


def load(folder, page, **files):
    (folder / "tools.json").write_text(json.dumps([TOOL]), encoding="utf-8")
    for name, data in {"rules": page, **files}.items():
        data = data if isinstance(data, bytes) else data.encode()
        (folder / f"{name}.md").write_bytes(data)
    start = time.process_time()
    try:
        return load_workflow(folder / "rules.md")
    finally:
        assert time.process_time() - start < SECONDS


def messages(folder, page):
    try:
        load(folder, page)
    except DistillError as error:
        return [str(problem) for problem in error.problems]
    return []


FRONT = {
    "deep flow": ("title: " + "[" * 20_000 + "]" * 20_000, 2, '"title" is not text'),
    "deep open": ("title: " + "[" * 20_000, 2, '"title" is not text'),
    "deep maps": ("title: " + "{a: " * 9_000 + "}" * 9_000, 2, '"title" is not text'),
    "deep block": ("\n".join(" " * n + "a:" for n in range(250)), 2, '"a" is not text'),
    "deep lists": ("- " * 20_000 + "a", 2, "is a list"),
    "deep question": ("? " * 20_000, 2, "not text"),
    "bomb": (BOMB, 2, '"a" is not text'),
    "bomb of text": ("title: &a x\ntools: *a", 2, "is marked with &a"),
    "alias": ("title: *a", 2, '"title" is not text'),
    "impossible date": ("title: 2026-02-30", 2, '"title" is not text'),
    "impossible time": ("title: 2026-02-11T99:99:99Z", 2, None),
    "date": ("title: 2026-02-11", 2, '"title" is not text'),
    "digits": ("title: " + "1" * 5_000, 2, '"title" is not text'),
    "float": ("title: .nan", 2, '"title" is not text'),
    "yes": ("title: yes", 2, '"title" is not text'),
    "tag": ("title: !!python/object/apply:os.system [ls]", 2, '"title" is not text'),
    "scalar tag": ("title: !secret x", 2, "is marked with !secret"),
    "key tag": ("!x title: x", 2, "is marked with !x"),
    "binary": ("title: !!binary aGk=", 2, "is marked with tag:yaml.org,2002:binary"),
    "merge": ("<<: x", 2, 'unknown key "<<"'),
    "twice": ("title: a\ntools: tools.json\ntitle: b", 4, 'gives "title" twice, first at line 2'),
    "tab": ("title:\n\tx: y", 3, "not valid YAML"),
    "tab in key": ("\ttitle: x", 2, "not valid YAML"),
    "text": ("just text", 2, "is a text"),
    "number": ("17", 2, "is a text"),
    "key is a list": ("? [a]\n: b", 2, "a key of the front matter is not text"),
    "NUL": ("title: a\\0", None, None),
    "escape": ('title: "a\\x00"\ntools: "t\\0"', 3, "which is no file"),
    "long name": ("tools: " + "a" * 5_000, 2, "which is no file"),
    "long key": ("a" * 900 + ": x", 2, "unknown key"),
    "colon": ("title: Desk: tier 1", 2, "not valid YAML"),
    "surrogate": ('title: "\\ud800"\ntools: "\\ud800.json"', 3, "which is no file"),
    "huge": ("title: " + "x" * 60_000, 1, "60,0"),
    "reserved": ("title: @x", 2, "not valid YAML"),
    "anchor": ("title: &x y", 2, "is marked with &x"),
    "documents": ("title: a\n--- b", 3, None),
}  # fmt: skip


@pytest.mark.parametrize("name", FRONT)
def test_odd_front_matter_is_one_message_with_its_line(tmp_path, name):
    front, line, cause = FRONT[name]
    if line is None or cause is None:
        with contextlib.suppress(DistillError):
            load(tmp_path, f"---\n{front}\n---\n{RULE}")
        return
    with pytest.raises(DistillError) as caught:
        load(tmp_path, f"---\n{front}\n---\n{RULE}")
    (problem,) = caught.value.problems if name != "bomb" else caught.value.problems[:1]
    assert problem.place.endswith(f"rules.md:{line}")
    assert cause in problem.cause
    assert len(str(problem)) < 1_000


@pytest.mark.parametrize("form", ["title: A\ntools: tools.json\n\n", "+++\ntitle = 'x'\n+++\n"])
def test_settings_without_their_marks_are_not_taken_for_prose(tmp_path, form):
    with pytest.raises(DistillError, match="between lines of three hyphens") as caught:
        load(tmp_path, form + RULE)
    assert caught.value.problems[0].place.endswith("rules.md:1")


@pytest.mark.parametrize("before", ["", "\n\n", "\ufeff", "\ufeff\n", "\u200e"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_marks_that_are_not_seen_change_nothing(tmp_path, before, end):
    page = f"{before}---\ntitle: Desk\n---\n{RULE}### Examples\n- one → one\n- two → two\n"
    for mark in ("\u200f", "\ufeff", "\u202b"):
        page = page.replace("\n## a", f"\n{mark}## a").replace("\n- two", f"\n{mark}- two")
    workflow = load(tmp_path, page.replace("\n", end))
    assert workflow.title == "Desk"
    assert [example.text for example in workflow.rules[0].examples] == ["one", "two"]


def test_mixed_line_ends_count_as_one_each(tmp_path):
    page = RULE + "### Examples\r\n- a\u2028b → query: a\r- c → 7 →\n"
    with pytest.raises(DistillError) as caught:
        load(tmp_path, page)
    assert [problem.place[-2:] for problem in caught.value.problems] == [":9"]


@pytest.mark.parametrize(
    "data", [b"\xed\xa0\x80", b"\xc0\xaf", b"\xff", b"a\0b", b"\xf4\x90\x80\x80"]
)
def test_bytes_that_are_no_text_are_one_message(tmp_path, data):
    with pytest.raises(DistillError) as caught:
        load(tmp_path, RULE.encode() + b"### Examples\n- " + data + b"\n")
    assert len(caught.value.problems) == 1
    assert "rules.md" in caught.value.problems[0].place


@pytest.mark.parametrize("name", ["rules", "words"])
def test_a_page_of_50_megabytes_is_refused_unread(tmp_path, name):
    path = tmp_path / f"{name}.md"
    (tmp_path / "rules.md").write_text(RULE, encoding="utf-8")
    (tmp_path / "tools.json").write_text(json.dumps([TOOL]), encoding="utf-8")
    with open(path, "wb") as file:
        file.truncate(50_000_000)
    with pytest.raises(DistillError, match=r"is a page of 50\.0 MB") as caught:
        load_workflow(tmp_path / "rules.md")
    assert caught.value.problems[0].place == str(path)


PLACES = {
    "when": "## a: A\n\n**When** ",
    "then": "## a: A\n\n**When** x\n\n**Then** call `find` ",
    "answer": "## a: A\n\n**When** x\n\n**Then** answer ",
    "example": RULE + "### Examples\n- ",
    "arguments": RULE + "### Examples\n- x → ",
    "not": RULE + "### Not\n- ",
    "phrase": RULE + "### Words\n#### Phrases\n- ",
    "slot": RULE + "### Words\n#### Slots\n- a: ",
    "heading": RULE + "## ",
}
UNITS = (
    *(
        "`",
        "[",
        "(",
        "{",
        '"',
        "'",
        "„",
        "*",
        "_",
        "<",
        "&",
        "\\",
        "|",
        " ",
        "→ ",
        "-> ",
        "> ",
        "- ",
    ),
    *(
        "1. ",
        "<!--",
        "a ",
        "a: ",
        "query: ",
        "query=",
        ", ",
        "; ",
        "\t",
        "![](",
        "**a** ",
        ".",
        ":",
    ),
)


@pytest.mark.parametrize("place", PLACES)
def test_time_grows_with_the_length_of_a_line_not_with_its_square(tmp_path, place):
    for unit in UNITS:
        page = PLACES[place] + unit * (60_000 // len(unit)) + "x\n"
        told = messages(tmp_path, page)
        assert [text for text in told if len(text) > 3_000] == [], unit


@pytest.mark.parametrize("unit", ["- ", "> ", "1. ", "- > ", "* 1. "])
def test_depth_is_bounded(tmp_path, unit):
    nested = "".join("  " * depth + "- a\n" for depth in range(1_000))
    for body in (unit * 20_000 + "x\n", nested):
        with pytest.raises(DistillError, match="not understood in Examples"):
            load(tmp_path, f"{RULE}### Examples\n- fine\n{body}")
