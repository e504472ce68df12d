"""What torch and safetensors raise where memory or a device fails, as errors with a way out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from distill.errors import StudentError, WriteError

_CPU_MEMORY = "DefaultCPUAllocator: "
_WRITER = ("PytorchStreamWriter", "inline_container")
"""In the messages of torch.save: a full disk shows as a wrong position in the file."""


@contextmanager
def translate_torch_errors(place: object, less_memory: str) -> Iterator[None]:
    """Raise StudentError where memory or the device fails, WriteError where the disk does.

    less_memory: how to do with less, as the hint says it
    """
    from safetensors import SafetensorError
    from torch import AcceleratorError, OutOfMemoryError

    try:
        yield
    except OSError as error:
        raise WriteError.from_os(error, place) from None
    except SafetensorError as error:
        raise _unwritten(error, place) from None
    except OutOfMemoryError as error:
        cause = f"the memory of the GPU is too small: {_first_line(error)}"
        raise StudentError(cause, place=place, hint=less_memory) from None
    except AcceleratorError as error:
        raise StudentError(
            f"the GPU failed: {_first_line(error)}",
            place=place,
            hint="run the same command again; if it fails again, the driver's log says more",
        ) from None
    except MemoryError:
        raise StudentError("the memory is too small", place=place, hint=less_memory) from None
    except RuntimeError as error:
        text = _first_line(error)
        if _CPU_MEMORY in text:
            cause = f"the memory is too small: {text.partition(_CPU_MEMORY)[2]}"
            raise StudentError(cause, place=place, hint=less_memory) from None
        if any(sign in text for sign in _WRITER):
            raise _unwritten(error, place) from None
        raise


def _unwritten(error: Exception, place: object) -> WriteError:
    return WriteError(
        f"the weights cannot be written: {_first_line(error)}",
        place=place,
        hint="free some space, then run the same command again: it goes on",
    )


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
