"""An Ollama Modelfile whose template renders the student's prompt, character for character.

Ollama's own template for FunctionGemma changes the sentence that the model was trained to expect
and drops enums. So nothing is left to it here: what distill's renderer writes around a request,
declarations included, stands in TEMPLATE as text. `render` reads a written Modelfile again, with
the few actions of Go's text/template that stand in one, so that it can be compared.

Source: https://docs.ollama.com/modelfile, and ollama's template/template.go.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from distill.errors import ExportError
from distill.export.template import probes
from distill.files import write_text
from distill.records import Message
from distill.render import Renderer

MARKS = tuple(f"\ue000{name}\ue000" for name in ("system", "first", "answer", "second"))
"""Stand for what is said; private use characters, which no template holds."""
MODELFILE = "Modelfile"


def write_modelfile(renderer: Renderer, folder: Path, weights: str, *, bos_by_runtime: bool) -> int:
    """Write a Modelfile beside the GGUF file `weights`; how many probes it rendered the same.

    bos_by_runtime: whether the GGUF file has the runtime put the opening token in front, so that
        the template must not.

    Raises ExportError for a student whose prompts are no text around what is said.
    """
    bos = (renderer.tokenizer.bos_token or "") if bos_by_runtime else ""
    stops = [renderer.decode([token]) for token in renderer.stop_ids]
    lines = [
        f"FROM ./{weights}",
        f'TEMPLATE """{template(renderer, bos)}"""',
        *(f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in stops),
        "PARAMETER temperature 0",
        # Of the runtime's own habits none applies, as in distill.
        "PARAMETER repeat_penalty 1",
    ]
    path = folder / MODELFILE
    write_text(path, "\n".join(lines) + "\n")
    written = path.read_text("utf-8")
    for conversation in probes(renderer):
        expected = renderer.prompt_text(conversation).removeprefix(bos)
        if render(written, conversation) != expected:
            raise _irregular("a conversation of several turns is not its turns in a row")
    return len(probes(renderer))


def template(renderer: Renderer, bos: str = "") -> str:
    """The prompt in Go's template language, without `bos` in front.

    It holds user turns, the assistant's words between them, and a system turn in front.
    """
    system, first, answer, second = MARKS
    conversation = _conversation(*MARKS)
    alone = renderer.prompt_text(conversation[1:]).removeprefix(bos)
    told = renderer.prompt_text(conversation).removeprefix(bos)
    head, to_answer, from_answer, tail = _between(alone, first, answer, second)
    before, after, *rest = _between(told, system, first, answer, second)
    if rest != [to_answer, from_answer, tail]:
        raise _irregular("a system turn changes more than the beginning")
    return (
        "{{ if .System }}"
        f"{_text(before)}{{{{ .System }}}}{_text(after)}"
        f"{{{{ else }}}}{_text(head)}{{{{ end }}}}"
        '{{ range .Messages }}{{ if eq .Role "user" }}{{ .Content }}'
        f'{{{{ else if eq .Role "assistant" }}}}{_text(to_answer)}{{{{ .Content }}}}'
        f"{_text(from_answer)}{{{{ end }}}}{{{{ end }}}}{_text(tail)}"
    )


def render(modelfile: str, messages: Sequence[Message]) -> str:
    """What Ollama makes of a conversation with the TEMPLATE of a Modelfile that was written here.

    Its system turns are joined into .System, and .Messages holds every turn.
    """
    found = re.search(r'^TEMPLATE """(.*?)"""$', modelfile, re.DOTALL | re.MULTILINE)
    assert found, "a Modelfile that was written here has a TEMPLATE"
    system = "\n\n".join(message.content for message in messages if message.role == "system")
    return _Template(found[1]).render(system, messages)


def _conversation(system: str, first: str, answer: str, second: str) -> list[Message]:
    return [
        Message(role="system", content=system),
        Message(role="user", content=first),
        Message(role="assistant", content=answer),
        Message(role="user", content=second),
    ]


def _between(text: str, *marks: str) -> list[str]:
    """The pieces around the marks, which must stand there once and in this order."""
    places = [text.find(mark) for mark in marks]
    once = all(text.count(mark) == 1 for mark in marks)
    if not once or any(one >= other for one, other in pairwise(places)):
        raise _irregular("what is said does not stand there once and as it is")
    return re.split("|".join(marks), text)


def _text(text: str) -> str:
    """Text as it stands in a template, in three quotes; what means something there, as a string."""
    # Braces in front of an action would run into its own.
    odd = r'\{*"{3,}|\{{2,}|\{+\Z|"+\Z'
    return re.sub(odd, lambda found: f"{{{{ {json.dumps(found[0])} }}}}", text)


class _Template:
    """The part of text/template that `template` uses: if, else, range, fields and strings."""

    def __init__(self, source: str) -> None:
        self.parts = re.split(r"\{\{ (.*?) \}\}", source, flags=re.DOTALL)

    def render(self, system: str, messages: Sequence[Message]) -> str:
        self.system, self.messages = system, messages
        text, at = self._block(0, None)
        assert at == len(self.parts), "every block is closed"
        return text

    def _block(self, at: int, message: Message | None) -> tuple[str, int]:
        """The text from part `at` on, up to the action that ends the block."""
        said = ""
        while at < len(self.parts):
            if at % 2 == 0:
                said += self.parts[at]
            elif self.parts[at] == "end" or self.parts[at].startswith("else"):
                return said, at
            else:
                text, at = self._action(at, message)
                said += text
            at += 1
        return said, at

    def _action(self, at: int, message: Message | None) -> tuple[str, int]:
        """What the action at `at` says, and where it ends."""
        action = self.parts[at]
        if action.startswith('"'):
            return str(json.loads(action)), at
        if action.startswith("if "):
            return self._choice(at, message)
        if action == "range .Messages":
            texts = [self._block(at + 1, one) for one in self.messages]
            return "".join(text for text, _ in texts), self._block(at + 1, None)[1]
        return {".System": self.system, ".Content": message.content if message else ""}[action], at

    def _choice(self, at: int, message: Message | None) -> tuple[str, int]:
        chosen: str | None = None
        condition = self.parts[at].removeprefix("if ")
        while True:
            text, end = self._block(at + 1, message)
            if chosen is None and self._holds(condition, message):
                chosen = text
            if self.parts[end] == "end":
                return chosen or "", end
            at, condition = end, self.parts[end].removeprefix("else").strip().removeprefix("if ")

    def _holds(self, condition: str, message: Message | None) -> bool:
        if condition == ".System":
            return bool(self.system)
        role = condition.removeprefix("eq .Role ")
        return not condition or (message is not None and json.dumps(message.role) == role)


def _irregular(cause: str) -> ExportError:
    return ExportError(
        f"its prompts cannot be written as an Ollama template: {cause}",
        hint="export it with --format gguf, and send whole prompts to the runtime",
    )
