"""candidates -> examples: format, then schema, then grounding.

Each check takes one candidate and returns the reason and the detail of its rejection, or None. They
run in the order of CHECKS up to the first rejection, so a check may rely on those before it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from jsonschema.exceptions import best_match
from pydantic import JsonValue

from distill.config import DataConfig
from distill.data.grounding import is_grounded
from distill.records import (
    Candidate,
    Example,
    Reason,
    Rejection,
    Sifted,
    ToolCall,
    canonical_json,
)
from distill.workflow.model import CallSpec, Tool, Workflow
from distill.workflow.schema import json_equal, leaves, path_text, schema_of

Verdict = tuple[Reason, str] | None
Check = Callable[[Candidate, Workflow, DataConfig], Verdict]


def validate(
    candidates: Iterable[Candidate], workflow: Workflow, data: DataConfig
) -> Sifted[Example]:
    """Keep the candidates that pass every check; both lists come back in the order of ids.

    The label of the team's own rows is theirs: it is not held to a plan, nor to what was said.
    """
    sifted: Sifted[Example] = Sifted([], [])
    for candidate in sorted(candidates, key=lambda c: c.id):
        checks = (each for each in CHECKS if not (candidate.is_own and each in OF_PLANNED))
        verdicts = (check(candidate, workflow, data) for check in checks)
        verdict = next(filter(None, verdicts), None)
        if verdict is None:
            sifted.kept.append(Example.promote(candidate))
        else:
            reason, detail = verdict
            sifted.rejected.append(
                Rejection(stage="validate", reason=reason, detail=detail, item=candidate)
            )
    return sifted


def _empty_prompt(candidate: Candidate, workflow: Workflow, data: DataConfig) -> Verdict:
    if not any(message.role == "user" for message in candidate.messages):
        return Reason.EMPTY_PROMPT, "the conversation has no turn of the user"
    if not any(
        char.isprintable() and not char.isspace() for char in candidate.conversation.last_user
    ):
        return Reason.EMPTY_PROMPT, "the user's last turn has no visible character"
    return None


def _prompt_too_long(candidate: Candidate, workflow: Workflow, data: DataConfig) -> Verdict:
    length = len(candidate.conversation.last_user)
    if length > data.max_prompt_chars:
        return Reason.PROMPT_TOO_LONG, f"{length} characters, the limit is {data.max_prompt_chars}"
    return None


# C0 controls except tab and newline (CRLF is a newline), surrogates, U+FFFD, noncharacters.
# Emoji, zero-width joiners, bidirectional marks and U+2028 are allowed.
_FORBIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffd\ufdd0-\ufdef"
    + "".join(
        f"{chr(plane + 0xFFFE)}{chr(plane + 0xFFFF)}" for plane in range(0, 0x110000, 0x10000)
    )
    + "]|\r(?!\n)"
)


def _bad_characters(candidate: Candidate, workflow: Workflow, data: DataConfig) -> Verdict:
    for place, text in _trained_texts(candidate):
        found = _FORBIDDEN.search(text)
        if found:
            code = f"U+{ord(found.group()):04X}"
            return Reason.BAD_CHARACTERS, f"{code} at character {found.start() + 1} of {place}"
    return None


def _unknown_tool(candidate: Candidate, workflow: Workflow, data: DataConfig) -> Verdict:
    for call in candidate.target.calls:
        if candidate.tools is None and call.name not in workflow.by_name:
            return Reason.UNKNOWN_TOOL, f"the workflow has no tool {call.name}"
        if call.name not in candidate.scenario.tools:
            return Reason.UNKNOWN_TOOL, f"the conversation does not offer {call.name}"
    return None


def _wrong_target(candidate: Candidate, workflow: Workflow, data: DataConfig) -> Verdict:
    scenario, target = candidate.scenario, candidate.target
    if target.kind != scenario.target:
        return Reason.WRONG_TARGET, f"{target.kind} where {scenario.target} was asked for"
    specs = _required_calls(candidate, workflow)
    required = [spec.tool for spec in specs]
    called = [call.name for call in target.calls]
    if called != required:
        calls, rule_calls = (", ".join(names) or "nothing" for names in (called, required))
        return Reason.WRONG_TARGET, f"calls {calls} where the rule calls {rule_calls}"
    for spec, call in zip(specs, target.calls, strict=True):
        for name, value in spec.arguments.items():
            if not _matches_template(value, call.arguments.get(name)):
                given = (
                    canonical_json(call.arguments[name]) if name in call.arguments else "missing"
                )
                detail = f"{call.name}: {name} is {given}, the rule says {canonical_json(value)}"
                return Reason.WRONG_TARGET, detail
    return None


def _invalid_arguments(candidate: Candidate, workflow: Workflow, data: DataConfig) -> Verdict:
    tools = workflow.by_name
    if candidate.tools is not None:
        tools = {tool.name: tool for tool in map(Tool.of_openai, candidate.tools)}
    for call in candidate.target.calls:
        problem = argument_problem(call, tools[call.name])
        if problem:
            return Reason.INVALID_ARGUMENTS, f"{call.name}: {problem}"
    return None


def _ungrounded_argument(candidate: Candidate, workflow: Workflow, data: DataConfig) -> Verdict:
    specs = _required_calls(candidate, workflow)
    for spec, call in zip(specs, candidate.target.calls, strict=True):
        for name, argument in call.arguments.items():
            trusted = _trusted_values(name, spec, candidate, workflow)
            source = f"{candidate.conversation.said}\n{trusted.words}"
            for path, value in leaves(argument, (name,)):
                if any(json_equal(value, other) for other in trusted.values):
                    continue
                if not is_grounded(value, source):
                    detail = f"{call.name}: {path_text(path)}: {canonical_json(value)} was not said"
                    return Reason.UNGROUNDED_ARGUMENT, detail
    return None


def _empty_reply(candidate: Candidate, workflow: Workflow, data: DataConfig) -> Verdict:
    target = candidate.target
    if target.kind != "call" and not target.reply.strip():
        return Reason.EMPTY_REPLY, f"nothing is said to {target.kind}"
    return None


def argument_problem(call: ToolCall, tool: Tool) -> str | None:
    """The most relevant violation of the tool's schema, with its path; None for a valid call."""
    errors = schema_of(tool).errors(call.arguments)
    if not errors:
        return None
    error = best_match(iter(errors))
    where = path_text(error.absolute_path)
    if error.validator != "unevaluatedProperties":
        return f"{where}: {error.message}"
    return f"{f'{where}: ' if error.absolute_path else ''}unexpected argument: {error.message}"


