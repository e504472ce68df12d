"""candidates -> examples: format, then schema, then grounding.

Each check looks at one candidate and gives a reason and a detail when it must be rejected. The
first that does decides, so a later check may rely on the earlier ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from distill.config import DataConfig
from distill.grounding import is_grounded
from distill.records import (
    Candidate,
    Example,
    Reason,
    Rejection,
    Sifted,
    canonical_json,
)
from distill.workflow.model import Workflow

Verdict = tuple[Reason, str] | None
Check = Callable[[Candidate, Workflow, DataConfig], Verdict]


def validate(
    candidates: Iterable[Candidate], workflow: Workflow, data: DataConfig
) -> Sifted[Example]:
    """Keep the candidates that pass every check; both lists come back in the order of ids."""
    sifted: Sifted[Example] = Sifted([], [])
    for candidate in sorted(candidates, key=lambda c: c.id):
        verdict = _first_verdict(candidate, workflow, data)
        if verdict is None:
            sifted.kept.append(Example.promote(candidate))
        else:
            reason, detail = verdict
            sifted.rejected.append(
                Rejection(stage="validate", reason=reason, detail=detail, item=candidate)
            )
    return sifted


def _first_verdict(candidate: Candidate, workflow: Workflow, data: DataConfig) -> Verdict:
    verdicts = (check(candidate, workflow, data) for check in CHECKS)
    return next((verdict for verdict in verdicts if verdict is not None), None)


def _empty_prompt(candidate: Candidate, workflow: Workflow, data: DataConfig) -> Verdict:
    if not any(message.role == "user" for message in candidate.messages):
        return Reason.EMPTY_PROMPT, "the conversation has no turn of the user"
    if not any(char.isprintable() and not char.isspace() for char in candidate.prompt):
        return Reason.EMPTY_PROMPT, "the user's last turn has no visible character"
    return None


def _prompt_too_long(candidate: Candidate, workflow: Workflow, data: DataConfig) -> Verdict:
    length = len(candidate.prompt)
    if length > data.max_prompt_chars:
        return Reason.PROMPT_TOO_LONG, f"{length} characters, the limit is {data.max_prompt_chars}"
    return None


# C0 controls but tab and newline (CRLF is a newline), surrogates, U+FFFD, noncharacters.
_BAD = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffd\ufdd0-\ufdef"
    + "".join(
        f"{chr(plane + 0xFFFE)}{chr(plane + 0xFFFF)}" for plane in range(0, 0x110000, 0x10000)
    )
    + "]|\r(?!\n)"
)


def _bad_characters(candidate: Candidate, workflow: Workflow, data: DataConfig) -> Verdict:
    for place, text in _texts(candidate):
        found = _BAD.search(text)
        if found:
            code = f"U+{ord(found.group()):04X}"
            return Reason.BAD_CHARACTERS, f"{code} at character {found.start() + 1} of {place}"
    return None


def _unknown_tool(candidate: Candidate, workflow: Workflow, data: DataConfig) -> Verdict:
    for call in candidate.target.calls:
        if call.name not in workflow.by_name:
            return Reason.UNKNOWN_TOOL, f"the workflow has no tool {call.name}"
        if call.name not in candidate.scenario.tools:
            return Reason.UNKNOWN_TOOL, f"the conversation does not offer {call.name}"
    return None


def _wrong_target(candidate: Candidate, workflow: Workflow, data: DataConfig) -> Verdict:
    scenario, target = candidate.scenario, candidate.target
    if target.kind != scenario.target:
        return Reason.WRONG_TARGET, f"{target.kind} where {scenario.target} was asked for"
    specs = _specs(candidate, workflow)
    wanted = [spec.tool for spec in specs]
    called = [call.name for call in target.calls]
    if called != wanted:
        return Reason.WRONG_TARGET, f"calls {_list(called)} where the rule calls {_list(wanted)}"
    for spec, call in zip(specs, target.calls, strict=True):
        for name, value in spec.arguments.items():
            if not _follows(value, call.arguments.get(name)):
                given = canonical_json(call.arguments.get(name))
                detail = f"{call.name}: {name} is {given}, the rule says {canonical_json(value)}"
                return Reason.WRONG_TARGET, detail
    return None


def _invalid_arguments(candidate: Candidate, workflow: Workflow, data: DataConfig) -> Verdict:
    for call in candidate.target.calls:
        problem = argument_problem(call, workflow.by_name[call.name])
        if problem:
            return Reason.INVALID_ARGUMENTS, f"{call.name}: {problem}"
    return None


def _ungrounded_argument(candidate: Candidate, workflow: Workflow, data: DataConfig) -> Verdict:
    heard = "\n".join(m.content for m in candidate.messages if m.role in ("user", "tool"))
    fixed = _fixed_values(candidate, workflow)
    for call in candidate.target.calls:
        schema = workflow.by_name[call.name].parameters
        for path, value in _leaves(call.arguments):
            if (
                _key(value) not in fixed
                and _key(value) not in _schema_values(canonical_json(schema))
                and not is_grounded(value, heard)
            ):
                detail = f"{call.name}: {_path(path)} is {canonical_json(value)}"
                return Reason.UNGROUNDED_ARGUMENT, f"{detail}, which the conversation does not say"
    return None


def _empty_reply(candidate: Candidate, workflow: Workflow, data: DataConfig) -> Verdict:
    target = candidate.target
    if target.kind != "call" and not target.reply.strip():
        return Reason.EMPTY_REPLY, f"nothing is said to {target.kind}"
    return None


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
