"""Examples in OpenAI's chat format, the label as the last message, for trainers and templates."""

from __future__ import annotations

from distill.records import Example, Json, Message
from distill.workflow.model import Workflow


def chat_row(example: Example, workflow: Workflow) -> Json:
    """A row of id, rule, target, messages (with the label) and tools, in OpenAI's chat format."""
    target, own = example.target, example.tools
    usual = (workflow.by_name[name].openai() for name in example.scenario.tools)
    label = Message(role="assistant", content=target.reply, tool_calls=target.calls)
    return {
        "id": example.id,
        "rule": example.scenario.rule,
        "target": target.kind,
        "messages": [chat_message(message) for message in (*example.messages, label)],
        "tools": [*(usual if own is None else own)],
    }


def chat_message(message: Message) -> Json:
    """One message; its calls' arguments are objects, as in chat templates, not JSON strings."""
    row: Json = {"role": message.role, "content": message.content}
    if message.tool_calls:
        row["tool_calls"] = [
            {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.name is not None:
        row["name"] = message.name
    return row
