"""One run folder: its lock, its settings, its inputs, its manifest.

Disk is the interface between stages. A stage's files appear whole; its manifest entry is written
last and forgotten first, so that a run killed at any instant is a shorter run, never a wrong one.
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import ValidationError

from distill.config import Config, Setting, redacted_url
from distill.errors import (
    AlteredRunError,
    RunError,
    StaleRunError,
    UsageError,
    WriteError,
)
from distill.files import file_digest, read_text, unreadable, write_json
from distill.records import Json, Record, digest
from distill.run import layout
from distill.run.lock import (
    NEW_INPUTS,
    OLD_INPUTS,
    damaged,
    locked,
    read_json,
    require_folder,
    require_ours,
)
from distill.run.manifest import Manifest, StageEntry, changes, flatten
from distill.sources import flag_of, refusal, user_file
from distill.strict_json import JsonError, encode
from distill.version import __version__
from distill.workflow.model import Workflow

__all__ = ["RunFolder", "RunSettings", "locked", "read_json"]

R = TypeVar("R", bound=Record)


# Stages that only ask: after them rules and settings may change, as they are meant to.
ASKED = {"gate"}


class RunSettings(Record):
    """config.json: what the run was made with, so that a run is explained by its own folder."""

    format: int
    """`layout.FORMAT` of the distill that began the run."""
    distill: str
    """The version that began the run, for people."""
    workflow: str
    workflow_digest: str
    config: Config


class RunFolder:
    """An open run folder. `create` starts or continues one, `open` wants one that exists."""

    def __init__(
        self,
        path: Path,
        settings: RunSettings,
        workflow: Workflow,
        *,
        unconfirmed: frozenset[Setting] = frozenset(),
    ) -> None:
        self.path = path
        self.settings = settings
        self.workflow = workflow
        self.unconfirmed = unconfirmed
        """Settings as config.json has them that the user has not given: shown, never used."""

    @classmethod
    def of(cls, path: Path, workflow: Workflow, config: Config) -> Self:
        """The run that `create` would start at `path`, with nothing of it written."""
        settings = RunSettings(
            format=layout.FORMAT,
            distill=__version__,
            workflow=workflow.name,
            workflow_digest=workflow.fingerprint,
            config=config,
        )
        return cls(path, settings, workflow)

    @classmethod
    def create(
        cls,
        path: Path,
        workflow: Workflow,
        config: Config,
        *,
        anew: bool = False,
    ) -> Self:
        """The run at `path`, started when there is none, or when `anew` asks for it.

        Raises StaleRunError, naming every difference, when the folder holds a run of another
        workflow, data settings, teacher or run format. A run begun anew keeps the teacher's
        replies. One that goes on keeps the settings for a student that `config` does not set:
        those that its student was trained with.
        """
        run = cls.of(path, workflow, config)
        require_ours(path)
        if (path / layout.CONFIG).exists():
            if anew:
                run.forget([*run.manifest.stages])
            elif run._has_data():
                before = cls.open(path)
                before._refuse_other(run.settings, workflow)
                run = cls.of(path, workflow, _with_unsaid(config, before.config))
            else:
                _require_format(path)
        # What a run was made from stays; a run that was killed while it began is begun again.
        if not run._has_data():
            run._write_inputs()
        run.record()
        return run

    @classmethod
    def open(cls, path: Path) -> Self:
        """The run at `path`, which must exist and be of a format that this distill knows."""
        require_folder(path)
        if not (path / layout.CONFIG).is_file():
            raise RunError(
                "is not a run folder: it has no config.json",
                place=path,
                hint="make one with: distill gen --rules rules.md --out " + str(path),
            )
        _require_format(path)
        settings = _record(path / layout.CONFIG, RunSettings)
        workflow = _record(path / layout.WORKFLOW, Workflow)
        if workflow.fingerprint != settings.workflow_digest:
            raise AlteredRunError(
                "was edited after the run began",
                place=path / layout.WORKFLOW,
                hint="restore it, or start a new run from the edited rules with --out",
            )
        unsaid, personal = Config(), Config.personal_settings()
        recorded = {one for one in personal if settings.config.value(one) != unsaid.value(one)}
        return cls(path, settings, workflow, unconfirmed=frozenset(recorded))

    @property
    def config(self) -> Config:
        """The settings to work with: those of config.json, without what is unconfirmed."""
        return self.settings.config.replacing(self.unconfirmed, Config())

    def with_config(self, config: Config, *, confirmed: Set[Setting] = frozenset()) -> Self:
        """The same run with other settings for the stages still to come; `record` keeps them.

        confirmed: those of `unconfirmed` whose values in `config` are the user's own
        """
        left = self.unconfirmed - confirmed
        settings = config.replacing(left, self.settings.config)
        return type(self)(
            self.path,
            self.settings.model_copy(update={"config": settings}),
            self.workflow,
            unconfirmed=left,
        )

    def require_confirmed(self, *names: str) -> None:
        """Raise UsageError where config.json sets one of these settings of [teacher] by itself.

        A run folder may come from somebody else: what it says is not run, and nothing sent there.
        """
        place, problems = self.path / layout.CONFIG, []
        for name in names:
            setting = ("teacher", name)
            if setting in self.unconfirmed:
                value = self.settings.config.value(setting)
                ways = (flag_of(setting, value), f"put it into {user_file()}")
                problems.append(refusal(place, setting, value, ways))
        if problems:
            raise UsageError.of(problems)

    def record(self) -> None:
        """Write the settings into the run: later commands use them unless told otherwise."""
        settings = self.settings.model_dump(mode="json")
        teacher = settings["config"]["teacher"]
        teacher["base_url"] = redacted_url(teacher["base_url"])
        write_json(self.path / layout.CONFIG, settings)

    @property
    def manifest(self) -> Manifest:
        path = self.path / layout.MANIFEST
        if not path.exists():
            return Manifest()
        if not_finite := _not_finite(path):
            raise AlteredRunError(
                f"holds NaN: an earlier distill recorded a training that diverged "
                f"({', '.join(not_finite)})",
                place=path,
                hint="train again, with a lower rate: "
                f"distill train {shlex.quote(str(self.path))} --redo --learning-rate RATE",
            )
        return _record(path, Manifest)

    def forget(self, stages: Sequence[str]) -> None:
        """Drop the manifest entries of `stages`: what they wrote no longer counts."""
        path = self.path / layout.MANIFEST
        not_finite = _not_finite(path) if path.exists() else ()
        if not_finite and {*not_finite} <= {*stages}:
            entries = json.loads(read_text(path))["stages"]
            kept = {k: StageEntry.model_validate(v) for k, v in entries.items() if k not in stages}
        else:
            kept = {k: v for k, v in self.manifest.stages.items() if k not in stages}
        self._write_manifest(kept)

    def remember(self, stage: str, entry: StageEntry) -> None:
        """Write a finished stage's entry: from now on its files count."""
        self._write_manifest({**self.manifest.stages, stage: entry})

    def digests(self, names: Sequence[str]) -> dict[str, str]:
        """SHA-256 by path within the run, of files and of every file below folders.

        Raises InputFileError for what cannot be read.
        """
        found: dict[str, str] = {}
        for name in names:
            path = self.path / name
            try:
                below = sorted(path.rglob("*")) if path.is_dir() else [path]
                files = [file for file in below if file.is_file()]
            except OSError as error:
                raise unreadable(error, error.filename or path) from None
            for file in files:
                found[file.relative_to(self.path).as_posix()] = file_digest(file)
        return found

    def _write_manifest(self, stages: dict[str, StageEntry]) -> None:
        manifest = Manifest(stages=stages)
        write_json(self.path / layout.MANIFEST, manifest.model_dump(mode="json"))

    def _has_data(self) -> bool:
        """Whether something was made here that other rules could contradict."""
        return bool(self.manifest.stages.keys() - ASKED)

    def _write_inputs(self) -> None:
        """Into a new folder first, which then takes the old one's place: sources may be in it."""
        inputs, new, old = (self.path / n for n in (layout.INPUTS, NEW_INPUTS, OLD_INPUTS))
        try:
            for left in (new, old):
                shutil.rmtree(left, ignore_errors=True)
            write_json(new / Path(layout.WORKFLOW).name, self.workflow.model_dump(mode="json"))
            for source in self.workflow.sources:
                shutil.copyfile(source, new / _free_name(source.name, new))
            if inputs.exists():
                inputs.rename(old)
            new.rename(inputs)
        except OSError as error:
            raise WriteError.from_os(error, inputs) from None
        finally:
            if old.exists() and not inputs.exists():
                old.rename(inputs)
            for left in (new, old):
                shutil.rmtree(left, ignore_errors=True)

    def _refuse_other(self, settings: RunSettings, workflow: Workflow) -> None:
        then = _identity(self.settings, self.workflow)
        found = changes(then, _identity(settings, workflow))
        if found:
            raise StaleRunError(
                f"this run was made from something else: {'; '.join(found)}",
                place=self.path,
                hint="choose another folder with --out, or begin this one anew with --redo",
            )


