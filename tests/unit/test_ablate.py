"""`distill ablate` with a student of two layers: done once, gone on with, refused with a reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from distill import ablate as ablation
from distill.cli.main import cli
from distill.config import Config, DataConfig, EvaluateConfig, TrainConfig
from distill.errors import DistillError, RunError, StaleRunError, StudentError
from distill.records import Json
from distill.run.folder import RunFolder
from distill.stages import pipeline
from distill.workflow import load_workflow, scaffold

FILES = ("adapter_config.json", "adapter_model.safetensors")


class Quiet:
    """A watcher who notes what begins and what is said; `at` may stop everything."""

    def __init__(self, stop: Callable[[str, int], None] = lambda *_: None) -> None:
        self.began: list[str] = []
        self.notices: list[str] = []
        self.stop = stop

    def begins(self, stage: str) -> None:
        self.began.append(stage)

    def progress(self, done: int, total: int, note: str = "") -> None:
        self.stop(self.began[-1], done)

    def ends(self, stage: str, counts: Json, seconds: float) -> None:
        pass

    def notice(self, text: str) -> None:
        self.notices.append(text)


@pytest.fixture(scope="module")
def students(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Random causal models of two layers in folders, with so many positions."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from distill.students import load_student

    folder = tmp_path_factory.mktemp("students")
    tokenizer = load_student("embedded", ()).tokenizer

    def made(positions: int) -> Path:
        student = folder / f"tiny{positions}"
        if not student.exists():
            torch.manual_seed(0)
            config = LlamaConfig(
                vocab_size=30522,
                hidden_size=8,
                intermediate_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=positions,
            )
            LlamaForCausalLM(config).save_pretrained(student)
            tokenizer.save_pretrained(student)
        return student

    return made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, students: Callable[[int], Path]) -> Path:
    """A run that has its data, of the starter's workflow."""
    folder = tmp_path_factory.mktemp("made")
    scaffold(folder / "shop")
    config = Config(
        data=DataConfig(target=40),
        train=TrainConfig(
            student=str(students(1024)), epochs=2, batch_size=16, lora_r=2, threads=1
        ),
        evaluate=EvaluateConfig(max_new_tokens=8),
    )
    run = RunFolder.create(folder / "run", load_workflow(folder / "shop" / "rules.md"), config)
    pipeline.make_data(run, Quiet())
    return folder / "run"


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def tried(done: Path, tmp_path: Path) -> Path:
    shutil.copytree(done, tmp_path / "tried")
    return tmp_path / "tried"


