"""The forms in which rows are kept: which one a row is in, and its messages in OpenAI's."""

from __future__ import annotations

from typing import Any

from distill import strict_json
from distill.records import Json, Message
from distill.workflow.given import decoded, require_known_keys
from distill.workflow.markup import CALL_FORM
from distill.workflow.problems import comma_list
from distill.workflow.values import InvalidInputError
from distill.workflow.vendors import in_openai_form

FORMS = (
    'write {"user_content": "…", "tool_name": "…", "tool_arguments": {…}}'
    ' or {"messages": […], "tools": […]}'
)
CALLS_IN_MESSAGES = (
    'write {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "tool_calls": '
    '[{"function": {"name": "…", "arguments": {…}}}, …]}]}'
)
_FORMS = {
    "user_content": ("tool_name", "tool_arguments"),
    "messages": (),
    "conversations": (),
    "prompt": ("completion",),
}
_COMMON = ("rule", "target", "tools", "functions", "system")
_KEYS = (*_COMMON, *_FORMS, *(key for keys in _FORMS.values() for key in keys))
# What else would say something of the label or the conversation: what to write instead.
_IN_MESSAGES = 'write {"messages": […]}, whose last message has them'
_FOREIGN = {
    "tool_calls": _IN_MESSAGES,
    "function_call": _IN_MESSAGES,
    "calls": _IN_MESSAGES,
    "expected_calls": _IN_MESSAGES,
    "expected_tool": 'name it "tool_name"',
    "expected_arguments": 'name it "tool_arguments"',
    "function_name": 'name it "tool_name"',
    "history": 'write {"messages": […]} with every turn',
    "system_prompt": 'name it "system"',
    "tool": 'name it "tool_name"',
    "arguments": 'name it "tool_arguments"',
    **dict.fromkeys(
        ("tool_args", "args", "parameters", "params", "kwargs", "tool_input", "tool_parameters"),
        'name it "tool_arguments"',
    ),
}
# ShareGPT's names of roles, as its many writers have them.
_SHARE_GPT = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
    "tool_response": "tool",
}
_SYSTEM = ("system", "developer")


def form_of(given: Json) -> str:
    """The key that says in which form the row is.

    Raises InvalidInputError for none, two, and a key that is not read in this form.
    """
    found = [name for name in _FORMS if name in given]
    if len(found) > 1:
        raise InvalidInputError(f'gives both "{found[0]}" and "{found[1]}"', "keep one of the two")
    if not found:
        others = comma_list(f'"{key}"' for key in given) or "nothing"
        raise InvalidInputError(f"has no user message, but {others}", FORMS)
    (form,) = found
    require_known_keys(given, _KEYS, _FOREIGN, "the row")
    for key in given:
        unread = key in _KEYS and key not in (*_COMMON, form, *_FORMS[form])
        if unread and given[key] not in ("", [], {}):
            raise InvalidInputError(
                f'gives "{key}" beside "{form}"', f"keep one of the two: {FORMS}"
            )
    return form


def system_turn(given: Json) -> list[Message]:
    """The system message that stands beside the others; none where there is none."""
    text: Any = given.get("system", "")
    if isinstance(text, list):  # parts, as Anthropic and Bedrock have them
        parts: list[Any] = [p.get("text") if isinstance(p, dict) else p for p in text]
        text = "".join(parts) if all(isinstance(part, str) for part in parts) else text
    if not isinstance(text, str):
        raise InvalidInputError("has a system that is not text", "give the system turn's text")
    return [Message(role="system", content=text)] if text.strip() else []


def messages_of(given: Json, form: str) -> list[Any]:
    """The row's messages, in OpenAI's form."""
    value = _listed(given[form], form)
    if form == "prompt":
        value += _listed(given.get("completion"), "completion")
    if form == "conversations":
        value = [_from_share_gpt(turn) for turn in value]
    value = in_openai_form(value)
    system = system_turn(given)
    if system and any(isinstance(turn, dict) and turn.get("role") in _SYSTEM for turn in value):
        raise InvalidInputError("gives a system beside a system message", "keep one of the two")
    return [*(message.model_dump(include={"role", "content"}) for message in system), *value]


def _listed(value: Any, key: str) -> list[Any]:
    """A list of messages, or one that was stored as its JSON text."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = decoded(value, f'"{key}"', FORMS)
    if not isinstance(value, list):
        raise InvalidInputError(f'has a "{key}" that is no list of messages', FORMS)
    return [*value]


def _from_share_gpt(turn: Any) -> Any:
    """A turn of `from` and `value` as one of `role` and `content`."""
    if not isinstance(turn, dict) or "from" not in turn:
        return turn
    speaker, value = turn["from"], turn.get("value")
    if not isinstance(speaker, str) or speaker not in _SHARE_GPT:
        raise InvalidInputError(
            f"has a turn from {strict_json.encode(speaker)}",
            f"use one of {comma_list(_SHARE_GPT)}",
        )
    rest = {key: part for key, part in turn.items() if key not in ("from", "value")}
    if any(rest.get(key) is not None for key in ("role", "content")):
        raise InvalidInputError(
            'has a turn with "from" beside "role" or "content"', 'keep "from" and "value"'
        )
    if speaker in ("function_call", "tool_call"):
        calls = decoded(value, "tool_calls", f"write {CALL_FORM}")
        return {
            **rest,
            "role": "assistant",
            "tool_calls": calls if isinstance(calls, list) else [calls],
        }
    return {**rest, "role": _SHARE_GPT[speaker], "content": value}
