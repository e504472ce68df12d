"""The grammar teacher: grounded, deterministic, rule-blind, and clear about what it cannot do."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.config import DataConfig
from distill.data.plan import scenarios
from distill.errors import TeacherError
from distill.records import Json, Scenario, TargetKind
from distill.teachers.base import ChatRequest, WriteTask
from distill.teachers.grammar.english import (
    NounPhrase,
    content_words,
    ends_in_function_word,
    gerund,
    is_plural,
    without_determiners,
)
from distill.teachers.grammar.frames import STYLES
from distill.teachers.grammar.surface import Span, realize
from distill.teachers.grammar.teacher import LIMITS, GrammarTeacher, augment, write_reply
from distill.workflow.lint import lint
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

WORDS = Words(
    things=("the parental leave policy", "exchange rates", "our {team} charter", "an hourly rate"),
    actions=("book a meeting room", "get access to {system}", "write a test"),
    phrases=(
        "who [owns {system}] in the {team} team?",
        "is [it] raining",
        "no brackets for {team}",
    ),
    slots={"team": ("data", "design"), "system": ("Atlas", "Node.js", "C++")},
)
EXAMPLES = (
    RuleExample(
        text="How do I reset my Okta password?", arguments={"query": "reset Okta password"}
    ),
    RuleExample(text="I lost it. What now?"),
)
QUERY: Json = {"type": "string", "description": "query string"}


def tool_of(properties: Json, required: list[str] | None = None, name: str = "search") -> Tool:
    parameters: Json = {
        "type": "object",
        "properties": properties,
        "required": list(required if required is not None else properties),
    }
    return Tool(name=name, description="Does it.", parameters=parameters)


def workflow_of(
    *tools: Tool,
    arguments: Json | None = None,
    words: Words = WORDS,
    examples: tuple[RuleExample, ...] = EXAMPLES,
    kind: TargetKind = "call",
    reply: str = "",
) -> Workflow:
    tools = tools or (tool_of({"query": QUERY}),)
    calls = tuple(CallSpec(tool=tool.name, arguments=arguments or {}) for tool in tools)
    then = Then(kind=kind, calls=calls if kind == "call" else (), reply=reply, text=f"{kind} it")
    rule = Rule(
        id="r", title="Rooms", when="always", then=then, examples=examples, words=words, text=""
    )
    return Workflow(name="w", title="W", prose="", rules=(rule,), tools=tools)


def tasks(workflow: Workflow, count: int, **config: Any) -> Iterator[WriteTask]:
    (rule,) = workflow.rules
    for scenario in scenarios(workflow, DataConfig(**config), {rule.cell: count}):
        yield WriteTask(scenario, rule, workflow)


def replies(workflow: Workflow, count: int = 300, **config: Any) -> list[dict[str, Any]]:
    return [write_reply(task) for task in tasks(workflow, count, **config)]


def words_of(text: str) -> list[str]:
    return re.findall(r"[\w'’+.-]*\w[+]*", text.casefold())


def is_ordered_subset(some: list[str], of: list[str]) -> bool:
    rest = iter(of)
    return all(word in rest for word in some)


@given(st.integers(0, 10_000))
def test_arguments_are_words_of_the_request_in_their_order(seed: int) -> None:
    for reply in replies(workflow_of(), 40, seed=seed):
        (call,) = reply["calls"]
        assert call["name"] == "search"
        assert list(call["arguments"]) == ["query"]
        query = call["arguments"]["query"]
        assert query
        assert is_ordered_subset(words_of(query), words_of(reply["user"])), reply


def test_complete_replies_with_json_that_follows_from_the_scenario_alone() -> None:
    teacher = GrammarTeacher()

    async def ask(task: WriteTask, seed: int) -> str:
        request = ChatRequest(messages=(), reply_schema={}, task=task, seed=seed)
        return (await teacher.complete(request)).text

    async def all_twice() -> None:
        for task in tasks(workflow_of(), 40):
            text = await ask(task, 1)
            assert text == await ask(task, 2)
            assert json.loads(text) == write_reply(task)
        await teacher.close()

    asyncio.run(all_twice())
    assert teacher.name == "grammar"
    assert teacher.fingerprint.startswith("grammar/")


def test_utterances_are_varied() -> None:
    users = [reply["user"] for reply in replies(workflow_of(), 400)]
    assert len(set(users)) >= 0.85 * len(users)
    assert 0.1 < sum(user == user.lower() for user in users) / len(users) < 0.7
    assert 0.1 < sum(user.endswith("?") for user in users) / len(users) < 0.7


def test_each_style_has_many_frames_and_none_names_a_tool_or_a_side() -> None:
    telling = re.compile(r"\b(we|our|ours|us|company|internal|google|web|online|knowledge|wiki)\b")
    for style, frames in STYLES.items():
        assert len({*frames.things, *frames.actions}) >= 100, style
        for frame in frames.things:
            assert re.findall(r"\{(\w+)\}", frame.replace("{is}", "")) in (["thing"], ["bare"]), (
                frame
            )
        for frame in frames.actions:
            assert re.findall(r"\{(\w+)\}", frame) in (["action"], ["doing"], ["bare"]), frame
        for text in (*frames.things, *frames.actions, *frames.openers, *frames.closers):
            assert not telling.search(text), text


def test_keywords_keep_the_owner_that_decides() -> None:
    words = WORDS.model_copy(
        update={
            "things": ("our price list",),
            "actions": ("move my desk",),
            "phrases": ("do we [sell {team}]?",),
        }
    )
    for reply in replies(workflow_of(words=words, examples=()), 90, styles=("keywords",)):
        said, query = words_of(reply["user"]), words_of(reply["calls"][0]["arguments"]["query"])
        assert {"our", "my", "we"} & set(said), reply
        assert not {"our", "my", "we"} & set(query), reply


def test_frames_are_shared_by_all_rules() -> None:
    # The same scenario under two rules says the same thing: nothing but the topic tells them apart.
    one = workflow_of(words=Words(things=("the thing",)), examples=())
    rule = one.rules[0].model_copy(update={"id": "other"})
    other = one.model_copy(update={"rules": (rule,)})
    for task in tasks(one, 50):
        assert (
            write_reply(task)["user"] == write_reply(WriteTask(task.scenario, rule, other))["user"]
        )


def test_random_words_go_into_prompt_and_argument_alike() -> None:
    workflow = workflow_of(words=Words(things=("exchange rates",)), examples=())
    queries = [r["calls"][0]["arguments"]["query"].casefold() for r in replies(workflow, 600)]
    qualified = [query for query in queries if query != "exchange rates"]
    assert 0.35 < len(qualified) / len(queries) < 0.55
    assert all("exchange rates" in query for query in queries)
    assert len(set(qualified)) > 0.95 * len(qualified)


@given(st.integers())
def test_made_up_words_are_plain_and_grounded(seed: int) -> None:
    rng = Random(seed)
    assert re.fullmatch(r"[A-Za-z][\w.-]{3,}", augment.invented_name(rng))
    for write_one in (
        augment.modifier,
        augment.qualifier,
        augment.action_qualifier,
        augment.request_qualifier,
    ):
        text = write_one(rng)
        assert text == " ".join(text.split())
        assert "{" not in text
        assert len(without_determiners(text)) >= 2


@pytest.mark.parametrize("kind", ["ask", "answer", "refuse"])
def test_without_a_call_the_reply_is_the_rule_s(kind: TargetKind) -> None:
    for reply in replies(workflow_of(kind=kind, reply="Which {team}, {topic}, {other}?"), 50):
        assert set(reply) == {"user", "reply"}
        assert re.fullmatch(r"Which (data|design), .+, \{other\}\?", reply["reply"])
    with pytest.raises(TeacherError, match="not in which words"):
        replies(workflow_of(kind=kind), 1)


def test_every_required_argument_is_filled_validly_and_said() -> None:
    tool = tool_of(
        {
            "query": QUERY,
            "region": {"type": "string", "enum": ["EU", "US"]},
            "days": {"type": "integer", "minimum": 2, "maximum": 4},
            "low": {"type": "integer", "maximum": 0},
            "above": {"type": "integer", "exclusiveMinimum": 5},
            "below": {"type": "integer", "exclusiveMaximum": 5},
            "share": {"type": "number", "minimum": 0, "maximum": 1},
            "rate": {"type": "number", "minimum": 0.2, "maximum": 0.3},
            "urgent": {"type": "boolean"},
            "unit": {"const": "kg"},
            "team": QUERY,
            "hint": QUERY,
        },
        required=[
            *("query", "region", "days", "low", "above", "below"),
            *("share", "rate", "urgent", "unit", "team"),
        ],
    )
    seen: Counter[str] = Counter()
    for reply in replies(workflow_of(tool), 200):
        arguments = reply["calls"][0]["arguments"]
        jsonschema.validate(arguments, tool.parameters)
        assert "hint" not in arguments
        said = reply["user"].casefold()
        for name in ("region", "days", "low", "above", "below", "share", "rate", "team"):
            assert str(arguments[name]).casefold() in said, (name, reply)
        assert "urgent" in said
        assert ("not urgent" in said) == (not arguments["urgent"])
        seen.update([arguments["region"], str(arguments["days"])])
    assert set(seen) == {"EU", "US", "2", "3", "4"}


REGION: Json = {"$ref": "#/$defs/region"}
REGIONS: list[Any] = [
    REGION,
    {"allOf": [REGION], "description": "Where."},
    {"anyOf": [REGION, {"type": "null"}]},
    {**REGION, "nullable": True},
    {"$ref": "#/$defs/twice"},
    {"type": ["string", "null"], "enum": ["EU", "US", None]},
]


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("rest", [{"type": ["string", "null"]}, {"$ref": "#/$defs/text"}])
def test_values_and_free_text_are_found_behind_references(region: Json, rest: Json) -> None:
    properties: Json = {"region": region, "query": rest}
    tool = tool_of(properties, required=["region", "query"])
    definitions: Json = {
        "region": {"type": "string", "enum": ["EU", "US"]}, "twice": REGION,
        "text": {"type": "string"},
    }  # fmt: skip
    tool = tool.model_copy(update={"parameters": {**tool.parameters, "$defs": definitions}})
    workflow = workflow_of(tool)
    assert not any("cannot know" in advice.cause for advice in lint(workflow))
    for reply in replies(workflow, 20):
        arguments = reply["calls"][0]["arguments"]
        jsonschema.validate({**arguments, "region": "EU"}, tool.parameters)
        assert arguments["region"] in ("EU", "US")


def test_arguments_that_the_rule_states_are_kept_with_their_types() -> None:
    arguments: Json = {
        "query": "{topic} ({team})",
        "count": "{count}",
        "flag": True,
        "tags": ["{team}", 3],
        "more": {"of": "{topic}"},
        "literal": "{unknown} {",
    }
    tool = tool_of({"query": QUERY, "count": {"type": "integer"}, "flag": {}, "tags": {}})
    slots = {"team": ("data",), "count": ("12", "many")}
    words = Words(things=("the rate",), slots=slots)
    found = set()
    for reply in replies(workflow_of(tool, arguments=arguments, words=words, examples=()), 60):
        got = reply["calls"][0]["arguments"]
        topic = got["more"]["of"]
        assert got["query"] == f"{topic} (data)"
        assert (got["flag"], got["tags"], got["literal"]) == (True, ["data", 3], "{unknown} {")
        assert str(got["count"]) in reply["user"]
        assert "data" in reply["user"].lower()
        found.add(got["count"])
    assert found == {12, "many"}


def test_several_calls_share_the_topic() -> None:
    tools = (tool_of({"query": QUERY}), tool_of({"text": QUERY}, name="log"))
    for reply in replies(workflow_of(*tools, examples=()), 30):
        first, second = reply["calls"]
        assert (first["name"], second["name"]) == ("search", "log")
        assert first["arguments"]["query"] == second["arguments"]["text"]


def test_examples_bring_their_arguments() -> None:
    workflow = workflow_of(words=Words(), examples=EXAMPLES[:1])
    queries = {r["calls"][0]["arguments"]["query"] for r in replies(workflow, 60)}
    assert "reset Okta password" in queries
    assert all(query.startswith("reset Okta password") for query in queries)
    assert len(queries) > 5


def test_an_example_s_enum_argument_is_never_extended() -> None:
    tool = tool_of({"city": {"type": "string", "enum": ["Oslo", "Rome"]}})
    example = RuleExample(text="Weather in Oslo", arguments={"city": "Oslo"})
    workflow = workflow_of(tool, words=Words(), examples=(example,))
    assert {r["calls"][0]["arguments"]["city"] for r in replies(workflow, 60)} == {"Oslo"}


def test_cases_won_from_other_rules_and_bare_titles_are_topics_too() -> None:
    winner = workflow_of(words=Words(), examples=()).rules[0]
    case = CounterExample(text="Where is my parcel?", winner="r")
    loser = winner.model_copy(update={"id": "loser", "counter_examples": (case,)})
    tool = tool_of({"query": QUERY})
    workflow = Workflow(name="w", title="", prose="", rules=(winner, loser), tools=(tool,))
    for rule, topic in ((winner, "parcel"), (loser, "rooms")):
        for scenario in scenarios(workflow, DataConfig(), {rule.cell: 20}):
            reply: Any = write_reply(WriteTask(scenario, rule, workflow))
            assert topic in reply["calls"][0]["arguments"]["query"].lower()


@pytest.mark.parametrize(
    ("workflow", "config", "place", "cause"),
    [
        (workflow_of(), {"styles": ("formal",)}, "[data] styles", "formal"),
        (workflow_of(tool_of({"a": QUERY, "b": QUERY})), {}, 'rule "r"', '"a" of "search"'),
        (workflow_of(tool_of({"a": {"type": "array"}})), {}, 'rule "r"', '"a" of "search"'),
        (workflow_of(tool_of({"d": {"type": "string", "format": "date"}})), {}, 'rule "r"', '"d"'),
        (workflow_of(words=Words(things=("a {gap}",))), {}, 'rule "r"', '"gap" has no values'),
    ],
)
def test_what_it_cannot_fill_is_an_error_with_a_way_out(
    workflow: Workflow, config: dict[str, Any], place: str, cause: str
) -> None:
    with pytest.raises(TeacherError) as caught:
        replies(workflow, 50, **config)
    (problem,) = caught.value.problems
    assert problem.place == place
    assert cause in problem.cause
    assert problem.hint


def test_other_languages_are_an_error() -> None:
    task = next(tasks(workflow_of(), 1))
    scenario = Scenario.of(**{**task.scenario.model_dump(exclude={"id"}), "language": "de"})
    with pytest.raises(TeacherError, match='does not write "de"'):
        write_reply(WriteTask(scenario, task.rule, task.workflow))


def test_its_limits_are_said_in_one_message() -> None:
    for word in ("English", "single-turn", "rules", "--teacher"):
        assert word in LIMITS


@pytest.mark.parametrize(
    ("phrase", "determiner", "plural"),
    [
        ("the parental leave policy", "the", False),
        ("exchange rates", "", True),
        ("our rules for working abroad", "our", True),
        ("the capital of the Netherlands", "the", False),
        ("flights from Paris to Rome", "", True),
        ("access to the archive", "", False),
        ("the people in charge", "the", True),
        ("the analysis", "the", False),
        ("news about Paris", "", False),
        ("A levels", "", True),
        ("photosynthesis", "", False),
    ],
)
def test_noun_phrases(phrase: str, determiner: str, plural: bool) -> None:
    parsed = NounPhrase.parse(phrase)
    assert (parsed.determiner, parsed.plural) == (determiner, plural)
    assert f"{parsed.determiner} {parsed.bare}".strip() == phrase


def test_articles_agree_with_what_follows() -> None:
    assert NounPhrase.parse("a policy").with_modifier("old") == ("an", "old policy")
    assert NounPhrase.parse("an hourly rate").with_modifier("Kestrel") == (
        "a",
        "Kestrel hourly rate",
    )
    assert NounPhrase.parse("our plan").with_modifier("old") == ("our", "old plan")


@pytest.mark.parametrize(
    ("action", "doing"),
    [
        ("book a room", "booking a room"),
        ("get access", "getting access"),
        ("write a test", "writing a test"),
        ("see the map", "seeing the map"),
        ("tie a knot", "tying a knot"),
        ("change it", "changing it"),
        ("be on call", "being on call"),
        ("reset", "resetting"),
        ("log in to it", "logging in to it"),
    ],
)
def test_gerunds(action: str, doing: str) -> None:
    assert gerund(action) == doing


def test_arguments_lose_articles_and_possessives_alone() -> None:
    assert (
        without_determiners("book a room for my team on the roof") == "book room for team on roof"
    )
    assert without_determiners("vitamin A") == "vitamin A"
    assert without_determiners("the") == "the"
    assert content_words("How do I reset my Okta password?") == "reset Okta password"
    assert content_words("what is it?") == "what is it"
    assert is_plural("") is False
    assert [ends_in_function_word(text) for text in ("trading at", "is it?", "the rate", "")] == [
        True,
        True,
        False,
        False,
    ]


@given(
    st.lists(st.tuples(st.text("abc xyz'.?", max_size=12), st.booleans()), max_size=5), st.data()
)
def test_noise_leaves_fixed_pieces_alone(
    parts: list[tuple[str, bool]], data: st.DataObject
) -> None:
    spans = [Span(text, fixed) for text, fixed in parts]
    lower = data.draw(st.booleans())
    text = realize(spans, "?", "thanks.", lower, Random(data.draw(st.integers())))
    for piece in spans:
        if piece.fixed:
            assert piece.text.strip().lower() in text.lower()
    assert not lower or text == text.lower()


SIZES = ("small", "large", "very large")
SIZE: Json = {"type": "string", "enum": [*SIZES]}


def sizes_in(text: str) -> list[str]:
    """The sizes that a text says: "very large" is not "large"."""
    return re.findall(r"\b(?:very large|large|small)\b", text.lower())


@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize("slots", [{"size": SIZES}, {}])
@given(st.integers(0, 10_000))
def test_an_argument_is_the_value_that_the_request_says(
    slots: dict[str, tuple[str, ...]], stated: bool, seed: int
) -> None:
    drawn = ("the {size} room",) if slots else ()
    words = Words(
        things=("a very large hall", "the sky", *drawn),
        phrases=("is a small [garden] ready", "who owns large [ships]"),
        slots=slots,
    )
    examples = (RuleExample(text="Is the LARGE one free?"), RuleExample(text="Is it there?"))
    arguments: Json = {"size": "{size}"} if stated and slots else {}
    workflow = workflow_of(
        tool_of({"size": SIZE}), arguments=arguments, words=words, examples=examples
    )
    for reply in replies(workflow, 30, seed=seed):
        (call,) = reply["calls"]
        assert sizes_in(reply["user"]) == [call["arguments"]["size"]], reply