def _free_name(name: str, folder: Path) -> str:
    """A name that no file in `folder` has, in whatever case: rules.md, 2-rules.md."""
    taken, number, free = {path.name.casefold() for path in folder.iterdir()}, 1, name
    while free.casefold() in taken:
        number += 1
        free = f"{number}-{name}"
    return free


def _with_unsaid(config: Config, recorded: Config) -> Config:
    """The settings, but the recorded ones of [train] and [evaluate] where nobody set them."""
    unsaid = (
        (section, name)
        for section in ("train", "evaluate")
        for name in type(getattr(config, section)).model_fields
        if name not in getattr(config, section).model_fields_set
    )
    return config.replacing(unsaid, recorded)


def _identity(settings: RunSettings, workflow: Workflow) -> Json:
    return flatten(
        {
            "workflow": _workflow_parts(workflow),
            "data": settings.config.data.identity(),
            "teacher": settings.config.teacher.identity(),
        }
    )


def _workflow_parts(workflow: Workflow) -> Json:
    """The workflow's parts by name, each with its digest, so that what changed can be said."""
    parts: Json = {"the title": workflow.title, "the prose": digest(workflow.prose)}
    parts |= {f'rule "{rule.id}"': digest(rule.model_dump(mode="json")) for rule in workflow.rules}
    parts |= {
        f'tool "{tool.name}"': digest(tool.model_dump(mode="json")) for tool in workflow.tools
    }
    parts["the gold set"] = digest([case.id for case in workflow.gold])
    if workflow.rows:
        parts["the file of own rows"] = digest([r.model_dump(mode="json") for r in workflow.rows])
    return parts


