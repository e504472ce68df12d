"""The embedded teacher: offline, free, deterministic by seed, and limited to the rules' own words.

A scenario's topic becomes an utterance: a thing or an action goes into a neutral frame of the
scenario's style, a phrase or an example is used as it stands. The argument is made of the
utterance's own words, in their order, so that it is grounded and can be learned by copying.
"""

from __future__ import annotations

import json
import re
from random import Random
from typing import NamedTuple

from distill.errors import TeacherError
from distill.records import Json, Scenario
from distill.teachers import augment
from distill.teachers.arguments import Filler, Slots
from distill.teachers.base import ChatReply, ChatRequest, Task
from distill.teachers.english import (
    FUNCTION_WORDS,
    NounPhrase,
    content_words,
    gerund,
    without_determiners,
)
from distill.teachers.frames import STYLES, WHOLE_OPENERS
from distill.teachers.surface import Piece, typed
from distill.workflow.model import Rule, RuleExample

VERSION = 1

LIMITS = (
    "The grammar teacher writes single-turn English requests recombined from the rules' own words: "
    "no phrasing or topic that the rules and their words do not hold, no reasoning about the "
    "rules, no other language. For more than that name a model, as in: "
    "--teacher openai --base-url URL --model NAME."
)

# How often random words go into a topic, and then into prompt and argument alike.
QUALIFIED_THINGS = 0.45
QUALIFIED_ACTIONS = 0.4
QUALIFIED_WHOLES = 0.3
QUALIFIED_TWICE = 0.2


class GrammarTeacher:
    """Expands a scenario's topic by rule-blind frames; reads the task, not the messages."""

    name = "grammar"
    fingerprint = f"grammar/{VERSION}"

    async def complete(self, request: ChatRequest) -> ChatReply:
        """The reply as JSON text. Raises TeacherError where the rule leaves an argument open."""
        text = json.dumps(write(request.task), ensure_ascii=False)
        return ChatReply(text=text, model=self.fingerprint)

    async def close(self) -> None:
        """Nothing to release."""


class Draft(NamedTuple):
    """A request before it is typed."""

    pieces: list[Piece]
    mark: str
    """What ends it: a question mark, a full stop or nothing."""
    topic: str
    """What `{topic}` stands for in an argument."""
    given: Json | None = None
    """The arguments that an example brought along."""
    opener: str = ""
    closer: str = ""


def write(task: Task) -> Json:
    """`{"user", "calls"}` for a call, else `{"user", "reply"}`: a function of the scenario alone."""
    scenario, rule = task.scenario, task.rule
    _check(scenario)
    rng = Random(scenario.seed)
    slots = Slots(rule, rng)
    draft = _draft(scenario, rule, slots, rng)
    filler = Filler(task, slots, draft.topic, rng)
    calls = filler.calls(draft.given)
    reply = filler.text(rule.then.reply or rule.then.text)
    pieces = [Piece(draft.opener), *draft.pieces, *filler.mentions]
    user = typed(pieces, draft.mark, draft.closer, scenario.style, rng)
    if rule.then.kind == "call":
        return {"user": user.text, "calls": filler.cased(calls, lower=user.lower)}
    return {"user": user.text, "reply": reply}


def _check(scenario: Scenario) -> None:
    if scenario.style not in STYLES:
        raise TeacherError(
            f'the grammar teacher does not know the style "{scenario.style}"',
            place="[data] styles",
            hint=f"choose among {', '.join(STYLES)}, or name another teacher",
        )
    if scenario.language != "en":
        raise TeacherError(
            f'the grammar teacher does not write "{scenario.language}"',
            place="[data] languages",
            hint="it writes English alone; name another teacher",
        )


def _draft(scenario: Scenario, rule: Rule, slots: Slots, rng: Random) -> Draft:
    topic, words = scenario.topic, rule.words
    if topic in words.things:
        return _thing(slots.fill(topic), scenario.style, rng)
    if topic in words.actions:
        return _action(slots.fill(topic), scenario.style, rng)
    if topic in words.phrases:
        return _phrase(topic, scenario.style, slots, rng)
    for example in rule.examples:
        if example.text == topic:
            return _example(example, rule, scenario.style, rng)
    if topic in (rule.title, rule.when):
        return _thing(_uncapitalised(topic), scenario.style, rng)
    return _example(RuleExample(text=topic), rule, scenario.style, rng)


