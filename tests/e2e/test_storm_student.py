"""Train, eval, export and gen are killed -9: the same command then ends in the same bytes.

At instants of the clock, and before operations on a folder's entries: every one, or every n-th
of a command that makes more than twenty.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from kit.killed import Forks
from kit.training import made_run

pytestmark = pytest.mark.storm
KILLS = 20
# Times of a clock, and the events of a board with the process's number in their names.
VARYING = ("manifest.json", ".lock", "started.json")


class Undisturbed(NamedTuple):
    """A place before a command, and what the command makes of it."""

    command: tuple[str, ...]
    before: Path
    after: dict[str, bytes]
    seconds: float
    operations: int


class Desk:
    """A place with a run, a folder for exports, and files of somebody else beside them."""

    def __init__(self, forks: Forks, base: Path) -> None:
        self.forks, self.place = forks, base / "place"
        self.place.mkdir()
        made_run(base).rename(self.place / "run")
        (self.place / "out" / "hf-mine").mkdir(parents=True)
        for name in ("mine.txt", "out/mine.txt", "out/hf-mine/thesis.txt", "out/.mine.part"):
            (self.place / name).write_text(f"precious {name}", "utf-8")
        run, out = self.place / "run", self.place / "out"
        made = ("--out", str(run), "--target", "20", "--config", str(base / "distill.toml"))
        rules = str(base / "workflow" / "rules.md")
        export = ("export", str(run), "--out", str(out), "--format", "hf")
        self.undisturbed = {
            name: self.make(base / f"before-{name}", command)
            for name, command in {
                "train": ("train", str(run)),
                "eval": ("eval", str(run)),
                "export": export,
                "export --redo": (*export, "--redo"),
                "gen --redo": ("gen", "--rules", rules, *made, "--redo"),
            }.items()
        }

    def make(self, before: Path, command: tuple[str, ...]) -> Undisturbed:
        shutil.copytree(self.place, before)
        ended = self.forks.run(*command, below=self.place)
        assert ended.code == 0, ended.said
        after = contents(self.place)
        return Undisturbed(command, before, after, ended.seconds, ended.operations)

    def restore(self, before: Path) -> None:
        shutil.rmtree(self.place)
        shutil.copytree(before, self.place)


def contents(place: Path) -> dict[str, bytes]:
    """Every file by its name, without what differs from run to run: folders are empty bytes."""
    found = {}
    for path in place.rglob("*"):
        name = path.relative_to(place).as_posix()
        if "/tensorboard" not in name:
            varies = path.name in VARYING or path.is_dir()
            found[name] = b"" if varies else path.read_bytes()
    return found


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with Forks() as forks:
        yield Desk(forks, tmp_path_factory.mktemp("storm"))


@pytest.mark.parametrize("name", ["train", "eval", "export", "export --redo", "gen --redo"])
@pytest.mark.parametrize("by", ["the clock", "operations"])
def test_killed_at_any_instant_the_same_command_ends_in_the_same_bytes(
    desk: Desk, name: str, by: str
) -> None:
    whole, begun = desk.undisturbed[name], time.monotonic()
    killed = 0
    wrong: list[str] = []
    count = KILLS if by == "the clock" else min(KILLS, whole.operations)
    for number in range(count):
        desk.restore(whole.before)
        if by == "the clock":
            seconds = whole.seconds * (number + 0.5) / count
            ended = desk.forks.run(*whole.command, seconds=seconds)
        else:
            operation = number * whole.operations // count
            ended = desk.forks.run(*whole.command, operation=operation, below=desk.place)
        killed += ended.code == -signal.SIGKILL
        again = desk.forks.run(*whole.command)
        now = contents(desk.place)
        other = {key for key in now | whole.after if now.get(key) != whole.after.get(key)}
        if again.code or other:
            wrong.append(f"{number}: {again.code} {sorted(other)[:6]} {again.said[-300:]}")
    taken = time.monotonic() - begun
    print(f"\n  {name}: killed {killed} of {count} times by {by}, {taken:.0f} s; wrong: {wrong}")
    assert not wrong
    # The machine may be faster than it was when the command was measured.
    assert killed >= (count if by == "operations" else count // 4)
