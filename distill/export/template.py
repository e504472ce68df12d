"""The chat template of an export: what a stranger's `apply_chat_template` must render.

A student was tuned on the prompts of distill's Renderer: with instructions in front, the run's
tools declared (or none), no thinking. A template that leaves these to its caller would serve
other prompts than were trained. So the exported one holds them itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from distill.records import Message
from distill.render import MARKERS, Renderer, functiongemma

MARK = "\ue000system\ue000"
"""Stands for what a conversation's own system turn says; private use, so in no real text."""
_USER = Message(role="user", content="Where is the north gate?")
_SYSTEM = Message(role="system", content=MARK)

# Values as functiongemma writes them: strings between <escape>, keys sorted, bare where plain.
_PLAIN = """\
{%- set letters = 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_' -%}
{%- macro safe(text) -%}
{%- for marker in MARKERS -%}
{%- if marker in text -%}
{{- raise_exception('the text holds ' ~ marker ~ ', which the format cannot quote') -}}
{%- endif -%}
{%- endfor -%}
{{- text -}}
{%- endmacro -%}
{%- macro key(name) -%}
{%- set plain = namespace(yes=name | length > 0 and name[:1] in letters) -%}
{%- for letter in name -%}
{%- if letter not in letters ~ '0123456789' -%}{%- set plain.yes = false -%}{%- endif -%}
{%- endfor -%}
{{- name if plain.yes else '<escape>' ~ safe(name) ~ '<escape>' -}}
{%- endmacro -%}
{%- macro value(v) -%}
{%- if v is string -%}{{- '<escape>' ~ safe(v) ~ '<escape>' -}}
{%- elif v is mapping -%}
{{- '{' -}}
{%- for k in v.keys() | sort(case_sensitive=true) -%}
{{- key(k) ~ ':' ~ value(v[k]) -}}{{- ',' if not loop.last -}}
{%- endfor -%}
{{- '}' -}}
{%- elif v is iterable -%}
{{- '[' -}}{%- for item in v -%}{{- value(item) -}}{{- ',' if not loop.last -}}{%- endfor -%}
{{- ']' -}}
{%- else -%}{{- v | tojson -}}
{%- endif -%}
{%- endmacro -%}
{%- set state = namespace(open=false) -%}
HEAD
{%- for message in turns -%}
{%- if message.role == 'tool' -%}
{%- if message.content is string -%}
{{- raise_exception("give a tool's answer as an object, not as text") -}}
{%- endif -%}
{%- if not state.open -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}
{{- '<start_function_response>response:' ~ (message.name or 'tool') ~ value(message.content) -}}
{{- '<end_function_response>' -}}
{%- set state.open = true -%}
{%- elif message.role == 'assistant' -%}
{%- if not state.open -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}
{{- safe(message.content or '') -}}
{%- set state.open = false -%}
{%- for call in message.tool_calls or [] -%}
{{- '<start_function_call>call:' ~ call.function.name ~ value(call.function.arguments) -}}
{{- '<end_function_call>' -}}
{%- set state.open = true -%}
{%- endfor -%}
{%- if not state.open -%}{{- '<end_of_turn>\\n' -}}{%- endif -%}
{%- else -%}
{%- if state.open -%}{{- '<end_of_turn>\\n' -}}{%- endif -%}
{%- set state.open = false -%}
{{- '<start_of_turn>' ~ ('developer' if message.role == 'system' else message.role) ~ '\\n' -}}
{{- safe(message.content) ~ '<end_of_turn>\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt and not state.open -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}"""


def chat_template(renderer: Renderer) -> str:
    """A Jinja template that renders what `renderer.prompt` renders, with nothing but messages.

    Tools that a caller passes replace the run's where the student's prompts show tools in full;
    elsewhere they are passed over, as the student was not tuned to read them. A tool's answer is
    an object where the student has no template of its own. Raises RenderError as the renderer does.
    """
    if renderer.template_inputs([_USER]) is None:
        return _plain(renderer)
    return _around(renderer)


