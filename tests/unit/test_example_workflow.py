"""The example workflow in schemas/knowledge_router: its breadth, its gold set, what it avoids."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from distill.config import DataConfig
from distill.data.plan import quotas, scenarios, topics
from distill.files import json_lines, read_text, resource
from distill.teachers.base import WriteTask
from distill.teachers.grammar import frames
from distill.teachers.grammar.english import is_function_word
from distill.teachers.grammar.teacher import write_reply
from distill.workflow import load_workflow
from distill.workflow.model import Rule, Workflow

FOLDER = resource("schemas", "knowledge_router")
HELD_OUT = Path(__file__).parents[2].parent / "shared" / "data" / "simple_tool_calling.jsonl"


@pytest.fixture(scope="module")
def workflow() -> Workflow:
    return load_workflow(FOLDER / "rules.md")


def tool_of(rule: Rule) -> str:
    return rule.then.calls[0].tool


def words_of(text: str) -> list[str]:
    return re.findall(r"\w+(?:['’]\w+)?", text.casefold())


def squash(text: str) -> str:
    return " ".join(words_of(text))


def test_rules_are_one_page_with_half_of_them_for_each_tool(workflow: Workflow) -> None:
    assert Counter(map(tool_of, workflow.rules)) == {"search_knowledge_base": 5, "search_google": 5}
    assert len(read_text(FOLDER / "rules.md").split("\n")) <= 200
    for rule in workflow.rules:
        assert 3 <= len(rule.examples) <= 8, rule.id
        assert rule.counter_examples, rule.id
        assert all(example.arguments for example in rule.examples), rule.id


@pytest.mark.parametrize("tool", ["search_knowledge_base", "search_google"])
def test_words_are_broad_for_each_tool(workflow: Workflow, tool: str) -> None:
    words = [rule.words for rule in workflow.rules if tool_of(rule) == tool]
    assert len({thing for w in words for thing in w.things}) >= 150
    assert len({action for w in words for action in w.actions}) >= 80
    assert len({phrase for w in words for phrase in w.phrases}) >= 40
    assert len({name for w in words for name in w.slots}) >= 10


def test_no_topic_has_two_labels(workflow: Workflow) -> None:
    labels: dict[str, set[str]] = {}
    for rule in workflow.rules:
        for topic in topics(workflow, rule):
            labels.setdefault(squash(topic), set()).add(rule.id)
    assert [topic for topic, rules in labels.items() if len(rules) > 1] == []


def test_every_topic_in_every_style_gives_a_grounded_call(workflow: Workflow) -> None:
    for rule in workflow.rules:
        count = len(topics(workflow, rule)) * 4
        for scenario in scenarios(workflow, DataConfig(), {rule.cell: count}):
            reply = write_reply(WriteTask(scenario, rule, workflow))
            (call,) = reply["calls"]  # type: ignore[misc]
            query = call["arguments"]["query"]  # type: ignore[index, call-overload]
            assert isinstance(query, str)
            assert query.strip()
            assert set(words_of(query)) <= set(words_of(str(reply["user"]))), (reply, scenario)
            assert not re.search(r"[{}\[\]]", f"{reply['user']} {query}"), reply


def test_gold_is_balanced_and_each_rule_has_some(workflow: Workflow) -> None:
    assert len(workflow.gold) >= 100
    tools = Counter(case.calls[0].name for case in workflow.gold)
    assert max(tools.values()) - min(tools.values()) <= 4
    rules = Counter(case.rule for case in workflow.gold)
    assert set(rules) == set(workflow.by_id)
    assert min(rules.values()) >= 8
    for case in workflow.gold:
        assert case.rule is not None
        assert case.calls[0].name == tool_of(workflow.by_id[case.rule]), case.place


def test_gold_arguments_are_words_of_the_prompt(workflow: Workflow) -> None:
    for case in workflow.gold:
        query = (case.calls[0].arguments or {})["query"]
        assert set(words_of(str(query))) <= set(words_of(case.conversation.last_user)), case.place


def test_gold_prompts_differ_in_length_tone_and_care(workflow: Workflow) -> None:
    prompts = [case.conversation.last_user for case in workflow.gold]
    assert len({squash(prompt) for prompt in prompts}) == len(prompts)
    lengths = [len(prompt.split()) for prompt in prompts]
    assert min(lengths) <= 4
    assert max(lengths) >= 15
    assert 0.2 <= sum(prompt[0].islower() for prompt in prompts) / len(prompts) <= 0.6
    assert sum(not prompt.endswith("?") for prompt in prompts) >= 25


def test_training_data_holds_no_gold_prompt(workflow: Workflow) -> None:
    gold = {squash(case.conversation.last_user) for case in workflow.gold}
    for scenario in scenarios(workflow, DataConfig(), quotas(workflow, 2000)):
        task = WriteTask(scenario, workflow.by_id[scenario.rule], workflow)
        assert squash(str(write_reply(task)["user"])) not in gold
    ours = {squash(text) for place, text in our_texts() if not place.startswith("gold")}
    assert not ours & gold


def our_texts() -> Iterator[tuple[str, str]]:
    """Each text that we wrote, and where it stands."""
    for name in ("rules.md", "words.md"):
        number = 1
        for entry in re.split(r"\n(?!  )", read_text(FOLDER / name)):
            for part in re.split(r"[;→]", entry):
                yield f"{name}:{number}", part
            number += entry.count("\n") + 1
    for number, row in json_lines(FOLDER / "gold.jsonl"):
        yield f"gold.jsonl:{number}", row["user_content"]
        yield f"gold.jsonl:{number}", json.loads(row["tool_arguments"])["query"]
    for style, group in frames.STYLES.items():
        for frame in (*group.things, *group.actions, *group.openers, *group.closers):
            yield f"frames of {style}", re.sub(r"\{\w+\}", "|", frame)


def grams(text: str, size: int = 4) -> set[tuple[str, ...]]:
    words = [word for word in words_of(text) if not is_function_word(word)]
    return {tuple(words[start : start + size]) for start in range(len(words) - size + 1)}


def test_nothing_shares_four_content_words_in_a_row_with_held_out_prompts() -> None:
    if not HELD_OUT.is_file():
        pytest.skip(f"{HELD_OUT.name} is not beside the repository: nothing to compare with")
    held_out: set[tuple[str, ...]] = set()
    for _, row in json_lines(HELD_OUT):
        if row["split"] == "test":
            held_out |= grams(row["user_content"]) | grams(
                json.loads(row["tool_arguments"])["query"]
            )
    assert held_out
    # Only our own places are named: the held-out text must not show up in a log.
    offending = sorted({place for place, text in our_texts() if grams(text) & held_out})
    held_out.clear()
    assert offending == []


def test_gold_is_no_recombination_of_rules_and_words() -> None:
    texts = list(our_texts())
    learnt = {gram for place, text in texts if place[0] in "rw" for gram in grams(text, 3)}
    gold = [(place, text) for place, text in texts if place.startswith("gold")]
    assert [place for place, text in gold if grams(text, 3) & learnt] == []
