"""The parsed workflow: tools, rules, words and gold cases, with their line numbers."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

from pydantic import Field

from distill.errors import Problem
from distill.records import Candidate, Case, Cell, Json, Record, TargetKind, digest


class Tool(Record):
    """One callable function with a JSON Schema for its arguments."""

    name: str
    description: str
    parameters: Json
    """A JSON Schema of type object."""

    def openai(self) -> Json:
        """The tool as chat APIs and chat templates take it."""
        function: Json = {
            "name": self.name,
            "description": self.description,
            "parameters": self.parameters,
        }
        return {"type": "function", "function": function}

    @classmethod
    def of_openai(cls, tool: Json) -> Self:
        """The tool of what `openai` gives."""
        return cls.model_validate(tool["function"])


class ToolDefinition(NamedTuple):
    """A tool as a file defines it, unchecked, and the line where it starts."""

    schema: Any
    line: int


class CallSpec(Record):
    """A call that a rule demands: the tool, and what the rule itself says of the arguments.

    A string value may hold `{topic}` (what the request is about) or `{slot}` (one of the rule's
    slot lists); arguments that the rule leaves out are the teacher's to fill.
    """

    tool: str
    arguments: Json = {}


class Then(Record):
    """The action that a rule demands."""

    kind: TargetKind
    calls: tuple[CallSpec, ...] = ()
    reply: str = ""
    """For ask, answer and refuse: the words to say; empty where `text` tells how to find them."""
    text: str
    """The sentence as the expert wrote it."""
    remarks: tuple[str, ...] = Field(exclude=True, default=())
    """What it says besides its calls: only models read it, as part of `text`."""

    @property
    def said(self) -> str:
        """For ask, answer and refuse: what may hold slots."""
        return "" if self.kind == "call" else self.reply or self.text


class RuleExample(Record):
    """A request that the rule covers; `arguments` are those of its (first) call where given."""

    text: str
    arguments: Json | None = None
    line: int = Field(exclude=True, default=0)
    left_out: tuple[str, ...] = Field(exclude=True, default=())
    """Arguments that the example says are not set, as `name: null`."""


class CounterExample(Record):
    """A request that looks like the rule's, and the rule that wins instead."""

    text: str
    winner: str
    line: int = Field(exclude=True, default=0)


class Words(Record):
    """The vocabulary that the offline teacher expands.

    things: noun phrases that requests are about ("the parental leave policy")
    actions: verb phrases that requests want done ("book a meeting room")
    phrases: whole requests, `[topic]` in brackets and `{slot}` in braces
    slots: lists to fill `{name}` with, in things, actions and phrases
    """

    things: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    phrases: tuple[str, ...] = ()
    slots: dict[str, tuple[str, ...]] = {}


class Rule(Record):
    """One business rule: when it applies, and the action that must follow."""

    id: str
    title: str
    when: str
    then: Then
    examples: tuple[RuleExample, ...] = ()
    counter_examples: tuple[CounterExample, ...] = ()
    words: Words = Words()
    text: str
    """The rule's section of rules.md as it stands there, without its words: what a model reads."""
    line: int = Field(exclude=True, default=0)
    notes: tuple[str, ...] = Field(exclude=True, default=())
    """What else stands in the section: prose that only models read, as part of `text`."""

    @property
    def cell(self) -> Cell:
        return Cell(self.id, self.then.kind)


class Workflow(Record):
    """Rules, tools, an optional gold set and optional labelled rows of the team's own.

    Line numbers are excluded from dumps, so that moving a rule down the page changes no identity.
    """

    name: str
    title: str
    prose: str
    """What stands before the first rule."""
    rules: tuple[Rule, ...]
    tools: tuple[Tool, ...]
    gold: tuple[Case, ...] = ()
    rows: tuple[Candidate, ...] = ()
    """The team's own labelled rows: trained on, as generated ones are."""
    sources: tuple[Path, ...] = Field(exclude=True, default=())
    """The files that it was read from, rules.md first."""
    remarks: tuple[Problem, ...] = Field(exclude=True, default=())
    """What may be wrong in them, and is no error."""

    @cached_property
    def by_id(self) -> dict[str, Rule]:
        return {rule.id: rule for rule in self.rules}

    @cached_property
    def by_name(self) -> dict[str, Tool]:
        return {tool.name: tool for tool in self.tools}

    @cached_property
    def fingerprint(self) -> str:
        """The identity of all that data is made from; gold counts, as data is kept off it."""
        # Without rows of one's own it is what it was before there could be any.
        return digest(self.model_dump(mode="json", exclude=None if self.rows else {"rows"}))
