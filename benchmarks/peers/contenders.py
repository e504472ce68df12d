"""The clients that teacher_throughput.py compares, and their requirements."""

from __future__ import annotations

import json
from typing import NamedTuple

CALL = {"name": "search_knowledge_base", "arguments": {"query": "vacation days carry over"}}
REPLY = json.dumps({"user": "how many vacation days can i carry over", "calls": [CALL]})


class Contender(NamedTuple):
    """A client to measure. Without a `package`, it runs in the environment of this script."""

    name: str
    script: str
    package: str = ""
    version: str = ""
    extras: tuple[str, ...] = ()
    """Requirements that its package needs and does not declare."""
    distributions: tuple[str, ...] = ()
    """Distributions of the project, to be installed one by one if the package cannot be."""
    unpinned: tuple[str, ...] = ()
    """Requirements that are installed without their pin if no index has that version."""
    variant: str = ""
    without_faults: bool = True
    """Whether it also takes part without --storm."""
    reply: str = REPLY

    @property
    def environment(self) -> str:
        return self.package.partition("[")[0]

    @property
    def requirements(self) -> list[str]:
        return [f"{self.package}=={self.version}", *self.extras] if self.package else []


def conversation(user: str, assistant: str) -> str:
    turns = [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    return json.dumps({"messages": turns})


DATA_DESIGNER = Contender(
    "datadesigner",
    "run_datadesigner.py",
    "data-designer",
    "0.9.7",
    distributions=("data-designer", "data-designer-config", "data-designer-engine"),
    unpinned=("certifi",),
)
CONTENDERS = (
    Contender("distill", "run_distill.py"),
    Contender("openai", "run_openai.py"),
    Contender("curator", "run_curator.py", "bespokelabs-curator", "0.1.31"),
    DATA_DESIGNER,
    DATA_DESIGNER._replace(name="datadesigner-tuned", variant="tuned", without_faults=False),
    Contender(
        "distilabel", "run_distilabel.py", "distilabel[openai]", "1.5.3", extras=("requests",)
    ),
    Contender(
        "deepfabric",
        "run_deepfabric.py",
        "deepfabric",
        "4.13.0",
        reply=conversation("how many vacation days can i carry over", REPLY),
    ),
)
