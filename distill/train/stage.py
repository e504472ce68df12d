"""The stage `train`: a run's splits become 7-train/adapter."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from distill.errors import StaleRunError, WriteError
from distill.files import read_records, write_json, write_records
from distill.records import Example, Json
from distill.render import Renderer
from distill.run.folder import RunFolder, read_json
from distill.run.manifest import changes, flatten
from distill.students import Student, load_student
from distill.train.checkpoints import newest_whole
from distill.train.processes import place
from distill.train.sft import TrainResult, train


def run_training(
    run: RunFolder, progress: Callable[[int, int, str], None], notice: Callable[[str], None]
) -> Json:
    """Tune the run's student on its training split; the counts for the manifest.

    Raises StaleRunError when a training with other settings was interrupted here.
    """
    folder = run.path / "7-train"
    student = _student(run)
    _continue_or_begin(run, folder)
    run.record()
    result = _train(student, run, progress, notice)
    write_records(folder / "rejected.jsonl", result.rejected)
    if result.rejected:
        notice(f"{len(result.rejected)} rows do not fit the student: {folder / 'rejected.jsonl'}")
    # The adapter is the result; checkpoints only serve a training that is not done.
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return {"student": student.name, "fingerprint": student.fingerprint, **result.counts}


def join_training(path: Path) -> None:
    """Take part, as one of several processes, in the training that the first one has begun."""
    run = RunFolder.open(path)
    _train(_student(run), run, lambda *_: None, lambda _: None)


def _student(run: RunFolder) -> Student:
    """The run's student, as it is read to be trained."""
    settings = run.config.train
    # FSDP shards weights that are of one type, and an adapter's are fp32.
    precise = settings.tuning == "full" or place().spread
    return load_student(
        settings.student, run.workflow.tools, attention=settings.attention, precise=precise
    )


def _train(
    student: Student,
    run: RunFolder,
    progress: Callable[[int, int, str], None],
    notice: Callable[[str], None],
) -> TrainResult:
    return train(
        student,
        student_renderer(student, run),
        read_records(run.path / "6-split" / "train.jsonl", Example),
        read_records(run.path / "6-split" / "dev.jsonl", Example),
        run.config.train,
        run.path / "7-train",
        progress=progress,
        notice=notice,
    )


def run_student(run: RunFolder) -> Student:
    """The run's student, as it is read to be asked."""
    settings = run.config.train
    return load_student(settings.student, run.workflow.tools, attention=settings.attention)


def student_renderer(student: Student, run: RunFolder) -> Renderer:
    """The one renderer of this run's student: for training, evaluation and serving."""
    declarations = run.config.train.declarations or student.declarations
    return Renderer(student.tokenizer, run.workflow.tools, declarations=declarations)


def _continue_or_begin(run: RunFolder, folder: Path) -> None:
    """Checkpoints are only gone on from when they were made with these settings and data."""
    splits = run.digests(["6-split/train.jsonl", "6-split/dev.jsonl"])
    wanted = flatten({"train": run.config.train.identity(), "data digest": splits})
    started = folder / "started.json"
    if started.exists() and newest_whole(folder / "checkpoints"):
        found = changes(read_json(started), wanted)
        if found:
            raise StaleRunError(
                f"a training was interrupted here that was another: {'; '.join(found)}",
                place=folder,
                hint="use its settings to go on with it, or give the same command with --redo",
            )
        return
    _clear(folder)
    write_json(started, wanted)


def _clear(folder: Path) -> None:
    try:
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise WriteError.from_os(error, folder) from None
