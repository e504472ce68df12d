"""What an exported template renders is what distill's renderer renders, token for token."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import export_students as tiny
import pytest
import render_tokenizers as kit

from distill.errors import ExportError
from distill.export.gguf_model import begins_with_bos
from distill.export.ollama import render_modelfile, write_modelfile
from distill.export.quoting import jinja_literal
from distill.export.template import PROBE_CONVERSATIONS, chat_template
from distill.records import Message, ToolCall
from distill.render import Renderer
from distill.render.functiongemma import TRIGGER_SENTENCE
from distill.students.embedded import verified_folder
from distill.students.wordpiece import load_tokenizer
from distill.workflow.model import Tool

ODD = Tool(
    name="odd",
    description='say """x""" {"""{{ .System }} }} {{{ {% raw %} it\'s \\n “ü” 🦄 {',
    parameters={
        "type": "object",
        "properties": {"kind": {"type": "string", "enum": ["a", "b"], "description": "{"}},
    },
)
TOOLS = (*kit.TOOLS, ODD)
TEMPLATES = {
    "functiongemma": kit.FUNCTION_GEMMA_TEMPLATE,
    "hermes": kit.HERMES_TEMPLATE,
    "llama": kit.LLAMA_TEMPLATE,
    "plain": kit.PLAIN_TEMPLATE,
    "none": None,
}
MODES: tuple[Any, ...] = ("full", "names", "none")
ALL = pytest.mark.parametrize("mode", MODES)
EACH = pytest.mark.parametrize("name", TEMPLATES)


TRIGGER = Message(role="system", content=f"{TRIGGER_SENTENCE}\nBe brief.")
CONVERSATIONS = (*PROBE_CONVERSATIONS, (TRIGGER, Message(role="user", content="hi")))


def turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def exported(renderer: Renderer) -> Any:
    tokenizer: Any = copy.deepcopy(renderer.tokenizer)
    tokenizer.chat_template = chat_template(renderer)
    return tokenizer


@EACH
@ALL
def test_messages_alone_render_the_student_s_prompt(name: str, mode: Any) -> None:
    renderer = Renderer(kit.tokenizer(TEMPLATES[name]), TOOLS, declarations=mode)
    tokenizer = exported(renderer)
    for messages in CONVERSATIONS:
        ids = tokenizer.apply_chat_template(turns(messages), add_generation_prompt=True)
        assert ids["input_ids"] == renderer.prompt(messages)


def test_the_embedded_student_s_prompt_is_rendered_token_for_token() -> None:
    renderer = Renderer(
        load_tokenizer(verified_folder() / "vocab.txt", TOOLS), TOOLS, declarations="none"
    )
    tokenizer = exported(renderer)
    for messages in CONVERSATIONS:
        ids = tokenizer.apply_chat_template(turns(messages), add_generation_prompt=True)
        assert ids["input_ids"] == renderer.prompt(messages)


ARGUMENTS: Any = {"b c": [1, True, None, {"x": "y", "a": -2.5e30}], "Z": "q", "a": {}, "_0": []}


def test_calls_and_answers_of_tools_are_rendered_without_a_template_of_ones_own() -> None:
    renderer = Renderer(kit.tokenizer(), TOOLS)
    call = ToolCall(name="odd", arguments=ARGUMENTS)
    said = [
        Message(role="user", content="hi"),
        Message(role="assistant", tool_calls=(call, call)),
        Message(role="tool", name="odd", content='{"k": 15, "text": "x"}'),
    ]
    function = {"function": {"name": "odd", "arguments": ARGUMENTS}}
    given = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "", "tool_calls": [function, function]},
        {"role": "tool", "name": "odd", "content": {"k": 15, "text": "x"}},
    ]
    last = Message(role="user", content="and?")
    tokenizer = exported(renderer)
    for extra, more in (([], []), ([last], [{"role": "user", "content": "and?"}])):
        text = tokenizer.apply_chat_template(
            given + more, add_generation_prompt=True, tokenize=False
        )
        assert text == renderer.prompt_text([*said, *extra])


@pytest.mark.parametrize(
    ("turn", "says"),
    [
        ({"role": "tool", "name": "odd", "content": "15"}, "as an object"),
    ],
)
def test_what_the_format_cannot_hold_is_refused_by_the_template(turn: Any, says: str) -> None:
    from jinja2 import TemplateError

    tokenizer = exported(Renderer(kit.tokenizer(), TOOLS))
    with pytest.raises(TemplateError, match=says):
        tokenizer.apply_chat_template([turn], tokenize=False)


def test_tools_of_the_caller_are_shown_where_the_student_reads_them() -> None:
    renderer = Renderer(kit.tokenizer(kit.HERMES_TEMPLATE), TOOLS)
    tokenizer, said = exported(renderer), [Message(role="user", content="hi")]
    own = [ODD.openai()]
    ids = tokenizer.apply_chat_template(turns(said), tools=own, add_generation_prompt=True)
    assert ids["input_ids"] == renderer.prompt(said, own)


@pytest.mark.parametrize(
    "value", ["a\n\t\"\\'", "🦄 é \u2028", {"a": [None, True, 1.5, {}]}, [], -3]
)
def test_a_value_is_the_same_in_jinja(value: Any) -> None:
    from jinja2 import Environment

    assert (
        Environment().compile_expression(jinja_literal(value), undefined_to_none=False)() == value
    )


@pytest.mark.parametrize("family", tiny.FAMILIES)
@ALL
def test_ollama_s_template_renders_the_student_s_prompt(
    family: str, mode: Any, tmp_path: Path
) -> None:
    renderer = Renderer(tiny.tokenizer(family), TOOLS, declarations=mode)
    bos = begins_with_bos(renderer)
    assert write_modelfile(renderer, tmp_path, "m.gguf", bos_by_runtime=bos) == 4
    modelfile = (tmp_path / "Modelfile").read_text("utf-8")
    opening = renderer.tokenizer.bos_token if bos else ""
    for messages in PROBE_CONVERSATIONS:
        assert opening + render_modelfile(modelfile, messages) == renderer.prompt_text(messages)
    for stop in renderer.stop_ids:
        assert f'PARAMETER stop "{renderer.decode([stop])}"\n' in modelfile
    assert modelfile.startswith("FROM ./m.gguf\n")
    assert "PARAMETER temperature 0\n" in modelfile
    # Three quotes would end it, and what is not an action must not look like one.
    assert modelfile.count('"""') == 2


def test_a_template_that_is_not_text_around_what_is_said_is_refused(tmp_path: Path) -> None:
    tokenizer: Any = copy.deepcopy(kit.tokenizer(kit.PLAIN_TEMPLATE))
    tokenizer.chat_template += "{% if messages[0].role == 'system' %}!{% endif %}"
    odd = Renderer(tokenizer, TOOLS, declarations="none")
    with pytest.raises(ExportError, match="a system turn changes more than the beginning"):
        write_modelfile(odd, tmp_path, "m.gguf", bos_by_runtime=False)
    assert not list(tmp_path.iterdir())
