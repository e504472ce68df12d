"""The coverage grid: which examples are wanted, and the scenarios that ask a teacher for them."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from itertools import count, islice

from distill.config import DataConfig
from distill.records import Cell, Scenario, digest
from distill.workflow.model import Rule, Workflow


def quotas(workflow: Workflow, target: int) -> dict[Cell, int]:
    """Accepted examples wanted per cell: even over rules, the remainder to the first, no loss."""
    share, extra = divmod(target, len(workflow.rules))
    return {rule.cell: share + (position < extra) for position, rule in enumerate(workflow.rules)}


def scenarios(
    workflow: Workflow, data: DataConfig, asked: Mapping[Cell, int]
) -> Iterator[Scenario]:
    """Each cell's first `asked[cell]` scenarios, one by one, in the order of the rules.

    A cell's scenarios are one endless sequence that follows from the workflow and the seed alone:
    asking for more extends the list and changes nothing that was there.
    """
    for rule in workflow.rules:
        yield from islice(_sequence(workflow, rule, data), asked.get(rule.cell, 0))


def topics(workflow: Workflow, rule: Rule) -> tuple[str, ...]:
    """What requests under `rule` are about: its words and examples, and the cases it wins.

    A counter-example of another rule, of which this rule is the winner, is an example of this one.
    A rule with none of these is asked for by its title, or else by its condition.
    """
    words = rule.words
    won = (
        case.text
        for other in workflow.rules
        for case in other.counter_examples
        if case.winner == rule.id and other.id != rule.id
    )
    examples = (example.text for example in rule.examples)
    found = (*words.things, *words.actions, *words.phrases, *examples, *won)
    return tuple(dict.fromkeys(found)) or (rule.title or rule.when,)


def _sequence(workflow: Workflow, rule: Rule, data: DataConfig) -> Iterator[Scenario]:
    order = list(topics(workflow, rule))
    random.Random(_seed(data.seed, rule.id)).shuffle(order)
    styles = data.styles
    # Round robin over both. Once every pair that it can reach was had, and each style equally
    # often, it shifts by one, so that in the end every topic meets every style.
    block = math.lcm(len(order), len(styles))
    names = tuple(tool.name for tool in workflow.tools)
    for number in count():
        yield Scenario.of(
            rule=rule.id,
            target=rule.then.kind,
            tools=names,
            style=styles[(number + number // block) % len(styles)],
            topic=order[number % len(order)],
            seed=_seed(data.seed, rule.id, rule.then.kind, number),
        )


def _seed(*parts: str | int) -> int:
    # 13 hex digits are 52 bits: every JSON reader keeps such an integer exact.
    return int(digest(list(parts))[:13], 16)
