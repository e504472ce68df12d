"""How many planned scenarios have a usable reply in the run's store already."""

from __future__ import annotations

from collections.abc import Iterable

from distill.asking.ask import ReplyCache, read_cached
from distill.asking.writing import read_reply, write_request
from distill.records import Scenario
from distill.run.folder import RunFolder
from distill.teachers.base import Teacher, WriteTask


def count_answered(
    run: RunFolder, teacher: Teacher, replies: ReplyCache, scenarios: Iterable[Scenario]
) -> int:
    """How many of `scenarios` the run's replies answer, as the rules stand."""

    def is_answered(scenario: Scenario) -> bool:
        asked = write_request(scenario, run.workflow, run.config.teacher)
        task = asked.task
        assert isinstance(task, WriteTask)
        read = read_cached(
            asked, teacher, replies, lambda text: read_reply(text, task, teacher.name)
        )
        return read is not None

    return sum(map(is_answered, scenarios))
