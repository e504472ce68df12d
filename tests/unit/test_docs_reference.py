"""The reference is what the code says: generated pages and schemas are the committed ones."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from distill.cli.main import cli
from distill.config import Config
from distill.records import FailureReason, Outcome, Reason

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))

import generate_reference  # noqa: E402
import reference_text  # noqa: E402

GENERATED = generate_reference.generated()
HINT = "run: make docs (or: python docs/generate_reference.py), and commit what it writes"


def page(name: str) -> str:
    return GENERATED[ROOT / "docs" / "reference" / f"{name}.md"]


@pytest.mark.parametrize("path", GENERATED, ids=lambda path: path.name)
def test_the_committed_reference_is_what_the_code_says(path: Path) -> None:
    assert path.exists(), HINT
    assert path.read_text("utf-8") == GENERATED[path], HINT


def test_no_file_is_left_over_from_a_record_that_is_gone() -> None:
    found = {*generate_reference.FORMATS.glob("*.json")}
    by_hand = {generate_reference.FORMATS / "gold.schema.json"}
    assert found - by_hand == {path for path in GENERATED if path.suffix == ".json"}


def test_every_setting_and_every_option_is_there() -> None:
    for section, field in Config.model_fields.items():
        for name in field.default.__class__.model_fields:
            assert f"### `{section}.{name}`\n" in page("settings")
    for name, command in cli.commands.items():
        section = page("commands").partition(f"## `distill {name}`\n")[2].partition("\n## ")[0]
        for parameter in command.params:
            for flag in parameter.opts if parameter.param_type_name == "option" else ():
                assert f"`{flag}`" in section


@pytest.mark.parametrize(
    ("meanings", "enumeration"),
    [
        (reference_text.REASONS, Reason),
        (reference_text.FAILURES, FailureReason),
        (reference_text.OUTCOMES, Outcome),
    ],
)
def test_meanings_are_of_reasons_that_there_are(
    meanings: dict[str, str], enumeration: type[Reason] | type[FailureReason] | type[Outcome]
) -> None:
    assert set(meanings) == {member.name for member in enumeration}


def test_nothing_is_explained_that_is_gone() -> None:
    names = {name for name, _ in generate_reference.layout_names()}
    assert set(reference_text.PLACES) <= names
    assert {name for held in reference_text.HOLDS.values() for name in held} <= names
    fields = {
        f"{kind.__name__}.{name}"
        for kind in (
            *generate_reference.RECORDS,
            *generate_reference.inner_records(generate_reference.RECORDS),
        )
        for name in kind.model_fields
    }
    plain = {name.partition(".")[2] for name in fields}
    assert {name for name in reference_text.FIELDS if "." in name} <= fields
    assert {name for name in reference_text.FIELDS if "." not in name} <= plain


def test_a_change_in_the_code_changes_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.commands["route"], "help", "Another help.")
    monkeypatch.delitem(reference_text.REASONS, "IN_GOLD")
    assert "Another help." in generate_reference.commands_page()
    with pytest.raises(KeyError, match="IN_GOLD"):
        generate_reference.errors_page()


def test_schemas_describe_fields_and_require_them() -> None:
    path = generate_reference.FORMATS / "prediction.schema.json"
    schema = json.loads(GENERATED[path])
    assert schema["properties"]["kind"]["description"] == "The action that the case expects."
    assert set(schema["required"]) == set(schema["properties"])
