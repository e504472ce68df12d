"""One rendering of a conversation, for training, evaluation and serving alike."""

from distill.render.chat_template import PROBE_CALL, PROBE_MESSAGE
from distill.render.formats import FORMATS, Format
from distill.render.functiongemma import MARKERS
from distill.render.renderer import Parsed, Rendered, Renderer
from distill.render.syntax import RenderError

__all__ = [
    "FORMATS",
    "MARKERS",
    "PROBE_CALL",
    "PROBE_MESSAGE",
    "Format",
    "Parsed",
    "RenderError",
    "Rendered",
    "Renderer",
]
