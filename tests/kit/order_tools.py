"""Tools with an argument of every type, what fixes each, and how a Then with them is read."""

from __future__ import annotations

from distill.workflow.model import Tool
from distill.workflow.then import read_then
from distill.workflow.values import InvalidInputError

FIND = Tool(
    name="find_order",
    description="Find an order.",
    parameters={
        "type": "object",
        "properties": {
            "query": {"type": "string"},
            "limit": {"type": "integer"},
            "city": {"enum": ["Berlin", "Köln"]},
            "amount": {"type": "number"},
            "urgent": {"type": "boolean"},
            "street": {"type": "string"},
        },
        "required": ["query"],
    },
)
SEARCH = Tool(
    name="search",
    description="Search.",
    parameters={"type": "object", "properties": {"text": {"type": "string"}}},
)
TOOLS = {"find_order": FIND, "search": SEARCH}
FIXED = {
    "urgent": ("urgent is true", "urgent=true", True),
    "limit": ("the limit is 3", "limit=3", 3),
    "amount": ("amount = 5.50", "amount=5.50", 5.5),
    "city": ("the city is Berlin", 'city="Berlin"', "Berlin"),
    "street": ('street = "High Street"', 'street="High Street"', "High Street"),
}


def read(text):
    """The text and its arguments; nothing where it is refused."""
    try:
        return [(text, read_then(text, TOOLS).calls[0].arguments)]
    except InvalidInputError:
        return []
