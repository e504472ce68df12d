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
from distill.teachers.base import BatchTask, ChatReply, ChatRequest, RouteTask, WriteTask
from distill.teachers.grammar import augment
from distill.teachers.grammar.arguments import ArgumentFiller, SlotValues, is_free_text
from distill.teachers.grammar.english import (
    NounPhrase,
    content_words,
    ends_open,
    gerund,
    is_article,
    is_function_word,
    without_articles,
    without_determiners,
    word_list,
)
from distill.teachers.grammar.frames import NO_ORDERS, ORDER_OPENERS, STYLES, WHOLE_OPENERS
from distill.teachers.grammar.surface import Piece, is_lower, typed
from distill.workflow.model import RuleExample

VERSION = 1

LIMITS = (
    "The grammar teacher writes single-turn English requests recombined from the rules' own words: "
    "no phrasing or topic that the rules and their words do not hold, no reasoning about the "
    "rules, no other language. For more than that name a model, as in: "
    "--teacher openai --base-url URL --model NAME."
)

_KEPT = frozenset(word_list("how what when where which who whose why our my"))

# How often random words go into a topic, and then into prompt and argument alike.
QUALIFIED_THINGS = 0.4
QUALIFIED_ACTIONS = 0.35
QUALIFIED_WHOLES = 0.25
QUALIFIED_TWICE = 0.12


class GrammarTeacher:
    """Expands a scenario's topic by rule-blind frames; reads the task, not the messages."""

    name = "grammar"
    fingerprint = f"grammar/{VERSION}"

    async def complete(self, request: ChatRequest) -> ChatReply:
        """The reply as JSON text. Raises TeacherError where the rule leaves an argument open."""
        match request.task:
            case WriteTask() as task:
                said = write(task)
            case BatchTask(tasks):
                said = {str(number): write(task) for number, task in enumerate(tasks, start=1)}
            case RouteTask():
                raise TeacherError(
                    "the grammar teacher cannot route", place="--teacher grammar", hint=LIMITS
                )
        return ChatReply(text=json.dumps(said, ensure_ascii=False), model=self.fingerprint)

    def drain(self) -> None:
        """Nothing is ever under way."""

    async def close(self) -> None:
        """Nothing to release."""


class Draft(NamedTuple):
    """A request before it is typed."""

    pieces: list[Piece]
    mark: str
    """What ends it: a question mark, a full stop or nothing."""
    closer: str
    topic: str
    """What `{topic}` stands for in an argument."""
    given: Json | None = None
    """The arguments that an example brought along."""


def write(task: WriteTask) -> Json:
    """`{"user", "calls"}` for a call, else `{"user", "reply"}`; follows from the task alone."""
    _check(task.scenario)
    rng = Random(task.scenario.seed)
    slots = SlotValues(task.rule, rng)
    draft = _draft(task, slots, rng)
    lower = is_lower(task.scenario.style, rng)
    said = "".join(piece.text for piece in draft.pieces)
    filler = ArgumentFiller(task, slots, said, draft.topic.lower() if lower else draft.topic, rng)
    calls = filler.calls(draft.given or {})
    pieces = [*draft.pieces, *filler.mentions]
    user = typed(pieces, draft.mark, draft.closer, lower, rng)
    if task.rule.then.kind == "call":
        return {"user": user, "calls": calls}
    return {"user": user, "reply": filler.text(task.rule.then.reply or task.rule.then.text)}


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


def _draft(task: WriteTask, slots: SlotValues, rng: Random) -> Draft:
    topic, style, words = task.scenario.topic, task.scenario.style, task.rule.words
    if topic in words.things:
        return _thing(slots.fill(topic), style, rng)
    if topic in words.actions:
        return _action(slots.fill(topic), style, rng)
    if topic in words.phrases:
        return _phrase(topic, task, slots, rng)
    for example in task.rule.examples:
        if example.text == topic:
            return _example(example, task, rng)
    if topic in (task.rule.title, task.rule.when):
        return _thing(topic, style, rng)
    return _example(RuleExample(text=topic), task, rng)


def _thing(text: str, style: str, rng: Random) -> Draft:
    phrase = NounPhrase.parse(text)
    frame = rng.choice(STYLES[style].things).replace("{is}", "are" if phrase.plural else "is")
    phrase = _qualified(phrase, rng)
    return _framed(frame, phrase.determiner, phrase.bare, style, rng)


def _qualified(phrase: NounPhrase, rng: Random) -> NounPhrase:
    if rng.random() >= QUALIFIED_THINGS:
        return phrase
    both, first = rng.random() < QUALIFIED_TWICE, rng.random() < 0.4
    if first or both:
        phrase = phrase.with_modifier(augment.before(rng))
    if not first or both:
        phrase = phrase._replace(bare=f"{phrase.bare} {augment.after(rng)}")
    return phrase


def _action(text: str, style: str, rng: Random) -> Draft:
    if rng.random() < QUALIFIED_ACTIONS:
        text = f"{text} {augment.after_action(rng)}"
    frame = rng.choice(STYLES[style].actions)
    return _framed(frame, "", gerund(text) if "{doing}" in frame else text, style, rng)


