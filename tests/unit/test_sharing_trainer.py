"""The trainer against itself without sharing, and against TRL's: curves, metrics, two processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from kit.rows import mixed_rows, padded_rows, tiny
from kit.sharing import STEPS, jobs, log_of, made, processes, trained
from transformers import LlamaConfig, LlamaForCausalLM
from trl.trainer.sft_trainer import SFTTrainer

from distill.sharing import group_by_prefix
from distill.train.selfcheck import compare_with_plain
from distill.train.sharing_mode import choose_sharing_mode
from distill.train.trainer import RoutingTrainer

Log = list[dict[str, float]]


def assert_like(log: Log, expected: Log, rel: float = 1e-5) -> None:
    """Every step's loss, gradient and metrics, and those of every evaluation."""
    assert len(log) == len(expected)
    for entry, other in zip(log, expected, strict=True):
        assert entry == pytest.approx(other, rel=rel, abs=1e-7)


def as_trl_logs(log: Log) -> Log:
    """Without the metrics of ours."""
    ours = ("token_loss", "decision_loss", "decision_accuracy")
    return [{k: v for k, v in entry.items() if not k.endswith(ours)} for entry in log]


@pytest.fixture(scope="module", params=[1, 4])
def accumulation(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def trl_log(accumulation: int, tmp_path_factory: pytest.TempPathFactory) -> Log:
    return log_of(trained(SFTTrainer, tmp_path_factory.mktemp("trl"), accumulation=accumulation))


SHORT = 5


@pytest.mark.parametrize(
    "way",
    [
        {},
        {"rows_at_once": 1, "steps": SHORT},
        {"prefix_sharing": "flat", "steps": SHORT},
        {"prefix_sharing": "off", "steps": SHORT},
        {"checkpointing": True, "steps": SHORT},
    ],
    ids=["auto", "chunks", "flat", "off", "checkpointing"],
)
def test_steps_and_evaluations_are_those_of_trl(
    way: dict[str, Any], accumulation: int, trl_log: Log, tmp_path: Path
) -> None:
    trainer = trained(RoutingTrainer, tmp_path, accumulation=accumulation, **way)
    log = log_of(trainer)
    assert len([entry for entry in log if "loss" in entry]) == way.get("steps", STEPS)
    assert {"entropy", "mean_token_accuracy", "num_tokens"} <= log[0].keys()
    assert "eval_loss" in log[-1]
    assert {"token_loss", "decision_loss", "decision_accuracy"} <= log[0].keys()
    assert_like(as_trl_logs(log), trl_log[: len(log)])
    # Without a weight the loss is that of all labels.
    for entry in log:
        assert entry.get("token_loss") == pytest.approx(entry.get("loss"))
    expected = "flat" if way.get("checkpointing") else way.get("prefix_sharing", "cache")
    assert trainer.sharing_mode == expected


def test_decisions_weigh_as_much_on_every_way(tmp_path: Path) -> None:
    def log(way: str) -> Log:
        trainer = trained(RoutingTrainer, tmp_path, steps=2, prefix_sharing=way, weight=20.0)
        return log_of(trainer)

    off = log("off")
    assert_like(log("cache"), off)
    assert_like(log("flat"), off)
    assert off[0]["loss"] != pytest.approx(
        log_of(trained(RoutingTrainer, tmp_path, steps=1))[0]["loss"]
    )


class Forgetful(LlamaForCausalLM):
    """Computes another thing as soon as it is given a cache: the last layer reads none of it."""

    def forward(self, *args: Any, past_key_values: Any = None, **rest: Any) -> Any:
        if past_key_values is not None:
            layer = past_key_values.layers[-1]
            layer.keys, layer.values = layer.keys * 0, layer.values * 0
        return super().forward(*args, past_key_values=past_key_values, **rest)


def forgetful() -> Any:
    torch.manual_seed(0)
    return Forgetful(LlamaConfig(**tiny("llama").config.to_diff_dict()))


def test_a_model_that_would_be_trained_wrongly_is_trained_plainly(tmp_path: Path) -> None:
    heard: list[str] = []
    trainer = trained(RoutingTrainer, tmp_path, model=forgetful(), notice=heard.append, steps=SHORT)
    plain = trained(RoutingTrainer, tmp_path, model=forgetful(), prefix_sharing="off", steps=SHORT)
    assert_like(log_of(trainer), log_of(plain))
    assert trainer.sharing_mode == "off"
    assert len(heard) == 1
    assert "prefix sharing is off" in heard[0]
    assert "losses differ by" in heard[0]


class Closed(LlamaForCausalLM):
    """Keeps nothing for a next call."""

    def forward(self, *args: Any, use_cache: bool = False, **rest: Any) -> Any:
        return super().forward(*args, use_cache=False, **rest)


def test_a_model_without_a_cache_is_named(tmp_path: Path) -> None:
    heard: list[str] = []
    model = Closed(LlamaConfig(**tiny("llama").config.to_diff_dict()))
    trained(RoutingTrainer, tmp_path, model=model, notice=heard.append, steps=2)
    assert len(heard) == 1
    assert "Closed keeps no keys and values" in heard[0]


def test_the_check_leaves_autocast_its_gradients(tmp_path: Path) -> None:
    """A weight that the check cast without a gradient is not the one that training uses."""
    model = tiny("llama").train()
    table = padded_rows(mixed_rows())
    with torch.autocast("cpu", torch.bfloat16):
        assert compare_with_plain(model, group_by_prefix(*table), "cache").ratio < 1
        assert model.training
        model(input_ids=table[0]).logits.sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())


