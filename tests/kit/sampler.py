"""Values that meet a JSON Schema, as a server with structured output would write them."""

from __future__ import annotations

import random
from typing import Any

WORDS = ["budget", "travel", "policy", "garden", "invoice", "café", "東京", "parcel", "noon"]


def sample(schema: Any, rng: random.Random, root: Any = None) -> Any:
    """A value of the subset of JSON Schema that strict structured output has."""
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
    return _typed(rng.choice(kind) if isinstance(kind, list) else kind, schema, rng, root)


def _typed(kind: str, schema: Any, rng: random.Random, root: Any) -> Any:
    match kind:
        case "object":
            members = schema.get("properties", {})
            return {name: sample(member, rng, root) for name, member in members.items()}
        case "array":
            low = schema.get("minItems", 0)
            branches = schema["items"].get("anyOf", [])
            if branches and low == schema.get("maxItems") == len(branches):
                # Several calls: a good model makes each of them, in the order of the prompt.
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
    return " ".join(rng.choices(WORDS, k=rng.randint(3, 8)))
