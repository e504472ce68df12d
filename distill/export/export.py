"""`distill export`: a run's tuned student as folders that others load, each loaded again first.

An export is made from the adapter and nothing else that changes: it names the adapter that it was
made from in export.json, is up to date while that is the one in the run, and is made anew when it
is not. It appears whole or not at all. What stands in its place and is no export is never touched.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from distill.cards.model import CARD, card
from distill.errors import AlteredRunError, ExportError, RunError, WriteError
from distill.export.gguf_model import begins_with_bos, write_gguf
from distill.export.merged import write_merged
from distill.export.ollama import write_modelfile
from distill.export.parity import (
    Parity,
    answers,
    compared,
    load_gguf,
    load_merged,
    prompts,
    reference,
    templates_alike,
    tokenizes_alike,
)
from distill.files import file_digest, write_json, write_text
from distill.records import Json, digest
from distill.run import layout
from distill.run.folder import RunFolder, read_json
from distill.stages.pipeline import require_unaltered
from distill.students import Student
from distill.train.student import load_run_student, student_renderer
from distill.train.threads import set_threads

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from distill.render import Renderer

FORMATS = ("hf", "gguf", "ollama")
NOTE = "export.json"
"""What an export says of itself; a folder without it is not ours."""
_NOTED = {"key", "parity", "notes", "card", "files"}
_PARITY = set(Parity._fields)
VERSION = 1
"""Raised when the same student is exported differently."""

Progress = Callable[[int, int, str], None]


class Exported(NamedTuple):
    """One export: where it is, whether it was made now, and how it answers."""

    format: str
    folder: Path
    made: bool
    parity: Parity
    notes: tuple[str, ...] = ()
    """What else a person has to know of it."""

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
    """The run's student in each of `formats`, under RUN/export or `out`.

    Each is loaded again and asked 20 prompts; answers that differ from the adapter's are reported,
    not an error. Raises RunError without a trained student, ExportError for what a format cannot
    hold, WriteError.
    """
    require_trained(run)
    set_threads(run.config.train.threads)
    root = out or run.path / layout.EXPORT
    _require_outside(run.path, root)
    works = _Works(run, quantization)
    wanted = list(dict.fromkeys(formats))
    done: list[Exported] = []
    for at, format in enumerate(wanted):
        progress(at, len(wanted), format)
        folder = root / format
        found = None if redo else _up_to_date(works, format, folder, notice)
        try:
            done.append(found or _make(works, format, folder))
        except OSError as error:
            raise WriteError.from_os(error, folder) from None
    progress(len(wanted), len(wanted), "")
    return done


class _Works:
    """What exports of one run share, each part made when it is first needed."""

    def __init__(self, run: RunFolder, quantization: str) -> None:
        self.run = run
        self.quantization = quantization

    @cached_property
    def student(self) -> Student:
        return load_run_student(self.run)

    @cached_property
    def renderer(self) -> Renderer:
        return student_renderer(self.student, self.run)

    @cached_property
    def model(self) -> PreTrainedModel:
        return self.student.load(self.run.path / layout.ADAPTER)

    @cached_property
    def asked(self) -> Any:
        return prompts(self.run, self.renderer, self.student.context_length - 1)

    @cached_property
    def expected(self) -> list[list[int]]:
        model = reference(self.student, self.run.path / layout.ADAPTER)
        return self.says(model)

    def says(self, model: PreTrainedModel) -> list[list[int]]:
        most = self.run.config.evaluate.max_new_tokens
        return answers(model, self.asked, self.renderer, most)

    def key(self, format: str) -> Json:
        """What an export follows from. Two students of one key are one student."""
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
    works: _Works, format: str, folder: Path, notice: Callable[[str], None]
) -> Exported | None:
    """The export that is there, if it is of this student and whole; None when one is to be made."""
    note = _note(folder, notice)
    if note is None:
        return None
    if note.get("key") != works.key(format):
        notice(f"{folder} was made from another student or other settings: it is made anew")
        return None
    files: Any = note["files"]
    if odd := next((n for n, value in files.items() if not _is(folder / n, value)), None):
        notice(f"{folder / odd} is not what the export wrote: it is made anew")
        return None
    _renew_card(works.run, format, folder, note, notice)
    same: Any = note["parity"]
    return Exported(format, folder, False, Parity(**same), tuple(note["notes"]))  # type: ignore[arg-type]


def _is(path: Path, value: str) -> bool:
    return path.is_file() and file_digest(path) == value


def _renew_card(
    run: RunFolder, format: Any, folder: Path, note: Json, notice: Callable[[str], None]
) -> None:
    """Bring the scores up to date, unless somebody edited the card."""
    text, path = card(run, format), folder / CARD
    if path.is_file() and file_digest(path) != note["card"]:
        notice(f"{path} was edited: it stays as it is")
    elif not path.is_file() or path.read_text("utf-8") != text:
        write_text(path, text)
        write_json(folder / NOTE, note | {"card": file_digest(path)})


def _make(works: _Works, format: str, folder: Path) -> Exported:
    """Write an export beside its place, load it again, and put it there whole."""
    _require_ours(folder)
    draft = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        parity, notes = _MAKERS[format](works, draft)
        write_text(draft / CARD, card(works.run, format))  # type: ignore[arg-type]
        note: Json = {
            "key": works.key(format),
            "parity": dict(parity._asdict()),
            "notes": list(notes),
            "card": file_digest(draft / CARD),
            "files": _files(draft),
        }
        write_json(draft / NOTE, note)
        _put(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Exported(format, folder, True, parity, notes)


def _files(folder: Path) -> Json:
    """Each file's digest by its name; the card may be renewed, and has a place of its own."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    names = ((path.relative_to(folder).as_posix(), path) for path in paths)
    return {name: file_digest(path) for name, path in names if name != CARD}


