"""The chat template of an export: `apply_chat_template` then renders the Renderer's prompts.

A student is tuned on prompts with instructions in front, the run's tools declared (or none), and
thinking off. A template that leaves these to its caller would give it other prompts than in
training, so the exported template contains them.
"""

from __future__ import annotations

from typing import Any

from distill.errors import ExportError
from distill.export.quoting import QUOTE_MESSAGES, define_plain, jinja_literal
from distill.records import Message
from distill.render import PROBE_MESSAGE, Renderer, functiongemma

PLACEHOLDER = "\ue000system\ue000"
"""Placeholder for the content of a system message; private-use characters, so in no real text."""
_SYSTEM = Message(role="system", content=PLACEHOLDER)
_ANSWER = Message(role="assistant", content="At the end of the lane.")
_BRIEF = Message(role="system", content="Be brief.")
_NEXT = Message(role="user", content="And “the south” one, 3 × 4?\nThanks")
PROBE_CONVERSATIONS = (
    (PROBE_MESSAGE,),
    (_BRIEF, PROBE_MESSAGE),
    (PROBE_MESSAGE, _ANSWER, _NEXT),
    (_BRIEF, PROBE_MESSAGE, _ANSWER, _NEXT),
)
"""Conversations without tool calls, on which an exported template is compared with the renderer."""

# The format of distill.render.functiongemma; HEAD is filled in.
_FUNCTIONGEMMA = """\
{%- set letters = 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_' -%}
{%- macro key(name) -%}
{%- set bare = namespace(yes=name | length > 0 and name[:1] in letters) -%}
{%- for letter in name -%}
{%- if letter not in letters ~ '0123456789' -%}{%- set bare.yes = false -%}{%- endif -%}
{%- endfor -%}
{{- name if bare.yes else '<escape>' ~ plain(name) ~ '<escape>' -}}
{%- endmacro -%}
{%- macro value(v) -%}
{%- if v is string -%}{{- '<escape>' ~ plain(v) ~ '<escape>' -}}
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
{{- '<start_function_response>response:' ~ plain(message.name or 'tool') -}}
{{- value(message.content) -}}
{{- '<end_function_response>' -}}
{%- set state.open = true -%}
{%- elif message.role == 'assistant' -%}
{%- if not state.open -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}
{{- plain(message.content or '') -}}
{%- set state.open = false -%}
{%- for call in message.tool_calls or [] -%}
{{- '<start_function_call>call:' ~ plain(call.function.name) -}}
{{- value(call.function.arguments) -}}
{{- '<end_function_call>' -}}
{%- set state.open = true -%}
{%- endfor -%}
{%- if not state.open -%}{{- '<end_of_turn>\\n' -}}{%- endif -%}
{%- else -%}
{%- if state.open -%}{{- '<end_of_turn>\\n' -}}{%- endif -%}
{%- set state.open = false -%}
{{- '<start_of_turn>' ~ ('developer' if message.role == 'system' else plain(message.role)) -}}
{{- '\\n' -}}
{{- plain(message.content) ~ '<end_of_turn>\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt and not state.open -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}"""


def chat_template(renderer: Renderer) -> str:
    """A Jinja template that renders `renderer.prompt` from the messages alone.

    Tools that a caller passes replace the run's if the student's prompts declare tools in full;
    otherwise they are ignored, as the student was not tuned to read them. For a student without a
    template of its own, the content of a tool message is an object. Raises RenderError, and
    ExportError for tools whose texts hold a control token.
    """
    if found := renderer.control.found_in(renderer.prompt_tools):
        raise ExportError(
            f"the declarations of the tools hold {found}, a control token of the student's",
            place="tools",
            hint="change the tool's name or description, or train with --declarations none",
        )
    alone = renderer.template_inputs([PROBE_MESSAGE])
    with_system = renderer.template_inputs([_SYSTEM, PROBE_MESSAGE])
    if alone is None or with_system is None:
        return _functiongemma_template(renderer)
    turns, tools = alone
    # The student's own template, with the variables set that the renderer would pass.
    lines = [define_plain(renderer.control), QUOTE_MESSAGES, "{%- set enable_thinking = false -%}"]
    set_tools = f"{{%- set tools = {jinja_literal(tools)} -%}}"
    if tools and renderer.declarations == "full":
        set_tools = "{%- if not tools -%}" + set_tools + "{%- endif -%}"
    lines.append(set_tools)
    if len(with_system[0]) == 1:
        lines.append(_merge_system(turns[0]["content"], with_system[0][0]["content"]))
    elif len(turns) > 1:
        lines.append(_set_messages(turns[0], with_system[0][0]))
    return "".join(lines) + renderer.chat_template


