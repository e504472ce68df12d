"""Trainings in two processes: as torchrun starts them, and as the tests do to load torch once.

`python -m kit.together OUT RUN` trains each of SETTINGS into OUT in two processes, and then RUN
by the command line; what they print goes to OUT/said.0 and OUT/said.1.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

SETTINGS: dict[str, dict[str, object]] = {
    "cache": {"learning_rate": 5e-3, "threads": 1},
    # Shares of two rows and of one, a row at a time; of the last step, one process has nothing.
    "odd": {"batch_size": 3, "prefix_sharing": "off", "rows_at_once": 1, "epochs": 1, "threads": 1},
    "full": {
        "tuning": "full",
        "gradient_checkpointing": "on",
        "rows_at_once": 1,
        "epochs": 1,
        "threads": 1,
    },
}
"""Names of trainings that are to end alike in one process and in two."""


def launch(
    *arguments: object, processes: int = 2, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """torchrun with so many processes on this machine; `arguments` begin with -m or a file."""
    return run_python(*torchrun(processes), *arguments, timeout=timeout)


def torchrun(processes: int) -> list[object]:
    """Arguments of Python that start so many processes of what follows them."""
    # torchrun binds the port itself: a free one that is found before can be taken until then.
    place = (
        "--rdzv-backend",
        "c10d",
        "--rdzv-endpoint",
        "127.0.0.1:0",
        "--local-addr",
        "127.0.0.1",
    )
    return ["-m", "torch.distributed.run", "--nproc-per-node", processes, *place]


def run_python(
    *arguments: object, timeout: float = 300, **more: str
) -> subprocess.CompletedProcess[str]:
    """Python with tests/ on its path, and more in its environment."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {
        **os.environ,
        "PYTHONPATH": path.rstrip(os.pathsep),
        "NO_COLOR": "1",
        "COLUMNS": "200",
        **more,
    }
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)


@contextmanager
def meeting(count: int) -> Iterator[dict[str, str]]:
    """The environment in which so many processes meet, at a store that holds its port already."""
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    yield {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "WORLD_SIZE": str(count),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    # Its server ends with the last reference.
    del store


def main(out: Path, run: Path) -> int:
    """Load everything once, then be two processes that train; how many of them failed."""
    import trl.trainer.sft_trainer  # noqa: F401
    from transformers import LlamaForCausalLM  # noqa: F401

    import kit.training  # noqa: F401

    with meeting(2) as environment:
        os.environ.update(environment, LOCAL_WORLD_SIZE="2")
        children = [_fork(rank, out, lambda: _train(out, run)) for rank in range(2)]
        return sum(os.waitpid(child, 0)[1] != 0 for child in children)


def _fork(rank: int, out: Path, work: Callable[[], object]) -> int:
    child = os.fork()
    if not child:
        _be(rank, out)
        _leave(work)
    return child


def _be(rank: int, out: Path) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    said = os.open(out / f"said.{rank}", os.O_CREAT | os.O_WRONLY)
    os.dup2(said, 1)
    os.dup2(said, 2)


def _leave(work: Callable[[], object]) -> NoReturn:
    import traceback

    code: object = 1
    try:
        work()
    except SystemExit as left:
        code = left.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(bool(code)))


def _train(out: Path, run: Path) -> None:
    from distill.cli.main import main as distill
    from distill.config import TrainConfig
    from distill.train import processes
    from kit.training import train_tiny

    processes.init_process_group()
    chosen = {name: TrainConfig.model_validate(given) for name, given in SETTINGS.items()}
    for name, settings in chosen.items():
        train_tiny(out / name, settings)
    if processes.is_main_process():
        # As if it had been killed in the last of three epochs.
        kept = sorted((out / "cache" / "checkpoints").glob("checkpoint-*"))[0]
        shutil.copytree(kept, out / "resumed" / "checkpoints" / kept.name)
    train_tiny(out / "resumed", chosen["cache"])
    sys.argv = ["distill", "train", str(run), "--threads", "1", "--epochs", "1"]
    distill()


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
