"""`distill export`: a run's tuned student as folders for other programs, each verified by loading.

export.json in an export records what it was made from (see `_ExportInputs.key`). The export is up
to date while that is the run's student, and is made again otherwise. It is written to a temporary
folder and renamed. A folder in its place that is no export is never touched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from distill.cards.model import CARD, model_card
from distill.export.gguf_model import begins_with_bos, write_gguf
from distill.export.merged import write_merged
from distill.export.ollama import write_modelfile
from distill.export.parity import (
    Parity,
    ParityPrompt,
    compare_answers,
    compare_templates,
    count_same_tokenizations,
    greedy_answers,
    load_gguf,
    load_merged,
    load_reference,
    parity_prompts,
)
from distill.export.place import (
    DRAFT_MARK,
    METADATA,
    beside,
    clear,
    digests,
    read_metadata,
    replace,
    require_left_over,
    require_ours,
    require_outside,
    sweep,
    write_errors,
)
from distill.files import file_digest, write_json, write_text
from distill.records import Json, digest
from distill.run import layout
from distill.run.folder import RunFolder
from distill.stages.pipeline import require_trained, require_unaltered
from distill.students import Student
from distill.train.student import load_tuned_student, student_renderer
from distill.train.threads import set_threads

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from distill.render import Renderer

FORMATS = ("hf", "gguf", "ollama")
VERSION = 2
"""Incremented when the same student is exported differently."""

Progress = Callable[[int, int, str], None]


class Exported(NamedTuple):
    """One export: its folder, whether it was made now, and its parity with the student."""

    format: str
    folder: Path
    made: bool
    parity: Parity
    notes: tuple[str, ...] = ()
    """Limitations that a user of the export should know."""

    def as_json(self) -> Json:
        return {
            "format": self.format,
            "folder": str(self.folder),
            "made": self.made,
            "same": self.parity.same,
            "of": self.parity.of,
            "difference": self.parity.difference,
            "notes": list(self.notes),
        }


def export(
    run: RunFolder,
    formats: Sequence[str] = ("hf",),
    *,
    out: Path | None = None,
    quantization: str = "f16",
    redo: bool = False,
    progress: Progress = lambda *_: None,
    notice: Callable[[str], None] = lambda _: None,
) -> list[Exported]:
    """Export the run's student in each of `formats`, to RUN/export or `out`.

    Each export is loaded again and answers 20 prompts; answers that differ from the student's are
    reported, not raised. Raises RunError without a trained student, ExportError for what a format
    cannot express, WriteError.
    """
    require_trained(run)
    # The card shows its scores.
    require_unaltered(run)
    set_threads(run.config.train.threads)
    root = out or run.path / layout.EXPORT
    require_outside(run.path, root)
    inputs = _ExportInputs(run, quantization)
    wanted = list(dict.fromkeys(formats))
    exports: list[Exported] = []
    # All are written before the first takes its place: what one format refuses leaves no other.
    try:
        for number, format in enumerate(wanted):
            progress(number, len(wanted), format)
            folder = root / format
            with write_errors(folder):
                sweep(inputs.run, folder)
                found = None if redo else _up_to_date(inputs, format, folder, notice)
                exports.append(found or _write(inputs, format, folder))
        for one in exports:
            if one.made:
                with write_errors(one.folder):
                    replace(one.folder)
    finally:
        for format in wanted:
            sweep(inputs.run, root / format)
    progress(len(wanted), len(wanted), "")
    return exports


class _ExportInputs:
    """What the exports of one run share, computed on first use."""

    def __init__(self, run: RunFolder, quantization: str) -> None:
        self.run = run
        self.quantization = quantization

    @cached_property
    def student(self) -> Student:
        return load_tuned_student(self.run)

    @cached_property
    def renderer(self) -> Renderer:
        return student_renderer(self.student, self.run)

    @cached_property
    def model(self) -> PreTrainedModel:
        return self.student.load(self.run.path / layout.ADAPTER)

    @cached_property
    def prompts(self) -> list[ParityPrompt]:
        return parity_prompts(self.run, self.renderer, self.student.context_length - 1)

    @cached_property
    def expected(self) -> list[list[int]]:
        """The student's answers to `prompts`."""
        return self.answers(load_reference(self.student, self.run.path / layout.ADAPTER))

    def answers(self, model: PreTrainedModel) -> list[list[int]]:
        max_new_tokens = self.run.config.evaluate.max_new_tokens
        return greedy_answers(model, self.prompts, self.renderer, max_new_tokens)

    def parity(self, load_export: Callable[[], PreTrainedModel]) -> Parity:
        """How the answers of the exported model compare with the student's."""
        # First, so that its model is freed before the exported one is loaded.
        expected = self.expected
        found = self.answers(load_export())
        return compare_answers(expected, found, self.prompts, self.renderer)

    def key(self, format: str) -> Json:
        """The identity of an export: exports with equal keys are interchangeable."""
        weights = self.run.digests([layout.ADAPTER])
        weights.pop(f"{layout.ADAPTER}/{CARD}", None)
        return {
            "distill export": VERSION,
            "format": format,
            "adapter": digest(weights),
            "student": self.student.fingerprint,
            "prompts": self.renderer.fingerprint,
            "quantization": "" if format == "hf" else self.quantization,
        }


