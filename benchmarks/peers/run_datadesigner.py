"""NeMo Data Designer: one text column over a seed dataset.

As `tuned` (for servers that misbehave): a structured column, whose malformed replies are asked for
again, no early shutdown, and an adaptive limit that hardly falls.
"""

from __future__ import annotations

import json
from typing import Any

import data_designer.config as dd
import pandas as pd
from data_designer.interface import DataDesigner
from peer_task import MODEL, Task, deliver, read_task

PROMPT = {"prompt": "{{ user }}", "system_prompt": "{{ system }}"}
SCHEMA = {
    "type": "object",
    "properties": {
        "user": {"type": "string"},
        "calls": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "arguments": {"type": "object"}},
                "required": ["name", "arguments"],
            },
        },
    },
    "required": ["user", "calls"],
}


def column(task: Task) -> Any:
    if task.variant == "tuned":
        return dd.LLMStructuredColumnConfig(
            name="text", model_alias=MODEL, output_format=SCHEMA, **PROMPT
        )
    return dd.LLMTextColumnConfig(name="text", model_alias=MODEL, **PROMPT)


def settings(task: Task) -> dict[str, Any]:
    quiet = {"otel_metrics_port": None}
    if task.variant != "tuned":
        return quiet
    admission = dd.RequestAdmissionTuningConfig(
        multiplicative_decrease_factor=0.99,
        additive_increase_step=8,
        successes_until_increase=1,
        cooldown_seconds=0.1,
    )
    return quiet | {
        "disable_early_shutdown": True,
        "max_conversation_correction_steps": 3,
        "request_admission": admission,
    }


def main() -> None:
    task = read_task()
    model = dd.ModelConfig(
        alias=MODEL,
        model=MODEL,
        provider="local",
        # Its probe would start the clock early.
        skip_health_check=True,
        inference_parameters=dd.ChatCompletionInferenceParams(
            max_parallel_requests=task.concurrency
        ),
    )
    provider = dd.ModelProvider(name="local", endpoint=task.url, api_key="none")
    plan = dd.DataDesignerConfigBuilder(model_configs=[model])
    plan.with_seed_dataset(dd.DataFrameSeedSource(df=pd.DataFrame(task.prompts())))
    plan.add_column(column(task))
    designer = DataDesigner(artifact_path=task.folder / "artifacts", model_providers=[provider])
    designer.set_run_config(dd.RunConfig(**settings(task)))
    rows = designer.create(plan, num_records=task.requests).load_dataset()["text"]
    deliver(row if isinstance(row, str) else json.dumps(row) for row in rows)


if __name__ == "__main__":
    main()
