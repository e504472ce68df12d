"""`distill push`: upload an export, or the adapter, to a repository of the model hub.

huggingface_hub finds the token (HF_TOKEN, or `hf auth login`); it is neither read nor shown here. A
repository with other content is not changed.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from distill.cards.model import CARD, write_model_card
from distill.errors import ExportError, UsageError
from distill.export.export import export
from distill.export.place import METADATA
from distill.files import link_or_copy, write_json
from distill.run import layout
from distill.run.folder import RunFolder
from distill.stages.pipeline import require_trained, require_unaltered
from distill.students.public import remove_local_path
from distill.students.quiet import disable_telemetry

FORMATS = ("hf", "gguf", "adapter")
_NAME_PART = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_LOGIN_HINT = (
    "make a token that may write at https://huggingface.co/settings/tokens, then: hf auth login"
)


class HubFile(NamedTuple):
    """A file's name in the repository, and its size in bytes."""

    name: str
    size: int


class Pushed(NamedTuple):
    """What was uploaded, or would be; `url` is the commit's, and empty for a dry run."""

    repository: str
    files: tuple[HubFile, ...]
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
    """Upload the run's student to the repository OWNER/NAME, exporting it first where needed.

    Raises UsageError for an invalid repository name, ExportError for what the hub refuses.
    """
    _require_name(repository)
    with _folder_to_upload(run, format, notice) as folder:
        paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
        files = tuple(HubFile(p.relative_to(folder).as_posix(), p.stat().st_size) for p in paths)
        if dry_run:
            return Pushed(repository, files)
        return Pushed(repository, files, _upload(folder, repository, private, run))


@contextmanager
def _folder_to_upload(run: RunFolder, format: str, notice: Callable[[str], None]) -> Iterator[Path]:
    """The folder to upload; for an adapter, a copy whose card has the scores."""
    if format != "adapter":
        (made,) = export(run, [format], notice=notice)
        yield made.folder
        return
    require_trained(run)
    require_unaltered(run)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "adapter"
        _copy_files(run.path / layout.ADAPTER, folder)
        (folder / CARD).unlink(missing_ok=True)
        # An earlier distill left it in the run.
        remove_local_path(folder, str(run.manifest.stages["train"].counts.get("fingerprint", "")))
        write_model_card(run, folder)
        write_json(folder / METADATA, {"format": "adapter"})
        yield folder


def _copy_files(source: Path, target: Path) -> None:
    """The files alone: of folders, the permissions would be copied, which may be to read only."""
    for path in source.rglob("*"):
        # The pickled training arguments are of no use elsewhere.
        if path.is_file() and path.name != "training_args.bin":
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(path, place)


def _require_name(repository: str) -> None:
    owner, slash, name = repository.partition("/")
    if not slash or not _NAME_PART.fullmatch(owner) or not _NAME_PART.fullmatch(name):
        raise UsageError(
            f'"{repository}" is not the name of a repository',
            hint="write OWNER/NAME, in letters, digits, and - _ . between them",
        )


def _upload(folder: Path, repository: str, private: bool, run: RunFolder) -> str:
    disable_telemetry()
    from huggingface_hub import HfApi
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    # The library read the endpoint when it was imported; HF_ENDPOINT may be newer.
    api: Any = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), library_name="distill")
    with _hub_errors(repository):
        api.create_repo(repository, private=private or None, exist_ok=True)
        _require_ours(api, repository, private)
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=str(folder),
            commit_message=f"{run.workflow.title}, exported by distill",
        )
    return str(commit.commit_url)


def _require_ours(api: Any, repository: str, private: bool) -> None:
    """Raise ExportError for a repository with foreign files, or a public one if `private`."""
    info = api.repo_info(repository)
    if private and not info.private:
        raise ExportError(
            "is there already, and public",
            place=repository,
            hint="choose another name, make it private at the hub, or leave --private out",
        )
    names = {file.rfilename for file in info.siblings or ()} - {".gitattributes"}
    if names and METADATA not in names and names != {CARD}:
        shown = ", ".join(sorted(names)[:4])
        raise ExportError(
            f"holds something that distill did not put there: {shown}",
            place=repository,
            hint="choose another name, or empty that repository first",
        )


@contextmanager
def _hub_errors(repository: str) -> Iterator[None]:
    """Translates what huggingface_hub raises to ExportError with a hint."""
    from huggingface_hub import constants, errors

    untyped_errors: Any = errors
    try:
        yield
    except errors.LocalTokenNotFoundError:
        raise _refused(repository, "the hub was given no token", _LOGIN_HINT) from None
    except errors.OfflineModeIsEnabled:
        raise _refused(
            repository, "the hub may not be asked: HF_HUB_OFFLINE is set", "unset it, and try again"
        ) from None
    except RuntimeError as error:
        # The upload of one file failed; the cause is the HTTP error.
        if not isinstance(error.__cause__, errors.HfHubHTTPError):
            raise
        raise _http_error(repository, error.__cause__) from None
    except errors.HfHubHTTPError as error:
        raise _http_error(repository, error) from None
    except (untyped_errors.HTTPError, OSError) as error:
        raise _refused(
            repository,
            f"the hub cannot be reached at {constants.ENDPOINT}: {type(error).__name__}",
            "connect, or correct HF_ENDPOINT, and try again: what is there is not sent twice",
        ) from None


def _http_error(repository: str, error: Any) -> ExportError:
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    owner = repository.partition("/")[0]
    match status:
        case 401:
            return _refused(
                repository, "the hub does not know the token, or was given none", _LOGIN_HINT
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
    message = " ".join(str(getattr(error, "server_message", None) or "").split())[:200]
    return _refused(
        repository,
        f"the hub answers {status}{f': {message}' if message else ''}",
        "try again later: what was uploaded is not sent twice",
    )


def _refused(repository: str, cause: str, hint: str) -> ExportError:
    return ExportError(cause, place=repository, hint=hint)
