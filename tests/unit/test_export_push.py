"""Publishing against a hub on loopback: what arrives, what is refused, what is never said."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from export_run import make_run, trained
from kit.hub import Hub, Repository
from kit.training import SETTINGS, tiny_model, tiny_student, train_tiny

from distill.errors import ExportError, UsageError
from distill.export.push import push
from distill.run.folder import RunFolder
from distill.students import load_student
from distill.students.public import without_path

# The library sends files in a way that its HTTP client would rather not see.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    # The library reads its environment once, when it is imported.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with Hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", server.token)
        yield server


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run whose adapter is a few bytes: what is published is not looked into."""

    def adapter(folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "adapter_model.safetensors").write_bytes(b"weights" * 999)
        (folder / "adapter_config.json").write_text("{}", "utf-8")
        (folder / "README.md").write_text("as training wrote it", "utf-8")
        (folder / "training_args.bin").write_bytes(b"pickled")

    return make_run(tmp_path / "run", "owner/base", adapter)


def test_an_adapter_arrives_whole_with_a_card(run: RunFolder, hub: Hub) -> None:
    done = push(run, "me/router", format="adapter", private=True)
    kept = hub.repositories["me/router"]
    adapter = run.path / "7-train" / "adapter"
    assert kept.private
    assert kept.files["adapter_model.safetensors"] == b"weights" * 999
    assert b"# Office search" in kept.files["README.md"]
    assert b"base_model: owner/base" in kept.files["README.md"]
    assert "training_args.bin" not in kept.files
    assert done.url.startswith(f"{hub.url}/me/router/commit/")
    assert {file.name: file.size for file in done.files} == {
        name: len(data) for name, data in kept.files.items()
    }
    # The run's own file is a link away from what is published, and stays as it was.
    assert (adapter / "README.md").read_text("utf-8") == "as training wrote it"


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_no_path_of_this_machine_is_published(tuning: str, tmp_path: Path, hub: Hub) -> None:
    home = tmp_path / "athome"
    tiny_model().save_pretrained(home / "base")
    tiny_student().tokenizer.save_pretrained(home / "base")
    student = load_student(os.path.relpath(home / "base", Path.cwd()), ())
    settings = SETTINGS.model_copy(update={"tuning": tuning, "epochs": 1, "batch_size": 16})

    def adapter(folder: Path) -> None:
        train_tiny(folder.parent, settings, student=student)

    run = make_run(home / "run", student.name, adapter, tuning=tuning, declarations="none")
    there = {path.name: path.read_bytes() for path in (run.path / "7-train/adapter").iterdir()}
    for format_ in ("adapter", "hf"):
        push(run, f"me/{format_}", format=format_)
        there |= hub.repositories[f"me/{format_}"].files
    assert {"README.md", "tokenizer_config.json", "model.safetensors"} <= there.keys()
    for name, data in there.items():
        assert b"athome" not in data, name
        assert b"local_files_only" not in data, name
    if tuning == "lora":
        base = json.loads(there["adapter_config.json"])["base_model_name_or_path"]
        assert base == f"base-{student.fingerprint}"


def test_an_adapter_of_an_earlier_distill_is_published_without_its_path(
    run: RunFolder, hub: Hub
) -> None:
    config = run.path / "7-train" / "adapter" / "adapter_config.json"
    for given, fingerprint, base in (
        ("/home/me/base", "0123", "base-0123"),
        ("owner/base", "owner/base@None", "owner/base"),
    ):
        config.write_text(json.dumps({"base_model_name_or_path": given}), "utf-8")
        trained(run, fingerprint=fingerprint)
        push(run, "me/router", format="adapter")
        sent = hub.repositories["me/router"].files["adapter_config.json"]
        assert json.loads(sent) == {"base_model_name_or_path": base}
        assert json.loads(config.read_text("utf-8")) == {"base_model_name_or_path": given}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("/home/me/models/qwen", "qwen"),
        ("~/qwen", "qwen"),
        ("../qwen/", "qwen"),
        ("owner/qwen", "owner/qwen"),
        ("accounts/them/models/qwen", "accounts/them/models/qwen"),
        ("gpt-5-mini", "gpt-5-mini"),
        ("", ""),
    ],
)
def test_cards_name_a_teacher_in_a_folder_without_its_path(name: str, said: str) -> None:
    assert without_path(name) == said


def test_a_second_push_goes_on_top_and_sends_no_weights_twice(run: RunFolder, hub: Hub) -> None:
    push(run, "me/router", format="adapter")
    hub.steps.clear()
    push(run, "me/router", format="adapter")
    assert "put" not in hub.steps


def test_a_dry_run_lists_and_sends_nothing(run: RunFolder, hub: Hub) -> None:
    planned = push(run, "me/router", format="adapter", dry_run=True)
    assert "adapter_model.safetensors" in {file.name for file in planned.files}
    assert (planned.url, hub.steps) == ("", [])


@pytest.mark.parametrize(
    ("step", "status", "says", "way_out"),
    [
        ("create", 401, "does not know the token", "hf auth login"),
        ("create", 403, "may not write to me's", "right to write"),
        ("info", 404, "no such place", "HF_ENDPOINT"),
        ("preupload", 403, "may not write", "right to write"),
        ("batch", 403, "may not write", "right to write"),
        ("put", 403, "may not write", "right to write"),
        ("commit", 413, "too large", "q8_0"),
        ("commit", 400, "answers 400: refused by the kit", "try again"),
    ],
)
def test_a_refusal_says_what_to_do(
    step: str, status: int, says: str, way_out: str, run: RunFolder, hub: Hub
) -> None:
    hub.refuse[step] = status
    with pytest.raises(ExportError, match=says) as caught:
        push(run, "me/router", format="adapter")
    assert way_out in str(caught.value)
    assert hub.token not in str(caught.value)


def test_without_a_token_nothing_is_sent(
    run: RunFolder, hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(ExportError, match="does not know the token"):
        push(run, "me/router", format="adapter")
    assert not hub.repositories


def test_a_repository_of_something_else_is_left_alone(run: RunFolder, hub: Hub) -> None:
    hub.repositories["me/router"] = Repository(files={"thesis.pdf": b"mine"})
    with pytest.raises(ExportError, match=r"did not put there: thesis\.pdf"):
        push(run, "me/router", format="adapter")
    assert hub.repositories["me/router"].files == {"thesis.pdf": b"mine"}


def test_what_is_to_be_private_does_not_go_where_all_can_see(run: RunFolder, hub: Hub) -> None:
    hub.repositories["me/router"] = Repository()
    with pytest.raises(ExportError, match="there already, and public"):
        push(run, "me/router", format="adapter", private=True)
    assert "commit" not in hub.steps


@pytest.mark.parametrize(
    "name", ["router", "me/", "/router", "a/b/c", "me/a b", "me/-x", "me/a..b"]
)
def test_a_name_that_no_repository_can_have(name: str, run: RunFolder) -> None:
    with pytest.raises(UsageError, match="is not the name of a repository"):
        push(run, name, format="adapter")


def test_a_hub_that_is_away_or_forbidden(
    run: RunFolder, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ExportError, match="cannot be reached"):
        push(run, "me/router", format="adapter")
    settings: Any = constants
    monkeypatch.setattr(settings, "HF_HUB_OFFLINE", True)
    with pytest.raises(ExportError, match="HF_HUB_OFFLINE is set"):
        push(run, "me/router", format="adapter")
