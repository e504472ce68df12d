"""The events of a training for TensorBoard, which writes them in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def board_callback(folder: Path) -> Any:
    """A callback of the trainer that writes the events into `folder`."""
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations.integration_utils import TensorBoardCallback

    # Untyped.
    writer: Any = SummaryWriter
    callback: Any = TensorBoardCallback
    return callback(writer(str(folder)))


@contextmanager
def quiet_board() -> Iterator[None]:
    """No traceback from the board's thread: the trainer's next write raises the same error."""
    usual = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        # torch and transformers offer no other place to catch it.
        if not type(args.thread).__module__.startswith("tensorboard."):
            usual(args)

    threading.excepthook = hook
    try:
        yield
    finally:
        if threading.excepthook is hook:
            threading.excepthook = usual
