"""rules.md, and the files beside it that it needs, as one Workflow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from distill.errors import WorkflowError
from distill.files import read_text
from distill.workflow.cases import read_cases
from distill.workflow.markdown import Page, front_matter_line, preamble, read_page, sections
from distill.workflow.model import Rule, Tool, Workflow
from distill.workflow.problems import Problems, did_you_mean, slug, sorted_by_line
from distill.workflow.rules import Draft, read_rules, rule_ids
from distill.workflow.slots import check_slots
from distill.workflow.tools import read_tools
from distill.workflow.words import SHARED, merge_lists, read_words

KEYS = ("title", "tools", "gold", "words")


def load_workflow(rules: Path, *, tools: Path | None = None, gold: Path | None = None) -> Workflow:
    """Read a workflow. Arguments win over the front matter, the front matter over siblings.

    Raises InputFileError for a file that cannot be read, WorkflowError with every problem found,
    MissingExtraError where tools are Python functions and transformers is not installed.
    """
    if not read_text(rules).strip():
        raise WorkflowError("is empty", place=f"{rules}:1", hint="distill init DIR writes a start")
    page = read_page(rules)
    _check_front(page)
    tools_file = tools or _named(page, "tools") or _sibling_tools(page)
    words_file = _named(page, "words") or _sibling(page, "words.md")
    gold_file = gold or _named(page, "gold") or _sibling(page, "gold.jsonl")

    known = {tool.name: tool for tool in read_tools(tools_file)}
    problems = Problems(rules)
    drafts = read_rules(page, known, problems)
    read = _with_words(page, drafts, words_file, known, problems)
    if problems.found:
        raise WorkflowError.of(sorted_by_line(problems.found))
    ids = [rule.id for rule in read]
    cases = read_cases(gold_file, tools=list(known.values()), rules=ids) if gold_file else ()
    sources = (rules, tools_file, words_file, gold_file)
    name = _name(rules)
    return Workflow(
        name=name,
        title=_title(page) or name,
        prose=_prose(page),
        rules=read,
        tools=tuple(known.values()),
        gold=cases,
        sources=tuple(path for path in sources if path is not None),
    )


def _check_front(page: Page) -> None:
    problems = Problems(page.path)
    for key, value in page.front.items():
        line = front_matter_line(page.path, str(key))
        if key not in KEYS:
            problems.add(
                line,
                f'unknown key "{key}" in the front matter',
                did_you_mean(str(key), KEYS, "keys"),
            )
        elif not isinstance(value, str) or not value.strip():
            problems.add(
                line,
                f'the front matter\'s "{key}" is not text',
                f'put it in quotes, as: {key}: "{value}"' if value else "give it a value",
            )
    if problems.found:
        raise WorkflowError.of(problems.found)


def _named(page: Page, key: str) -> Path | None:
    """The file that the front matter names, from the folder of rules.md."""
    if key not in page.front:
        return None
    path = page.path.parent / str(page.front[key])
    if not path.is_file():
        beside = [item.name for item in page.path.parent.iterdir() if item.is_file()]
        raise WorkflowError(
            f'the front matter\'s "{key}" names "{page.front[key]}", which is no file',
            place=f"{page.path}:{front_matter_line(page.path, key)}",
            hint=did_you_mean(page.front[key], sorted(beside), "files beside it"),
        )
    return path


def _sibling(page: Page, name: str) -> Path | None:
    path = page.path.parent / name
    return path if path.exists() else None


def _sibling_tools(page: Page) -> Path:
    found = _sibling(page, "tools.json") or _sibling(page, "tools.py")
    if found is None:
        raise WorkflowError(
            "has no tools: neither tools.json nor tools.py is beside it",
            place=f"{page.path}:1",
            hint="name the file with --tools, or in the front matter: tools: FILE",
        )
    return found


def _with_words(
    page: Page,
    drafts: list[Draft],
    words_file: Path | None,
    tools: Mapping[str, Tool],
    problems: Problems,
) -> tuple[Rule, ...]:
    """The rules with their words from both files, once every slot that they name is known."""
    ids = rule_ids(page)
    found = read_words(words_file, ids, problems) if words_file else {}
    rules = []
    for draft in drafts:
        lists = merge_lists(draft.lists, found.get(draft.rule.id), found.get(SHARED))
        check_slots(draft, lists, tools, problems)
        rules.append(draft.rule.model_copy(update={"words": lists.words()}))
    return tuple(rules)


def _title(page: Page) -> str:
    heads = (block.text for block in preamble(page) if block.kind == "heading" and block.depth == 1)
    return str(page.front.get("title") or next(heads, "")).strip()


def _prose(page: Page) -> str:
    """What stands before the first rule, without the title."""
    first = sections(page)[0].line
    heads = (block for block in preamble(page) if block.kind == "heading" and block.depth == 1)
    head = next(heads, None)
    lines = [
        line
        for number, line in enumerate(page.lines[: first - 1], 1)
        if not head or number != head.line
    ]
    return "\n".join(lines).strip("\n")


def _name(rules: Path) -> str:
    where = rules.resolve()
    stem = where.parent.name if where.name.casefold() == "rules.md" else where.stem
    return slug(stem) or "workflow"
