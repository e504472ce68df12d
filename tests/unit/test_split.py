"""Families stay whole, nothing that resembles a training prompt is held out, shares are met."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from stage_data import WORKFLOW, example, example_lists, prompts

from distill.cards.dataset import dataset_card
from distill.config import Config, DataConfig
from distill.data.dedup import dedup
from distill.data.split import Leak, Splits, leaks, split
from distill.files import write_records, write_text
from distill.records import Example, Reason, StageCount, Target

shares = st.sampled_from([0.05, 0.1, 0.2, 0.3])
datas = st.builds(DataConfig, dev_share=shares, test_share=shares, seed=st.integers(0, 3))


def distinct(family: int, number: int) -> str:
    """A prompt that is near no other: a run of characters of its own."""
    return "".join(chr(0x4E00 + 100 * family + 8 * number + i) for i in range(8))


def parts(splits: Splits) -> tuple[list[Example], list[Example], list[Example]]:
    return splits.train, splits.dev, splits.test


@given(example_lists, datas)
def test_nothing_is_lost_and_no_family_is_parted(items: list[Example], data: DataConfig) -> None:
    splits = split(items, data)
    assert Counter(e.id for part in parts(splits) for e in part) == Counter(e.id for e in items)
    for one, other in itertools.combinations(parts(splits), 2):
        families = {e.scenario.family for e in one} & {e.scenario.family for e in other}
        assert not families


@given(example_lists, datas)
def test_no_duplicate_crosses_the_splits(items: list[Example], data: DataConfig) -> None:
    for examples in (items, dedup(items, (), data).kept):
        for one, other in itertools.combinations(parts(split(examples, data)), 2):
            assert leaks(one, other, data.near_duplicate) == []


@given(example_lists, datas, st.randoms())
def test_order_of_examples_does_not_matter(
    items: list[Example], data: DataConfig, random: Any
) -> None:
    assert split(items, data) == split(random.sample(items, len(items)), data)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=40), datas)
def test_each_share_is_met_as_well_as_whole_families_allow(
    sizes: list[int], data: DataConfig
) -> None:
    items = [
        example(distinct(family, n), topic=str(family))
        for family, size in enumerate(sizes)
        for n in range(size)
    ]
    splits = split(items, data)
    half = max(sizes) / 2
    for part, share in ((splits.dev, data.dev_share), (splits.test, data.test_share)):
        assert len(part) <= share * len(items) + half
        assert len(part) >= share * len(items) - half or max(sizes) > share * len(items)
    assert splits.train


@pytest.mark.parametrize(("families", "held_out"), [(4, 0), (5, 1), (10, 1), (30, 3)])
def test_equal_families_are_counted_out(families: int, held_out: int) -> None:
    items = [
        example(
            f"{chr(0x4E00 + 9 * f + n)}{chr(0x6E00 + 9 * f + n)}{chr(0x7E00 + f)}", topic=str(f)
        )
        for f in range(families)
        for n in range(4)
    ]
    splits = split(items, DataConfig())
    assert (len(splits.dev), len(splits.test)) == (4 * held_out, 4 * held_out)
    missing = "docs/call has no examples in dev and test: its 4 families cannot be parted"
    assert [note[: len(missing)] for note in splits.notes] == ([] if held_out else [missing])


def test_every_cell_is_held_out_from() -> None:
    items = [
        example(
            f"{rule}{distinct(f, n)}",
            Target(kind="refuse", reply="No."),
            rule=rule,
            topic=str(f),
        )
        for rule, families in (("docs", 20), ("pay", 10), ("chat", 1))
        for f in range(families)
        for n in range(4)
    ]
    splits = split(items, DataConfig())
    assert [Counter(e.scenario.rule for e in part) for part in parts(splits)] == [
        {"docs": 64, "pay": 32, "chat": 4},
        {"docs": 8, "pay": 4},
        {"docs": 8, "pay": 4},
    ]
    assert splits.notes == (
        "chat/refuse has no examples in dev and test: "
        "its 1 family cannot be parted so as to meet the shares",
    )


def test_the_seed_chooses() -> None:
    items = [example(distinct(f, 0), topic=str(f)) for f in range(40)]
    held = {tuple(e.id for e in split(items, DataConfig(seed=seed)).test) for seed in range(4)}
    assert len(held) == 4


@given(st.lists(prompts, max_size=6), st.lists(prompts, max_size=6))
def test_leaks_finds_what_is_in_both(a: list[str], b: list[str]) -> None:
    ours, theirs = [example(text) for text in a], [example(text) for text in b]
    found = leaks(ours, theirs, 1.0)
    assert all(
        Leak(x, y) in found
        for x in ours
        for y in theirs
        if x.conversation.last_user == y.conversation.last_user
    )


ITEMS = [example(distinct(f, 0), topic=str(f)) for f in range(20)]
REFUSED = example("pay me", Target(kind="refuse", reply="No."), rule="pay")


def test_the_card_says_what_there_is() -> None:
    splits = split([*ITEMS, REFUSED], DataConfig(seed=7))
    rejected = dedup([ITEMS[0], ITEMS[0]], (), DataConfig()).rejected
    funnel = [StageCount.of("dedup", 21, rejected), StageCount.of("balance", 21, [])]
    card = dataset_card(WORKFLOW, splits, Config(data=DataConfig(seed=7)), funnel)
    _, header, body = card.split("---\n", 2)
    assert yaml.safe_load(header)["configs"] == [
        {
            "config_name": "default",
            "data_files": [
                {"split": "train", "path": "train.jsonl"},
                {"split": "validation", "path": "dev.jsonl"},
                {"split": "test", "path": "test.jsonl"},
            ],
        }
    ]
    assert yaml.safe_load(header)["pretty_name"] == WORKFLOW.title
    for line in (
        "| docs | call | 16 | 2 | 2 |",
        "| pay | refuse | 1 | 0 | 0 |",
        "| all | | 17 | 2 | 2 |",
        "| dedup | 22 | 21 | exact_duplicate 1 |",
        "| balance | 21 | 21 | none |",
        "- Teacher: `grammar`. Seed: 7.",
        f"- {splits.notes[0]}",
    ):
        assert line in body.splitlines()


def test_the_card_of_nothing() -> None:
    card = dataset_card(WORKFLOW, split([], DataConfig()), Config())
    assert "| all | | 0 | 0 | 0 |" in card
    assert yaml.safe_load(card.split("---\n")[1])["configs"][0]["data_files"] == []


def test_stage_counts_conserve() -> None:
    rejected = dedup([REFUSED, REFUSED], (), DataConfig()).rejected
    count = StageCount.of("dedup", 1, rejected)
    assert count.came_in == count.kept + sum(count.dropped.values())
    assert count.dropped == {Reason.EXACT_DUPLICATE: 1}


def test_the_folder_loads_as_a_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    import datasets

    splits = split([*ITEMS, REFUSED], DataConfig())
    for name, part in zip(("train", "dev", "test"), parts(splits), strict=True):
        write_records(tmp_path / f"{name}.jsonl", part)
    write_text(tmp_path / "README.md", dataset_card(WORKFLOW, splits, Config()))
    loaded = datasets.load_dataset(str(tmp_path), cache_dir=str(tmp_path / "cache"))
    assert {name: part.num_rows for name, part in loaded.items()} == {
        "train": 17,
        "validation": 2,
        "test": 2,
    }
