"""Mutations that keep an input's form: lines of a page, nodes of JSON, tokens of a format."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

from fuzz import bundle

INTERESTING: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 1.0, 1.5, -0.0, 1e308, 2**63, 10**400, "", " ", "\n", "\0"),
    *([], {}, [[]], [{}], {"": ""}, {"type": "object"}, {"$ref": "#"}, {"type": "string"}),
    *("{topic}", "{x}", "null", "None", "true", "1", "\ud800", "\x1b[2J", "\u2028", "<escape>"),
    *('{"a": 1}', "[1]", '{"name": "search", "arguments": {}}', "<tool_call>", "</think>"),
)
_WORD = re.compile(rb"\w+|\s+|[^\w\s]")
MAX_DEPTH = 3000


class Mutator:
    """Mutates inputs like the `seeds`, from whose parts it borrows; `tokens` are inserted too."""

    def __init__(self, seeds: Sequence[bytes], tokens: Sequence[str]) -> None:
        self._seeds = list(seeds)
        self._tokens = [token.encode() for token in tokens]
        self._lines = [line for seed in seeds for line in seed.split(b"\n") if line.strip()]
        self._nodes: list[Any] = list(INTERESTING)
        self._keys: list[str] = []
        for value in filter(_is_container, map(_loads, (*self._lines, *self._texts()))):
            self._collect(value)

    def __call__(self, data: bytes, seed: int) -> bytes:
        """Another input, made by one to four mutations."""
        rng = random.Random(seed)
        for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
            data = self._mutated(data, rng)
        return data

    def _texts(self) -> list[bytes]:
        return [
            text for seed in self._seeds for text in (bundle.split(seed) or {"": seed}).values()
        ]

    def _collect(self, value: Any) -> None:
        queue = [value]
        for node in queue:
            if len(self._nodes) > 20_000:
                return
            self._nodes.append(node)
            if isinstance(node, dict):
                self._keys += node
                queue += node.values()
            elif isinstance(node, list):
                queue += node

    def _mutated(self, data: bytes, rng: random.Random) -> bytes:
        files = bundle.split(data)
        if files:
            first, *others = files
            name = first if not others or rng.random() < 0.7 else rng.choice(others)
            return bundle.join({**files, name: self._mutated(files[name], rng)})
        head, blank, body = data.partition(b"\r\n\r\n")
        if blank:  # an HTTP response
            if rng.random() < 0.2:
                return self._text(head, rng) + blank + body
            return head + blank + self._part(body, rng)
        return self._part(data, rng)

    def _part(self, data: bytes, rng: random.Random) -> bytes:
        if rng.random() < 0.75:
            value = _loads(data)
            if _is_container(value):
                return self._json(value, rng)
            lines = data.split(b"\n")
            parsed = [n for n, line in enumerate(lines) if line[:1] in (b"{", b"[")]
            if parsed:
                at = rng.choice(parsed)
                value = _loads(lines[at])
                if _is_container(value):
                    lines[at] = self._json(value, rng)
                    return b"\n".join(lines)
        return self._text(data, rng)

    def _json(self, value: Any, rng: random.Random) -> bytes:
        changed = self._changed(value, rng)
        try:
            text = json.dumps(
                changed, indent=rng.choice((None, None, 1)), ensure_ascii=rng.random() < 0.5
            )
        except (RecursionError, ValueError):
            return b"[" * rng.randrange(MAX_DEPTH)
        return text.encode("utf-8", "surrogatepass")

    def _changed(self, value: Any, rng: random.Random) -> Any:
        """`value` with one node changed, chosen from all depths alike."""
        if _is_container(value) and value and rng.random() < 0.85:
            copied = dict(value) if isinstance(value, dict) else list(value)
            key = rng.choice(list(copied) if isinstance(copied, dict) else range(len(copied)))  # type: ignore[arg-type]
            if rng.random() < 0.75:
                copied[key] = self._changed(copied[key], rng)  # type: ignore[index]
                return copied
            return self._edited(copied, key, rng)
        if isinstance(value, str) and rng.random() < 0.6:
            inner = _loads(value.encode("utf-8", "surrogatepass"))
            if _is_container(inner):
                return self._json(inner, rng).decode("utf-8", "replace")
            return self._text(value.encode("utf-8", "surrogatepass"), rng).decode(
                "utf-8", "replace"
            )
        return self._replaced(value, rng)

    def _edited(self, copied: Any, key: Any, rng: random.Random) -> Any:
        """A container with a member less, more, moved or renamed."""
        choice = rng.randrange(4)
        if choice == 0:
            del copied[key]
        elif isinstance(copied, dict):
            name = (
                rng.choice(self._keys)
                if self._keys and rng.random() < 0.8
                else rng.choice(("", "a b", "$ref", "\ud800"))
            )
            copied[name] = copied.pop(key) if choice == 1 else rng.choice(self._nodes)
        else:
            copied.insert(key, copied[key] if choice == 1 else rng.choice(self._nodes))
        return copied

    def _replaced(self, value: Any, rng: random.Random) -> Any:
        choice = rng.randrange(10)
        if choice < 5:
            return rng.choice(INTERESTING)
        if choice < 7:
            return rng.choice(self._nodes)
        if choice == 7:
            return json.dumps(value) if _is_shallow(value) else "{"
        if choice == 8:
            return [value] if rng.random() < 0.5 else {"anyOf": [value, {"type": "null"}]}
        for _ in range(rng.choice((5, 70, 900))):
            value = [value]
        return value

    def _text(self, data: bytes, rng: random.Random) -> bytes:
        edit: Callable[[bytes, random.Random], bytes] = rng.choice(
            (self._line_edit, self._line_edit, self._word_edit, self._insert, self._repeat)
        )
        return edit(data, rng)

    def _line_edit(self, data: bytes, rng: random.Random) -> bytes:
        lines = data.split(b"\n")
        at = rng.randrange(len(lines))
        choice = rng.randrange(5)
        if choice == 0:
            del lines[at]
        elif choice == 1 and self._lines:
            lines[at] = rng.choice(self._lines)
        elif choice == 2 and self._lines:
            lines.insert(at, rng.choice(self._lines))
        elif choice == 3:
            lines.insert(at, lines[rng.randrange(len(lines))])
        else:
            lines[at] = rng.choice((b"  ", b"\t", b"- ", b"> ", b"#", b"1. ", b"```")) + lines[at]
        return b"\n".join(lines)

    def _word_edit(self, data: bytes, rng: random.Random) -> bytes:
        words = _WORD.findall(data)
        if not words:
            return data
        at = rng.randrange(len(words))
        other = rng.choice(self._tokens) if self._tokens else b"x"
        words[at] = rng.choice((b"", words[rng.randrange(len(words))], other))
        return b"".join(words)

    def _insert(self, data: bytes, rng: random.Random) -> bytes:
        at = rng.randrange(len(data) + 1)
        return data[:at] + (rng.choice(self._tokens) if self._tokens else b"\0") + data[at:]

    def _repeat(self, data: bytes, rng: random.Random) -> bytes:
        start = rng.randrange(len(data) + 1)
        end = min(len(data), start + rng.choice((1, 2, 5, 20, 100)))
        return data[:start] + data[start:end] * rng.choice((2, 3, 50, 1000)) + data[end:]


def _loads(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _is_container(value: Any) -> bool:
    return isinstance(value, dict | list)


def _is_shallow(value: Any) -> bool:
    try:
        json.dumps(value)
    except (RecursionError, ValueError):
        return False
    return True