def literal(value: Any) -> str:
    """A JSON value as a Jinja expression."""
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case str():
            return json.dumps(value, ensure_ascii=False)
        case dict():
            pairs = (f"{literal(key)}: {literal(item)}" for key, item in value.items())
            return "{" + ", ".join(pairs) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(literal, value)) + "]"
        case _:
            return json.dumps(value)


def _around(renderer: Renderer) -> str:
    """The student's own template, told first what distill's renderer would hand to it."""
    alone, with_system = (
        renderer.template_inputs([_USER]),
        renderer.template_inputs([_SYSTEM, _USER]),
    )
    assert alone is not None
    assert with_system is not None
    turns, tools = alone
    lines = ["{%- set enable_thinking = false -%}"]
    baked = f"{{%- set tools = {literal(tools)} -%}}"
    if tools and renderer.declarations == "full":
        baked = "{%- if not tools -%}" + baked + "{%- endif -%}"
    lines.append(baked)
    if len(turns) > 1:
        lines.append(_instructed(turns[0], with_system[0][0]))
    return "".join(lines) + str(renderer.tokenizer.chat_template)


def _instructed(alone: dict[str, Any], with_system: dict[str, Any]) -> str:
    """The turn in front, with what the conversation's own system turn says inside it."""
    before, after = str(with_system["content"]).split(MARK)
    role = literal(with_system["role"])
    # A caller who says the trigger sentence himself is not made to say it twice.
    start = literal(functiongemma.TRIGGER_SENTENCE)
    said = "messages[0].content"
    own = f"{literal(before)} ~ {said} ~ {literal(after)}"
    if alone["role"] == "developer":
        own = f"({said} if {said}[:{len(functiongemma.TRIGGER_SENTENCE)}] == {start} else {own})"
    return (
        "{%- if messages[0].role == 'system' -%}"
        f"{{%- set messages = [{{'role': {role}, 'content': {own}}}] + messages[1:] -%}}"
        "{%- elif messages[0].role != 'developer' -%}"
        f"{{%- set messages = [{literal(_said(alone))}] + messages -%}}"
        "{%- endif -%}"
    )


def _said(turn: dict[str, Any]) -> dict[str, Any]:
    return {"role": turn["role"], "content": turn["content"]}


def _plain(renderer: Renderer) -> str:
    """FunctionGemma's format written out, for a tokenizer that has no template."""
    rest = functiongemma.conversation([_USER])
    alone = renderer.prompt_text([_USER]).removesuffix(rest)
    own = functiongemma.conversation([_SYSTEM, _USER])
    head = f"{{{{- {literal(alone)} -}}}}{{%- set turns = messages -%}}"
    with_system = renderer.prompt_text([_SYSTEM, _USER])
    if not with_system.endswith(own):
        before, after = with_system.removesuffix(rest).split(MARK)
        # The turn's own opening stands before the trigger sentence, which is not said twice.
        opening = before.removesuffix(f"{functiongemma.TRIGGER_SENTENCE}\n")
        trigger = literal(functiongemma.TRIGGER_SENTENCE)
        head = (
            "{%- if messages[0].role == 'system' -%}{%- set turns = messages[1:] -%}"
            f"{{%- set said = safe(messages[0].content) -%}}{{{{- {literal(opening)} -}}}}"
            f"{{%- if said[:{len(functiongemma.TRIGGER_SENTENCE)}] != {trigger} -%}}"
            f"{{{{- {trigger} ~ '\\n' -}}}}{{%- endif -%}}"
            f"{{{{- said ~ {literal(after)} -}}}}"
            f"{{%- else -%}}{head}{{%- endif -%}}"
        )
    return _filled(_PLAIN, HEAD=head, MARKERS=literal(MARKERS))


def _filled(template: str, **parts: str) -> str:
    for name, text in parts.items():
        template = template.replace(name, text, 1)
    return template


def probes(renderer: Renderer) -> Sequence[Sequence[Message]]:
    """Conversations on which an exported template is compared with the renderer."""
    answer = Message(role="assistant", content="At the end of the lane.")
    system = Message(role="system", content="Be brief.")
    again = Message(role="user", content="And “the south” one, 3 × 4?\nThanks")
    return ([_USER], [system, _USER], [_USER, answer, again], [system, _USER, answer, again])