@pytest.fixture(scope="module")
def done(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with all three ways tried."""
    folder = tmp_path_factory.mktemp("done") / "run"
    shutil.copytree(made, folder)
    ablation.ablate(RunFolder.open(folder), ablation.MODES, Quiet())
    return folder


def with_train(run: RunFolder, **changes: object) -> RunFolder:
    train = run.config.train.model_copy(update=changes)
    return run.with_config(run.config.model_copy(update={"train": train}))


def adapter(run: Path, mode: str) -> list[bytes]:
    folder = run / "ablate" / mode / "7-train" / "adapter"
    return [(folder / name).read_bytes() for name in FILES]


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in arguments])


def test_each_way_has_its_prompts_its_student_and_its_scores(done: Path, made: Path) -> None:
    found = ablation.Ablation.model_validate_json((done / "ablate/ablation.json").read_text())
    assert [mode.declarations for mode in found.modes] == ["full", "names", "none"]
    full, names, none = (mode.prompt_tokens["gold"].mean for mode in found.modes)
    assert full > 2 * names > 4 * none
    assert len({adapter(done, mode)[1] for mode in ablation.MODES}) == 3
    gold = len(RunFolder.open(done).workflow.gold)
    for mode in found.modes:
        assert mode.problem == ""
        assert (mode.trained > 0, mode.rejected) == (True, 0)
        assert mode.seconds is not None
        assert {name: scores.n for name, scores in mode.scores.items()} == {
            "gold": gold,
            "test": len((done / "6-split/test.jsonl").read_text().splitlines()),
        }
    assert {contest.dataset for contest in found.contests} == {"gold", "test"}
    before = {path.relative_to(made) for path in made.rglob("*")}
    after = {path.relative_to(done) for path in done.rglob("*")}
    assert {path.parts[0] for path in after - before} == {"ablate"}
    assert (made / "config.json").read_bytes() == (done / "config.json").read_bytes()


def test_each_way_is_a_run_folder(done: Path) -> None:
    for mode in ablation.MODES:
        folder = RunFolder.open(done / "ablate" / mode)
        assert folder.config.train.declarations == mode
        states = {state.stage: state.state for state in pipeline.status(folder)}
        assert states.pop("report") == "missing"
        assert set(states.values()) == {"done"}
        pipeline.require_unaltered(folder)


def test_what_is_done_is_not_done_again(done: Path) -> None:
    watcher = Quiet()
    before = (done / "ablate/ablation.json").read_bytes()
    ablation.ablate(RunFolder.open(done), ablation.MODES, watcher)
    assert watcher.began == []
    assert (done / "ablate/ablation.json").read_bytes() == before


class Killed(BaseException):
    """As sudden as SIGKILL for whoever does not catch everything."""


def test_an_interrupted_one_goes_on_and_ends_in_the_same(tried: Path, done: Path) -> None:
    shutil.rmtree(tried / "ablate" / "names")

    def kill(at: str, progress: int) -> Quiet:
        def stop(stage: str, reached: int) -> None:
            if stage == at and reached >= progress:
                raise Killed

        watcher = Quiet(stop)
        with pytest.raises(Killed):
            ablation.ablate(RunFolder.open(tried), ("full", "names"), watcher)
        return watcher

    assert kill("train names", 3).began == ["train names"]
    assert list((tried / "ablate/names/7-train/checkpoints").glob("checkpoint-*"))
    assert kill("evaluate names", 1).began == ["train names", "evaluate names"]
    again = Quiet()
    ablation.ablate(RunFolder.open(tried), ("full", "names"), again)
    assert again.began == ["evaluate names"]
    assert adapter(tried, "names") == adapter(done, "names")
    said = "ablate/names/8-evaluate/gold/tuned.jsonl"
    assert (tried / said).read_bytes() == (done / said).read_bytes()


def test_other_settings_are_refused_and_redone_when_asked(tried: Path, done: Path) -> None:
    other = with_train(RunFolder.open(tried), seed=3)
    with pytest.raises(StaleRunError, match=r"train.seed: 0 -> 3") as caught:
        ablation.ablate(other, ("none",), Quiet())
    assert f"distill ablate {tried} --redo" in str(caught.value)
    ablation.ablate(other, ("none",), Quiet(), redo=True)
    assert adapter(tried, "none") != adapter(done, "none")
    assert adapter(tried, "full") == adapter(done, "full")


def test_a_way_without_room_is_a_row_that_says_so(
    run: Path, students: Callable[[int], Path]
) -> None:
    opened = with_train(RunFolder.open(run), student=str(students(128)))
    watcher = Quiet()
    full, none = ablation.ablate(opened, ("full", "none"), watcher).modes
    assert "and 128 fit" in full.problem
    assert (full.trained, full.scores, full.seconds) == (0, {}, None)
    assert full.prompt_tokens["gold"].mean > 128
    assert full.rejected == none.trained
    assert not (run / "ablate" / "full").exists()
    assert none.scores.keys() == {"gold", "test"}
    assert watcher.notices[0].startswith("full: no training row fits")
    with pytest.raises(StudentError, match="with full, no training row fits"):
        ablation.ablate(opened, ("full",), Quiet())


def test_a_run_without_data_is_refused(tmp_path: Path) -> None:
    scaffold(tmp_path / "shop")
    config = Config()
    run = RunFolder.create(tmp_path / "run", load_workflow(tmp_path / "shop/rules.md"), config)
    with pytest.raises(RunError, match="the stage plan has not run yet") as caught:
        ablation.ablate(run, ablation.MODES, Quiet())
    assert "distill gen" in str(caught.value)
    assert not (run.path / "ablate").exists()
    result = call("ablate", tmp_path / "nowhere")
    assert isinstance(result.exception, RunError)
    assert "there is no such run folder" in str(result.exception)


def test_altered_data_is_refused(run: Path) -> None:
    with open(run / "6-split" / "train.jsonl", "a") as file:
        file.write("\n")
    with pytest.raises(
        DistillError, match=r"6-split/train.jsonl is not what the stage split wrote"
    ):
        ablation.ablate(RunFolder.open(run), ("none",), Quiet())


def test_the_command_prints_rows_advice_and_what_is_next(done: Path) -> None:
    result = call("ablate", done, "--modes", "none,full")
    assert result.exit_code == 0, result.output
    # A narrow terminal breaks headings between their words.
    for word in ("tools", "full", "none", "gold", "test", "prompt", "tokens"):
        assert word in result.stdout
    assert "names" not in result.stdout
    found = json.loads(call("ablate", done, "--json").stdout)
    assert [mode["declarations"] for mode in found["modes"]] == ["full", "names", "none"]
    assert (f"next: distill train {done}" in result.stderr) == (found["choice"] is not None)
    refused = call("ablate", done, "--modes", "some")
    assert "there is no mode 'some'" in str(refused.exception)


def test_a_file_is_scored_instead(done: Path, tmp_path: Path) -> None:
    tools = [tool.name for tool in RunFolder.open(done).workflow.tools]
    rows = [{"user_content": f"row {at}", "tool_name": tools[0]} for at in range(3)]
    (tmp_path / "gold.jsonl").write_text("\n".join(map(json.dumps, rows)))
    before = {mode: adapter(done, mode) for mode in ablation.MODES}
    result = call("ablate", done, "--data", tmp_path / "gold.jsonl", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    for mode in found["modes"]:
        (name,) = mode["scores"]
        assert name.startswith("gold-")
        assert mode["scores"][name]["n"] == 3
        pipeline.require_unaltered(RunFolder.open(done / "ablate" / mode["declarations"]))
    assert {mode: adapter(done, mode) for mode in ablation.MODES} == before
    (tmp_path / "none.jsonl").write_text("")
    empty = call("ablate", done, "--data", tmp_path / "none.jsonl")
    assert isinstance(empty.exception, DistillError)
