"""Who takes part in teacher_throughput.py, and what each needs."""

from __future__ import annotations

import json
from typing import NamedTuple

CALL = {"name": "search_knowledge_base", "arguments": {"query": "vacation days carry over"}}
REPLY = json.dumps({"user": "how many vacation days can i carry over", "calls": [CALL]})


class Contender(NamedTuple):
    """Somebody who does the job. Without a `package`, in the environment of this script."""

    name: str
    script: str
    package: str = ""
    version: str = ""
    extras: tuple[str, ...] = ()
    """Further requirements, that it needs and does not name."""
    parts: tuple[str, ...] = ()
    """Distributions of the same project and version, in case it has to be taken apart."""
    loose: tuple[str, ...] = ()
    """Requirements whose pin is let go where no index has it."""
    variant: str = ""
    calm: bool = True
    """Whether it takes part without a storm, too."""
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
    parts=("data-designer", "data-designer-config", "data-designer-engine"),
    loose=("certifi",),
)
CONTENDERS = (
    Contender("distill", "run_distill.py"),
    Contender("openai", "run_openai.py"),
    Contender("curator", "run_curator.py", "bespokelabs-curator", "0.1.31"),
    DATA_DESIGNER,
    DATA_DESIGNER._replace(name="datadesigner-tuned", variant="tuned", calm=False),
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
