"""The embedded teacher: offline, free, deterministic by seed, and limited to the rules' own words.

A scenario's topic becomes a request: a thing or an action is put into a frame of the scenario's
style, a phrase or an example is used as it is. The topic argument consists of words of the request,
in their order, so that it is grounded and can be learned by copying.
"""

from __future__ import annotations

import re
from random import Random
from typing import NamedTuple

from distill import strict_json
from distill.errors import TeacherError
from distill.records import Json, Scenario
from distill.teachers.base import BatchTask, ChatReply, ChatRequest, RouteTask, WriteTask
from distill.teachers.grammar import augment
from distill.teachers.grammar.arguments import ArgumentFiller, SlotValues, said_in
from distill.teachers.grammar.english import (
    NounPhrase,
    content_words,
    ends_in_function_word,
    gerund,
    is_article,
    is_function_word,
    without_articles,
    without_determiners,
    word_list,
)
from distill.teachers.grammar.frames import (
    IMPERATIVE_OPENERS,
    NON_IMPERATIVE_STARTS,
    SENTENCE_OPENERS,
    STYLES,
)
from distill.teachers.grammar.surface import Span, draw_lower_case, realize
from distill.workflow.fillable import argument_schemas, is_free_text
from distill.workflow.model import RuleExample
from distill.workflow.problems import excerpt

VERSION = 2

LIMITS = (
    "The grammar teacher writes single-turn English requests recombined from the rules' own words: "
    "no phrasing or topic that the rules and their words do not hold, no reasoning about the "
    "rules, no other language. For more than that name a model, as in: "
    "--teacher openai --base-url URL --model NAME."
)

_KEPT_WORDS = frozenset(word_list("how what when where which who whose why our my"))

# Probabilities that random modifiers go into a topic, and so into prompt and argument alike.
QUALIFIED_THINGS = 0.4
QUALIFIED_ACTIONS = 0.35
QUALIFIED_REQUESTS = 0.25
QUALIFIED_TWICE = 0.12


class GrammarTeacher:
    """Writes from the scenario's topic and neutral frames; reads the task, not the messages."""

    name = "grammar"
    fingerprint = f"grammar/{VERSION}"

    async def complete(self, request: ChatRequest) -> ChatReply:
        """The reply as JSON. Raises TeacherError for an argument that cannot be filled."""
        match request.task:
            case WriteTask() as task:
                reply = write_reply(task)
            case BatchTask(tasks):
                reply = {
                    str(number): write_reply(task) for number, task in enumerate(tasks, start=1)
                }
            case RouteTask():
                raise TeacherError(
                    "the grammar teacher cannot route", place="--teacher grammar", hint=LIMITS
                )
        return ChatReply(text=strict_json.encode(reply), model=self.fingerprint)

    def drain(self) -> None:
        """Nothing is ever in flight."""

    async def close(self) -> None:
        """Nothing to release."""


class Draft(NamedTuple):
    """A request before surface noise."""

    spans: list[Span]
    mark: str
    """What ends it: a question mark, a full stop or nothing."""
    closer: str
    topic: str
    """The value of `{topic}` in an argument."""
    arguments: Json | None = None
    """The arguments of an example of the rule."""


def write_reply(task: WriteTask) -> Json:
    """`{"user", "calls"}` for a call, else `{"user", "reply"}`; a function of the task alone."""
    _require_supported(task.scenario)
    rng = Random(task.scenario.seed)
    slots = SlotValues(task.rule, rng)
    draft = _draft(task, slots, rng)
    lower = draw_lower_case(task.scenario.style, rng)
    text = "".join(span.text for span in draft.spans)
    filler = ArgumentFiller(task, slots, text, draft.topic.lower() if lower else draft.topic, rng)
    calls = filler.calls(draft.arguments or {})
    # A value that an argument takes from the request keeps its spelling there.
    spans = [s._replace(fixed=s.fixed or bool(said_in(s.text, filler.said))) for s in draft.spans]
    spans += filler.mentions
    user = realize(spans, draft.mark, draft.closer, lower, rng)
    then = task.rule.then
    if then.kind == "call":
        return {"user": user, "calls": calls}
    if not then.reply:
        raise TeacherError(
            f'the rule tells how to {then.kind}, as "{excerpt(then.text)}", and not in which words',
            place=f'rule "{task.rule.id}"',
            hint=f'give the words between quotes, as: **Then** {then.kind}: "…"; or name another '
            "teacher, which writes them",
        )
    return {"user": user, "reply": filler.fill(then.reply)}


def _require_supported(scenario: Scenario) -> None:
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
        return _draft_thing(slots.fill(topic), style, rng)
    if topic in words.actions:
        return _draft_action(slots.fill(topic), style, rng)
    if topic in words.phrases:
        return _draft_phrase(topic, task, slots, rng)
    for example in task.rule.examples:
        if example.text == topic:
            return _draft_example(example, task, rng)
    if topic in (task.rule.title, task.rule.when):
        return _draft_thing(topic, style, rng)
    return _draft_example(RuleExample(text=topic), task, rng)


def _draft_thing(text: str, style: str, rng: Random) -> Draft:
    phrase = NounPhrase.parse(text)
    frame = rng.choice(STYLES[style].things).replace("{is}", "are" if phrase.plural else "is")
    phrase = _qualified(phrase, rng)
    return _draft_from_frame(frame, phrase.determiner, phrase.bare, style, rng)


def _qualified(phrase: NounPhrase, rng: Random) -> NounPhrase:
    if rng.random() >= QUALIFIED_THINGS:
        return phrase
    both, first = rng.random() < QUALIFIED_TWICE, rng.random() < 0.4
    if first or both:
        phrase = phrase.with_modifier(augment.modifier(rng))
    if not first or both:
        phrase = phrase._replace(bare=f"{phrase.bare} {augment.qualifier(rng)}")
    return phrase