def _up_to_date(
    inputs: _ExportInputs, format: str, folder: Path, notice: Callable[[str], None]
) -> Exported | None:
    """The existing export if it is complete and of this student, its card renewed; else None."""
    metadata = read_metadata(folder, notice)
    if metadata is None:
        return None
    if metadata.get("key") != inputs.key(format):
        notice(f"{folder} was made from another student or other settings: it is made anew")
        return None
    files: Any = metadata["files"]
    for name, value in files.items():
        path = folder / name
        if not path.is_file() or file_digest(path) != value:
            notice(f"{path} is not what the export wrote: it is made anew")
            return None
    _renew_card(inputs.run, format, folder, metadata, notice)
    parity: Any = metadata["parity"]
    notes: Any = metadata["notes"]
    return Exported(format, folder, False, Parity(**parity), tuple(notes))


def _renew_card(
    run: RunFolder, format: Any, folder: Path, metadata: Json, notice: Callable[[str], None]
) -> None:
    """Write the card with the current scores, unless a person edited it."""
    text, path = model_card(run, format), folder / CARD
    if path.is_file() and file_digest(path) != metadata["card"]:
        notice(f"{path} was edited: it stays as it is")
    elif not path.is_file() or path.read_text("utf-8") != text:
        write_text(path, text)
        write_json(folder / METADATA, metadata | {"card": file_digest(path)})


def _write(inputs: _ExportInputs, format: Any, folder: Path) -> Exported:
    """Write an export to a temporary folder beside `folder`, load and compare it."""
    draft, old = beside(folder)
    require_ours(folder)
    for left in (draft, old):
        require_left_over(inputs.run, left)
        clear(left)
    draft.mkdir(parents=True)
    (draft / DRAFT_MARK).touch()
    parity, notes = _MAKERS[format](inputs, draft)
    write_text(draft / CARD, model_card(inputs.run, format))
    metadata: Json = {
        "key": inputs.key(format),
        "parity": dict(parity._asdict()),
        "notes": list(notes),
        "card": file_digest(draft / CARD),
        "files": digests(draft),
    }
    write_json(draft / METADATA, metadata)
    return Exported(format, folder, True, parity, notes)


_Made = tuple[Parity, tuple[str, ...]]


def _make_hf(inputs: _ExportInputs, draft: Path) -> _Made:
    max_new_tokens = inputs.run.config.evaluate.max_new_tokens
    write_merged(inputs.model, inputs.renderer, draft, max_new_tokens=max_new_tokens)
    parity = inputs.parity(lambda: load_merged(draft))
    same, of = compare_templates(draft, inputs.prompts, inputs.renderer)
    if same < of:
        return parity, (f"the chat template renders {same} of {of} conversations alike",)
    return parity, ()


def _make_gguf(inputs: _ExportInputs, draft: Path) -> _Made:
    path = draft / f"model-{inputs.quantization}.gguf"
    title = inputs.run.workflow.title
    write_gguf(inputs.model, inputs.renderer, path, name=title, quantization=inputs.quantization)
    parity = inputs.parity(lambda: load_gguf(path, inputs.model))
    # As transformers reads the file's tokenizer; runtimes have readers of their own.
    same, of = count_same_tokenizations(path, inputs.prompts, inputs.renderer), len(inputs.prompts)
    if same is None:
        note = "transformers does not know the file's pre-tokenizer: prompts were not cut by it"
        return parity, (note,)
    if same < of:
        note = f"the file's tokenizer, as transformers reads it, cuts {same} of {of} prompts alike"
        return parity, (note,)
    return parity, ()


def _make_ollama(inputs: _ExportInputs, draft: Path) -> _Made:
    parity, notes = _make_gguf(inputs, draft)
    weights = next(draft.glob("*.gguf")).name
    bos = begins_with_bos(inputs.renderer)
    count = write_modelfile(inputs.renderer, draft, weights, bos_by_runtime=bos)
    rendered = f"the template renders {count} of {count} probes as the student's prompts"
    return parity, (*notes, f"{rendered}; Ollama itself was not run")


_MAKERS: dict[str, Callable[[_ExportInputs, Path], _Made]] = {
    "hf": _make_hf,
    "gguf": _make_gguf,
    "ollama": _make_ollama,
}
