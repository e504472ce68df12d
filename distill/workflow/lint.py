"""Warnings about a valid workflow: too few words, repeated or unused entries."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from distill.errors import Problem
from distill.strict_json import encode
from distill.workflow.arguments import name_pattern
from distill.workflow.beside import demands_more
from distill.workflow.cases import unscored_note
from distill.workflow.contradictions import wrong_defaults
from distill.workflow.fillable import argument_schemas, gives_values, is_free_text
from distill.workflow.model import CallSpec, Rule, Tool, Words, Workflow
from distill.workflow.problems import comma_list, excerpt
from distill.workflow.schema import schema_of
from distill.workflow.stand_ins import is_stand_in
from distill.workflow.values import slots_in

ENOUGH = {"things": 30, "actions": 15, "examples": 10}
"""What the grammar teacher needs per tool to route well; measured on the embedded student."""


_QUOTED = re.compile(r"[\"“”„«»'‘’「『`>]")
_BLANK_TO_FILL = re.compile(r"<[A-Za-z][\w ]*>|\[[A-Za-z][\w ]*\]|\bX{3,}\b|%[sd]\b")


def lint(workflow: Workflow) -> tuple[Problem, ...]:
    """Advice, not errors: the workflow can be used as it is. In the order of CHECKS."""
    return tuple(problem for check in CHECKS for problem in check(workflow))


def _thin_tools(workflow: Workflow) -> Iterator[Problem]:
    for tool in workflow.tools:
        rules = [rule for rule in workflow.rules if _calls(rule, tool)]
        if not rules:
            yield Problem(
                _place(workflow, 1),
                f'no rule calls the tool "{tool.name}"',
                "add a rule for it, or take it out of the tools",
            )
            continue
        had = {
            "things": sum(_count_combinations(rule.words, rule.words.things) for rule in rules),
            "actions": sum(_count_combinations(rule.words, rule.words.actions) for rule in rules),
            "examples": sum(len(rule.examples) for rule in rules),
        }
        if any(had[name] < ENOUGH[name] for name in ENOUGH):
            counts = ", ".join(f"{had[name]} {name}" for name in ENOUGH)
            yield Problem(
                _place(workflow, rules[0].line),
                f'the tool "{tool.name}" has {counts} over its rules',
                "the grammar teacher does best with at least "
                + ", ".join(f"{number} {name}" for name, number in ENOUGH.items())
                + " per tool, over eight or more subject areas",
            )


def _wrong_defaults(workflow: Workflow) -> Iterator[Problem]:
    for tool in workflow.tools:
        for default in wrong_defaults(schema_of(tool)):
            yield Problem(
                _place(workflow, 1),
                f'the tool "{tool.name}" has the default {excerpt(encode(default))}, which its own '
                "schema rules out",
                "correct one of the two: no call may have it",
            )


def _values_in_prose(workflow: Workflow) -> Iterator[Problem]:
    """Prose may say in passing what an argument is: a teacher reads it, and nothing is fixed."""
    tools = {tool.name: tool for tool in workflow.tools}
    page = [(1, workflow.prose, list(tools.values()))]
    rules = [
        (rule.line, "\n".join(rule.notes), [tools[call.tool] for call in rule.then.calls])
        for rule in workflow.rules
    ]
    for line, prose, called in page + rules:
        names = "|".join(map(name_pattern, called)) or r"(?!)"
        mark = r"[`\"'*]{0,3}"
        value = rf"\s*(?:[=:]|(?:is|are|must be) always|must be|to (?={mark}[\w\"]+{mark}\W*$))"
        if found := re.search(rf"(?<![\w.-]){mark}(?:{names}){mark}{value}\s*\S+", prose, re.M):
            yield Problem(
                _place(workflow, line),
                f'the prose says "{excerpt(found[0])}", which fixes no value',
                "write it into the Then of each rule that it holds for",
            )


def _rules_without_examples(workflow: Workflow) -> Iterator[Problem]:
    for rule in workflow.rules:
        if not rule.examples:
            yield Problem(
                _place(workflow, rule.line),
                f'rule "{rule.id}" has no examples',
                "add a few requests as people write them under ### Examples",
            )


def _open_arguments(workflow: Workflow) -> Iterator[Problem]:
    for rule in workflow.rules:
        for call in rule.then.calls:
            open_names = _unfilled_arguments(rule, call, workflow.by_name[call.tool])
            if open_names:
                yield Problem(
                    _place(workflow, rule.line),
                    f'rule "{rule.id}" leaves to the teacher what goes into '
                    f"{comma_list(open_names)} of {call.tool}; the grammar teacher cannot know",
                    'give it in Then, as `name` = "{topic}", or add a slot list of that name',
                )


def _remarks_in_then(workflow: Workflow) -> Iterator[Problem]:
    """What a Then demands besides its calls: only models read it, and nothing is held to it."""
    for rule in workflow.rules:
        values = [value for call in rule.then.calls for value in call.arguments.values()]
        is_fixed = any(not any(slots_in(value)) for value in values)
        for remark in rule.then.remarks:
            if demands_more(remark, is_fixed=is_fixed):
                yield Problem(
                    _place(workflow, rule.line),
                    f'rule "{rule.id}" says "{excerpt(remark)}" in its Then; no row is held to it',
                    "write a value as `name` = value, one more call as: and then call `tool`, "
                    "another case as a rule of its own; what only explains the rule belongs below "
                    "a heading of its own, as ### Notes",
                )


def _unworded_replies(workflow: Workflow) -> Iterator[Problem]:
    for rule in workflow.rules:
        then = rule.then
        words = f'as: **Then** {then.kind}: "…"'
        if then.kind != "call" and not then.reply:
            yield Problem(
                _place(workflow, rule.line),
                f'rule "{rule.id}" tells how to {then.kind}: a model finds the words, the grammar '
                "teacher cannot",
                f"if these are the very words, put them between quotes, all of them, {words}",
            )
        elif then.reply and not _QUOTED.search(then.text):
            yield Problem(
                _place(workflow, rule.line),
                f'rule "{rule.id}" says "{excerpt(then.reply)}" to whoever asks',
                f"if these are the very words, put them between quotes, {words}; if they tell what "
                f"to say, leave out the colon behind {then.kind}",
            )
        elif stand_in := _BLANK_TO_FILL.search(then.reply):
            yield Problem(
                _place(workflow, rule.line),
                f'rule "{rule.id}" says "{excerpt(stand_in[0])}" to whoever asks',
                "write {topic} or a slot for what differs, or how to reply, without quotes",
            )


def _stand_ins(workflow: Workflow) -> Iterator[Problem]:
    """A text in quotes may be meant so, and hardly ever is."""
    for rule in workflow.rules:
        for call in rule.then.calls:
            for name, value in call.arguments.items():
                if is_stand_in(workflow.by_name[call.tool], name, value):
                    yield Problem(
                        _place(workflow, rule.line),
                        f'rule "{rule.id}" fixes "{name}" of {call.tool} as the text '
                        f'"{excerpt(str(value))}" in every row',
                        "write {topic} or a slot for what the request says, or leave the argument "
                        "out, if the teacher fills it",
                    )


def _unsaid_arguments(workflow: Workflow) -> Iterator[Problem]:
    """Free text of an example's arguments that the request does not have."""
    for rule in workflow.rules:
        for example in rule.examples:
            call = rule.then.calls[0] if rule.then.calls else None
            if call is None or example.arguments is None:
                continue
            schemas = argument_schemas(workflow.by_name[call.tool])
            for name, value in example.arguments.items():
                fixed = name in call.arguments and not any(slots_in(call.arguments[name]))
                if fixed or not is_free_text(schemas.get(name, {})):
                    continue
                if isinstance(value, str) and _is_unsaid(value, example.text, rule):
                    yield Problem(
                        _place(workflow, example.line),
                        f'the example "{excerpt(example.text)}" has "{excerpt(value)}" as {name}, '
                        "which the request does not say",
                        "use words of the request, as students can copy only those; "
                        "or list the words that stand for it under Words",
                    )