def _draft_action(text: str, style: str, rng: Random) -> Draft:
    if rng.random() < QUALIFIED_ACTIONS:
        text = f"{text} {augment.action_qualifier(rng)}"
    frame = rng.choice(STYLES[style].actions)
    return _draft_from_frame(frame, "", gerund(text) if "{doing}" in frame else text, style, rng)


def _draft_from_frame(frame: str, determiner: str, topic: str, style: str, rng: Random) -> Draft:
    frame, mark = _split_end_mark(frame)
    before, field, after = re.split(r"\{(thing|action|doing|bare)\}", frame, maxsplit=1)
    if field == "bare":
        topic = without_articles(topic)
        determiner = "" if is_article(determiner) else determiner
    lead = Span(before + (f"{determiner} " if determiner else ""))
    opener, closer = _opener_and_closer(_openers(style, before), style, rng)
    spans = [Span(opener), lead, Span(topic, fixed=True), Span(after)]
    return Draft(spans, mark, closer, without_determiners(topic))


def _openers(style: str, frame: str) -> tuple[str, ...]:
    imperative = (
        style == "request"
        and re.match(r"[a-z]", frame)
        and not frame.startswith(NON_IMPERATIVE_STARTS)
    )
    return IMPERATIVE_OPENERS if imperative else STYLES[style].openers


def _opener_and_closer(openers: tuple[str, ...], style: str, rng: Random) -> tuple[str, str]:
    opener = rng.choice(openers).strip()
    return (f"{opener} " if opener else ""), rng.choice(STYLES[style].closers)


def _split_end_mark(text: str) -> tuple[str, str]:
    body = text.rstrip(" .?!")
    return body, text[len(body) :].strip()


def _draft_phrase(template: str, task: WriteTask, slots: SlotValues, rng: Random) -> Draft:
    if "[" not in template:
        return _draft_example(RuleExample(text=slots.fill(template)), task, rng)
    template, mark = _split_end_mark(template)
    if (
        template.endswith("]")
        and not ends_in_function_word(template)
        and rng.random() < QUALIFIED_REQUESTS
    ):
        template = f"{template[:-1]} {augment.request_qualifier(rng)}]"
    spans, marked = [], []
    for part in re.split(r"(\[[^\]]*\]|\{[^}]*\})", template):
        inside = part.startswith("[") and part.endswith("]")
        text = slots.fill(part[1:-1] if inside else part)
        spans.append(Span(text, fixed=inside or part != text))
        marked += [text] if inside else []
    topic = without_determiners(" ".join(marked))
    return _draft_sentence(spans, mark, topic, task.scenario.style, rng)


def _draft_example(example: RuleExample, task: WriteTask, rng: Random) -> Draft:
    text, mark = _split_end_mark(example.text)
    topic, arguments, extra = content_words(text), example.arguments, ""
    name = _free_text(arguments, task) if arguments is not None else ""
    one_sentence = not re.search(r"[.?!]\s", text) and not ends_in_function_word(text)
    if name is not None and one_sentence and rng.random() < QUALIFIED_REQUESTS:
        extra = f" {augment.request_qualifier(rng)}"
        added = " " + without_determiners(extra)
        topic += added
        arguments = arguments and {
            **arguments,
            name: f"{arguments[name]}{added}",
        }
    needed = set(re.findall(r"\w+", strict_json.encode(arguments).casefold()))
    spans = [
        Span(word, fixed=not is_function_word(word) or word.casefold().strip(",;:") in needed)
        for word in re.split(r"(\s+)", text)
    ]
    draft = _draft_sentence(
        [*spans, Span(extra, fixed=True)], mark, topic, task.scenario.style, rng
    )
    return draft._replace(arguments=arguments)


def _free_text(arguments: Json, task: WriteTask) -> str | None:
    """The only free-text argument of an example, to which words may be added; else None."""
    calls = task.rule.then.calls
    if not calls:
        return None
    schemas = argument_schemas(task.workflow.by_name[calls[0].tool])
    free = [
        name
        for name, value in arguments.items()
        if isinstance(value, str) and is_free_text(schemas.get(name, {}))
    ]
    return free[0] if len(free) == 1 else None


def _draft_sentence(spans: list[Span], mark: str, topic: str, style: str, rng: Random) -> Draft:
    """A complete request: opener and closer are added, or in keyword style words dropped."""
    if style == "keywords":
        # "Do we pay for it" may reach another rule than "pay for it".
        keeps_pronoun = any(re.search(r"\b(we|us)\b", span.text) for span in spans)
        if rng.random() < 0.5 and not keeps_pronoun:
            spans = [s if s.fixed else Span(_without_function_words(s.text)) for s in spans]
        return Draft(spans, "", "", topic)
    openers = STYLES[style].openers if style == "chatty" else SENTENCE_OPENERS
    opener, closer = _opener_and_closer(openers, style, rng)
    if opener:
        spans = [_lower_first_word(spans[0]), *spans[1:]]
    return Draft([Span(opener), *spans], mark, closer, topic)


def _without_function_words(text: str) -> str:
    """A text without function words, except question words and possessives; blanks around stay."""
    kept = " ".join(w for w in text.split() if not is_function_word(w) or w.lower() in _KEPT_WORDS)
    head = " " if re.match(r"\W*\s|[,;:]", text) else ""
    tail = " " if kept and text[-1:].isspace() else ""
    return head + kept + tail


def _lower_first_word(span: Span) -> Span:
    first, blank, rest = span.text.partition(" ")
    plain = is_function_word(first) and not first.startswith(("I ", "I'", "I’")) and first != "I"
    return Span((first.lower() if plain else first) + blank + rest, span.fixed)
