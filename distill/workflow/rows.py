"""One row of a gold set, in each of the forms in which people and vendors keep them, as a Case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill import strict_json
from distill.records import TARGET_KINDS, Case, ExpectedCall, Json, Message, TargetKind, digest
from distill.workflow.accord import require_fixed, require_order
from distill.workflow.forms import CALLS_IN_MESSAGES, FORMS, form_of, messages_of, system_turn
from distill.workflow.given import require_readable
from distill.workflow.model import Rule, Tool
from distill.workflow.problems import Problems, comma_list, did_you_mean
from distill.workflow.tools import make_tools, read_tool_list
from distill.workflow.turns import (
    Offered,
    Turn,
    context,
    expected_call,
    read_turns,
    require_valid,
)
from distill.workflow.values import InvalidInputError
from distill.workflow.vendors import row_of_messages

_SAID: dict[TargetKind, str] = {
    "call": "calls", "ask": "asks", "answer": "answers", "refuse": "refuses"
}  # fmt: skip


@dataclass(frozen=True)
class Known:
    """What rows may name. None: anything."""

    tools: Offered
    rules: Mapping[str, Rule] | None


@dataclass(frozen=True)
class _Expected:
    kind: TargetKind
    calls: tuple[ExpectedCall, ...] = ()
    reply: str = ""


def read_row(row: Any, known: Known, place: str) -> Case:
    """The case of a row. Raises InvalidInputError for what is not understood, or contradicts."""
    if not isinstance(row, dict):
        raise InvalidInputError("is not a JSON object", FORMS)
    require_readable(row)
    given = row_of_messages({key: value for key, value in row.items() if value is not None})
    form = form_of(given)
    own = _own_tools(given)
    offered = {tool.name: tool for tool in own} if own is not None else known.tools
    rule = _rule(given, known)
    if form == "user_content":
        messages, expected, unscored = *_from_prompt(given, offered, rule), 0
    else:
        messages, expected, unscored = _from_turns(
            messages_of(given, form), given, offered, known, rule
        )
    if rule is not None and (expected.calls or messages[-1].role != "tool"):
        _require_accord(rule, expected)
        require_order(rule, expected.calls, messages)
        require_fixed(rule, expected.calls, offered)
    fields: dict[str, Any] = {
        "messages": messages,
        "kind": expected.kind,
        "calls": expected.calls,
        "rule": given.get("rule"),
        "tools": tuple(tool.openai() for tool in own) if own is not None else None,
    }
    draft = Case(id="", **fields)
    content = draft.model_dump(mode="json", exclude={"id"})
    require_readable(content)  # what was text within the row is in it
    rest = {"place": place, "unscored": unscored, "reply": expected.reply}
    return draft.model_copy(update={"id": digest(content), **rest})


def _own_tools(given: Json) -> tuple[Tool, ...] | None:
    """The row's tools; `functions` is their older name."""
    found = [key for key in ("tools", "functions") if key in given]
    if len(found) > 1:
        raise InvalidInputError("gives both tools and functions", "keep tools")
    if not found or (isinstance(value := given[found[0]], str) and not value.strip()):
        return None
    problems = Problems(Path())
    try:
        tools = make_tools(read_tool_list(value, problems), problems)
    except InvalidInputError as fault:
        raise InvalidInputError(f'has a "{found[0]}" that {fault.cause}', fault.hint) from None
    if problems.found:
        raise InvalidInputError(f"offers: {problems.found[0].cause}", problems.found[0].hint)
    return tools


def _rule(given: Json, known: Known) -> Rule | None:
    """The rule that the row names, where rules are known."""
    name = given.get("rule")
    if name is None:
        return None
    if not isinstance(name, str):
        raise InvalidInputError("has a rule that is not text", "give the rule's id")
    if known.rules is None:
        return None
    if name not in known.rules:
        raise InvalidInputError(
            f'names unknown rule "{name}"', did_you_mean(name, known.rules, "rules")
        )
    return known.rules[name]


def _require_accord(rule: Rule, expected: _Expected) -> None:
    """Raise InvalidInputError where the row expects what its rule does not say."""
    tools = [spec.tool for spec in rule.then.calls]
    strange = [call.name for call in expected.calls if call.name not in tools]
    if rule.then.kind == expected.kind and not strange:
        return
    says = f"calls {comma_list(tools)}" if tools else _SAID[rule.then.kind]
    wants = f"a call of {comma_list(strange)}" if strange else f'the target "{expected.kind}"'
    raise InvalidInputError(
        f'names the rule "{rule.id}", which {says}, and expects {wants}',
        "name the rule that decides so, or correct what is expected",
    )


