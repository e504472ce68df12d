"""The coverage plan: the quota of each cell, and the scenarios that the teacher is to write."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import count, islice

from distill.config import DataConfig
from distill.records import Candidate, Cell, Scenario, digest
from distill.workflow.model import Rule, Workflow


def quotas(workflow: Workflow, target: int) -> dict[Cell, int]:
    """The number of accepted examples per cell: `target` split evenly, remainder to the first."""
    share, extra = divmod(target, len(workflow.rules))
    return {rule.cell: share + (position < extra) for position, rule in enumerate(workflow.rules)}


def open_quotas(workflow: Workflow, target: int, own: Iterable[Candidate]) -> dict[Cell, int]:
    """What is to be generated of each cell beside the team's own rows, so as to reach the quotas.

    Own rows that name no rule count to the target alone: what they leave of it is split evenly.
    """
    had = Counter(row.scenario.cell for row in own)
    loose = sum(count for cell, count in had.items() if cell.rule not in workflow.by_id)
    wanted = quotas(workflow, max(0, target - loose))
    return {cell: max(0, quota - had[cell]) for cell, quota in wanted.items()}


def scenarios(
    workflow: Workflow, data: DataConfig, counts: Mapping[Cell, int]
) -> Iterator[Scenario]:
    """The first `counts[cell]` scenarios of each cell, in the order of the rules.

    The scenarios of a cell are a prefix of one infinite sequence, which depends on the workflow
    and the config alone: a larger count appends scenarios and changes none of the earlier.
    """
    for rule in workflow.rules:
        yield from islice(_sequence(workflow, rule, data), counts.get(rule.cell, 0))


def topics(workflow: Workflow, rule: Rule) -> tuple[str, ...]:
    """What requests under `rule` are about: its words, its examples, and the requests it wins.

    A counter-example of another rule that names this rule as its winner is an example of this one.
    A rule with none of these has its title as the only topic, or its condition without a title.
    """
    words = rule.words
    won = (
        case.text
        for other in workflow.rules
        for case in other.counter_examples
        if case.winner == rule.id and other.id != rule.id
    )
    examples = (example.text for example in rule.examples)
    texts = (*words.things, *words.actions, *words.phrases, *examples, *won)
    return tuple(dict.fromkeys(texts)) or (rule.title or rule.when,)


def _sequence(workflow: Workflow, rule: Rule, data: DataConfig) -> Iterator[Scenario]:
    shuffled = list(topics(workflow, rule))
    random.Random(_seed(data.seed, rule.id)).shuffle(shuffled)
    styles = data.styles
    # Round robin over topics and styles at once, which repeats its pairs after `block` scenarios.
    # The styles then shift by one, so that in the end every topic is paired with every style.
    block = math.lcm(len(shuffled), len(styles))
    tool_names = tuple(tool.name for tool in workflow.tools)
    for number in count():
        yield Scenario.of(
            rule=rule.id,
            target=rule.then.kind,
            tools=tool_names,
            style=styles[(number + number // block) % len(styles)],
            topic=shuffled[number % len(shuffled)],
            seed=_seed(data.seed, rule.id, rule.then.kind, number),
        )


def _seed(*parts: str | int) -> int:
    # 13 hex digits are 52 bits: JSON readers that use doubles keep such an integer exact.
    return int(digest(list(parts))[:13], 16)
