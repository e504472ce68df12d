"""Several processes that train one run: the first leads, the others follow.

`accelerate launch` and torchrun start the same command as many times as there are processes, and
say in the environment which is which. A run folder has one writer, so the leader alone opens it,
decides and writes. The followers wait until it calls them to train, or lets them go because there
is nothing to do or something is wrong, which it says itself.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, NamedTuple, NoReturn, TypeVar, cast

from distill.errors import StudentError, UsageError

T = TypeVar("T")

TIMEOUT = timedelta(hours=2)
"""How long a process waits for another that lives; that one died is noticed by the launcher."""
GRACE_SECONDS = 5.0
"""Seconds in which a launcher ends the other processes once one has failed."""
_OVER = "over"
_SPOKEN = "distill: the leader failed, and says why"


class ProcessRank(NamedTuple):
    """Which of several processes this one is."""

    rank: int
    world_size: int
    local_world_size: int = 1
    """How many of them are on this machine."""
    sharded: bool = False
    """Whether the weights are spread over them (FSDP), instead of whole in each."""


def process_rank() -> ProcessRank:
    """What the launcher says of this process; alone where there is none."""
    if "LOCAL_RANK" not in os.environ:
        return ProcessRank(0, 1)
    rank, count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    sharded = os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
    return ProcessRank(rank, count, int(os.environ.get("LOCAL_WORLD_SIZE", count)), sharded)


def is_main_process() -> bool:
    """Whether this process writes, and speaks."""
    return process_rank().rank == 0


def require_single_process(command: str) -> None:
    """Raise UsageError in the first of several processes; the others leave without a word."""
    if process_rank().world_size == 1:
        return
    if not is_main_process():
        sys.exit(0)
    raise UsageError(
        f"distill {command} works in one process, and {process_rank().world_size} were started",
        hint="only distill train shares its work; start this one without a launcher",
    )


class _Calls:
    """What was said between the processes so far."""

    made = False
    """Whether the leader has called the others."""
    heard: list[Any] = []
    """What this follower was called with, until it gets to where the value is used."""
    store: Any = None
    """Keys and values that all processes see, and need not wait for one another to see."""


@contextmanager
def main_process_scope() -> Iterator[None]:
    """Around all that the leader does; whom it has not called by the end is let go."""
    if process_rank().world_size == 1:
        yield
        return
    init_process_group()
    try:
        yield
    except BaseException:
        # They may be gone as well, as after Ctrl-C.
        with suppress(RuntimeError):
            _Calls.store.set(_SPOKEN, "1")
            _let_go()
        raise
    _let_go()
    _part()


def broadcast_from_main(make: Callable[[], T]) -> T:
    """What the leader makes here, in every process; at first, it calls the others with it."""
    if process_rank().world_size == 1:
        return make()
    if not is_main_process():
        return cast(T, _Calls.heard.pop() if _Calls.heard else _broadcast(None))
    made = make()
    _Calls.made = True
    return cast(T, _broadcast(made))


def run_as_worker(work: Callable[[], object]) -> NoReturn:
    """Do `work` when the leader calls, then leave; leave at once when it does not call.

    What goes wrong is raised only when the leader, which as a rule meets the same, does not say it.
    """
    try:
        init_process_group()
        said = _broadcast(None)
        if said != _OVER:
            _Calls.heard.append(said)
            work()
        _part()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:
        if not _leader_spoke():
            raise
        # No failure: a launcher that hears of one here would end the leader in mid-sentence.
    sys.exit(0)


def _leader_spoke() -> bool:
    """Whether the leader fails as well, before long; one that is gone has spoken."""
    until = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < until:
        try:
            if _Calls.store and _Calls.store.check([_SPOKEN]):
                return True
        except RuntimeError:
            return True
        time.sleep(0.05)
    return False


@contextmanager
def translate_connection_errors() -> Iterator[None]:
    """Turn a broken connection to another process into a StudentError, unless that one spoke."""
    try:
        yield
    except RuntimeError as error:
        if process_rank().world_size == 1 or not _is_lost(error):
            raise
        time.sleep(GRACE_SECONDS)
        raise StudentError(
            "another process of this training is gone",
            place=f"process {process_rank().rank}",
            hint="see what it said; the same command goes on from the last checkpoint",
        ) from None


def init_process_group() -> None:
    """Meet the other processes. accelerate takes the group that it finds."""
    import torch
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    if dist.is_initialized():
        return
    # Without it, accelerate would choose how many threads compute.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    _Calls.store, rank, world_size = next(rendezvous("env://", timeout=TIMEOUT))
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
        store=_Calls.store,
        rank=rank,
        world_size=world_size,
        timeout=TIMEOUT,
    )


def _is_lost(error: RuntimeError) -> bool:
    import torch.distributed as dist

    said = str(error).lower()
    signs = ("gloo", "nccl", "connection closed by peer", "connection reset")
    return isinstance(error, dist.DistError) or any(sign in said for sign in signs)


def _let_go() -> None:
    if not _Calls.made:
        _broadcast(_OVER)


def _broadcast(value: Any) -> Any:
    import torch
    import torch.distributed as dist

    box = [value]
    dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def _part() -> None:
    import torch.distributed as dist

    dist.destroy_process_group()
