"""An Ollama Modelfile whose TEMPLATE renders the student's prompt, character for character.

Ollama's own template for FunctionGemma changes the trigger sentence and drops enums. So TEMPLATE
contains all that distill's renderer writes around the messages, declarations included, as text. A
control token in a message is quoted, byte by byte, as Go's templates have no function to replace
text; ranging over a number needs Go 1.24, with which Ollama is built since 2025.
`render_modelfile` evaluates a written Modelfile for comparison; it implements the few actions of
Go's text/template that occur in one.

Source: https://docs.ollama.com/modelfile, and ollama's template/template.go.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import groupby, pairwise
from pathlib import Path

from distill import strict_json
from distill.errors import ExportError
from distill.export.quoting import Markers, find_markers
from distill.export.template import PROBE_CONVERSATIONS
from distill.files import write_text
from distill.records import Message
from distill.render import Renderer

PLACEHOLDERS = tuple(f"\ue000{name}\ue000" for name in ("system", "first", "answer", "second"))
"""Placeholders for message contents; private-use characters, which occur in no template."""
MODELFILE = "Modelfile"


def write_modelfile(renderer: Renderer, folder: Path, weights: str, *, bos_by_runtime: bool) -> int:
    """Write a Modelfile for the GGUF file `weights`; the number of probes that it renders the same.

    bos_by_runtime: whether the GGUF file makes the runtime add BOS, so that the template must not

    Raises ExportError if the student's prompts are not fixed text around the messages.
    """
    bos = (renderer.tokenizer.bos_token or "") if bos_by_runtime else ""
    stops = [renderer.decode([token]) for token in renderer.stop_ids]
    lines = [
        f"FROM ./{weights}",
        f'TEMPLATE """{go_template(renderer, bos)}"""',
        *(f"PARAMETER stop {strict_json.encode(stop)}" for stop in stops),
        "PARAMETER temperature 0",
        # Ollama's default is not 1, and distill decodes without a penalty.
        "PARAMETER repeat_penalty 1",
    ]
    path = folder / MODELFILE
    write_text(path, "\n".join(lines) + "\n")
    written = path.read_text("utf-8")
    for conversation in PROBE_CONVERSATIONS:
        expected = renderer.prompt_text(conversation).removeprefix(bos)
        if render_modelfile(written, conversation) != expected:
            raise _template_error("a conversation of several turns is not its turns in a row")
    return len(PROBE_CONVERSATIONS)


def go_template(renderer: Renderer, bos: str = "") -> str:
    """The prompt as a Go template, without `bos` in front.

    It renders user messages, assistant messages between them, and a system message in front.
    """
    system, first, answer, second = PLACEHOLDERS
    conversation = [
        Message(role="system", content=system),
        Message(role="user", content=first),
        Message(role="assistant", content=answer),
        Message(role="user", content=second),
    ]
    alone = renderer.prompt_text(conversation[1:]).removeprefix(bos)
    with_system = renderer.prompt_text(conversation).removeprefix(bos)
    head, to_answer, from_answer, tail = _split_at(alone, first, answer, second)
    before, after, *rest = _split_at(with_system, system, first, answer, second)
    if rest != [to_answer, from_answer, tail]:
        raise _template_error("a system turn changes more than the beginning")
    return (
        f"{_define_plain(find_markers(renderer.control))}{{{{ if .System }}}}"
        f'{_escape(before)}{{{{ template "plain" .System }}}}{_escape(after)}'
        f"{{{{ else }}}}{_escape(head)}{{{{ end }}}}"
        '{{ range .Messages }}{{ if eq .Role "user" }}{{ template "plain" .Content }}'
        f'{{{{ else if eq .Role "assistant" }}}}{_escape(to_answer)}'
        f'{{{{ template "plain" .Content }}}}{_escape(from_answer)}{{{{ end }}}}{{{{ end }}}}'
        f"{_escape(tail)}"
    )


def _define_plain(markers: Markers) -> str:
    """The template "plain": a text with a blank in each marker; for others it fails, by name."""
    refused = [text for text in markers.quotable if not text[0].isascii()] + markers.unquotable
    first_bytes = {text: text.encode()[0] for text in (*markers.quotable, *refused)}
    cases = ""
    for byte, texts in groupby(sorted(first_bytes, key=first_bytes.__getitem__), first_bytes.get):
        found = "".join(_if_begins(text, _REFUSE if text in refused else " ") for text in texts)
        cases += f"{{{{ if eq (index $rest 0) {byte} }}}}{found}{{{{ end }}}}"
    return (
        '{{ define "plain" }}{{ $text := . }}{{ range $at := len $text }}'
        "{{ $rest := slice $text $at }}{{ slice $rest 0 1 }}"
        f"{cases}{{{{ end }}}}{{{{ end }}}}"
    )


_REFUSE = '{{ template "a message holds a control token" }}'
"""Fails when it is executed, with these words in the message."""


def _if_begins(marker: str, action: str) -> str:
    size, text = len(marker.encode()), strict_json.encode(marker)
    begins = f"(ge (len $rest) {size}) (eq (slice $rest 0 {size}) {text})"
    return f"{{{{ if and {begins} }}}}{action}{{{{ end }}}}"


def render_modelfile(modelfile: str, messages: Sequence[Message]) -> str:
    """The prompt that Ollama makes of a conversation, from a Modelfile that was written here.

    As in Ollama, the system messages are joined into .System, and .Messages holds all messages.
    """
    found = re.search(r'^TEMPLATE """(.*?)"""$', modelfile, re.DOTALL | re.MULTILINE)
    assert found, "a Modelfile that was written here has a TEMPLATE"
    system = "\n\n".join(message.content for message in messages if message.role == "system")
    return _GoTemplate(found[1]).render(system, messages)


def _split_at(text: str, *placeholders: str) -> list[str]:
    """The pieces around the placeholders, which must occur once each and in this order."""
    offsets = [text.find(placeholder) for placeholder in placeholders]
    once = all(text.count(placeholder) == 1 for placeholder in placeholders)
    if not once or any(one >= other for one, other in pairwise(offsets)):
        raise _template_error("what is said does not stand there once and as it is")
    return re.split("|".join(placeholders), text)


def _escape(text: str) -> str:
    """Text for a Go template in triple quotes: what has a meaning there becomes a string action."""
    # Also braces at the end, which would join those of the action that follows.
    special = r'\{*"{3,}|\{{2,}|\{+\Z|"+\Z'
    return re.sub(special, lambda found: f"{{{{ {strict_json.encode(found[0])} }}}}", text)


class _GoTemplate:
    """The part of text/template that `go_template` uses: if, else, range, fields and strings.

    Of the template "plain" it reads the markers, and does what that does.
    """

    def __init__(self, source: str) -> None:
        plain, start, body = source.partition("{{ if .System }}")
        found = re.findall(r' 0 \d+\) ("(?:[^"\\]|\\.)*")\) \}\} \{\{', plain)
        self.markers = tuple(str(json.loads(text)) for text in found)
        self.parts = re.split(r"\{\{ (.*?) \}\}", start + body, flags=re.DOTALL)

    def render(self, system: str, messages: Sequence[Message]) -> str:
        self.system, self.messages = system, messages
        text, at = self._block(0, None)
        assert at == len(self.parts), "every block is closed"
        return text

    def _block(self, at: int, message: Message | None) -> tuple[str, int]:
        """The text of the block that begins with part `at`, and the index of the action ending it.

        Parts with an even index are text, the others are actions.
        """
        text = ""
        while at < len(self.parts):
            if at % 2 == 0:
                text += self.parts[at]
            elif self.parts[at] == "end" or self.parts[at].startswith("else"):
                return text, at
            else:
                result, at = self._action(at, message)
                text += result
            at += 1
        return text, at

    def _action(self, at: int, message: Message | None) -> tuple[str, int]:
        """The text of the action at `at`, and the index of its end."""
        action = self.parts[at]
        if action.startswith('"'):
            return str(json.loads(action)), at
        if action.startswith("if "):
            return self._if_chain(at, message)
        if action == "range .Messages":
            texts = [self._block(at + 1, one) for one in self.messages]
            return "".join(text for text, _ in texts), self._block(at + 1, None)[1]
        content = message.content if message else ""
        text = {".System": self.system, ".Content": content}[
            action.removeprefix('template "plain" ')
        ]
        marked = (text.startswith(self.markers, at) for at in range(len(text)))
        return "".join(c + " " * found for c, found in zip(text, marked, strict=True)), at

    def _if_chain(self, at: int, message: Message | None) -> tuple[str, int]:
        chosen: str | None = None
        condition = self.parts[at].removeprefix("if ")
        while True:
            text, end = self._block(at + 1, message)
            if chosen is None and self._is_true(condition, message):
                chosen = text
            if self.parts[end] == "end":
                return chosen or "", end
            at, condition = end, self.parts[end].removeprefix("else").strip().removeprefix("if ")

    def _is_true(self, condition: str, message: Message | None) -> bool:
        if condition == ".System":
            return bool(self.system)
        role = condition.removeprefix("eq .Role ")
        return not condition or (message is not None and strict_json.encode(message.role) == role)


def _template_error(cause: str) -> ExportError:
    return ExportError(
        f"its prompts cannot be written as an Ollama template: {cause}",
        hint="export it with --format gguf, and send whole prompts to the runtime",
    )
