"""Move a team's routing workflow, tools and rules, into a small model."""

__version__ = "0.1.0"
