"""Turns as Anthropic, Bedrock, Gemini, OpenAI's Responses API and LangChain write them.

Each becomes turns in the form of OpenAI's chat completions. What is in none of these forms stays
as it is, for the reader of turns to judge. Thoughts are left out, as students write none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from distill import strict_json
from distill.workflow.values import InvalidInputError

_LANGCHAIN = {
    "human": "user",
    "ai": "assistant",
    "system": "system",
    "tool": "tool",
    "function": "tool",
    "HumanMessage": "user",
    "AIMessage": "assistant",
    "AIMessageChunk": "assistant",
    "SystemMessage": "system",
    "ToolMessage": "tool",
    "FunctionMessage": "tool",
}
_CALLS = ("toolUse", "functionCall", "function_call")
_RESULTS = ("toolResult", "functionResponse", "function_response")
_THOUGHTS = ("thinking", "redacted_thinking", "reasoning")


def row_of_messages(given: dict[str, Any]) -> dict[str, Any]:
    """A row of Gemini's `contents`, or of Responses' `input` and `output`, as one of `messages`."""
    if any(key in given for key in ("messages", "conversations", "user_content", "prompt")):
        return given
    listed = [key for key in ("contents", "input", "output") if isinstance(given.get(key), list)]
    turns = [turn for key in listed for turn in given[key]]
    if listed == ["output"] and isinstance(asked := given.get("input"), str):
        turns = [{"role": "user", "content": asked}, *turns]
    elif listed in ([], ["output"]):
        return given
    rest = {key: value for key, value in given.items() if key not in ("input", *listed)}
    for key in ("systemInstruction", "system_instruction", "instructions"):
        if key in rest and "system" not in rest:
            rest["system"] = _text(rest.pop(key))
    return {**rest, "messages": turns}


def in_openai_form(turns: Sequence[Any]) -> list[Any]:
    """Each turn in the form of chat completions. Raises InvalidInputError."""
    found: list[Any] = []
    for turn in turns:
        is_call = isinstance(turn, dict) and turn.get("type") == "function_call"
        is_call = is_call and turn.get("role") is None
        last = found[-1] if is_call and found and isinstance(found[-1], dict) else {}
        calls = last.get("tool_calls") or []
        for made in _converted(turn):
            if last.get("role") == "assistant" and isinstance(calls, list):  # of the same response
                found[-1] = {**last, "tool_calls": [*calls, *made["tool_calls"]]}
            else:
                found.append(made)
    return found


def _converted(turn: Any) -> Iterator[Any]:
    if not isinstance(turn, dict):
        yield turn
    elif turn.get("role") is not None:
        yield from _of_parts(turn)
    elif (role := _langchain_role(turn)) is not None:
        yield from _of_parts(_from_langchain(turn, role))
    elif isinstance(turn.get("type"), str):
        yield from _item(turn)
    else:
        yield turn


def _item(item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """An item of the Responses API that is no message."""
    if item.get("type") == "function_call":
        call = _call(item.get("call_id"), item.get("name"), item.get("arguments"))
        yield {"role": "assistant", "tool_calls": [call]}
    elif item.get("type") == "function_call_output":
        yield _result(item.get("call_id"), None, item.get("output"))
    elif item.get("type") != "reasoning":
        raise InvalidInputError(
            f"has an item of type {strict_json.encode(item.get('type'))}",
            "keep messages, function_call and function_call_output",
        )


def _langchain_role(turn: dict[str, Any]) -> str | None:
    kind = turn.get("type")
    if kind == "constructor" and isinstance(path := turn.get("id"), list) and path:
        kind = path[-1]
    return _LANGCHAIN.get(kind) if isinstance(kind, str) else None


def _from_langchain(turn: dict[str, Any], role: str) -> dict[str, Any]:
    data = next((turn[key] for key in ("data", "kwargs") if isinstance(turn.get(key), dict)), turn)
    if data.get("invalid_tool_calls"):
        raise InvalidInputError(
            "has invalid_tool_calls in a message", "take them out, or write them as tool_calls"
        )
    further = data.get("additional_kwargs")
    calls = data.get("tool_calls") or (isinstance(further, dict) and further.get("tool_calls"))
    made: dict[str, Any] = {"role": role, "content": data.get("content")}
    if calls:
        is_list = isinstance(calls, list)
        made["tool_calls"] = [_langchain_call(call) for call in calls] if is_list else calls
    given = {key: data[key] for key in ("tool_call_id", "name") if data.get(key) is not None}
    return {**made, **given} if role == "tool" else made


def _langchain_call(call: Any) -> Any:
    is_own = isinstance(call, dict) and "args" in call
    return _call(call.get("id"), call.get("name"), call["args"]) if is_own else call


def _of_parts(turn: dict[str, Any]) -> Iterator[Any]:
    """A turn whose parts hold calls and results, as these turns; any other as it is."""
    key = "content" if turn.get("content") is not None else "parts"
    parts = turn.get(key)
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        yield turn
        return
    calls = [call for part in parts if (call := _part_call(part)) is not None]
    results = [result for part in parts if (result := _part_result(part)) is not None]
    said = [part for part in parts if not (_part_call(part) or _part_result(part))]
    kept = [part for part in said if not _is_thought(part)]
    if key == "content" and len(kept) == len(parts):
        yield turn
        return
    yield from results
    if kept or calls or not results:
        role = "assistant" if turn.get("role") == "model" else turn.get("role")
        rest = {name: value for name, value in turn.items() if name not in (key, "role")}
        made = {**rest, "role": role, "content": kept}
        if calls and not turn.get("tool_calls"):  # LangChain gives them twice
            made["tool_calls"] = calls
        yield made


def _part_call(part: dict[str, Any]) -> dict[str, Any] | None:
    if part.get("type") == "tool_use":
        return _call(part.get("id"), part.get("name"), part.get("input"))
    inner = next((part[key] for key in _CALLS if isinstance(part.get(key), dict)), None)
    if inner is None:
        return None
    arguments = inner.get("input", inner.get("args"))
    return _call(inner.get("toolUseId", inner.get("id")), inner.get("name"), arguments)


def _part_result(part: dict[str, Any]) -> dict[str, Any] | None:
    if part.get("type") == "tool_result":
        return _result(part.get("tool_use_id"), None, part.get("content"))
    inner = next((part[key] for key in _RESULTS if isinstance(part.get(key), dict)), None)
    if inner is None:
        return None
    content = inner.get("content", inner.get("response"))
    return _result(inner.get("toolUseId", inner.get("id")), inner.get("name"), content)


def _is_thought(part: dict[str, Any]) -> bool:
    is_named = part.get("type") in _THOUGHTS or part.get("thought") is True
    return is_named or "reasoningContent" in part


def _call(identity: Any, name: Any, arguments: Any) -> dict[str, Any]:
    given = {} if arguments is None else arguments
    return {"id": identity, "function": {"name": name, "arguments": given}}


def _result(identity: Any, name: Any, content: Any) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": "tool", "content": _text(content)}
    known = {"tool_call_id": identity, "name": name}
    return {**turn, **{key: value for key, value in known.items() if value is not None}}


def _text(content: Any) -> str:
    """The text of a result or of a system instruction; of other JSON, its own."""
    if isinstance(content, Mapping) and isinstance(content.get("parts"), list):
        content = content["parts"]
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        return "".join(
            part["text"] if isinstance(part.get("text"), str) else strict_json.encode(
                part.get("json", part)
            )
            for part in content
        )  # fmt: skip
    return "" if content is None else content if isinstance(content, str) else (
        strict_json.encode(content)
    )  # fmt: skip
