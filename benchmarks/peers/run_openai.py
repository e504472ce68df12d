"""The `openai` client alone, as it comes: its own two retries, one coroutine per slot."""

from __future__ import annotations

import asyncio
import sys

import openai
from peer_task import MODEL, Task, deliver, read_task


async def ask_all(task: Task) -> list[str | None]:
    texts: list[str | None] = []
    pending = iter(task.prompts())
    async with openai.AsyncOpenAI(base_url=task.url, api_key="none") as client:

        async def work() -> None:
            for prompt in pending:
                messages = [{"role": role, "content": text} for role, text in prompt.items()]
                try:
                    reply = await client.chat.completions.create(model=MODEL, messages=messages)
                except openai.APIError as error:
                    print(f"{type(error).__name__}: {error}", file=sys.stderr)
                    continue
                texts.append(reply.choices[0].message.content)

        await asyncio.gather(*(work() for _ in range(task.concurrency)))
    return texts


if __name__ == "__main__":
    deliver(asyncio.run(ask_all(read_task())))