def _repeated_examples(workflow: Workflow) -> Iterator[Problem]:
    first: dict[str, Rule] = {}
    for rule in workflow.rules:
        for example in rule.examples:
            other = first.setdefault(_folded(example.text), rule)
            if other is not rule:
                yield Problem(
                    _place(workflow, example.line),
                    f'rules "{other.id}" and "{rule.id}" both have the example '
                    f'"{excerpt(example.text)}"',
                    "keep it where it belongs, and name it under ### Not in the other rule",
                )


def _claimed_counter_examples(workflow: Workflow) -> Iterator[Problem]:
    owners = {
        _folded(e.text): (rule.id, f'is an example of "{rule.id}"')
        for rule in workflow.rules
        for e in rule.examples
    }
    for rule in workflow.rules:
        for example in rule.counter_examples:
            given = (example.winner, f'goes to "{example.winner}" in the Not of "{rule.id}"')
            owner, what = owners.setdefault(_folded(example.text), given)
            if owner != example.winner:
                yield Problem(
                    _place(workflow, example.line),
                    f'"{excerpt(example.text)}" goes to "{example.winner}" here, and {what}',
                    "decide for one of the two",
                )


def _unwon_counter_examples(workflow: Workflow) -> Iterator[Problem]:
    """A winner that speaks of nothing of the kind leaves the border between the rules unlearned."""
    known = {rule.id: _stems(_vocabulary(rule)) for rule in workflow.rules}
    for rule in workflow.rules:
        for winner in dict.fromkeys(example.winner for example in rule.counter_examples):
            cases = [e for e in rule.counter_examples if e.winner == winner]
            if not any(_stems([example.text]) & known[winner] for example in cases):
                yield Problem(
                    _place(workflow, cases[0].line),
                    f'rule "{winner}" wins "{excerpt(cases[0].text)}" and has no examples or '
                    "words like it",
                    f'add such requests to the Examples or Words of "{winner}"',
                )


