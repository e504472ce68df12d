"""Prices: which one counts, what it comes to, and how it is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.config import Config, Price, TeacherConfig
from distill.ledger.ledger import LedgerEntry, UsageTotals
from distill.ledger.prices import (
    FREE,
    SPENDING_COLUMNS,
    builtin_prices,
    cost,
    entry_cost,
    format_count,
    format_usage,
    format_usd,
    model_price,
    spending_line,
    spending_rows,
    teacher_price,
    unknown_price_error,
)
from distill.teachers.base import Usage

AS_OF, KNOWN = builtin_prices()
MINE = Price(prompt=7, cached=5, completion=9)


def test_the_table_says_when_it_was_noted_and_is_plausible() -> None:
    assert AS_OF >= "2026-11-20"
    for model, price in KNOWN.items():
        assert 0 < price.prompt <= price.completion, model
        assert price.cached is None or 0 < price.cached <= price.prompt, model


@pytest.mark.parametrize(
    ("model", "known"),
    [
        *((model, model) for model in KNOWN),
        ("gpt-5-mini-2025-08-07", "gpt-5-mini"),
        ("gpt-5-2025-08-07", "gpt-5"),
        ("gpt-4o-2024-05-13", "gpt-4o-2024-05-13"),
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("claude-haiku-4-5-20251001", "claude-haiku-4-5"),
        ("gemini-2.5-flash-preview-09-2025", "gemini-2.5-flash"),
        ("gemini-2.5-pro-001", "gemini-2.5-pro"),
        ("gemini-3.1-pro-preview", "gemini-3.1-pro"),
        ("claude-sonnet-5-5-latest", "claude-sonnet-5-5"),
        ("openai/gpt-5-mini", "gpt-5-mini"),
        ("openrouter/openai/gpt-5-mini-2025-08-07", "gpt-5-mini"),
        ("gpt-5-maxi", None),
        ("gpt-5-mini-clone", None),
        ("gpt-5-pro", None),
        ("gpt-50", None),
        ("openai/gpt-5-mini:free", None),
        ("ft:gpt-4o-mini-2024-07-18:us::7", None),
        ("mistral-large-2411", None),
        ("Qwen/Qwen3-8B", None),
        ("", None),
    ],
)
def test_a_model_has_its_own_price_or_that_of_what_it_is_a_version_of(
    model: str, known: str | None
) -> None:
    assert model_price(model, {}) == (KNOWN[known] if known else None)


@pytest.mark.parametrize(
    ("model", "given", "mine"),
    [
        ("gpt-5-mini", "gpt-5-mini", True),
        ("openai/gpt-5-mini", "openai/gpt-5-mini", True),
        ("openai/gpt-5-mini", "gpt-5-mini", True),
        ("gpt-5-mini-2025-08-07", "gpt-5-mini", True),
        ("gpt-4o-2024-05-13", "gpt-4o", False),
        ("gpt-5-mini", "gpt-5", False),
        ("gpt-5-mini", "gpt-5-mini-2025-08-07", False),
    ],
)
def test_the_users_table_comes_first_and_the_exact_name_before_it(
    model: str, given: str, mine: bool
) -> None:
    price = model_price(model, {given: MINE})
    assert price is not None
    assert (price == MINE) == mine


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"kind": "grammar"}, FREE),
        ({"kind": "vllm", "model": "gpt-5-mini"}, FREE),
        ({"kind": "openai", "model": "gpt-5-mini"}, KNOWN["gpt-5-mini"]),
        ({"kind": "openai", "model": "unheard-of"}, None),
        *(
            ({"kind": "openai", "model": "any", "base_url": f"http://{host}/v1"}, FREE)
            for host in (
                "127.0.0.1:8000",
                "localhost",
                "[::1]:80",
                "10.1.2.3",
                "192.168.0.7:1",
                "100.64.0.1",
                "gpu-box:8000",
                "gpu.internal",
                "box.local",
            )
        ),
        *(
            ({"kind": "openai", "model": "any", "base_url": f"https://{host}/v1"}, None)
            for host in ("api.example.com", "8.8.8.8", "localhost.example.com", "[broken")
        ),
        (
            {"kind": "openai", "model": "gpt-5", "base_url": "https://api.example.com/v1"},
            KNOWN["gpt-5"],
        ),
    ],
)
def test_what_is_served_on_ones_own_machines_is_free_unless_it_has_a_price(
    settings: dict[str, object], expected: Price | None
) -> None:
    config = TeacherConfig.model_validate(settings)
    assert teacher_price(config) == expected
    assert teacher_price(config.model_copy(update={"prices": {config.model: MINE}})) == MINE


def test_a_server_named_by_the_environment_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TeacherConfig(kind="openai", model="gpt-5")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1")
    assert teacher_price(config) == FREE
    assert teacher_price(config.model_copy(update={"base_url": "https://x.example/v1"})) != FREE


def test_tokens_from_the_cache_have_their_own_price_where_there_is_one() -> None:
    usage = Usage(prompt_tokens=1_000_000, cached_tokens=400_000, completion_tokens=200_000)
    assert cost(usage, Price(prompt=2, cached=0.5, completion=10)) == pytest.approx(1.2 + 0.2 + 2)
    assert cost(usage, Price(prompt=2, completion=10)) == pytest.approx(2 + 2)


TALLIES = st.builds(
    UsageTotals,
    requests=st.integers(0, 10**6),
    prompt_tokens=st.integers(0, 10**12),
    cached_tokens=st.integers(0, 10**12),
    completion_tokens=st.integers(0, 10**12),
)


@given(one=TALLIES, other=TALLIES)
def test_money_is_never_negative_and_adds_up(one: UsageTotals, other: UsageTotals) -> None:
    assert cost(one, MINE) >= 0
    assert cost(one, FREE) == 0
    # A server that says more is cached than was sent is charged for what was sent.
    honest = [t.model_copy(update={"cached_tokens": 0}) for t in (one, other)]
    total = sum(cost(tally, MINE) for tally in honest)
    assert cost(UsageTotals.total(honest), MINE) == pytest.approx(total)


ENTRIES = [
    LedgerEntry(stage="gate", model="gpt-5-mini", outcome="reply", requests=1, prompt_tokens=900),
    LedgerEntry(
        stage="generate",
        model="gpt-5-mini-2025-08-07",
        outcome="refused",
        requests=1234,
        prompt_tokens=1_200_000,
        cached_tokens=900_000,
        completion_tokens=100_000,
    ),
]
SETTINGS = TeacherConfig(kind="openai", model="gpt-5-mini")


def test_spending_is_told_in_rows_and_in_a_line() -> None:
    assert spending_rows(ENTRIES, SETTINGS) == [
        ("gate", "gpt-5-mini", "reply", "1", "900", "0", "0", "$0.0002"),
        (
            *("generate", "gpt-5-mini-2025-08-07", "refused"),
            *("1,234", "1,200,000", "900,000", "100,000", "$0.30"),
        ),
    ]
    assert all(len(row) == len(SPENDING_COLUMNS) for row in spending_rows(ENTRIES, SETTINGS))
    assert spending_line(ENTRIES, SETTINGS) == (
        "1,235 requests, 1.2M prompt tokens (900k cached), 100k completion tokens, $0.30"
    )
    assert spending_line([], SETTINGS) == (
        "0 requests, 0 prompt tokens, 0 completion tokens, $0.00"
    )


def test_what_has_no_price_is_not_told_as_nothing() -> None:
    other = LedgerEntry(
        stage="generate", model="other", outcome="reply", requests=1, prompt_tokens=9
    )
    assert entry_cost(other, SETTINGS) is None
    assert spending_rows([other], SETTINGS)[0][-1] == "price unknown"
    assert spending_line([other], SETTINGS).endswith(", price unknown")
    line = spending_line([*ENTRIES, other], SETTINGS)
    assert line.endswith(", $0.30 and what has no known price")
    # An earlier teacher that takes no tokens needs no price.
    assert entry_cost(other.model_copy(update={"prompt_tokens": 0}), SETTINGS) == 0


def test_estimates_are_told_as_such() -> None:
    tally = UsageTotals(requests=1, prompt_tokens=5, estimated=1)
    assert (
        format_usage(tally) == "1 request, 5 prompt tokens, 0 completion tokens (tokens estimated)"
    )
    several = tally.plus(Usage(prompt_tokens=1))
    assert format_usage(several).endswith("(tokens of 1 request estimated)")


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, "0"),
        (9_999, "9,999"),
        (10_000, "10k"),
        (949_999, "950k"),
        (999_999, "1.0M"),
        (1_250_000, "1.2M"),
        (999_999_999, "1.0G"),
        (7_300_000_000_000, "7,300.0G"),
    ],
)
def test_large_numbers_are_short(number: int, said: str) -> None:
    assert format_count(number) == said


@pytest.mark.parametrize(
    ("usd", "said"),
    [
        (None, "price unknown"),
        (0.0, "$0.00"),
        (0.000_01, "under $0.0001"),
        (0.0042, "$0.0042"),
        (0.0949, "$0.0949"),
        (0.098, "$0.10"),
        (0.311, "$0.31"),
        (1234.5, "$1,234.50"),
    ],
)
def test_money_is_told_in_cents_and_less(usd: float | None, said: str) -> None:
    assert format_usd(usd) == said


@pytest.mark.parametrize("model", ["unheard-of", 'a "quoted" \\ name', "模型", "a\tb"])
def test_the_lines_for_an_unknown_price_are_what_the_settings_take(
    model: str, tmp_path: Path
) -> None:
    error = unknown_price_error(model)
    lines = [line.strip() for line in str(error).splitlines() if line.startswith("    ")]
    (tmp_path / "distill.toml").write_text("\n".join(lines), encoding="utf-8")
    prices = Config.load(tmp_path / "distill.toml").teacher.prices
    assert prices == {model: Price(prompt=0.25, cached=0.025, completion=2)}
