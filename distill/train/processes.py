"""Several processes that train one run: rank 0 is the main process, the others are workers.

`accelerate launch` and torchrun start the same command once per rank, and set RANK and WORLD_SIZE
in the environment. A run folder has one writer, so only the main process opens it, decides and
writes. The workers wait until it starts the training, or releases them because there is nothing to
do or an error occurred, which it reports itself.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar, cast

from distill import strict_json
from distill.errors import StudentError, UsageError

T = TypeVar("T")

TIMEOUT = timedelta(hours=2)
"""How long a process waits for another that is alive; the launcher notices one that died."""
GRACE_SECONDS = 5.0
"""Time for a launcher to end the other processes once one has failed."""
_RELEASE = "release"
_MAIN_FAILED = "distill: the main process failed"
"""A key of the store."""


class ProcessRank(NamedTuple):
    """Which of several processes this one is."""

    rank: int
    world_size: int
    local_world_size: int = 1
    """Processes on this machine."""
    sharded: bool = False
    """Whether the weights are sharded over the processes (FSDP), instead of replicated."""


def process_rank() -> ProcessRank:
    """From the environment that the launcher sets; rank 0 of 1 without a launcher."""
    if "LOCAL_RANK" not in os.environ:
        return ProcessRank(0, 1)
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    sharded = os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
    local_world_size = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    return ProcessRank(rank, world_size, local_world_size, sharded)


def is_main_process() -> bool:
    """Whether this process writes files and prints."""
    return process_rank().rank == 0


def require_single_process(command: str) -> None:
    """Raise UsageError in the main process of several; the workers exit silently."""
    if process_rank().world_size == 1:
        return
    if not is_main_process():
        sys.exit(0)
    raise UsageError(
        f"distill {command} works in one process, and {process_rank().world_size} were started",
        hint="only distill train shares its work; start this one without a launcher",
    )


def report_to_launcher(message: str) -> None:
    """Write an error where the launcher reads it: its table of failures then shows `message`.

    Without this it says "To enable traceback see ...". The file's format is that of
    torch.distributed.elastic.multiprocessing.errors.ProcessFailure.
    """
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        more = {"py_callstack": message, "timestamp": str(int(time.time()))}
        report = {"message": {"message": message, "extraInfo": more}}
        with suppress(OSError):
            Path(path).write_text(strict_json.encode(report), "utf-8")


class _State:
    """The communication of this process with the others so far."""

    workers_started = False
    """In the main process: whether the first broadcast was made, on which workers start."""
    first_broadcast: list[Any] = []
    """In a worker: the value of that broadcast, until `broadcast_from_main` returns it."""
    store: Any = None
    """torch's key-value store: unlike a broadcast, it can be read without waiting."""


@contextmanager
def main_process_scope() -> Iterator[None]:
    """Around all work of the main process; at the end, workers that never started are released."""
    if process_rank().world_size == 1:
        yield
        return
    import torch.distributed as dist

    init_process_group()
    try:
        yield
    except BaseException:
        # The workers may be gone as well, as after Ctrl-C.
        with suppress(RuntimeError):
            _State.store.set(_MAIN_FAILED, "1")
            _release_workers()
        raise
    _release_workers()
    dist.destroy_process_group()


def broadcast_from_main(make: Callable[[], T]) -> T:
    """The value that `make` returns in the main process, in all; the first call starts workers."""
    if process_rank().world_size == 1:
        return make()
    if not is_main_process():
        received = _State.first_broadcast.pop() if _State.first_broadcast else _broadcast(None)
        return cast(T, received)
    value = make()
    _State.workers_started = True
    return cast(T, _broadcast(value))


def run_as_worker(work: Callable[[], object]) -> NoReturn:
    """Run `work` when the main process starts the workers, then exit; exit at once on release.

    An error is only raised if the main process, which usually meets the same, does not report it.
    """
    try:
        import torch.distributed as dist

        init_process_group()
        value = _broadcast(None)
        if value != _RELEASE:
            _State.first_broadcast.append(value)
            work()
        dist.destroy_process_group()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:
        if not _main_process_failed():
            raise
        # Exit 0: on a failure here, a launcher would kill the main process before its message.
    sys.exit(0)


def _main_process_failed() -> bool:
    """Whether the main process fails within the grace period, or is gone."""
    deadline = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < deadline:
        try:
            if _State.store and _State.store.check([_MAIN_FAILED]):
                return True
        except RuntimeError:
            return True
        time.sleep(0.05)
    return False


@contextmanager
def translate_connection_errors() -> Iterator[None]:
    """Raise StudentError where the connection to another process broke, after the grace period.

    A launcher that has seen the other one fail ends this process within that time.
    """
    try:
        yield
    except RuntimeError as error:
        if process_rank().world_size == 1 or not _is_connection_error(error):
            raise
        time.sleep(GRACE_SECONDS)
        raise StudentError(
            "another process of this training is gone",
            place=f"process {process_rank().rank}",
            hint="see what it said; the same command goes on from the last checkpoint",
        ) from None


def init_process_group() -> None:
    """Connect to the other processes, once; accelerate uses an existing process group."""
    import torch
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    if dist.is_initialized():
        return
    # If it is unset, accelerate sets the number of threads itself.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    _State.store, rank, world_size = next(rendezvous("env://", timeout=TIMEOUT))
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
        store=_State.store,
        rank=rank,
        world_size=world_size,
        timeout=TIMEOUT,
    )


def _is_connection_error(error: RuntimeError) -> bool:
    import torch.distributed as dist

    message = str(error).lower()
    signs = ("gloo", "nccl", "connection closed by peer", "connection reset")
    return isinstance(error, dist.DistError) or any(sign in message for sign in signs)


def _release_workers() -> None:
    if not _State.workers_started:
        _broadcast(_RELEASE)


def _broadcast(value: Any) -> Any:
    import torch
    import torch.distributed as dist

    values = [value]
    dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
    return values[0]