@pytest.mark.parametrize("way", ["cache", "flat"])
def test_the_check_measures_rounding(way: str) -> None:
    found = compare_with_plain(tiny("gemma3-16"), group_by_prefix(*padded_rows(mixed_rows())), way)
    assert 0 <= found.ratio < 0.1


def test_the_check_waits_for_rows_that_share_something(tmp_path: Path) -> None:
    trainer = made(RoutingTrainer, tmp_path, model=forgetful(), notice=lambda _: None)
    table = padded_rows([row for row in mixed_rows() if len(row.ids) < 20])
    lone = dict(zip(("input_ids", "attention_mask", "labels", "decision"), table, strict=True))
    trainer.compute_loss(trainer.model, lone)
    assert trainer.sharing_mode == "cache"


@pytest.mark.parametrize(
    ("requested", "single_pass", "bidirectional", "logits_to_keep", "mode", "reason"),
    [
        ("auto", "", False, True, "cache", ""),
        ("auto", "sharding", False, True, "flat", ""),
        ("flat", "", False, True, "flat", ""),
        ("cache", "sharding", False, True, "flat", "sharding leaves no cache"),
        ("auto", "sharding", True, True, "off", "both directions"),
        ("flat", "", True, True, "cache", "both directions"),
        ("auto", "", True, True, "cache", ""),
        ("auto", "", False, False, "off", "logits_to_keep"),
        ("off", "sharding", True, False, "off", ""),
    ],
)
def test_which_mode_is_chosen(
    requested: str,
    single_pass: str,
    bidirectional: bool,
    logits_to_keep: bool,
    mode: str,
    reason: str,
) -> None:
    found = choose_sharing_mode(
        requested,
        single_pass_reason=single_pass,
        bidirectional=bidirectional,
        logits_to_keep=logits_to_keep,
    )
    assert found.name == mode
    assert reason in found.reason
    assert bool(reason) == bool(found.reason)


def test_two_processes_are_one(tmp_path: Path) -> None:
    """Of different groups each; with a weight that nothing uses; accumulation 1 and 4."""
    alone, together = jobs(tmp_path / "alone"), processes(2, tmp_path / "together")
    for name, expected in alone.items():
        assert_like(comparable(together[name]["log"]), comparable(expected["log"]))
        apart = together[name]["weights"] - expected["weights"]
        assert apart.norm() <= 1e-5 * expected["weights"].norm()


def comparable(log: Log) -> Log:
    """Without metrics of evaluation batches, of which two processes compute some rows twice."""
    kept = ("eval_loss", "eval_num_tokens")
    return [
        {k: v for k, v in entry.items() if not k.startswith("eval_") or k in kept} for entry in log
    ]