_PLACEHOLDER = re.compile(r"\{[^{}]*\}")


def _required_calls(candidate: Candidate, workflow: Workflow) -> tuple[CallSpec, ...]:
    """The calls that the rule prescribes; none where the target is not a call."""
    rule = workflow.by_id[candidate.scenario.rule]
    return rule.then.calls if candidate.scenario.target == "call" else ()


def _matches_template(template: JsonValue, value: JsonValue) -> bool:
    """Whether `value` equals the rule's; a string with a placeholder accepts any but null."""
    if isinstance(template, str) and _PLACEHOLDER.search(template):
        return value is not None
    if isinstance(template, dict) and isinstance(value, dict):
        return all(_matches_template(part, value.get(name)) for name, part in template.items())
    if isinstance(template, list) and isinstance(value, list):
        return len(template) == len(value) and all(map(_matches_template, template, value))
    return json_equal(template, value)


class _TrustedValues(NamedTuple):
    values: list[JsonValue]
    words: str
    """The text around the placeholders of the rule's templates."""


def _trusted_values(
    name: str, spec: CallSpec, candidate: Candidate, workflow: Workflow
) -> _TrustedValues:
    """Values of the argument `name` that need no grounding in the conversation.

    They are the rule's constants, the arguments of its example with this prompt, and the enum,
    const and default values of the tool's schema.
    """
    rule = workflow.by_id[candidate.scenario.rule]
    fixed = [value for _, value in leaves(spec.arguments.get(name))]
    templates = [v for v in fixed if isinstance(v, str) and _PLACEHOLDER.search(v)]
    constants = [value for value in fixed if value not in templates]
    from_examples = [
        (example.arguments or {}).get(name)
        for example in rule.examples
        if example.text.strip() == candidate.conversation.key.strip()
    ]
    schema = schema_of(workflow.by_name[spec.tool])
    stated = schema.stated_values(schema.properties.get(name))
    values = [*constants, *(value for _, value in leaves(from_examples)), *stated]
    return _TrustedValues(values, " ".join(_PLACEHOLDER.sub(" ", text) for text in templates))


def _trained_texts(candidate: Candidate) -> Iterator[tuple[str, str]]:
    """Every text that would be trained on, as (its name, the text)."""
    for number, message in enumerate(candidate.messages, start=1):
        yield f"turn {number}", message.content
    yield "the reply", candidate.target.reply
    for call in candidate.target.calls:
        for path, value in leaves(call.arguments):
            if isinstance(value, str):
                yield f"{call.name}: {path_text(path)}", value


CHECKS: tuple[Check, ...] = (
    _empty_prompt,
    _prompt_too_long,
    _bad_characters,
    _empty_reply,
    _unknown_tool,
    _wrong_target,
    _invalid_arguments,
    _ungrounded_argument,
)
OF_PLANNED = frozenset({_wrong_target, _ungrounded_argument})
