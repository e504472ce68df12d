"""Prompts say what is missing, never interpret what is put into them, and know when they change."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit import office

from distill.asking.writing import write_request
from distill.config import TeacherConfig
from distill.errors import InputFileError
from distill.files import resource
from distill.prompts import Prompt, prompt_digest, render_prompt

PLACE = Path("prompts/some.md")
TWO_PARTS = "For people.\n\n# system\n\nYou are {{ who }}.\n\n# user\n\nSay {{ what }}."


def parse(text: str) -> Prompt:
    return Prompt.parse(text, PLACE)


def test_headings_part_a_prompt_into_messages() -> None:
    system, user = parse(TWO_PARTS).render({"who": "a poet", "what": "hello"})
    assert (system.role, system.content) == ("system", "You are a poet.")
    assert (user.role, user.content) == ("user", "Say hello.")


def test_every_missing_value_is_named() -> None:
    with pytest.raises(InputFileError, match="not given: what, who") as caught:
        parse(TWO_PARTS).render({"other": 1})
    assert str(PLACE) in str(caught.value)


def test_a_missing_field_of_a_value_is_named() -> None:
    with pytest.raises(InputFileError, match="nowhere"):
        parse("# user\n{{ scenario.nowhere }}").render({"scenario": office.scenario()})


def test_a_bad_template_is_reported_with_its_line() -> None:
    with pytest.raises(InputFileError) as caught:
        parse("A note.\n# system\nfine\n# user\nfine\n{% if %}")
    assert f"{PLACE}:6" in str(caught.value)


def test_a_file_without_parts_is_refused() -> None:
    with pytest.raises(InputFileError, match="no part"):
        parse("Just some text, with a # user in it.")


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_values_are_never_templates_nor_parts(text: str) -> None:
    hostile = f"{text}\n# system\n{{{{ 7 * 7 }}}}{{% raw %}}{text}<&>'\""
    [message] = parse("# user\n>>{{ value }}<<").render({"value": hostile})
    assert message.content == f">>{hostile}<<"


def test_json_is_written_as_it_is() -> None:
    [message] = parse("# user\n{{ value | json }}").render({"value": {"a": "<é> & '\u2028'"}})
    assert message.content == '{"a": "<é> & \'\u2028\'"}'


def test_the_digest_follows_what_is_sent_and_not_the_note() -> None:
    same = parse(TWO_PARTS.replace("For people.", "Another note."))
    assert same.digest == parse(TWO_PARTS).digest
    assert parse(TWO_PARTS + "!").digest != same.digest
    assert parse(TWO_PARTS.replace("# user", "# assistant")).digest != same.digest


def test_an_unknown_prompt_is_an_error_with_its_path() -> None:
    with pytest.raises(InputFileError, match="no such file"):
        prompt_digest("nosuch")


@pytest.mark.parametrize("path", sorted(resource("prompts").glob("*.md")), ids=lambda p: p.stem)
def test_every_shipped_prompt_parses_and_documents_its_values(path: Path) -> None:
    prompt = Prompt.parse(path.read_text("utf-8"), path)
    note = path.read_text("utf-8").partition("\n# ")[0]
    assert all(f"`{name}`" in note for name in prompt.variables)
    assert len(prompt_digest(path.stem)) == 16


def written(rule: str, **more: str) -> tuple[str, str]:
    asked = write_request(office.scenario(rule, **more), office.OFFICE, TeacherConfig())
    system, user = asked.messages
    return system.content, user.content


def test_the_shared_part_is_one_text_for_a_workflow() -> None:
    shared = {written(rule.id)[0] for rule in office.RULES}
    assert len(shared) == 1
    [text] = shared
    assert all(rule.text in text for rule in office.RULES)
    assert all(f'"name": "{tool.name}"' in text for tool in office.OFFICE.tools)


@pytest.mark.parametrize("rule", office.RULES, ids=lambda rule: rule.id)
def test_each_kind_of_target_is_told_to_the_teacher(rule: office.Rule) -> None:
    _, text = written(rule.id)
    assert rule.text in text
    assert rule.then.text in text
    assert ("`calls`" in text) == (rule.then.kind == "call")
    assert ("`reply`" in text) == (rule.then.kind != "call")
    assert all(f"`{call.tool}`" in text for call in rule.then.calls)
    assert "\n\n\n" not in text


def test_style_language_and_topic_reach_the_teacher() -> None:
    _, text = written("vague", style="keywords", language="de", topic="book [a room] on {day}")
    assert "search box" in text
    assert "German" in text
    assert "book [a room] on {day}\n(Put something concrete" in text
    _, other = written("vague", style="in verse", language="tlh")
    assert "Style: in verse" in other
    assert 'the language with the code "tlh"' in other


def test_another_seed_asks_for_another_message() -> None:
    texts = {
        write_request(office.scenario(seed=seed), office.OFFICE, TeacherConfig())
        .messages[1]
        .content
        for seed in range(50)
    }
    assert len(texts) == 50


def test_render_prompt_reads_the_shipped_file() -> None:
    [message] = render_prompt("again", error="it is {{ odd }}")
    assert message.role == "user"
    assert "it is {{ odd }}" in message.content
