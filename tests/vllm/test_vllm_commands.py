"""The commands with a real vLLM behind them, as a person calls them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ARGUMENTS, Made
from kit.processes import descendants

from distill.files import read_records
from distill.records import Prediction

pytestmark = pytest.mark.vllm

VLLM = [f"--vllm-arg={argument}" for argument in ARGUMENTS]


def distill(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "distill", *map(str, arguments)]
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900
    )
    print(done.stderr)
    assert "Traceback" not in done.stderr
    return done


def test_gen_starts_it_when_it_is_needed_and_only_then(made: Made, tmp_path: Path) -> None:
    before = set(descendants(os.getpid()))
    assert distill(tmp_path, "init", "shop").returncode == 0
    (tmp_path / "distill.toml").write_text(
        "[data]\ntarget = 8\nmax_rounds = 1\n"
        "[teacher]\nmax_tokens = 1500\ntimeout = 600\ngate = 0\n"
    )
    gen = (
        *("gen", "--rules", "shop/rules.md", "--config", "distill.toml", "--out", "run"),
        *("--teacher", "vllm", "--model", made.model, "--concurrency", 8),
        *("--vllm-command", os.environ["DISTILL_VLLM_COMMAND"], *VLLM),
    )
    done = distill(tmp_path, *gen)
    # A random model fills no quota; what it wrote is kept all the same.
    assert done.returncode in (0, 3)
    assert "vLLM is ready" in done.stderr
    assert "tokens/s" in done.stderr
    assert set(descendants(os.getpid())) <= before
    log = tmp_path / "run" / "2-generate" / "vllm.log"
    assert log.stat().st_size > 0
    spent = json.loads(distill(tmp_path, "status", "run", "--json").stdout)["spent"]
    assert sum(entry["requests"] for entry in spent) >= 8
    # Without failures nothing is owed, and no server is started for that.
    counts = json.loads((tmp_path / "run" / "manifest.json").read_text())["stages"]["generate"]
    if not counts["counts"]["failures"]:
        size = log.stat().st_size
        assert distill(tmp_path, *gen, "--redo").returncode in (0, 3)
        assert log.stat().st_size == size


def test_eval_serves_base_and_adapter_and_scores_them_alike(made: Made, tmp_path: Path) -> None:
    before = set(descendants(os.getpid()))
    distill(tmp_path, "init", "shop")
    (tmp_path / "train.toml").write_text(
        f"[train]\nstudent = {json.dumps(str(made.model))}\nepochs = 1\nmax_length = 8192\n"
        "learning_rate = 0.01\n[evaluate]\nmax_new_tokens = 24\n"
    )
    assert distill(tmp_path, "gen", "--rules", "shop/rules.md", "--target", 24).returncode == 0
    trained = distill(tmp_path, "train", "runs/shop", "--config", "train.toml")
    assert trained.returncode == 0, trained.stderr
    raw: dict[str, dict[str, list[str]]] = {}
    backends = {
        "transformers": (),
        "vllm": ("--vllm-command", os.environ["DISTILL_VLLM_COMMAND"], *VLLM),
    }
    for backend, more in backends.items():
        done = distill(tmp_path, "eval", "runs/shop", "--redo", "--backend", backend, *more)
        assert done.returncode == 0, done.stderr
        folder = tmp_path / "runs" / "shop" / "8-evaluate" / "gold"
        raw[backend] = {
            arm: [each.raw for each in read_records(folder / f"{arm}.jsonl", Prediction)]
            for arm in ("base", "tuned")
        }
    assert set(descendants(os.getpid())) <= before
    for arm in ("base", "tuned"):
        pairs = list(zip(raw["transformers"][arm], raw["vllm"][arm], strict=True))
        same = sum(one == other for one, other in pairs)
        print(f"\n  {arm}: {same} of {len(pairs)} answers are the same")
        # Rounding may turn a tie of a random model; most answers show that it is the same model.
        assert same >= 0.8 * len(pairs)
    assert raw["vllm"]["base"] != raw["vllm"]["tuned"]
