"""The coverage grid: exact quotas, and sequences that only ever grow."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from distill.config import DataConfig
from distill.data import plan
from distill.data.plan import quotas, topics
from distill.records import Cell, Scenario, TargetKind
from distill.workflow.model import (
    CallSpec,
    CounterExample,
    Rule,
    RuleExample,
    Then,
    Tool,
    Words,
    Workflow,
)

TOOL = Tool(
    name="search",
    description="Search.",
    parameters={"type": "object", "properties": {"query": {"type": "string"}}},
)


def scenarios(*given: Any) -> list[Scenario]:
    return list(plan.scenarios(*given))


def rule_of(name: str, things: int = 0, kind: TargetKind = "call", **fields: object) -> Rule:
    calls = (CallSpec(tool="search", arguments={"query": "{topic}"}),) if kind == "call" else ()
    return Rule.model_validate(
        {
            "id": name,
            "title": f"Title of {name}",
            "when": "the user asks",
            "then": Then(
                kind=kind, calls=calls, text="call `search`", reply="" if calls else "No."
            ),
            "words": Words(things=tuple(f"the {name} thing {n}" for n in range(things))),
            "text": "",
            **fields,
        }
    )


def workflow_of(*rules: Rule) -> Workflow:
    return Workflow(name="w", title="W", prose="", rules=rules, tools=(TOOL,))


sizes = st.lists(st.integers(1, 9), min_size=1, max_size=4)
styles = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=5, unique=True).map(tuple)


def of_sizes(numbers: list[int]) -> Workflow:
    return workflow_of(*(rule_of(f"r{n}", things) for n, things in enumerate(numbers)))


@given(st.integers(1, 12), st.integers(0, 5000))
def test_quotas_sum_to_the_target_and_are_even(rules: int, target: int) -> None:
    workflow = of_sizes([1] * rules)
    wanted = quotas(workflow, target)
    assert list(wanted) == [rule.cell for rule in workflow.rules]
    assert sum(wanted.values()) == target
    shares = list(wanted.values())
    assert max(shares) - min(shares) <= 1
    assert shares == sorted(shares, reverse=True)


@given(sizes, styles, st.integers(0, 9), st.integers(0, 40), st.integers(0, 40))
def test_asking_for_more_extends_each_cell(
    numbers: list[int], names: tuple[str, ...], seed: int, few: int, more: int
) -> None:
    workflow, data = of_sizes(numbers), DataConfig(seed=seed, styles=names)
    few, more = sorted((few, more))
    for rule in workflow.rules:
        short = scenarios(workflow, data, {rule.cell: few})
        assert short == scenarios(workflow, data, {rule.cell: more})[:few]


@given(sizes, styles, st.integers(1, 60))
def test_topics_and_styles_are_used_evenly_at_every_length(
    numbers: list[int], names: tuple[str, ...], asked: int
) -> None:
    workflow, data = of_sizes(numbers), DataConfig(styles=names)
    for rule in workflow.rules:
        found = scenarios(workflow, data, {rule.cell: asked})
        for values, counts in (
            (topics(workflow, rule), Counter(scenario.topic for scenario in found)),
            (names, Counter(scenario.style for scenario in found)),
        ):
            used = [counts[value] for value in values]
            assert sum(used) == asked
            assert max(used) - min(used) <= 1


@given(st.integers(1, 9), styles)
def test_every_topic_meets_every_style(things: int, names: tuple[str, ...]) -> None:
    workflow = of_sizes([things])
    asked = {workflow.rules[0].cell: things * len(names)}
    found = scenarios(workflow, DataConfig(styles=names), asked)
    assert len({(scenario.topic, scenario.style) for scenario in found}) == len(found)


@given(sizes, st.integers(0, 3))
def test_scenarios_are_unique_and_follow_from_the_seed(numbers: list[int], seed: int) -> None:
    workflow = of_sizes(numbers)
    asked = {rule.cell: 30 for rule in workflow.rules}
    found = scenarios(workflow, DataConfig(seed=seed), asked)
    assert found == scenarios(workflow, DataConfig(seed=seed), dict(reversed(asked.items())))
    assert len({scenario.id for scenario in found}) == len(found) == 30 * len(numbers)
    assert len({scenario.seed for scenario in found}) == len(found)
    assert max(scenario.seed for scenario in found) < 2**53
    other = scenarios(workflow, DataConfig(seed=seed + 1), asked)
    assert not {scenario.id for scenario in found} & {scenario.id for scenario in other}


def test_a_scenario_carries_what_the_rule_decides() -> None:
    workflow = workflow_of(rule_of("a", 2), rule_of("b", 1, kind="refuse"))
    first, *_, last = scenarios(
        workflow, DataConfig(), {Cell("a", "call"): 3, Cell("b", "refuse"): 1}
    )
    assert (first.cell, last.cell) == (Cell("a", "call"), Cell("b", "refuse"))
    assert first.tools == ("search",)


def test_scenarios_about_one_topic_are_one_family() -> None:
    workflow = workflow_of(rule_of("a", 2), rule_of("b", 2))
    found = scenarios(workflow, DataConfig(), quotas(workflow, 40))
    families = {(scenario.rule, scenario.topic): scenario.family for scenario in found}
    assert len(set(families.values())) == len(families) == 4
    assert all(s.family == families[s.rule, s.topic] for s in found)


def test_cells_that_are_not_asked_for_have_no_scenarios() -> None:
    workflow = of_sizes([2, 2])
    assert scenarios(workflow, DataConfig(), {}) == []
    assert {s.rule for s in scenarios(workflow, DataConfig(), {Cell("r1", "call"): 2})} == {"r1"}


def test_topics_are_words_then_examples_then_cases_won_from_others() -> None:
    words = Words(things=("a thing",), actions=("do it",), phrases=("who [did it]?",))
    first = rule_of("first", words=words, examples=(RuleExample(text="an example"),))
    lost = (
        CounterExample(text="goes to first", winner="first"),
        CounterExample(text="an example", winner="first"),
    )
    second = rule_of("second", words=Words(), counter_examples=lost)
    workflow = workflow_of(first, second)
    assert topics(workflow, first) == (
        "a thing",
        "do it",
        "who [did it]?",
        "an example",
        "goes to first",
    )
    assert topics(workflow, second) == ("Title of second",)
    assert topics(workflow, rule_of("third", title="")) == ("the user asks",)
