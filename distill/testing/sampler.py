"""Samples random values that meet a JSON Schema, as a server with structured output would."""

from __future__ import annotations

import random
import re._parser as re_parser  # type: ignore[import-not-found]
from typing import Any

WORDS = ["budget", "travel", "policy", "garden", "invoice", "café", "東京", "parcel", "noon"]


def sample(schema: Any, rng: random.Random, root: Any = None) -> Any:
    """A value for a schema in the subset that strict structured output supports."""
    root = schema if root is None else root
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/").replace("~1", "/").replace("~0", "~")
        return sample(root["$defs"][name], rng, root)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return rng.choice(schema["enum"])
    if "anyOf" in schema:
        return sample(rng.choice(schema["anyOf"]), rng, root)
    kind = schema.get("type", "string")
    return _sample_type(rng.choice(kind) if isinstance(kind, list) else kind, schema, rng, root)


def _sample_type(kind: str, schema: Any, rng: random.Random, root: Any) -> Any:
    match kind:
        case "object":
            members = schema.get("properties", {})
            return {name: sample(member, rng, root) for name, member in members.items()}
        case "array":
            low = schema.get("minItems", 0)
            branches = schema["items"].get("anyOf", [])
            if branches and low == schema.get("maxItems") == len(branches):
                # Several calls: a good model makes each of them, in order.
                return [sample(branch, rng, root) for branch in branches]
            count = rng.randint(low, schema.get("maxItems", low + 2))
            return [sample(schema["items"], rng, root) for _ in range(count)]
        case "integer":
            return rng.randint(schema.get("minimum", 0), schema.get("maximum", 9))
        case "number":
            return rng.uniform(schema.get("minimum", 0), schema.get("maximum", 9))
        case "boolean":
            return rng.random() < 0.5
        case "null":
            return None
    if "pattern" in schema:
        return _match_pattern(re_parser.parse(schema["pattern"]), rng)
    return " ".join(rng.choices(WORDS, k=rng.randint(3, 8)))


def _match_pattern(parsed: Any, rng: random.Random) -> str:
    """A string that matches a regular expression of literals, classes, repeats and groups."""
    return "".join(_match_part(str(kind), value, rng) for kind, value in parsed)


def _match_part(kind: str, value: Any, rng: random.Random) -> str:
    match kind:
        case "LITERAL":
            return chr(value)
        case "IN":
            member, argument = rng.choice(value)
            return _match_class(member, argument, rng)
        case "MAX_REPEAT" | "MIN_REPEAT":
            low, high, inner = value
            return "".join(
                _match_pattern(inner, rng) for _ in range(rng.randint(low, min(high, low + 3)))
            )
        case "SUBPATTERN":
            return _match_pattern(value[-1], rng)
        case "BRANCH":
            return _match_pattern(rng.choice(value[1]), rng)
        case "AT":
            return ""
    raise NotImplementedError(f"the sampler knows no {kind} in a pattern")


def _match_class(kind: Any, value: Any, rng: random.Random) -> str:
    match str(kind):
        case "LITERAL":
            return chr(value)
        case "RANGE":
            return chr(rng.randint(*value))
        case "CATEGORY":
            return {"CATEGORY_DIGIT": "7", "CATEGORY_WORD": "w", "CATEGORY_SPACE": " "}[str(value)]
    raise NotImplementedError(f"the sampler knows no {kind} in a class")
