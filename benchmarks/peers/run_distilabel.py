"""distilabel: TextGeneration over a list of rows, batches as large as the concurrency."""

from __future__ import annotations

from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration
from peer_task import MODEL, deliver, read_task


def main() -> None:
    task = read_task()
    rows = [{"instruction": row["user"], "system_prompt": row["system"]} for row in task.prompts()]
    with Pipeline(name="throughput", cache_dir=str(task.folder / "cache")) as pipeline:
        load = LoadDataFromDicts(data=rows, batch_size=task.concurrency)
        write = TextGeneration(
            llm=OpenAILLM(model=MODEL, base_url=task.url, api_key="none"),
            input_batch_size=task.concurrency,
        )
        load >> write
    delivered = pipeline.run(use_cache=False)["default"]["train"]
    deliver(delivered["generation"])


if __name__ == "__main__":
    main()
