"""What end-to-end tests share: a small workflow, the command line, a tiny student."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

RULES = """---
title: Front desk
tools: tools.json
---
The front desk of a small museum.

## opening: Opening hours and prices

**When** the visitor asks when the museum is open, or what it costs.

**Then** call `visitor_info` with `topic` = "{topic}".

### Examples
- When do you open on Sundays? → topic: "open on Sundays"
- What does a family ticket cost? → topic: "family ticket cost"

### Words
#### Things
- the opening hours; the family ticket; the student discount; the evening opening; the annual pass
- the audio guide; the cloakroom; the lockers; the group rate; the free Sunday
#### Actions
- buy a ticket; book a guided tour; rent a wheelchair; bring a pram; get a refund for a ticket

## collection: The collection

**When** the visitor asks about a work, an artist or an exhibition.

**Then** call `search_collection` with `query` = "{topic}".

### Examples
- Where is the bronze horse? → query: "bronze horse"

### Not
- When does the Vermeer show open? → opening

### Words
#### Things
- the bronze horse; the Vermeer room; the Etruscan vases; the glass collection; the cubist paintings
- the Chagall windows; the coins; the portrait of a miller; the plaster casts; the silk maps
#### Actions
- see the mummies; find the Dutch masters; photograph the dinosaur; sketch the marble torso

## thanks: Thanks and goodbyes

**When** the visitor only says thank you or goodbye.

**Then** answer "You are welcome, enjoy your visit."

### Examples
- Thank you so much!
- That is all, bye.
- Great, thanks for the help.
- Lovely, see you tomorrow.
"""
TOOLS = """[
  {"type": "function", "function": {"name": "visitor_info",
    "description": "Hours, prices and services.",
    "parameters": {"type": "object", "properties": {"topic": {"type": "string",
      "description": "what about"}}, "required": ["topic"]}}},
  {"type": "function", "function": {"name": "search_collection",
    "description": "Search the works in the museum.",
    "parameters": {"type": "object", "properties": {"query": {"type": "string",
      "description": "words to search for"}}, "required": ["query"]}}}
]
"""
GOLD = """{"user_content": "hi, how much is it for two adults?", "tool_name": "visitor_info", \
"tool_arguments": "{\\"topic\\": \\"two adults\\"}", "rule": "opening"}
{"user_content": "is the big Monet back yet", "tool_name": "search_collection", \
"rule": "collection"}
{"user_content": "cheers mate", "target": "answer", "rule": "thanks"}
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder with a small valid workflow."""
    folder = tmp_path / "desk"
    folder.mkdir()
    for name, text in (("rules.md", RULES), ("tools.json", TOOLS), ("gold.jsonl", GOLD)):
        (folder / name).write_text(text, "utf-8")
    return folder


@pytest.fixture
def distill(tmp_path: Path) -> Run:
    """The command line as a person calls it, in a folder of its own."""

    def run(
        *arguments: object, timeout: float = 120, environment: Mapping[str, str] = {}
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "distill", *map(str, arguments)]
        known = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
        known |= {"NO_COLOR": "1", "COLUMNS": "200", **environment}
        return subprocess.run(
            command, cwd=tmp_path, env=known, capture_output=True, text=True, timeout=timeout
        )

    return run


@pytest.fixture(scope="session")
def tiny_student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random causal model of two layers, in a folder as the hub would have it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from distill.students import load_student

    folder = tmp_path_factory.mktemp("students") / "tiny"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=30522,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=2048,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    load_student("embedded", ()).tokenizer.save_pretrained(folder)
    return folder