def _unused_slots(workflow: Workflow) -> Iterator[Problem]:
    used = {name for rule in workflow.rules for name in _used_slots(rule, workflow)}
    had = {name: rule for rule in reversed(workflow.rules) for name in rule.words.slots}
    for name in sorted(had.keys() - used):
        yield Problem(
            _place(workflow, had[name].line),
            f'nothing uses the slot list "{name}"',
            f"write {{{name}}} in a thing, an action or a phrase, or remove the list",
        )


def _whole_conversations(workflow: Workflow) -> Iterator[Problem]:
    if note := unscored_note(workflow.gold):
        yield note._replace(place=str(_gold_file(workflow).with_name(note.place)))


def _gold(workflow: Workflow) -> Iterator[Problem]:
    if not workflow.gold:
        yield Problem(
            _place(workflow, 1),
            "there is no gold set",
            "write prompts with their right tools into gold.jsonl, away from the examples: "
            "only they show what the student is worth",
        )
        return
    examples = {_folded(e.text): rule for rule in workflow.rules for e in rule.examples}
    for case in workflow.gold:
        rule = examples.get(_folded(case.conversation.without_system().key))
        if rule is not None:
            yield Problem(
                str(_gold_file(workflow).with_name(case.place)),
                f'"{excerpt(case.conversation.last_user)}" is gold and an example of '
                f'rule "{rule.id}"',
                "change one of the two: gold is never trained on, so the example is lost",
            )
    named = {case.rule for case in workflow.gold}
    missing = [rule.id for rule in workflow.rules if rule.id not in named]
    if missing and named != {None}:
        yield Problem(
            f"{_gold_file(workflow)}:1",
            f"no gold case names the rules {comma_list(missing)}",
            "add some for each, so that the scores by rule cover all rules",
        )


