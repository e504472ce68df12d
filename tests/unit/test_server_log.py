"""An error of vLLM's start shows the cause, and not the frames of the tracebacks around it."""

from __future__ import annotations

import pytest

from distill.serving.server_log import TAIL_LINES, server_end

CAUSES = {
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 9.00 GiB.": "",
    "ValueError: Free memory on device (9.1/79.2 GiB) on startup is less than desired.": "",
    "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig": (
        "  Value error, User-specified max_model_len (9) is greater than the derived max_model_len"
    ),
    "AssertionError": "",
}
FRAMES = "\n".join(
    f'  File "/site-packages/vllm/v1/engine/core.py", line {at}, in run\n    go({at})\n    ^^'
    for at in range(30)
)
ENGINE_FAILED = "RuntimeError: Engine core initialization failed. See root cause above. Failed: {}"


def traceback(error: str) -> str:
    return f"Traceback (most recent call last):\n{FRAMES}\n{error}"


def logged(process: str, text: str) -> str:
    prefix = f"({process} pid=77) ERROR 11-25 17:02:03 [core.py:842] "
    return "\n".join(f"\x1b[31m{prefix}{line}\x1b[0;0m" for line in text.split("\n"))


def failed_start(error: str) -> str:
    """As vLLM 0.11 writes it: the engine's log, its process, and the API server's traceback."""
    return "\n".join(
        [
            "INFO 11-25 17:02:01 [api_server.py:9] ValueError: no cause, but a setting's name",
            "WARNING 11-25 17:02:01 [x.py:9] ImportError: flashinfer is not installed",
            "WARNING 11-25 17:02:01 [x.py:9] ",
            logged("EngineCore_DP0", "EngineCore failed to start.\n" + traceback(error)),
            "(EngineCore_DP0 pid=77) Process EngineCore_DP0:",
            *(f"(EngineCore_DP0 pid=77) {line}" for line in traceback(error).split("\n")),
            "[rank0]:[W1125] Warning: WARNING: destroy_process_group() was not called",
            *(f"(APIServer pid=76) {line}" for line in traceback(ENGINE_FAILED).split("\n")),
            "",
        ]
    )


@pytest.mark.parametrize("error", CAUSES)
def test_the_cause_of_a_failed_start_is_one_line(error: str) -> None:
    detail = CAUSES[error]
    said = server_end(failed_start(f"{error}\n{detail}" if detail else error))
    assert said == f"  {error}{detail and ' ' + detail.strip()}"


@pytest.mark.parametrize("first", ["OSError: inner", "KeyError: 'inner'"])
@pytest.mark.parametrize(
    "between",
    [
        "The above exception was the direct cause of the following exception:",
        "During handling of the above exception, another exception occurred:",
    ],
)
def test_of_chained_errors_the_last_is_shown_unless_it_is_a_consequence(
    first: str, between: str
) -> None:
    chain = f"{traceback(first)}\n\n{between}\n\n"
    assert server_end(
        failed_start(f"{first}\n\n{between}\n\n{traceback('OSError: gated repo')}")
    ) == ("  OSError: gated repo")
    assert server_end(chain + traceback(ENGINE_FAILED)) == f"  {first}"


def test_without_another_error_the_consequence_is_shown() -> None:
    assert server_end(traceback(ENGINE_FAILED)) == f"  {ENGINE_FAILED}"


def test_refused_flags_are_shown_without_the_usage() -> None:
    log = "usage: api_server.py [-h]\n" + "    [--flag X]\n" * 40
    log += "api_server.py: error: unrecognized arguments: --fast\n"
    assert server_end(log) == "  api_server.py: error: unrecognized arguments: --fast"


def test_a_log_without_an_error_shows_its_last_lines_without_frames() -> None:
    log = "\n".join([*(f"line {at}" for at in range(40)), FRAMES])
    assert server_end(log).split("\n") == [f"  line {at}" for at in range(40 - TAIL_LINES, 40)]
    assert server_end("") == "  (it wrote nothing)"
