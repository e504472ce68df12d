"""train: a student is tuned on the splits."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from distill.errors import StaleRunError, WriteError
from distill.files import read_records, write_json, write_records
from distill.records import Example, Json
from distill.run import layout
from distill.run.folder import RunFolder, read_json
from distill.run.manifest import changes, flatten
from distill.stages.stage import Context, Stage
from distill.stages.watcher import LogWatcher, Watcher

if TYPE_CHECKING:
    from distill.students import Student
    from distill.train.sft import TrainResult

READS = (layout.SPLITS["train"], layout.SPLITS["dev"])


def work(context: Context) -> Json:
    """Raises StaleRunError when a training with other settings was interrupted here."""
    from distill.cards.model import write_model_card
    from distill.train.checkpoints import remove_checkpoints
    from distill.train.student import load_student_for_training

    run = context.run
    student = load_student_for_training(run)
    _continue_or_begin(run)
    run.record()
    result = _train(student, run, context.watcher)
    write_records(run.path / layout.UNTRAINABLE, result.rejected)
    if result.rejected:
        context.watcher.notice(
            f"{len(result.rejected)} rows do not fit the student: {run.path / layout.UNTRAINABLE}"
        )
    # The adapter is the result; checkpoints only serve a training that is not done.
    remove_checkpoints(run.path / layout.CHECKPOINTS)
    write_model_card(run, run.path / layout.ADAPTER)
    return {"student": student.name, "fingerprint": student.fingerprint, **result.counts}


def progress(run: RunFolder) -> str:
    there = any((run.path / layout.CHECKPOINTS).glob("checkpoint-*"))
    return "checkpoints to go on from" if there else ""


def join_training(path: Path) -> None:
    """Take part, as one of several processes, in the training that the first one has begun."""
    from distill.train.student import load_student_for_training

    run = RunFolder.open(path)
    _train(load_student_for_training(run), run, LogWatcher())


def _train(student: Student, run: RunFolder, watcher: Watcher) -> TrainResult:
    from distill.train.sft import train
    from distill.train.student import student_renderer

    return train(
        student,
        student_renderer(student, run),
        read_records(run.path / layout.SPLITS["train"], Example),
        read_records(run.path / layout.SPLITS["dev"], Example),
        run.config.train,
        run.path / layout.TRAIN,
        progress=watcher.progress,
        notice=watcher.notice,
    )


def _continue_or_begin(run: RunFolder) -> None:
    """Checkpoints are only gone on from when they were made with these settings and data."""
    from distill.train.checkpoints import latest_complete_checkpoint

    wanted = flatten({"train": run.config.train.identity(), "data digest": run.digests(READS)})
    started = run.path / layout.TRAINING_STARTED
    if started.exists() and latest_complete_checkpoint(run.path / layout.CHECKPOINTS):
        found = changes(read_json(started), wanted)
        if found:
            raise StaleRunError(
                f"a training was interrupted here that was another: {'; '.join(found)}",
                place=run.path / layout.TRAIN,
                hint="use its settings to go on with it, or give the same command with --redo",
            )
        return
    folder = run.path / layout.TRAIN
    try:
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise WriteError.from_os(error, folder) from None
    write_json(started, wanted)


STAGE = Stage(
    name="train",
    folder=layout.TRAIN,
    settings=("train",),
    reads=READS,
    writes=(layout.ADAPTER, layout.METRICS, layout.UNTRAINABLE),
    work=work,
    progress=progress,
)