def _remarks(workflow: Workflow) -> Iterator[Problem]:
    """What the reader of the pages had doubts about."""
    yield from workflow.remarks


CHECKS: tuple[Callable[[Workflow], Iterable[Problem]], ...] = (
    _thin_tools,
    _wrong_defaults,
    _values_in_prose,
    _rules_without_examples,
    _open_arguments,
    _remarks_in_then,
    _unworded_replies,
    _stand_ins,
    _unsaid_arguments,
    _repeated_examples,
    _claimed_counter_examples,
    _unwon_counter_examples,
    _unused_slots,
    _gold,
    _whole_conversations,
    _remarks,
)


def _place(workflow: Workflow, line: int) -> str:
    return f"{workflow.sources[0] if workflow.sources else Path('rules.md')}:{line}"


def _gold_file(workflow: Workflow) -> Path:
    name = workflow.gold[0].place.rpartition(":")[0]
    return next((path for path in workflow.sources if path.name == name), Path(name))


def _calls(rule: Rule, tool: Tool) -> bool:
    return any(call.tool == tool.name for call in rule.then.calls)


def _count_combinations(words: Words, entries: Iterable[str]) -> int:
    """The number of distinct texts that the entries expand to."""
    return sum(
        math.prod(len(words.slots.get(name, ())) for name in slots_in(entry)) for entry in entries
    )


def _unfilled_arguments(rule: Rule, call: CallSpec, tool: Tool) -> list[str]:
    """Required arguments that neither the rule, nor a slot list, nor the schema gives values for.

    One of them may be free text, and takes what the request is about.
    """
    known, schemas = {*call.arguments, *rule.words.slots}, argument_schemas(tool)
    left = {n: schemas.get(n, {}) for n in schema_of(tool).required if n not in known}
    unknown = {name: part for name, part in left.items() if not gives_values(part)}
    only_text = len(unknown) == 1 and all(map(is_free_text, unknown.values()))
    return [] if only_text else list(unknown)


def _is_unsaid(value: str, request: str, rule: Rule) -> bool:
    """Whether most longer words and numbers of a value are neither said nor listed for the rule."""
    listed = [*rule.words.things, *(v for values in rule.words.slots.values() for v in values)]
    if re.fullmatch(r"[\d:./TZ+-]+", value) and not re.fullmatch(r"\d{5,}", value):
        return False
    if _folded(value) in map(_folded, listed):
        return False
    said = _folded(request)
    squeezed = said.replace(" ", "")
    codes = re.findall(r"(?<!\S)[^\W\d]\S*\d\S*|\d{5,}", value)
    if any(_folded(code).replace(" ", "") not in squeezed for code in codes):
        return True  # P-2, INV2024, 4711007: nobody says such a name in other words
    folded = _folded(value).split()
    words = [word for word in folded if len(word) > 3] or folded
    missing = [w for w in words if w[:4] not in said and w not in squeezed]
    return 2 * len(missing) > len(words)


def _used_slots(rule: Rule, workflow: Workflow) -> Iterator[str]:
    words, then = rule.words, rule.then
    yield from slots_in([words.things, words.actions, words.phrases, then.said])
    for call in then.calls:
        yield from slots_in(call.arguments)
        yield from schema_of(workflow.by_name[call.tool]).properties


def _folded(text: str) -> str:
    return " ".join("".join(c if c.isalnum() else " " for c in text.casefold()).split())


def _vocabulary(rule: Rule) -> list[str]:
    words = rule.words
    slots = [value for values in words.slots.values() for value in values]
    return [
        rule.title,
        rule.when,
        *(example.text for example in rule.examples),
        *words.things,
        *words.actions,
        *words.phrases,
        *slots,
    ]


def _stems(texts: Iterable[str]) -> set[str]:
    """The first five letters of each longer word: enough to see whether two texts have a topic."""
    return {word[:5] for text in texts for word in _folded(text).split() if len(word) > 3}
