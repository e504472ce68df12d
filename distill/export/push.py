"""`distill push`: an export, or the adapter, to a repository at the model hub.

The token is huggingface_hub's affair (HF_TOKEN, or `hf auth login`): it is neither read nor shown
here. A repository that holds something else is left alone.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from distill.cards.model import CARD, write_model_card
from distill.errors import ExportError, UsageError
from distill.export.export import NOTE, export, require_trained
from distill.files import write_json
from distill.run import layout
from distill.run.folder import RunFolder
from distill.students.quiet import disable_telemetry

FORMATS = ("hf", "gguf", "adapter")
_PART = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_LOGIN = (
    "make a token that may write at https://huggingface.co/settings/tokens, then: hf auth login"
)


class File(NamedTuple):
    """A file to publish: its name in the repository, and its bytes."""

    name: str
    size: int


class Pushed(NamedTuple):
    """What was published, or would be; `url` is empty for a dry run."""

    repository: str
    files: tuple[File, ...]
    url: str = ""


def push(
    run: RunFolder,
    repository: str,
    *,
    format: str = "hf",
    private: bool = False,
    dry_run: bool = False,
    notice: Callable[[str], None] = lambda _: None,
) -> Pushed:
    """Publish the run's student as OWNER/NAME, exported first where it is not.

    Raises UsageError for a name that no repository can have, ExportError for what the hub refuses.
    """
    _require_name(repository)
    with _folder(run, format, notice) as folder:
        paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
        files = tuple(File(p.relative_to(folder).as_posix(), p.stat().st_size) for p in paths)
        if dry_run:
            return Pushed(repository, files)
        return Pushed(repository, files, _publish(folder, repository, private, run))


@contextmanager
def _folder(run: RunFolder, format: str, notice: Callable[[str], None]) -> Iterator[Path]:
    """What is to be published. An adapter is copied, to be given a card with its scores."""
    if format != "adapter":
        (made,) = export(run, [format], notice=notice)
        yield made.folder
        return
    require_trained(run)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "adapter"
        # What torch pickled of the training's arguments serves nobody else.
        ignore = shutil.ignore_patterns("training_args.bin")
        shutil.copytree(run.path / layout.ADAPTER, folder, ignore=ignore, copy_function=_linked)
        (folder / CARD).unlink(missing_ok=True)
        write_model_card(run, folder)
        write_json(folder / NOTE, {"format": "adapter"})
        yield folder


def _linked(source: str, target: str) -> str:
    """A hard link where the file system has them: weights are large."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return target


def _require_name(repository: str) -> None:
    owner, slash, name = repository.partition("/")
    if not slash or not _PART.fullmatch(owner) or not _PART.fullmatch(name):
        raise UsageError(
            f'"{repository}" is not the name of a repository',
            hint="write OWNER/NAME, in letters, digits, and - _ . between them",
        )


def _publish(folder: Path, repository: str, private: bool, run: RunFolder) -> str:
    disable_telemetry()
    from huggingface_hub import HfApi
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    # What the library read when it was imported may be older than the environment.
    api: Any = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), library_name="distill")
    with _explained(repository):
        api.create_repo(repository, private=private or None, exist_ok=True)
        _require_ours(api, repository, private)
        done = api.upload_folder(
            repo_id=repository,
            folder_path=str(folder),
            commit_message=f"{run.workflow.title}, exported by distill",
        )
    return str(done.commit_url)


def _require_ours(api: Any, repository: str, private: bool) -> None:
    """Raise ExportError for a repository with files and no export's note, or one all can see."""
    info = api.repo_info(repository)
    if private and not info.private:
        raise ExportError(
            "is there already, and public",
            place=repository,
            hint="choose another name, make it private at the hub, or leave --private out",
        )
    names = {file.rfilename for file in info.siblings or ()} - {".gitattributes"}
    if names and NOTE not in names and names != {CARD}:
        shown = ", ".join(sorted(names)[:4])
        raise ExportError(
            f"holds something that distill did not put there: {shown}",
            place=repository,
            hint="choose another name, or empty that repository first",
        )


@contextmanager
def _explained(repository: str) -> Iterator[None]:
    """What goes wrong on the way to the hub, as an error with a way out."""
    from huggingface_hub import constants, errors

    unreachable: Any = errors

    try:
        yield
    except errors.LocalTokenNotFoundError:
        raise _refused(repository, "the hub was given no token", _LOGIN) from None
    except errors.OfflineModeIsEnabled:
        raise _refused(
            repository, "the hub may not be asked: HF_HUB_OFFLINE is set", "unset it, and try again"
        ) from None
    except RuntimeError as error:
        # What went wrong with one file stands behind it.
        if not isinstance(error.__cause__, errors.HfHubHTTPError):
            raise
        raise _by_status(repository, error.__cause__) from None
    except errors.HfHubHTTPError as error:
        raise _by_status(repository, error) from None
    except (unreachable.HTTPError, OSError) as error:
        raise _refused(
            repository,
            f"the hub cannot be reached at {constants.ENDPOINT}: {type(error).__name__}",
            "connect, or correct HF_ENDPOINT, and try again: what is there is not sent twice",
        ) from None


def _by_status(repository: str, error: Any) -> ExportError:
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    owner = repository.partition("/")[0]
    match status:
        case 401:
            return _refused(
                repository, "the hub does not know the token, or was given none", _LOGIN
            )
        case 403:
            return _refused(
                repository,
                f"the token may not write to {owner}'s repositories",
                "use a token with the right to write, or a repository of your own",
            )
        case 404:
            return _refused(
                repository, "the hub has no such place", "check the owner's name, and HF_ENDPOINT"
            )
        case 413:
            return _refused(
                repository, "a file is too large for the hub", "export with --quantization q8_0"
            )
        case 429:
            return _refused(repository, "the hub wants fewer requests", "wait, and try again")
    said = " ".join(str(getattr(error, "server_message", None) or "").split())[:200]
    return _refused(
        repository,
        f"the hub answers {status}{f': {said}' if said else ''}",
        "try again later: what was uploaded is not sent twice",
    )


def _refused(repository: str, cause: str, hint: str) -> ExportError:
    return ExportError(cause, place=repository, hint=hint)
