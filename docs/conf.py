"""Sphinx settings. `make docs` builds the pages into site/; nothing is fetched, then or later.

Sphinx with MyST and Furo: MkDocs-Material is in maintenance mode ("Inactive" at PyPI), MkDocs 1.6
of 2024 is the last release of MkDocs, and their successor Zensical is in alpha. Furo's pages hold
no script, font or style sheet of another host; mathematics is rendered here, to MathML.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

_VERSION = Path(__file__).parents[1] / "distill" / "version.py"

project = "distill"
release = re.findall(r'__version__ = "(.+)"', _VERSION.read_text("utf-8"))[0]
version = release
html_title = f"distill {release}"
copyright = "the authors of distill; Apache License 2.0"

extensions = ["myst_parser"]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}
root_doc = "index"
myst_enable_extensions = ["dollarmath"]
# Anchors of headings as GitHub makes them, so that links work in both places.
myst_heading_anchors = 3
suppress_warnings: list[str] = []
nitpicky = True
smartquotes = False

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["distill.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_use_index = False
html_theme_options = {"top_of_page_buttons": []}
pygments_style = "friendly"
pygments_dark_style = "monokai"
html_math_renderer = "mathml"


def _inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(convert(node.astext()))
    raise nodes.SkipNode


def _display(translator: Any, node: nodes.math_block) -> None:
    body = convert(node.astext(), display="block")
    translator.body.append(f'<div class="math-block">{body}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer("mathml", (_inline, None), (_display, None))
