"""DeepFabric, the nearest that it has: one short conversation for each leaf of a topic tree.

It builds its prompts itself, from a system prompt and a topic, and wants conversations back (its
`output_schema` cannot be used with a server of the OpenAI kind in 4.13.0), so that the teacher has
a reply of its own for it. It makes whole batches only: one is the largest divisor of the job that
the concurrency allows.
"""

from __future__ import annotations

from typing import Any

from deepfabric import DataSetGenerator, Tree
from peer_task import MODEL, deliver, read_task


def said_by_assistant(row: dict[str, Any]) -> str | None:
    said = [turn["content"] for turn in row["messages"] if turn["role"] == "assistant"]
    return said[0] if said else None


def main() -> None:
    task = read_task()
    prompts, count = task.prompts(), task.requests
    batch = next(size for size in range(task.concurrency, 0, -1) if count % size == 0)
    # The address is taken from OPENAI_BASE_URL; as an argument it is dropped without a word.
    model = {"provider": "openai", "model_name": MODEL}
    topics = Tree(topic_prompt="requests", **model)
    topics.from_dict_list([{"path": [row["user"]]} for row in prompts])
    generator = DataSetGenerator(
        generation_system_prompt=prompts[0]["system"], conversation_type="basic", **model
    )
    rows = generator.create_data(num_steps=count // batch, batch_size=batch, topic_model=topics)
    deliver(map(said_by_assistant, rows))


if __name__ == "__main__":
    main()
