"""A run whose answers are constrained, by flag, by setting or by argument."""

from __future__ import annotations

import json
from pathlib import Path

import export_students as tiny
import pytest
from export_run import adapt, make_run, student_folder

import distill
from distill.api import reopened_run
from distill.cli.main import cli
from distill.errors import StudentError, UsageError
from distill.evaluate.route import Router
from distill.evaluate.score import Scores
from distill.files import read_records
from distill.records import Prediction
from distill.run import layout
from distill.run.folder import RunFolder

TEXT = "What of travel meals?"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("constrained")
    student = student_folder("qwen3", folder / "student")
    made = make_run(folder / "run", str(student), lambda path: adapt(tiny.model("qwen3"), path))
    return made.path


def routed(run: Path, *flags: str) -> list[str]:
    return ["route", str(run), TEXT, "--threads", "1", *flags]


def test_a_request_is_answered_in_words_or_by_a_call(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli(routed(run, "--json"), standalone_mode=False)
    free = json.loads(capsys.readouterr().out)
    assert (free["malformed"], free["repaired"]) == (True, False)
    cli(routed(run, "--json", "--constrained"), standalone_mode=False)
    shown = json.loads(capsys.readouterr().out)
    assert (shown["malformed"], shown["repaired"]) == (False, True)
    assert shown["detail"] == f"decoded again: {free['detail']}"
    assert shown["tools"] == pytest.approx(free["tools"], abs=1e-6)
    cli(routed(run, "--constrained"), standalone_mode=False)
    assert "decoded again: no end of turn" in capsys.readouterr().err
    opened = distill.open_run(run)
    assert opened.route(TEXT, constrained=True).raw == shown["raw"]
    assert opened.route(TEXT).malformed


def test_evaluations_count_what_was_decoded_again(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def scores(**settings: str) -> tuple[Scores, list[Prediction]]:
        found = opened.evaluate(rows, progress=False, **settings)
        path = run / layout.predictions(next(iter(found)), "tuned")
        return found[next(iter(found))]["tuned"], read_records(path, Prediction)

    opened = distill.open_run(run)
    rows = [{"user_content": f"What of {word}?", "tool_name": "search_google"} for word in "abc"]
    free, before = scores()
    assert (free.repaired, free.malformed_rate) == (0, 1.0)
    made, after = scores(constrained="on")
    assert (made.repaired, made.malformed_rate) == (3, 0.0)
    assert all(one.repaired and one.raw and not one.malformed for one in after)
    assert scores()[1] == before
    data = tmp_path / "cases.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    flags = ["--data", str(data), "--constrained", "--json"]
    cli(["eval", str(run), *flags[:3]], standalone_mode=False)
    said = " ".join(capsys.readouterr().out.split())
    assert "decoded again, as they were no valid call or reply: base 3, tuned 3" in said
    cli(["eval", str(run), *flags], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["arms"]["tuned"]["repaired"] == 3


def test_a_student_whose_paths_are_read_whole_is_asked_as_well(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where flash attention is used, or a state that is no cache of keys and values."""
    opened = reopened_run(run, None, {"evaluate": {"max_new_tokens": 64, "constrained": "on"}})
    scored = Router(opened, pytest.fail).route(TEXT)
    for place in ("sharing.decode", "evaluate.route"):
        monkeypatch.setattr(f"distill.{place}.supports_path_scoring", lambda _: False)
    whole = Router(opened, pytest.fail).route(TEXT)
    assert scored.repaired
    assert scored.probabilities
    assert whole.probabilities is None
    assert whole.confidence == pytest.approx(scored.confidence, abs=1e-6)
    unsure = {"confidence": None, "probabilities": None}
    assert whole._replace(**unsure) == scored._replace(**unsure)


def test_what_was_made_without_is_stale_with_it(run: Path) -> None:
    from distill.stages.evaluate import STAGE
    from distill.stages.stage import settings_of

    one, other = RunFolder.open(run), RunFolder.open(run)
    changed = other.config.evaluate.model_copy(update={"constrained": "on"})
    other = other.with_config(other.config.model_copy(update={"evaluate": changed}))
    assert settings_of(STAGE, one) != settings_of(STAGE, other)


def test_what_cannot_be_constrained_is_refused(run: Path, tmp_path: Path) -> None:
    settings = {"constrained": "on", "backend": "vllm"}
    rows = [{"user_content": TEXT, "tool_name": "search_google"}]
    with pytest.raises(UsageError, match="by this program, not by vLLM"):
        distill.open_run(run).evaluate(rows, progress=False, **settings)
    embedded = make_run(tmp_path / "embedded", "embedded", _embedded_adapter)
    with pytest.raises(StudentError, match="grammars cannot be written"):
        cli(routed(embedded.path, "--constrained"), standalone_mode=False)


def _embedded_adapter(path: Path) -> None:
    import render_tokenizers as kit

    from distill.students import load_student

    adapt(load_student("embedded", kit.TOOLS).load_weights(), path)