def _thing(text: str, style: str, rng: Random) -> Draft:
    phrase = NounPhrase.parse(text)
    plural = phrase.plural
    phrase = _qualified_thing(phrase, rng)
    frame = rng.choice(STYLES[style].things)
    frame = _agreed(frame, plural)
    bare = without_determiners(phrase.bare)
    return _framed(frame, phrase.determiner, phrase.bare, bare, style, rng)


def _qualified_thing(phrase: NounPhrase, rng: Random) -> NounPhrase:
    if rng.random() >= QUALIFIED_THINGS:
        return phrase
    both = rng.random() < QUALIFIED_TWICE
    first = rng.random() < 0.4
    if first or both:
        phrase = phrase.with_modifier(augment.before(rng))
    if not first or both:
        phrase = phrase._replace(bare=f"{phrase.bare} {augment.after(rng)}")
    return phrase


def _action(text: str, style: str, rng: Random) -> Draft:
    if rng.random() < QUALIFIED_ACTIONS:
        text = f"{text} {augment.after(rng)}"
        if rng.random() < QUALIFIED_TWICE:
            text = f"{text} {augment.after(rng)}"
    frame = rng.choice(STYLES[style].actions)
    if "{doing}" in frame:
        text = gerund(text)
    return _framed(frame, "", text, without_determiners(text), style, rng)


def _agreed(frame: str, plural: bool) -> str:
    """`{is}` and `{it}` in the number of the thing."""
    is_, it = ("are", "they") if plural else ("is", "it")
    return frame.replace("{is}", is_).replace("{it}", it)


def _framed(frame: str, determiner: str, topic: str, style: str, rng: Random) -> Draft:
    frame, mark = _parted(frame)
    before, field, after = re.split(r"\{(thing|action|doing|bare)\}", frame, maxsplit=1)
    bare = without_determiners(topic)
    lead = before + (f"{determiner} " if determiner and field == "thing" else "")
    said = Piece(bare if field == "bare" else topic, fixed=True)
    opener, closer = _around(STYLES[style].openers, style, rng)
    return Draft([Piece(opener), Piece(lead), said, Piece(after)], mark, closer, bare)


def _around(openers: tuple[str, ...], style: str, rng: Random) -> tuple[str, str]:
    opener = rng.choice(openers).strip()
    return (f"{opener} " if opener else ""), rng.choice(STYLES[style].closers)


def _parted(text: str) -> tuple[str, str]:
    """A request, and the mark that ends it."""
    body = text.rstrip(" .?!")
    return body, text[len(body) :].strip()


def _phrase(template: str, style: str, slots: Slots, rng: Random) -> Draft:
    template, mark = _parted(template)
    if template.endswith("]") and rng.random() < QUALIFIED_WHOLES:
        template = f"{template[:-1]} {augment.after(rng)}]"
    pieces, marked = [], []
    for part in re.split(r"(\[[^\]]*\]|\{[^}]*\})", template):
        inside = part.startswith("[") and part.endswith("]")
        text = slots.fill(part[1:-1] if inside else part)
        pieces.append(Piece(text, fixed=inside or part != text))
        marked += [text] if inside else []
    whole = "".join(piece.text for piece in pieces)
    topic = without_determiners(" ".join(marked)) if marked else content_words(whole)
    return _whole(pieces, mark, topic, style, rng)


def _example(example: RuleExample, rule: Rule, style: str, rng: Random) -> Draft:
    text, mark = _parted(example.text)
    topic, given = content_words(text), example.arguments
    extra = ""
    if rng.random() < QUALIFIED_WHOLES and not re.search(r"[.?!]\s", text):
        extra = f" {augment.after(rng)}"
        given = _extended(given, extra)
        topic += without_determiners(extra)
    pieces = [Piece(text, fixed=True), Piece(extra, fixed=True)]
    return _whole(pieces, mark, topic, style, rng)._replace(given=given)
