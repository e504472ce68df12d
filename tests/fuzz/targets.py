"""The targets of fuzzing: what is done with an input, and what must hold of any.

A check takes any bytes. It raises nothing but AssertionError for a property that does not hold, and
what the program raises where it should have refused; DistillError, ReplyError and their like are
the right answers to bad input, and are caught there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from fuzz import seeds

FOUND = Path(__file__).parent / "found"
"""Inputs that once broke a target, in a folder for each."""


class Target(NamedTuple):
    """One kind of input. place: `module:function` of its check, which is slow to import."""

    name: str
    place: str
    seeds: Callable[[], Iterator[bytes]]
    tokens: tuple[str, ...]

    def check(self) -> Callable[[bytes], None]:
        """Imports the check."""
        module, _, function = self.place.partition(":")
        check: Callable[[bytes], None] = getattr(import_module(module), function)
        return check

    def found(self) -> list[Path]:
        return sorted((FOUND / self.name).glob("*"))


_JSON = ('"', "{", "}", "[", "]", ":", ",", "\\u0000", "\\ud800", "1e999", "NaN", "null", "\x00")
_MARKDOWN = (
    *("**When** ", "**Then** ", "### Examples\n", "### Not\n", "### Words\n", "## x: X\n", "# X\n"),
    *("#### Slots\n", "- a: b; c\n", "\n\n", "- ", "→", "->", "=>", "`", '"', "“", "”", "'", "{"),
    *("}", "{topic}", "{x}", "[", "]", "call ", "ask ", "answer ", "refuse ", "with ", " = ", ", "),
    *(" and ", "then ", "<!--", "-->", "```\n", "| a | b |\n", "\\", "\x00", "\xa0", "\u2028", "é"),
    *("null", "true", "3", "[1]", '{"a": 1}', "<br>", "***", "---\n", "&amp;", "\r", "\ufeff"),
)
_SCHEMA = (
    *("$ref", "$defs", "$dynamicRef", "#", "#/$defs/", "#/properties/", "$id", "$anchor", "allOf"),
    *("anyOf", "oneOf", "not", "if", "then", "else", "properties", "required", "type", "object"),
    *("items", "prefixItems", "enum", "const", "nullable", "pattern", "additionalProperties"),
    *("inputSchema", "input_schema", "parametersJsonSchema", "parameters", "description", "tools"),
)
_CHAT = (
    *(
        "messages",
        "role",
        "content",
        "tool_calls",
        "function_call",
        "function",
        "arguments",
        "name",
    ),
    *("user_content", "tool_name", "tool_arguments", "target", "rule", "tools", "tool_call_id"),
    *("assistant", "system", "user", "tool", "developer", "<tool_call>", "</tool_call>", "answer"),
)
_HTTP = (
    *("choices", "message", "usage", "prompt_tokens", "finish_reason", "refusal", "error", "code"),
    *(
        "reasoning_content",
        "length",
        "\r\n",
        "Retry-After: ",
        "Content-Length: ",
        "HTTP/1.1 ",
        "<think>",
    ),
    *("Content-Encoding: deflate\r\n", "data: ", "seed", "temperature", "max_tokens", "</think>"),
)
_CALLS = (
    *(
        "<start_function_call>",
        "<end_function_call>",
        "<escape>",
        "call:",
        "<end_of_turn>",
        "<bos>",
    ),
    *(
        "<start_function_response>",
        "<start_of_turn>",
        "<tool_call>",
        "</tool_call>",
        "<think>",
        ";",
    ),
    *(
        "</think>",
        "<|python_tag|>",
        "[TOOL_CALLS]",
        "name",
        "arguments",
        "parameters",
        "None",
        "-0",
    ),
    *("<pad>", "<|im_end|>", "<unk>", "##s", "Ġ", "1.0", "1e5", "true", "<end_function", "_call>"),
)
_YAML = (
    *("title: ", "tools: ", "words: ", "gold: ", "&a ", "*a", "!!", "!!str ", "|\n", ">-\n", "? "),
    *("- ", "[", "]", "{", "}", "'", '"', "#", "\t", "%", "@", "<<: ", "---", "...", ": ", "\n"),
    *("2024-02-30", "12:60", "1_000", ".inf", ".nan", "0o7", "~", "rules.md", "../x", "/", "\x00"),
)
TARGETS = {
    target.name: target
    for target in (
        Target("rules", "fuzz.workflow_checks:check_rules", seeds.rules, _MARKDOWN),
        Target("tools", "fuzz.workflow_checks:check_tools", seeds.tools, (*_JSON, *_SCHEMA)),
        Target("gold", "fuzz.workflow_checks:check_gold", seeds.gold, (*_JSON, *_CHAT)),
        Target(
            "front-matter", "fuzz.workflow_checks:check_front_matter", seeds.front_matter, _YAML
        ),
        Target("replies", "fuzz.model_checks:check_reply", seeds.replies, (*_JSON, *_HTTP)),
        Target("answers", "fuzz.model_checks:check_answer", seeds.answers, (*_JSON, *_CALLS)),
    )
}
