"""Flags for settings take what the setting takes."""

from __future__ import annotations

import click
import pytest

from distill.cli.options import _click_type
from distill.config import Config, Section


def annotation(section: str, name: str) -> object:
    model = Config.model_fields[section].annotation
    assert isinstance(model, type)
    assert issubclass(model, Section)
    return model.model_fields[name].annotation


@pytest.mark.parametrize(
    ("section", "name", "words"),
    [
        ("train", "declarations", ("full", "names", "none")),
        ("train", "tuning", ("lora", "full")),
        ("evaluate", "backend", ("transformers", "vllm")),
    ],
)
def test_a_setting_of_a_few_words_is_a_choice(
    section: str, name: str, words: tuple[str, ...]
) -> None:
    made = _click_type(annotation(section, name))
    assert isinstance(made, click.Choice)
    assert tuple(made.choices) == words


@pytest.mark.parametrize(
    ("section", "name", "kind"),
    [
        ("train", "epochs", float),
        ("train", "batch_size", int),
        ("train", "threads", int),
        ("data", "near_duplicate", float),
        ("train", "student", str),
        ("data", "styles", str),
    ],
)
def test_other_settings_keep_their_type(section: str, name: str, kind: type) -> None:
    assert _click_type(annotation(section, name)) is kind
