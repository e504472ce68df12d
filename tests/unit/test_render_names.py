"""Tools shown by name alone: short, through the same template, and read back all the same."""

from __future__ import annotations

import pytest
from render_tokenizers import (
    FUNCTION_GEMMA_TEMPLATE,
    HERMES_TEMPLATE,
    LLAMA_TEMPLATE,
    PLAIN_TEMPLATE,
    QUERY,
    TOOLS,
    tokenizer,
)

from distill.errors import StudentError
from distill.records import Message, Target, ToolCall
from distill.render import Parsed, Renderer
from distill.workflow.model import Tool

TEMPLATES = {
    "none": None,
    "functiongemma": FUNCTION_GEMMA_TEMPLATE,
    "hermes": HERMES_TEMPLATE,
    "llama": LLAMA_TEMPLATE,
    "json": PLAIN_TEMPLATE,
}
NAMED = "".join(
    f"<start_function_declaration>declaration:{tool.name}"
    "{description:<escape><escape>}<end_function_declaration>"
    for tool in TOOLS
)
SHOWN = {
    "none": NAMED,
    "functiongemma": NAMED,
    "hermes": '<tools>{"type": "function", "function": {"name": "search_knowledge_base"}}'
    '{"type": "function", "function": {"name": "search_google"}}</tools>',
    "llama": '{"type": "function", "function": {"name": "search_knowledge_base"}}\n'
    '{"type": "function", "function": {"name": "search_google"}}\n',
    "json": '\n{"name":"search_knowledge_base"}\n{"name":"search_google"}<|im_end|>',
}
ASKED = (Message(role="user", content="What is the limit for travel meals?"),)
CALL = ToolCall(name="search_google", arguments={"query": "travel meals"})
CALLED = Target(kind="call", calls=(CALL,))


def renderer(template: str | None, declarations: str = "names") -> Renderer:
    return Renderer(tokenizer(template), TOOLS, declarations=declarations)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_prompt_holds_the_names_and_nothing_else_of_the_tools(kind: str) -> None:
    made = renderer(TEMPLATES[kind])
    text = made.decode(made.prompt(ASKED))
    assert SHOWN[kind] in text
    for words in ("Search public information.", "query string", "STRING", '"parameters"'):
        assert words not in text


@pytest.mark.parametrize("kind", TEMPLATES)
def test_names_cost_more_than_nothing_and_far_less_than_all(kind: str) -> None:
    none, names, full = (
        len(renderer(TEMPLATES[kind], way).prompt(ASKED)) for way in ("none", "names", "full")
    )
    # The sentence before FunctionGemma's declarations is as long with names as in full.
    assert none < names < full
    assert full - names > 60


@pytest.mark.parametrize("kind", TEMPLATES)
@pytest.mark.parametrize("target", [CALLED, Target(kind="ask", reply="Which trip?")])
def test_a_row_is_its_prompt_and_its_turn(kind: str, target: Target) -> None:
    made = renderer(TEMPLATES[kind])
    row, prompt = made.example(ASKED, target), made.prompt(ASKED)
    start = row.mask.index(True)
    assert row.ids[:start] == prompt
    assert made.parse(row.completion) == Parsed(target.calls, target.reply)
    assert row.completion == renderer(TEMPLATES[kind], "full").example(ASKED, target).completion


@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_rows_own_tools_are_named_in_place_of_the_workflows(kind: str) -> None:
    made = renderer(TEMPLATES[kind])
    own = Tool(name="book_room", description="Books a room.", parameters=QUERY).openai()
    text = made.decode(made.prompt(ASKED, [own]))
    assert "book_room" in text
    assert "Books a room." not in text
    assert "search_google" not in text


@pytest.mark.parametrize("kind", TEMPLATES)
def test_each_way_has_a_fingerprint_of_its_own(kind: str) -> None:
    found = {renderer(TEMPLATES[kind], way).fingerprint for way in ("full", "names", "none")}
    assert len(found) == 3


TOOL_LINE = "{{ tool | tojson }}\n{% endfor"
PICKY = {
    # What a template writes for what is absent is seldom empty.
    "absent words are not printed": (
        "{{ tool.function.name }}: {{ tool.function.description }}\n{% endfor",
        "search_google: \n",
    ),
    "a key that it writes itself has a value": (
        "{{ tool.function.name }} (description: {{ tool.function.description | default('??') }})\n"
        "{% endfor",
        "search_google (description: )\n",
    ),
    "one that looks into the parameters finds an object": (
        "{{ tool.function.name }} {{ tool.function.parameters.properties | length }}"
        " {{ tool.function.description | upper }}\n{% endfor",
        "search_google 0 \n",
    ),
}


@pytest.mark.parametrize("case", PICKY)
def test_a_template_is_given_what_it_cannot_do_without(case: str) -> None:
    line, shown = PICKY[case]
    made = renderer(LLAMA_TEMPLATE.replace(TOOL_LINE, line))
    assert shown in made.decode(made.prompt(ASKED))
    assert made.parse(made.example(ASKED, CALLED).completion) == Parsed((CALL,))


def test_instructions_that_speak_of_parameters_do_not_make_every_tool_longer() -> None:
    before = "{% if loop.first and tools -%}"
    made = renderer(LLAMA_TEMPLATE.replace(before, f"{before}Give name, parameters.\n"))
    text = made.decode(made.prompt(ASKED))
    assert "Give name, parameters." in text
    assert SHOWN["llama"] in text


def test_a_name_that_cannot_be_shown_is_the_tools_fault() -> None:
    bad = Tool(name="a{b", description="", parameters={"type": "object"})
    with pytest.raises(StudentError, match="cannot be shown to this student"):
        Renderer(tokenizer(None), [bad], declarations="names")
