"""Chat templates as they are published: without a system turn, with text for arguments, dated."""

from __future__ import annotations

import copy
import datetime
import json
from pathlib import Path
from typing import Any

import pytest
import render_tokenizers as kit

from distill.errors import StudentError
from distill.export.ollama import render_modelfile, write_modelfile
from distill.export.template import PROBE_CONVERSATIONS, chat_template
from distill.records import Message, Target, ToolCall
from distill.render import Parsed, Renderer

# After Gemma 2's: it raises on a system turn, and wants turns in alternation.
GEMMA_2 = """\
{{- bos_token }}
{%- if messages[0].role == 'system' -%}{{ raise_exception('System role not supported') }}
{%- endif -%}
{%- for message in messages -%}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) -%}
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{%- endif -%}
<start_of_turn>{{ 'model' if message.role == 'assistant' else message.role }}
{{ message.content | trim }}<end_of_turn>
{% endfor -%}
{%- if add_generation_prompt -%}<start_of_turn>model
{% endif -%}"""

# Drops a system turn without a word.
DEAF = kit.PLAIN_TEMPLATE.replace("in messages", "in messages if message.role != 'system'")

# After DeepSeek's: text and arguments are added, and an object cannot be.
ADDED = kit.HERMES_TEMPLATE.replace(
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}',
    """{{ '{"name": "' + call.function.name + '", "arguments": ' }}"""
    "{{ '' + call.function.arguments + '}' }}",
)
# Prints an object as Python does.
PRINTED = kit.HERMES_TEMPLATE.replace("call.function.arguments | tojson", "call.function.arguments")

# After Llama 3.2's.
DATED = kit.LLAMA_TEMPLATE.replace(
    "{{- bos_token }}",
    "{{- bos_token }}{%- set today = strftime_now('%d %b %Y') -%}"
    '{%- macro day() -%}{{ strftime_now("%Y-%m-%d") }}{%- endmacro -%}'
    "Today Date: {{ today }}, {{ day() }}\n",
)

BRIEF = Message(role="system", content="Be brief.")
ASKED = Message(role="user", content="Where are the meals?")
CALL = ToolCall(
    name="search_google",
    arguments={"query": 'a "quoted" é\n', "count": 2, "deep": {"a": [None, True]}},
)
MODES: tuple[Any, ...] = ("full", "names", "none")


def renderer(template: Any, declarations: Any = "full") -> Renderer:
    return Renderer(kit.tokenizer(template), kit.TOOLS, declarations=declarations)


def exported_ids(made: Renderer, messages: Any) -> list[int]:
    theirs = copy.deepcopy(made.tokenizer)
    theirs.chat_template = chat_template(made)
    turns = [{"role": message.role, "content": message.content} for message in messages]
    return list(theirs.apply_chat_template(turns, add_generation_prompt=True)["input_ids"])


@pytest.mark.parametrize("template", [GEMMA_2, DEAF], ids=["raises", "drops it"])
@pytest.mark.parametrize("mode", MODES)
def test_a_system_turn_that_a_template_cannot_take_stands_in_the_users_first(
    template: str, mode: Any, tmp_path: Path
) -> None:
    made = renderer(template, mode)
    text = made.prompt_text([BRIEF, ASKED])
    assert text.count("Be brief.") == 1
    assert text.index("Be brief.") < text.index(ASKED.content)
    assert ("search_google" in text) == (mode != "none")
    assert ("Search public information." in text) == (mode == "full")
    assert made.prompt_text([ASKED]) == text.replace(
        "Be brief.\n\n" if mode == "none" else "Be brief.\n", ""
    )
    row = made.example([BRIEF, ASKED], Target(kind="call", calls=(CALL,)))
    assert made.parse(row.completion) == Parsed((CALL,))
    for conversation in PROBE_CONVERSATIONS:
        assert exported_ids(made, conversation) == made.prompt(conversation)
    write_modelfile(made, tmp_path, "m.gguf", bos_by_runtime=False)
    modelfile = (tmp_path / "Modelfile").read_text("utf-8")
    for conversation in PROBE_CONVERSATIONS:
        assert render_modelfile(modelfile, conversation) == made.prompt_text(conversation)


@pytest.mark.parametrize("template", [ADDED, PRINTED], ids=["added", "printed"])
def test_arguments_are_given_as_json_where_a_template_takes_text(template: str) -> None:
    made = renderer(template)
    assert made.format.name == "hermes"
    row = made.example([ASKED], Target(kind="call", calls=(CALL,)))
    assert made.parse(row.completion) == Parsed((CALL,))
    assert json.dumps(CALL.arguments, ensure_ascii=False) in made.decode(row.completion)
    earlier = [
        ASKED,
        Message(role="assistant", tool_calls=(CALL,)),
        Message(role="tool", name="search_google", content="{}"),
    ]
    assert json.dumps(CALL.arguments, ensure_ascii=False) in made.prompt_text(earlier)


def test_a_prompt_does_not_depend_on_the_day() -> None:
    made = renderer(DATED)
    assert "Today Date: 26 Jul 2024, 2024-07-26<" in made.prompt_text([ASKED])
    assert str(datetime.datetime.now().year) not in made.prompt_text([ASKED])
    for conversation in PROBE_CONVERSATIONS:
        assert exported_ids(made, conversation) == made.prompt(conversation)


def test_of_several_templates_the_one_with_tools_is_used() -> None:
    several = {"default": kit.PLAIN_TEMPLATE, "tool_use": kit.HERMES_TEMPLATE}
    theirs = copy.deepcopy(kit.tokenizer())
    theirs.chat_template = several
    made = Renderer(theirs, kit.TOOLS)
    assert made.prompt([ASKED]) == renderer(kit.HERMES_TEMPLATE).prompt([ASKED])
    assert exported_ids(made, [ASKED]) == made.prompt([ASKED])
    theirs.chat_template = {"default": kit.PLAIN_TEMPLATE}
    assert Renderer(theirs, kit.TOOLS).prompt([ASKED]) == renderer(kit.PLAIN_TEMPLATE).prompt(
        [ASKED]
    )
    theirs.chat_template = {"rag": kit.PLAIN_TEMPLATE}
    with pytest.raises(StudentError, match="rag"):
        Renderer(theirs, kit.TOOLS)


@pytest.mark.parametrize(
    "body",
    [
        "{{ messages[99].content }}",
        "{{ 1 // 0 }}",
        "{{ messages.sort() }}",
        "{{ 'x' * 10 ** 12 }}",
        "{{ [][1] + 1 }}",
    ],
)
def test_whatever_a_template_raises_is_one_error(body: str) -> None:
    with pytest.raises(StudentError, match="its chat template fails on a plain conversation"):
        renderer(body)
