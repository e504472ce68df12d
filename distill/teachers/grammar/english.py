"""The English grammar that the grammar teacher needs: number, gerunds, content words."""

from __future__ import annotations

import re
from typing import NamedTuple


def word_list(text: str, separator: str | None = None) -> tuple[str, ...]:
    return tuple(text.split(separator))


_MARKS = ".,;:!?'\"()“”‘’…"
_DROPPED = frozenset(word_list("a an the my our your his her their its some any"))
DETERMINERS = _DROPPED | {"this", "that", "these", "those"}
_PREPOSITIONS = frozenset(
    word_list(
        "of for in on at with between from to about against by near per during after before under "
        "over within without across around into through vs versus than as that which who this"
    )
)
_SINGULAR = frozenset(
    word_list(
        "news gas lens series species atlas canvas always chess diabetes rabies tennis kubernetes "
        "jenkins pandas redis postgres rails texas paris wales athens honduras cyprus jones"
    )
)
_PLURAL = frozenset(
    word_list("people children men women criteria feet teeth mice police lyrics generics")
)
_STOP_WORDS = DETERMINERS | frozenset(
    word_list(
        "i me we us you he she it they them myself ourselves there here "
        "is are was were be been being am do does did doing done have has had having get got gets "
        "can could will would shall should may might must need needs want wants like know let "
        "what whats who whom whose which when where wheres why how hows "
        "and or but if so then than just also really actually please pls thanks thank hi hey hello "
        "to of in on at for from by with about into as up out off over again still now "
        "not no yes dont doesnt isnt cant im ive id ill tell show give find look search explain "
        "someone somebody anyone anybody something anything"
    )
)
_DOUBLING = frozenset(
    word_list(
        "get set reset put run plan submit log swap stop ship drop cut begin spot refer transfer "
        "map scan win sit swim dig quit fit hit let shut split chat chop knit pin plug skip slip "
        "step strip tag trim unplug wrap zip opt forget permit commit nap tip pop jog rip grab "
        "stir ban dim debug unclog clog plot repot format unzip pat rub"
    )
)


class NounPhrase(NamedTuple):
    """A noun phrase, split into its leading determiner, if any, and the rest."""

    determiner: str
    bare: str

    @classmethod
    def parse(cls, text: str) -> NounPhrase:
        first, _, rest = text.partition(" ")
        # A capital A may be part of a name ("A levels").
        if rest and first.lower() in DETERMINERS and first != "A":
            return cls(first, rest)
        return cls("", text)

    def with_modifier(self, words: str) -> NounPhrase:
        """The phrase with `words` before its noun: `a policy` -> `an old policy`."""
        return NounPhrase(agree_article(self.determiner, words), f"{words} {self.bare}")

    @property
    def plural(self) -> bool:
        return is_plural(self.bare)


def agree_article(determiner: str, following: str) -> str:
    """`a` or `an`, as the following word needs; any other determiner unchanged."""
    if determiner.lower() not in ("a", "an"):
        return determiner
    return "an" if following[:1].lower() in "aeiou" else "a"


def is_plural(phrase: str) -> bool:
    """Whether the head of a noun phrase, the last word before a preposition, looks plural."""
    words = phrase.split()
    end = next((i for i, word in enumerate(words) if i and word in _PREPOSITIONS), len(words))
    head = words[end - 1].lower().strip(".,;:'\"()") if words else ""
    if head in _PLURAL:
        return True
    return (
        head.endswith("s")
        and head not in _SINGULAR
        and not head.endswith(("ss", "us", "is", "ics"))
    )


def ends_in_function_word(phrase: str) -> bool:
    """Whether a phrase ends in a preposition or pronoun, so that no qualifier may follow it."""
    last = phrase.rsplit(maxsplit=1)[-1].strip(_MARKS + "[]").lower() if phrase.strip() else "x"
    return last in _PREPOSITIONS or is_function_word(last)


def gerund(action: str) -> str:
    """`book a room` -> `booking a room`."""
    verb, blank, rest = action.partition(" ")
    return _ing(verb) + blank + rest


def _ing(verb: str) -> str:
    if verb.endswith("ie"):
        return verb[:-2] + "ying"
    if verb.endswith("e") and not verb.endswith(("ee", "oe", "ye")) and len(verb) > 2:
        return verb[:-1] + "ing"
    return verb + (verb[-1] if verb in _DOUBLING else "") + "ing"


def without_determiners(phrase: str) -> str:
    """The phrase as a search query: without articles and possessives.

    A capital A stays ("vitamin A"), and so does a phrase of determiners alone.
    """
    kept = [word for word in phrase.split() if word == "A" or word.lower() not in _DROPPED]
    return " ".join(kept) or phrase


def is_article(word: str) -> bool:
    return word.lower() in ("a", "an", "the")


def without_articles(phrase: str) -> str:
    """The phrase as keywords: without articles; `our` and `my` stay, as they carry meaning."""
    kept = [word for word in phrase.split() if word == "A" or not is_article(word)]
    return " ".join(kept) or phrase


def content_words(text: str) -> str:
    """The words of a request that are no function words; all of its words if none is left."""
    words = [word.strip(_MARKS) for word in text.split()]
    kept = [word for word in words if not is_function_word(word)]
    return " ".join(kept) or " ".join(filter(None, words)) or text


def is_function_word(word: str) -> bool:
    """Whether a word is a stop word, or nothing but blanks and punctuation."""
    plain = re.sub(r"['’]", "", word.lower().strip(_MARKS + " "))
    return not plain or plain in _STOP_WORDS