def _merge_system(alone: str, with_system: str) -> str:
    """Jinja that puts instructions and system turn into the user's first, for a template without.

    The user's first turn for PROBE_MESSAGE, without a system turn and with PLACEHOLDER as one.
    """
    user = PROBE_MESSAGE.content
    head, tail = alone.split(user)
    before, rest = with_system.split(PLACEHOLDER)
    between, after = rest.split(user)
    said = [before, "messages[0].content", between, "messages[1].content", after]
    pieces = (jinja_literal(text) if at % 2 == 0 else text for at, text in enumerate(said))
    content = f"{jinja_literal(head)} ~ messages[0].content ~ {jinja_literal(tail)}"
    return (
        "{%- if messages[0].role == 'system' and messages[1].role == 'user' -%}"
        f"{{%- set messages = [{{'role': 'user', 'content': {' ~ '.join(pieces)}}}]"
        " + messages[2:] -%}"
        "{%- elif messages[0].role == 'user' -%}"
        f"{{%- set messages = [{{'role': 'user', 'content': {content}}}] + messages[1:] -%}}"
        "{%- endif -%}"
    )


def _set_messages(alone: dict[str, Any], with_system: dict[str, Any]) -> str:
    """Jinja that puts the instructions in front, around the content of a system message.

    alone: the first turn for a conversation without a system message
    with_system: the first turn for a system message that is PLACEHOLDER
    """
    before, after = str(with_system["content"]).split(PLACEHOLDER)
    system = "messages[0].content"
    content = f"{jinja_literal(before)} ~ {system} ~ {jinja_literal(after)}"
    if alone["role"] == "developer":
        # A system message that begins with the trigger sentence does not get it twice.
        trigger = functiongemma.TRIGGER_SENTENCE
        begins = f"{system}[:{len(trigger)}] == {jinja_literal(trigger)}"
        content = f"({system} if {begins} else {content})"
    role, first = jinja_literal(with_system["role"]), {k: alone[k] for k in ("role", "content")}
    return (
        "{%- if messages[0].role == 'system' -%}"
        f"{{%- set messages = [{{'role': {role}, 'content': {content}}}] + messages[1:] -%}}"
        "{%- elif messages[0].role != 'developer' -%}"
        f"{{%- set messages = [{jinja_literal(first)}] + messages -%}}"
        "{%- endif -%}"
    )


def _functiongemma_template(renderer: Renderer) -> str:
    """FunctionGemma's format as a Jinja template, for a tokenizer without one."""
    trigger = functiongemma.TRIGGER_SENTENCE
    user = functiongemma.conversation([PROBE_MESSAGE])
    alone = renderer.prompt_text([PROBE_MESSAGE]).removesuffix(user)
    head = f"{{{{- {jinja_literal(alone)} -}}}}{{%- set turns = messages -%}}"
    with_system = renderer.prompt_text([_SYSTEM, PROBE_MESSAGE])
    if not with_system.endswith(functiongemma.conversation([_SYSTEM, PROBE_MESSAGE])):
        before, after = with_system.removesuffix(user).split(PLACEHOLDER)
        # Without the trigger sentence, which a system message may begin with itself.
        opening = before.removesuffix(f"{trigger}\n")
        head = (
            "{%- if messages[0].role == 'system' -%}{%- set turns = messages[1:] -%}"
            f"{{%- set said = plain(messages[0].content) -%}}{{{{- {jinja_literal(opening)} -}}}}"
            f"{{%- if said[:{len(trigger)}] != {jinja_literal(trigger)} -%}}"
            f"{{{{- {jinja_literal(trigger)} ~ '\\n' -}}}}{{%- endif -%}}"
            f"{{{{- said ~ {jinja_literal(after)} -}}}}"
            f"{{%- else -%}}{head}{{%- endif -%}}"
        )
    return define_plain(renderer.control) + _FUNCTIONGEMMA.replace("HEAD", head, 1)
