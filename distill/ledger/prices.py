"""Prices of tokens, the costs of a ledger, and both formatted for people."""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from distill import strict_json
from distill.config import Price, TeacherConfig
from distill.errors import UsageError
from distill.files import read_text
from distill.ledger.ledger import LedgerEntry, UsageTotals

FREE = Price(prompt=0, cached=0, completion=0)
SPENDING_COLUMNS = (
    "stage",
    "model",
    "outcome",
    "requests",
    "prompt",
    "cached",
    "completion",
    "cost",
)

# The suffix of one version of a model: a date, a number, a preview.
_VERSION = re.compile(r"-(\d{4}-\d\d-\d\d|\d{3,4}|\d{8}|latest|preview(-\d\d-\d\d(\d\d)?)?)")
# Domains that resolve inside of a private network only; so do names without a dot.
_PRIVATE_DOMAINS = (".localhost", ".local", ".internal", ".lan", ".home.arpa")


class TokenCounts(Protocol):
    """Anything that counts tokens: Usage, UsageTotals, a forecast."""

    @property
    def prompt_tokens(self) -> int: ...

    @property
    def cached_tokens(self) -> int: ...

    @property
    def completion_tokens(self) -> int: ...


@cache
def builtin_prices() -> tuple[str, Mapping[str, Price]]:
    """The date of distill's own price table, and its prices by model."""
    table = tomllib.loads(read_text(Path(__file__).with_name("prices.toml")))
    prices = {model: Price.model_validate(price) for model, price in table["models"].items()}
    return str(table["as_of"]), prices


def model_price(model: str, given: Mapping[str, Price]) -> Price | None:
    """The price of `model` by its exact name, else of the model that it is a version of.

    The user's table `given` comes before distill's own; `openai/gpt-5-mini` is also looked up as
    `gpt-5-mini`, and `gpt-5-mini-2025-08-07` as a version of it.
    """
    return _lookup(model, (given, builtin_prices()[1]))


def teacher_price(settings: TeacherConfig) -> Price | None:
    """The price of the teacher's tokens: FREE for a server of your own, None if it is unknown."""
    if settings.kind != "openai" or _is_private(_host(settings)):
        return _lookup(settings.model, (settings.prices,)) or FREE
    return model_price(settings.model, settings.prices)


def unknown_price_error(model: str) -> UsageError:
    """The error for a budget in USD without a price of `model`; the hint is the TOML to add."""
    lines = [f"[teacher.prices.{strict_json.encode(model)}]", "prompt = 0.25"]
    shown = "".join(f"\n    {line}" for line in (*lines, "cached = 0.025", "completion = 2.00"))
    return UsageError(
        f'there is no price of "{model}" to count with',
        place="--budget-usd",
        hint=f"put it into distill.toml, in USD for a million tokens, as in:{shown}\n"
        "  or set --budget-tokens instead",
    )


def cost(counted: TokenCounts, price: Price) -> float:
    """The cost in USD of the tokens of `counted`."""
    cached = min(counted.cached_tokens, counted.prompt_tokens)
    cached_price = price.prompt if price.cached is None else price.cached
    return (
        (counted.prompt_tokens - cached) * price.prompt
        + cached * cached_price
        + counted.completion_tokens * price.completion
    ) / 1_000_000


def entry_cost(entry: LedgerEntry, settings: TeacherConfig) -> float | None:
    """The cost in USD of a ledger entry, None where its model has no known price.

    A run may have had other teachers before the one of `settings`.
    """
    if not entry.tokens:
        return 0.0
    if entry.model == settings.model:
        price = teacher_price(settings)
    else:
        price = model_price(entry.model, settings.prices)
    if price is None and teacher_price(settings) == FREE:
        price = FREE  # a server of one's own most likely served the earlier models too
    return None if price is None else cost(entry, price)


def spending_rows(entries: Iterable[LedgerEntry], settings: TeacherConfig) -> list[tuple[str, ...]]:
    """The ledger as rows of a table whose columns are SPENDING_COLUMNS."""
    return [
        (
            entry.stage,
            entry.model,
            entry.outcome,
            f"{entry.requests:,}",
            f"{entry.prompt_tokens:,}",
            f"{entry.cached_tokens:,}",
            f"{entry.completion_tokens:,}",
            format_usd(entry_cost(entry, settings)),
        )
        for entry in entries
    ]


def spending_line(entries: Iterable[LedgerEntry], settings: TeacherConfig) -> str:
    """The ledger as one line: `1,234 requests, 1.2M prompt tokens (0.9M cached), …, $0.31`."""
    several = list(entries)
    costs = [entry_cost(entry, settings) for entry in several]
    known = [value for value in costs if value is not None]
    spent = format_usd(sum(known) if known or not costs else None)
    unknown = " and what has no known price" if known and len(known) < len(costs) else ""
    return f"{format_usage(UsageTotals.total(several))}, {spent}{unknown}"


def format_usage(totals: UsageTotals) -> str:
    """`12 requests, 1,234 prompt tokens, 56 completion tokens`, and how many are estimates."""
    cached = f" ({format_count(totals.cached_tokens)} cached)" if totals.cached_tokens else ""
    line = (
        f"{_requests(totals.requests)}, "
        f"{format_count(totals.prompt_tokens)} prompt tokens{cached}, "
        f"{format_count(totals.completion_tokens)} completion tokens"
    )
    if not totals.estimated:
        return line
    of = f" of {_requests(totals.estimated)}" * (totals.estimated < totals.requests)
    return f"{line} (tokens{of} estimated)"


def format_usd(usd: float | None) -> str:
    """`$0.31`, with two more digits for small amounts; `price unknown` for None."""
    if usd is None:
        return "price unknown"
    if 0 < usd < 0.0001:
        return "under $0.0001"
    return f"${usd:,.2f}" if usd >= 0.095 or not usd else f"${usd:.4f}"


def format_count(number: int) -> str:
    """A number in short form: 9,999, 12k, 1.2M, 3.4G."""
    if number < 10_000:
        return f"{number:,}"
    if number < 950_000:
        return f"{number / 1_000:.0f}k"
    if number < 950_000_000:
        return f"{number / 1_000_000:.1f}M"
    return f"{number / 1_000_000_000:,.1f}G"


def _requests(number: int) -> str:
    return f"{number:,} request{'s' * (number != 1)}"


def _lookup(model: str, tables: Sequence[Mapping[str, Price]]) -> Price | None:
    names = list(dict.fromkeys((model, model.rpartition("/")[2])))
    for name in names:
        for table in tables:
            if name in table:
                return table[name]
    versions = [
        (len(known), -place, table[known])
        for name in names
        for place, table in enumerate(tables)
        for known in table
        if name.startswith(known) and _VERSION.fullmatch(name, len(known))
    ]
    return max(versions, key=lambda found: found[:2])[2] if versions else None


def _host(settings: TeacherConfig) -> str:
    try:
        return urlsplit(settings.address).hostname or ""
    except ValueError:
        return ""


def _is_private(host: str) -> bool:
    if not host:
        return False
    try:
        return not ipaddress.ip_address(host.partition("%")[0]).is_global
    except ValueError:
        return "." not in host or host.endswith(_PRIVATE_DOMAINS)
