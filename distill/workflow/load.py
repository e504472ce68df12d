"""Loads a Workflow from rules.md and the files that it refers to."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from distill.errors import WorkflowError
from distill.workflow.cases import read_cases
from distill.workflow.markdown import Block, Page, preamble, read_page, sections
from distill.workflow.model import Rule, Tool, Workflow
from distill.workflow.problems import Problems, did_you_mean, excerpt, slug, sorted_by_line
from distill.workflow.rules import ParsedRule, read_rules, rule_ids
from distill.workflow.slots import check_slots
from distill.workflow.tools import read_tools
from distill.workflow.words import SHARED, merge_lists, read_words

KEYS = ("title", "tools", "gold", "words")


def load_workflow(
    rules: Path,
    *,
    tools: Path | None = None,
    gold: Path | None = None,
    python: bool = True,
    notice: Callable[[str], None] = logging.getLogger(__name__).info,
) -> Workflow:
    """Read a workflow. Files come from the arguments, else the front matter, else the same folder.

    python: whether a tools.py may be executed; where it may not, it is refused
    notice: is told before it is
    Raises InputFileError for a file that cannot be read, WorkflowError with every problem found.
    """
    page = read_page(rules)
    if not page.front and not any(line.strip() for line in page.lines):
        raise WorkflowError("is empty", place=f"{rules}:1", hint="distill init DIR writes a start")
    _check_front_matter(page)
    tools_file = tools or _configured_file(page, "tools") or _tools_in_folder(page)
    words_file = _configured_file(page, "words") or _file_in_folder(page, "words.md")
    gold_file = gold or _configured_file(page, "gold") or _file_in_folder(page, "gold.jsonl")

    by_name = {tool.name: tool for tool in read_tools(tools_file, python=python, notice=notice)}
    problems = Problems(rules)
    parsed = read_rules(page, by_name, problems)
    complete = _with_words(page, parsed, words_file, by_name, problems)
    if problems.found:
        raise WorkflowError.of(sorted_by_line(problems.found))
    tool_list = list(by_name.values())
    cases = read_cases(gold_file, tools=tool_list, rules=complete) if gold_file else ()
    sources = (rules, tools_file, words_file, gold_file)
    name = _name(rules)
    return Workflow(
        name=name,
        title=_title(page) or name,
        prose=_prose(page),
        rules=complete,
        tools=tuple(by_name.values()),
        gold=cases,
        sources=tuple(path for path in sources if path is not None),
        remarks=tuple(problems.advice),
    )


def _check_front_matter(page: Page) -> None:
    problems = Problems(page.path)
    for key, setting in page.front.items():
        if key not in KEYS:
            problems.add(
                setting.line,
                f'unknown key "{excerpt(key)}" in the front matter',
                did_you_mean(key, KEYS, "keys"),
            )
        elif not setting.is_text or not setting.value.strip():
            text = setting.value.strip()
            problems.add(
                setting.line,
                f'the front matter\'s "{key}" is not text',
                f'put it in quotes, as: {key}: "{excerpt(text)}"' if text else "give it a value",
            )
    if problems.found:
        raise WorkflowError.of(problems.found)


def _configured_file(page: Page, key: str) -> Path | None:
    """The file that the front matter names, relative to the folder of rules.md."""
    if key not in page.front:
        return None
    setting = page.front[key]
    path = page.path.parent / setting.value
    if not os.path.isfile(path):  # False as well for names that no file can have
        files = [item.name for item in page.path.parent.iterdir() if item.is_file()]
        raise WorkflowError(
            f'the front matter\'s "{key}" names "{excerpt(setting.value)}", which is no file',
            place=f"{page.path}:{setting.line}",
            hint=did_you_mean(setting.value, sorted(files), "files beside it"),
        )
    return path


def _file_in_folder(page: Page, name: str) -> Path | None:
    path = page.path.parent / name
    return path if path.exists() else None


def _tools_in_folder(page: Page) -> Path:
    path = _file_in_folder(page, "tools.json") or _file_in_folder(page, "tools.py")
    if path is None:
        raise WorkflowError(
            "has no tools: neither tools.json nor tools.py is beside it",
            place=f"{page.path}:1",
            hint="name the file with --tools, or in the front matter: tools: FILE",
        )
    return path


def _with_words(
    page: Page,
    parsed: list[ParsedRule],
    words_file: Path | None,
    tools: Mapping[str, Tool],
    problems: Problems,
) -> tuple[Rule, ...]:
    """The rules with their words from both files; their slots are checked."""
    by_rule = read_words(words_file, rule_ids(page), problems) if words_file else {}
    rules = []
    for item in parsed:
        lists = merge_lists(item.lists, by_rule.get(item.rule.id), by_rule.get(SHARED))
        check_slots(item, lists, tools, problems)
        rules.append(item.rule.model_copy(update={"words": lists.words()}))
    return tuple(rules)


def _title_heading(page: Page) -> Block | None:
    headings = (b for b in preamble(page) if b.kind == "heading" and b.depth == 1)
    return next(headings, None)


def _title(page: Page) -> str:
    heading = _title_heading(page)
    return (
        page.front["title"].value if "title" in page.front else heading.text if heading else ""
    ).strip()


def _prose(page: Page) -> str:
    """The text before the first rule, without the title."""
    heading = _title_heading(page)
    lines = page.lines[: sections(page)[0].line - 1]
    if heading:
        del lines[heading.line - 1]
    return "\n".join(lines).strip("\n")


def _name(rules: Path) -> str:
    path = rules.resolve()
    stem = path.parent.name if path.name.casefold() == "rules.md" else path.stem
    return slug(stem) or "workflow"
