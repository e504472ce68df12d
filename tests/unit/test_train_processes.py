"""Several processes train what one would, and speak with one voice."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kit.together import SETTINGS, launch, run_python
from kit.training import made_run, tiny_student, train_tiny
from safetensors.torch import load_file
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from distill.cli.main import cli
from distill.config import TrainConfig
from distill.errors import StudentError, UsageError
from distill.train import processes
from distill.train.processes import ProcessRank
from distill.train.recipe import Recipe, require_valid_world_size
from distill.train.sampler import DUMMY_ROW, StepSampler, epoch_steps, micro_batches


@given(st.integers(1, 60), st.integers(1, 9), st.integers(0, 3))
def test_an_epoch_is_every_row_once_in_steps_of_one_size(rows: int, size: int, seed: int) -> None:
    found = epoch_steps(rows, size, seed)
    assert sorted(row for step in found for row in step) == list(range(rows))
    assert {len(step) for step in found[:-1]} <= {size}
    assert found == epoch_steps(rows, size, seed)


def test_another_epoch_has_another_order() -> None:
    shares = StepSampler([9] * 50, 5, ProcessRank(0, 1), 5, seed=0)
    first = list(shares)
    assert first == list(shares)
    shares.set_epoch(1)
    assert list(shares) != first


def test_without_a_seed_rows_are_in_order_of_length() -> None:
    shares = StepSampler([3, 1, 2], 2, ProcessRank(0, 1), 2, seed=None)
    assert list(shares) == [[1, 2], [0]]


@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 9))
def test_processes_share_a_step_without_loss_and_in_step(rows: int, of: int, at_once: int) -> None:
    shares = [micro_batches(range(rows), ProcessRank(rank, of), at_once) for rank in range(of)]
    parts = [part for share in shares for part in share]
    computed = Counter(row for part in parts for row in part if row != DUMMY_ROW)
    assert computed == Counter(range(rows))
    assert len({len(own) for own in shares}) == 1
    assert all(len(part) <= at_once for part in parts)
    assert all(DUMMY_ROW not in part or len(part) == 1 for part in parts)


@given(st.integers(1, 30), st.integers(1, 9), st.integers(1, 3), st.integers(1, 4))
def test_a_sampler_knows_how_many_parts_it_has(rows: int, size: int, of: int, at_once: int) -> None:
    shares = StepSampler([5] * rows, size, ProcessRank(0, of), at_once, seed=1)
    assert len(shares) == len(list(shares))


@pytest.mark.parametrize(
    ("settings", "process", "size", "steps"),
    [
        ({}, ProcessRank(0, 1), 64, 1),
        ({}, ProcessRank(0, 3), 22, 1),
        ({}, ProcessRank(0, 2, sharded=True), 16, 2),
        ({"prefix_sharing": "off"}, ProcessRank(0, 1), 16, 4),
        ({"prefix_sharing": "flat"}, ProcessRank(0, 3), 16, 2),
        ({"gradient_checkpointing": "on", "rows_at_once": 5}, ProcessRank(0, 2), 5, 7),
    ],
)
def test_rows_are_cut_into_parts_where_no_cache_is_kept(
    settings: dict[str, object], process: ProcessRank, size: int, steps: int
) -> None:
    given = TrainConfig.model_validate({"batch_size": 64, **settings})
    recipe = Recipe.from_config(given, tiny_student())
    assert recipe.micro_batch_size(process) == size
    assert recipe.accumulation_steps(process) == steps
    assert len(micro_batches(range(64), process, size)) == steps


def test_more_processes_than_rows_are_refused() -> None:
    recipe = Recipe.from_config(TrainConfig(batch_size=2), tiny_student())
    require_valid_world_size(ProcessRank(0, 2), recipe)
    with pytest.raises(StudentError, match="3 processes cannot share steps of 2 rows"):
        require_valid_world_size(ProcessRank(0, 3), recipe)


@pytest.mark.skipif(torch.cuda.is_available(), reason="accelerate shards weights on GPUs")
def test_sharding_on_processors_is_refused() -> None:
    recipe = Recipe.from_config(TrainConfig(), tiny_student())
    with pytest.raises(StudentError, match="on accelerators only"):
        require_valid_world_size(ProcessRank(0, 2, sharded=True), recipe)


def as_one_of(monkeypatch: pytest.MonkeyPatch, rank: int, of: int) -> None:
    for name, value in (("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", of)):
        monkeypatch.setenv(name, str(value))


def test_the_launcher_says_who_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    assert processes.process_rank() == ProcessRank(0, 1)
    as_one_of(monkeypatch, 1, 4)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert processes.process_rank() == ProcessRank(1, 4, 2, sharded=True)
    assert not processes.is_main_process()


def test_a_cluster_that_says_how_large_it_is_starts_no_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert processes.process_rank() == ProcessRank(0, 1)


def test_other_commands_are_refused_once(monkeypatch: pytest.MonkeyPatch) -> None:
    processes.require_single_process("gen")
    as_one_of(monkeypatch, 0, 2)
    with pytest.raises(UsageError, match="distill gen works in one process, and 2 were started"):
        cli(["gen", "--rules", "r.md"], standalone_mode=False)
    as_one_of(monkeypatch, 1, 2)
    with pytest.raises(SystemExit) as left:
        cli(["gen", "--rules", "r.md"], standalone_mode=False)
    assert left.value.code == 0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_run(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def together(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what two processes trained, a run among it."""
    out = tmp_path_factory.mktemp("together")
    shutil.copytree(made, out / "run")
    done = run_python("-m", "kit.together", out, out / "run")
    said = "".join(path.read_text() for path in sorted(out.glob("said.*")))
    assert done.returncode == 0, done.stderr + said
    return out


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(next((folder / "adapter").glob("*.safetensors")))


