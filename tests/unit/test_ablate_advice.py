"""Which way is advised follows from pairs on the same rows, not from two shares side by side."""

from __future__ import annotations

import pytest

from distill.ablate import ModeResult, parse_modes, recommend
from distill.ablate.advice import contests
from distill.ablate.model import Ablation, Declarations, PromptTokens
from distill.cli.tables import ablation_table
from distill.errors import UsageError
from distill.evaluate.score import judge, score
from distill.records import Case, ExpectedCall, Message, Prediction, ToolCall
from distill.render import Parsed

LENGTHS = {"full": 300.0, "names": 40.0, "none": 12.0}


def prediction(right: bool, arguments: bool | None) -> Prediction:
    """Of a case that expects search(q=x), or search with unknown arguments."""
    known = None if arguments is None else {"q": "x"}
    case = Case(
        id="c",
        messages=(Message(role="user", content="x?"),),
        kind="call",
        calls=(ExpectedCall(name="search", arguments=known),),
    )
    said = ToolCall(name="search" if right else "book", arguments={"q": "x" if arguments else "y"})
    return judge(case, Parsed((said,)), "tuned", "")


def rows(right: str, arguments: str = "") -> list[Prediction]:
    """A row for each letter: + where the tool is right; of `arguments`: the arguments too."""
    written = [letter == "+" for letter in arguments] or [None] * len(right)
    pairs = zip(right, written, strict=True)
    return [prediction(letter == "+", known) for letter, known in pairs]


def ablated(said: dict[Declarations, dict[str, list[Prediction]]]) -> Ablation:
    modes = tuple(
        ModeResult(
            declarations=name,
            prompt_tokens={
                d: PromptTokens(mean=LENGTHS[name], max=round(LENGTHS[name])) for d in sets
            },
            seconds=1.5,
            scores={dataset: score(found) for dataset, found in sets.items()},
        )
        for name, sets in said.items()
    )
    found = tuple(contests(said))
    choice, line = recommend(modes, found)
    return Ablation(student="s", modes=modes, contests=found, choice=choice, advice=line)


def test_equal_students_are_told_apart_by_their_prompts() -> None:
    same = {"gold": rows("++-+" * 30)}
    found = ablated({"full": same, "names": same, "none": same})
    assert found.choice == "none"
    assert "take none: 12 tokens a prompt" in found.advice
    assert "no longer one does better" in found.advice
    assert {contest.p for contest in found.contests} == {1.0}


def test_a_difference_that_is_not_established_does_not_buy_a_longer_prompt() -> None:
    found = ablated({"full": {"gold": rows("+" * 10)}, "none": {"gold": rows("---" + "+" * 7)}})
    assert found.choice == "none"
    assert "McNemar p = 0.250 at least" in found.advice
    assert "10 rows show large differences only" in found.advice


def test_a_longer_prompt_that_shows_its_worth_is_taken() -> None:
    found = ablated(
        {"full": {"gold": rows("+" * 120)}, "none": {"gold": rows("-" * 8 + "+" * 112)}}
    )
    assert found.choice == "full"
    assert "gold shows none to do worse than full: right tool in 0 rows" in found.advice
    assert "the reverse in 8 (McNemar p = 0.008)" in found.advice


def test_what_is_lost_on_any_data_set_or_in_the_arguments_counts() -> None:
    fine, worse = rows("+" * 20, "+" * 20), rows("+" * 20, "-" * 8 + "+" * 12)
    for sets in ((fine, worse), (worse, fine)):
        found = ablated(
            {
                "full": {"gold": fine, "test": fine},
                "names": {"gold": fine, "test": fine},
                "none": dict(zip(("gold", "test"), sets, strict=True)),
            }
        )
        assert found.choice == "names"
        assert "full call in 0 rows" in found.advice
        assert "no longer one does better" in found.advice


def test_a_shorter_prompt_that_does_better_is_taken() -> None:
    found = ablated({"full": {"gold": rows("-" * 9 + "+")}, "names": {"gold": rows("+" * 10)}})
    assert found.choice == "names"
    assert "no longer one does better" in found.advice


def test_rows_without_known_arguments_are_not_compared_by_them() -> None:
    mixed = {"gold": rows("+-") + rows("++", "+-")}
    found = ablated({"full": mixed, "none": mixed})
    assert [contest.measure for contest in found.contests] == ["right tool", "full call"]
    bare = {"gold": rows("+-")}
    assert len(ablated({"full": bare, "none": bare}).contests) == 1


def test_students_that_learned_nothing_are_no_reason_to_choose() -> None:
    found = ablated({"full": {"gold": rows("--")}, "none": {"gold": rows("--")}})
    assert found.choice is None
    assert "no student found a right tool" in found.advice


def test_one_way_alone_is_not_compared() -> None:
    found = ablated({"names": {"gold": rows("+-")}})
    assert (found.choice, found.contests) == ("names", ())
    assert "nothing to compare" in found.advice


def test_the_table_shows_each_data_set_and_why_a_way_was_not_trained() -> None:
    from rich.console import Console

    unfit = ModeResult(
        declarations="full",
        prompt_tokens={"gold": PromptTokens(mean=600.25, max=640)},
        problem="no training row fits: 620 tokens, and 512 fit",
    )
    found = ablated({"names": {"gold": rows("++--", "+---"), "test": rows("+")}})
    console = Console(width=140)
    with console.capture() as captured:
        console.print(ablation_table(found.model_copy(update={"modes": (unfit, *found.modes)})))
    text = captured.get()
    for words in (
        "600 (640)",
        "no training row fits: 620 tokens, and 512 fit",
        "40 (40)",
        "50.0 [15.0, 85.0]",
        "25.0 [4.6, 69.9]",
        "100.0 [20.7, 100.0]",
        "1.5",
    ):
        assert words in text


def test_modes_are_words_with_commas() -> None:
    assert parse_modes("none, full") == ("full", "none")
    for text in ("", "full,some", "full,,none"):
        with pytest.raises(UsageError, match="there is no mode"):
            parse_modes(text)