def _put(draft: Path, folder: Path) -> None:
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    draft.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


Made = tuple[Parity, tuple[str, ...]]


def _make_hf(works: _Works, draft: Path) -> Made:
    most = works.run.config.evaluate.max_new_tokens
    expected = works.expected
    write_merged(works.model, works.renderer, draft, max_new_tokens=most)
    parity = _compared(works, expected, works.says(load_merged(draft)))
    same, of = templates_alike(draft, works.asked, works.renderer)
    if same < of:
        return parity, (f"the chat template renders {same} of {of} conversations alike",)
    return parity, ()


def _make_gguf(works: _Works, draft: Path) -> Made:
    path = draft / f"model-{works.quantization}.gguf"
    title = works.run.workflow.title
    write_gguf(works.model, works.renderer, path, name=title, quantization=works.quantization)
    loaded = load_gguf(path, works.model)
    parity = _compared(works, works.expected, works.says(loaded))
    return parity, _tokenizer_notes(works, path)


def _make_ollama(works: _Works, draft: Path) -> Made:
    parity, notes = _make_gguf(works, draft)
    weights = next(draft.glob("*.gguf")).name
    bos = begins_with_bos(works.renderer)
    count = write_modelfile(works.renderer, draft, weights, bos_by_runtime=bos)
    rendered = f"the template renders {count} of {count} probes as the student's prompts"
    return parity, (*notes, f"{rendered}; Ollama itself was not run")


_MAKERS: dict[str, Callable[[_Works, Path], Made]] = {
    "hf": _make_hf,
    "gguf": _make_gguf,
    "ollama": _make_ollama,
}


def _compared(works: _Works, expected: list[list[int]], found: list[list[int]]) -> Parity:
    return compared(expected, found, works.asked, works.renderer)


def _tokenizer_notes(works: _Works, path: Path) -> tuple[str, ...]:
    """What transformers makes of the file's tokenizer; runtimes have their own readers."""
    same, of = tokenizes_alike(path, works.asked, works.renderer), len(works.asked)
    if same is None:
        return ("transformers does not know the file's pre-tokenizer: prompts were not cut by it",)
    if same < of:
        return (
            f"the file's tokenizer, as transformers reads it, cuts {same} of {of} prompts alike",
        )
    return ()


def _note(folder: Path, notice: Callable[[str], None]) -> Json | None:
    """What the export says of itself; None where it says nothing that can be read."""
    path = folder / NOTE
    if not path.is_file():
        return None
    with suppress(AlteredRunError):
        note = read_json(path)
        parity: Any = note.get("parity")
        if isinstance(parity, dict) and note.keys() >= _NOTED and parity.keys() == _PARITY:
            return note
    notice(f"{path} is not what the export wrote: it is made anew")
    return None


def _require_outside(run: Path, root: Path) -> None:
    """Raise ExportError for a place among what the run's stages write, and clear away."""
    inside = root.resolve()
    if inside.is_relative_to(run.resolve()) and not inside.is_relative_to(
        run.resolve() / layout.EXPORT
    ):
        raise ExportError(
            "is inside the run, whose stages replace what they find there",
            place=root,
            hint=f"leave --out out, for {run / 'export'}, or choose a folder outside the run",
        )


def _require_ours(folder: Path) -> None:
    """Raise ExportError for a folder that holds something, and is no export."""
    if not folder.exists() or (folder / NOTE).is_file():
        return
    if not folder.is_dir() or any(folder.iterdir()):
        raise ExportError(
            "is not an export of distill's, and not empty",
            place=folder,
            hint="move it away, or choose another folder with --out",
        )
    folder.rmdir()


def require_trained(run: RunFolder) -> None:
    """Raise RunError unless the run's student is trained, and unaltered."""
    if "train" not in run.manifest.stages or not (run.path / layout.ADAPTER).is_dir():
        raise RunError(
            "no student was trained here yet",
            place=run.path,
            hint=f"train one: distill train {run.path}",
        )
    require_unaltered(run)