def assert_alike(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    for name, weight in first.items():
        apart = float((second[name] - weight).norm())
        assert apart <= 1e-5 * float(weight.norm()), name


@pytest.mark.parametrize("name", SETTINGS)
def test_two_processes_train_what_one_does(
    name: str,
    together: Path,
    tmp_path: Path,
) -> None:
    alone = train_tiny(tmp_path, TrainConfig.model_validate(SETTINGS[name]))
    assert_alike(tmp_path, together / name)
    logged = [
        json.loads(line) for line in (together / name / "metrics.jsonl").read_text().splitlines()
    ]
    losses = [row["eval_loss"] for row in logged if "eval_loss" in row]
    assert losses == pytest.approx([point.loss for point in alone.curve.dev], rel=1e-5)
    assert sum("loss" in row for row in logged) == alone.steps


def test_two_processes_go_on_from_a_checkpoint(together: Path) -> None:
    assert_alike(together / "cache", together / "resumed")
    metrics = [(together / name / "metrics.jsonl").read_text() for name in ("cache", "resumed")]
    assert metrics[0] == metrics[1]


def test_two_processes_speak_and_write_as_one(together: Path) -> None:
    run = together / "run"
    leader, follower = (together / f"said.{rank}" for rank in range(2))
    assert follower.read_text() == ""
    said = [line.split() for line in leader.read_text().splitlines()]
    assert [words[0] for words in said] == ["train", str(run / "7-train" / "adapter"), "next:"]
    assert json.loads((run / "manifest.json").read_text())["stages"]["train"]["counts"]["steps"]
    assert not (run / "7-train" / "checkpoints").exists()
    cli(["status", str(run)], standalone_mode=False)


FAILS = """
import sys, torch
from distill.cli.main import cli, main
from distill.errors import StudentError
from distill.train import processes

processes.GRACE_SECONDS = 1.0
where = sys.argv[1]

def work():
    processes.broadcast_from_main(lambda: "go")
    if where == "both" or where == ("leader" if processes.is_main_process() else "follower"):
        raise StudentError(f"failed in the {where}", hint="do something else")
    with processes.translate_connection_errors():
        for _ in range(1000):
            torch.distributed.all_reduce(torch.ones(1))
            torch.distributed.barrier()

@cli.command(name="train")
def fails():
    if not processes.is_main_process():
        processes.run_as_worker(work)
    with processes.main_process_scope():
        work()

cli.commands["train"] = fails
sys.argv = ["distill", "train"]
main()
"""


@pytest.mark.parametrize("where", ["follower", "both"])
def test_an_error_in_one_process_ends_all_with_one_message(where: str, tmp_path: Path) -> None:
    program = tmp_path / "fails.py"
    program.write_text(FAILS, "utf-8")
    done = launch(program, where)
    assert done.returncode != 0
    assert done.stderr.count("error: failed in the") == 1, done.stderr
    # The launcher has a traceback of its own, of one process that failed, and names the cause.
    assert done.stderr.count("Traceback") == done.stderr.count("ChildFailedError:") == 1
    assert "traceback : failed in the " in done.stderr
    assert "To enable traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments", [("--nonsense",), ("nosuchrun",), ("nosuchrun", "--epochs", "0")]
)
def test_the_launcher_is_told_what_is_wrong(arguments: tuple[str, ...], tmp_path: Path) -> None:
    told = tmp_path / "error.json"
    done = run_python(
        *("-m", "distill", "train", *arguments),
        TORCHELASTIC_ERROR_FILE=str(told),
    )
    failure = ProcessFailure(0, 1, done.returncode, str(told))
    shown = ChildFailedError("distill", {0: failure}).format_msg()
    message = " ".join(shown.partition("traceback :")[2].rstrip("=\n").split())
    assert done.returncode in (1, 2)
    assert len(message) > 20
    assert message in " ".join(done.stderr.split())


def test_what_happens_in_one_process_needs_no_others(tmp_path: Path) -> None:
    with processes.main_process_scope():
        assert processes.broadcast_from_main(lambda: 3) == 3
    with pytest.raises(RuntimeError, match="gloo"), processes.translate_connection_errors():
        raise RuntimeError("gloo: not lost, as there is nobody else")