def _require_format(path: Path) -> None:
    """Raise StaleRunError for a run of another format, AlteredRunError where none is recorded."""
    recorded = read_json(path / layout.CONFIG)
    number, version = recorded.get("format"), recorded.get("distill")
    if not isinstance(version, str):
        raise damaged(path / layout.CONFIG, "does not say which distill made the run")
    if number != layout.FORMAT:
        raise StaleRunError(
            f"has the run format {number} of distill {version}; this is distill {__version__}, "
            f"with run format {layout.FORMAT}",
            place=path,
            hint="start a new run with --out, or use the version of distill that made this one",
        )


def _not_finite(path: Path) -> tuple[str, ...]:
    """The stages whose entry in a manifest holds NaN or Infinity, as no distill writes any more."""
    text = read_text(path)
    if "NaN" not in text and "Infinity" not in text:
        return ()
    try:
        entries = json.loads(text)["stages"]
        return tuple(name for name, entry in entries.items() if not _is_json(entry))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return ()  # damaged otherwise, as reading it will say


def _is_json(value: Any) -> bool:
    try:
        encode(value)
    except JsonError:
        return False
    return True


def _record(path: Path, kind: type[R]) -> R:
    try:
        return kind.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise damaged(path, f"is not what distill wrote: {field}: {first['msg']}") from None
