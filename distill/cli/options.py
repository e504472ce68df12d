"""The flags that commands share; those for settings take words and default from config.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from distill.config import Config, Section

F = TypeVar("F", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)


def setting(section: str, name: str, *flags: str) -> Callable[[F], F]:
    """A flag for one setting of distill.toml, with the setting's own words and default."""
    model = Config.model_fields[section].annotation
    assert isinstance(model, type)
    assert issubclass(model, Section)
    described = model.model_fields[name]
    default = described.default
    shown = f" [default: {default}]" if default not in (None, "", ()) else ""
    several = isinstance(default, tuple)
    return click.option(
        *(flags or (f"--{name.replace('_', '-')}",)),
        f"{section}__{name}",
        type=_click_type(described.annotation),
        default=None,
        multiple=several,
        # Given not once, it leaves the setting as it is.
        callback=(lambda _context, _option, values: values or None) if several else None,
        help=f"{_sentence(described.description or '')}{shown}.",
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _click_type(annotation: Any) -> Any:
    """What click makes of a flag's word; the annotation may be one type or `type | None`."""
    kinds = [annotation, *get_args(annotation)]
    if Path in kinds:
        return PATH
    choices = [word for kind in kinds for word in get_args(kind) if isinstance(word, str)]
    if choices:
        return click.Choice(choices)
    return next((kind for kind in (int, float) if kind in kinds), str)


def options(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator, in the order in which they are shown."""

    def decorate(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


workflow_options = options(
    click.option("--rules", type=PATH, required=True, help="The business rules, a rules.md."),
    click.option("--tools", type=PATH, help="tools.json or tools.py. [default: beside the rules]"),
    click.option("--gold", type=PATH, help="Trusted cases, JSON Lines. [default: gold.jsonl]"),
    click.option("--no-python", is_flag=True, help="Refuse a tools.py, which would be executed."),
)
sharing_options = options(
    setting("train", "prefix_sharing"),
    click.option(
        "--no-prefix-sharing",
        "train__prefix_sharing",
        flag_value="off",
        default=None,
        help="The same as --prefix-sharing off.",
    ),
    setting("train", "rows_at_once"),
)
constrained_option = click.option(
    "--constrained/--no-constrained",
    "evaluate__constrained",
    default=None,
    callback=lambda _context, _option, given: {True: "on", False: "off"}.get(given),
    help="Decode an answer that is no valid call or reply again, so that it is one.",
)
vllm_options = options(
    setting("teacher", "vllm_command"), setting("teacher", "vllm_args", "--vllm-arg")
)
data_options = options(
    click.option("--out", type=PATH, help="The run folder. [default: runs/WORKFLOW]"),
    setting("data", "rows"),
    setting("data", "target"),
    setting("data", "seed"),
    setting("teacher", "kind", "--teacher"),
    setting("teacher", "model"),
    setting("teacher", "base_url"),
    setting("teacher", "api_key_env"),
    setting("teacher", "concurrency"),
    setting("teacher", "requests_per_minute"),
    setting("teacher", "tokens_per_minute"),
    setting("teacher", "batch"),
    setting("teacher", "timeout"),
    setting("teacher", "gate"),
    setting("teacher", "budget_usd"),
    setting("teacher", "budget_tokens"),
    vllm_options,
)
config_option = click.option(
    "--config",
    type=PATH,
    help="Settings, as TOML. [gen and run look for distill.toml beside the rules, then here]",
)
redo_option = click.option("--redo", is_flag=True, help="Make it anew, replacing what is there.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for a machine.")
run_argument = click.argument("run", type=PATH, metavar="RUN")
threads_option = setting("train", "threads")