def _framed(frame: str, determiner: str, topic: str, style: str, rng: Random) -> Draft:
    frame, mark = _parted(frame)
    before, field, after = re.split(r"\{(thing|action|doing|bare)\}", frame, maxsplit=1)
    if field == "bare":
        topic = without_articles(topic)
        determiner = "" if is_article(determiner) else determiner
    lead = Piece(before + (f"{determiner} " if determiner else ""))
    opener, closer = _around(_openers(style, before), style, rng)
    pieces = [Piece(opener), lead, Piece(topic, fixed=True), Piece(after)]
    return Draft(pieces, mark, closer, without_determiners(topic))


def _openers(style: str, frame: str) -> tuple[str, ...]:
    # "Please" goes with an order, and not with what the asker says of himself.
    orders = style == "request" and re.match(r"[a-z]", frame) and not frame.startswith(NO_ORDERS)
    return ORDER_OPENERS if orders else STYLES[style].openers


def _around(openers: tuple[str, ...], style: str, rng: Random) -> tuple[str, str]:
    opener = rng.choice(openers).strip()
    return (f"{opener} " if opener else ""), rng.choice(STYLES[style].closers)


def _parted(text: str) -> tuple[str, str]:
    """A request, and the mark that ends it."""
    body = text.rstrip(" .?!")
    return body, text[len(body) :].strip()


def _phrase(template: str, task: WriteTask, slots: SlotValues, rng: Random) -> Draft:
    if "[" not in template:
        return _example(RuleExample(text=slots.fill(template)), task, rng)
    template, mark = _parted(template)
    if template.endswith("]") and not ends_open(template) and rng.random() < QUALIFIED_WHOLES:
        template = f"{template[:-1]} {augment.after_whole(rng)}]"
    pieces, marked = [], []
    for part in re.split(r"(\[[^\]]*\]|\{[^}]*\})", template):
        inside = part.startswith("[") and part.endswith("]")
        text = slots.fill(part[1:-1] if inside else part)
        pieces.append(Piece(text, fixed=inside or part != text))
        marked += [text] if inside else []
    topic = without_determiners(" ".join(marked))
    return _whole(pieces, mark, topic, task.scenario.style, rng)


def _example(example: RuleExample, task: WriteTask, rng: Random) -> Draft:
    text, mark = _parted(example.text)
    topic, given, extra = content_words(text), example.arguments, ""
    name = _free_text(given, task) if given is not None else ""
    one_sentence = not re.search(r"[.?!]\s", text) and not ends_open(text)
    if name is not None and one_sentence and rng.random() < QUALIFIED_WHOLES:
        extra = f" {augment.after_whole(rng)}"
        added = " " + without_determiners(extra)
        topic += added
        given = given and {**given, name: f"{given[name]}{added}"}
    needed = set(re.findall(r"\w+", json.dumps(given, ensure_ascii=False).casefold()))
    pieces = [
        Piece(word, fixed=not is_function_word(word) or word.casefold().strip(",;:") in needed)
        for word in re.split(r"(\s+)", text)
    ]
    draft = _whole([*pieces, Piece(extra, fixed=True)], mark, topic, task.scenario.style, rng)
    return draft._replace(given=given)


def _free_text(given: Json, task: WriteTask) -> str | None:
    """The one argument of an example that is free text, and so may carry more words."""
    calls = task.rule.then.calls
    if not calls:
        return None
    properties = task.workflow.by_name[calls[0].tool].parameters.get("properties")
    schemas = properties if isinstance(properties, dict) else {}
    free = [
        name
        for name, value in given.items()
        if isinstance(value, str) and is_free_text(schemas.get(name))
    ]
    return free[0] if len(free) == 1 else None


def _whole(pieces: list[Piece], mark: str, topic: str, style: str, rng: Random) -> Draft:
    """A request that is one already: it is wrapped, or in keyword style stripped."""
    if style == "keywords":
        # "Do we pay for it" is about us; "pay for it" would be about anybody.
        telling = any(re.search(r"\b(we|us)\b", piece.text) for piece in pieces)
        if rng.random() < 0.5 and not telling:
            pieces = [p if p.fixed else Piece(_stripped(p.text)) for p in pieces]
        return Draft(pieces, "", "", topic)
    openers = STYLES[style].openers if style == "chatty" else WHOLE_OPENERS
    opener, closer = _around(openers, style, rng)
    if opener:
        pieces = [_uncapitalised(pieces[0]), *pieces[1:]]
    return Draft([Piece(opener), *pieces], mark, closer, topic)


def _stripped(text: str) -> str:
    """A text without function words, but for question words and owners; end blanks stay."""
    kept = " ".join(w for w in text.split() if not is_function_word(w) or w.lower() in _KEPT)
    head = " " if re.match(r"\W*\s|[,;:]", text) else ""
    tail = " " if kept and text[-1:].isspace() else ""
    return head + kept + tail


def _uncapitalised(piece: Piece) -> Piece:
    first, blank, rest = piece.text.partition(" ")
    plain = is_function_word(first) and not first.startswith(("I ", "I'", "I’")) and first != "I"
    return Piece((first.lower() if plain else first) + blank + rest, piece.fixed)