def _from_prompt(
    given: Json, offered: Offered, rule: Rule | None
) -> tuple[tuple[Message, ...], _Expected]:
    prompt = given["user_content"]
    if not isinstance(prompt, str) or not prompt.strip():
        raise InvalidInputError("has no user message", FORMS)
    kind = _kind(given)
    name = given.get("tool_name")
    if isinstance(name, str) and not name.strip():
        name = None
    if isinstance(name, list):
        raise InvalidInputError(
            "has a tool_name that is a list", f"name one tool; of several calls {CALLS_IN_MESSAGES}"
        )
    if name is not None and not isinstance(name, str):
        raise InvalidInputError("has a tool_name that is not text", FORMS)
    messages = (*system_turn(given), Message(role="user", content=prompt))
    if name is None:
        says = rule.then.kind if rule is not None and rule.then.kind != "call" else None
        expected = _Expected(_reply_kind(kind or says))
        arguments = expected_call("", given.get("tool_arguments"), None).arguments
        if any(value is not None for value in (arguments or {}).values()):
            raise InvalidInputError("has tool_arguments and names no tool", 'add "tool_name"')
        return messages, expected
    if kind not in (None, "call"):
        raise InvalidInputError(
            f'names the tool "{name}" and the target "{kind}"', 'keep one, or set "target": "call"'
        )
    if name.casefold() in (*TARGET_KINDS, "none", "null") and name not in (offered or (name,)):
        raise InvalidInputError(
            f'names the tool "{name}", which is none',
            'leave "tool_name" out, and add "target": "ask", "answer" or "refuse"',
        )
    call = expected_call(name, given.get("tool_arguments"), offered)
    require_valid(call, offered)
    return messages, _Expected("call", (call,))


def _kind(given: Json) -> TargetKind | None:
    kind = given.get("target")
    if kind is None:
        return None
    for known in TARGET_KINDS:
        if kind == known:
            return known
    raise InvalidInputError(
        f"has the unknown target {strict_json.encode(kind)}",
        did_you_mean(str(kind), TARGET_KINDS, "targets"),
    )


def _reply_kind(kind: TargetKind | None) -> TargetKind:
    if kind is None or kind == "call":
        raise InvalidInputError(
            "names no tool" + (", and its target is call" if kind else " and no target"),
            'add "tool_name", or "target": "ask", "answer" or "refuse" where no tool may be called',
        )
    return kind


def _from_turns(
    said: Sequence[Any], given: Json, offered: Offered, known: Known, rule: Rule | None
) -> tuple[tuple[Message, ...], _Expected, int]:
    """The conversation up to the turn that is scored, what is expected, and how many turns follow.

    Scored is the last turn. Where a whole conversation is given, with a call, its result and words
    on it, that is the call: the first after the user's last turn.
    """
    turns = read_turns(said, offered)
    context(turns)
    kind = _kind(given)
    asked = max((at for at, turn in enumerate(turns) if turn.role == "user"), default=None)
    if asked is None and turns and turns[-1].role == "assistant":
        raise InvalidInputError("has no user message", FORMS)
    last = len(turns) - 1
    if kind in (None, "call") and asked is not None and not turns[last].calls:
        last = next((at for at in range(asked, last) if turns[at].calls), last)
    if not turns or turns[last].role != "assistant":
        raise InvalidInputError(
            "does not end with the assistant's turn that is expected",
            "make the last message the assistant's, with tool_calls or content",
        )
    expected = _expected_turn(turns[last], kind, offered, known, rule)
    return context(turns[:last]), expected, len(turns) - 1 - last


def _expected_turn(
    turn: Turn, kind: TargetKind | None, offered: Offered, known: Known, rule: Rule | None
) -> _Expected:
    if turn.calls:
        if kind not in (None, "call"):
            raise InvalidInputError(
                f'ends with a tool call and has the target "{kind}"', "keep one"
            )
        for call in turn.calls:
            require_valid(call, offered)
        return _Expected("call", turn.calls, turn.content)
    return _Expected(_reply_kind(kind or _implied_kind(known, rule)), reply=turn.content)


def _implied_kind(known: Known, rule: Rule | None) -> TargetKind:
    """What words without a target are: what the row's rule says, else an answer."""
    if rule is not None and rule.then.kind != "call":
        return rule.then.kind
    kinds = ["answer"] if known.rules is None else [r.then.kind for r in known.rules.values()]
    if rule is None and "answer" not in kinds:
        raise InvalidInputError(
            "ends with words and has no target, and no rule answers in words",
            'add "target": "ask", "answer" or "refuse"; or give the last message tool_calls',
        )
    return "answer"
