"""Bespoke Curator: an LLM over a dataset, limits per minute out of the way.

With a response format, since it asks again for what does not meet one.
"""

from __future__ import annotations

from bespokelabs import curator
from bespokelabs.curator.request_processor.online.openai_online_request_processor import (
    OpenAIOnlineRequestProcessor,
)
from peer_task import MODEL, deliver, read_task
from pydantic import BaseModel


class Arguments(BaseModel):
    query: str


class Call(BaseModel):
    name: str
    arguments: Arguments


class Reply(BaseModel):
    user: str
    calls: list[Call]


class Writer(curator.LLM):
    def prompt(self, row: dict[str, str]) -> list[dict[str, str]]:
        return [{"role": role, "content": row[role]} for role in ("system", "user")]

    def parse(self, row: dict[str, str], response: Reply) -> dict[str, str]:
        return {"text": response.model_dump_json()}


def without_probes() -> None:
    """They would start the clock early, and this teacher has one reply, whatever it is asked."""
    OpenAIOnlineRequestProcessor.get_header_based_rate_limits = lambda self: (0, 0)
    OpenAIOnlineRequestProcessor.check_structured_output_support = lambda self: True


def main() -> None:
    task = read_task()
    without_probes()
    writer = Writer(
        model_name=MODEL,
        backend="openai",
        response_format=Reply,
        backend_params={
            "base_url": task.url,
            "api_key": "none",
            "max_concurrent_requests": task.concurrency,
            "max_requests_per_minute": 1_000_000,
            "max_tokens_per_minute": 1_000_000_000,
            "require_all_responses": False,
        },
    )
    delivered = writer(task.prompts(), working_dir=str(task.folder / "curator")).dataset
    deliver(delivered["text"])


if __name__ == "__main__":
    main()
