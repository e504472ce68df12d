"""What holds for every test: tests/ can be imported from, no hub is asked, loopback is all."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Read by the libraries when they are imported, so set before any test module is.
os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", OMP_NUM_THREADS="1")
for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
    os.environ.pop(name, None)
# The settings file of whoever runs the tests is not read.
_config_home = tempfile.TemporaryDirectory(prefix="distill-tests-")
os.environ["XDG_CONFIG_HOME"] = _config_home.name
for name in ("NO_PROXY", "no_proxy"):
    os.environ[name] = "127.0.0.1,localhost"
sys.path.insert(0, str(Path(__file__).parent))
# A shell that starts this in the background has it ignore Ctrl-C, and every child after it.
for number, handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

from distill.testing.server import ChatServer  # noqa: E402

# No clock decides a test: a busy machine is no failure. In CI the examples are the same each time.
settings.register_profile(
    "distill",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("distill")


def _only_loopback(connect: Any) -> Any:
    def guarded(self: socket.socket, address: Any) -> Any:
        if self.family != socket.AF_UNIX and not _is_loopback(address[0]):
            raise PermissionError(f"a test tried to reach {address[0]}: only loopback is allowed")
        return connect(self, address)

    return guarded


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"


socket.socket.connect = _only_loopback(socket.socket.connect)  # type: ignore[method-assign]
socket.socket.connect_ex = _only_loopback(socket.socket.connect_ex)  # type: ignore[method-assign]


@pytest.fixture
def chat_server() -> Iterator[ChatServer]:
    """A chat server on loopback that misbehaves on request."""
    with ChatServer() as server:
        yield server
