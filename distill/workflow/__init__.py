"""rules.md, tools, words and gold as one Workflow, errors with file:line."""

from __future__ import annotations

from distill.workflow.cases import read_cases
from distill.workflow.explain import explain, explanation_page
from distill.workflow.lint import lint
from distill.workflow.load import load_workflow
from distill.workflow.scaffold import scaffold
from distill.workflow.tools import read_tools
from distill.workflow.values import typed_argument

__all__ = [
    "explain",
    "explanation_page",
    "lint",
    "load_workflow",
    "read_cases",
    "read_tools",
    "scaffold",
    "typed_argument",
]
