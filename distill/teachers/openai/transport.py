"""The openai client over HTTP. Imported only when a request is sent."""

from __future__ import annotations

import ipaddress
import urllib.request
from collections.abc import AsyncIterator

import aiohttp
import httpx2
import openai

from distill.teachers.openai.endpoint import Endpoint

# Bytes of a body. A reply of a hundred thousand tokens has one; an endless stream has more.
MAX_BODY = 8 * 2**20
# Compressed, which is not asked for; at worst it grows a thousandfold.
MAX_COMPRESSED_BODY = 64 * 2**10


class BodyTooLargeError(Exception):
    """A body goes on beyond the limit; the rest of it was not read."""

    def __init__(self, limit: int) -> None:
        kilobytes = limit // 2**10
        super().__init__(f"the body of the reply is larger than {kilobytes:,} KiB")


def open_client(endpoint: Endpoint, timeout: float) -> openai.AsyncOpenAI:
    """A client without retries of its own. timeout: seconds for opening a connection

    It uses aiohttp: httpx's own pool iterates over all connections for each request and response,
    which at 128 of them costs more than the rest of a request. A proxy of the environment is used,
    except for loopback, and then with httpx, which supports every kind.
    """
    loopback = _is_loopback(endpoint.host)
    proxied = not loopback and _is_proxied(endpoint)
    make = openai.DefaultAsyncHttpxClient if proxied else openai.DefaultAioHttpClient
    # The teacher limits the time of a whole attempt and the requests in flight.
    connect = min(timeout, openai.DEFAULT_TIMEOUT.connect or timeout)
    limits = httpx2.Timeout(None, connect=connect)
    http_client = make(
        auth=endpoint.auth,
        timeout=limits,
        limits=httpx2.Limits(max_connections=None if proxied else 0),
        trust_env=not loopback,
        event_hooks={"response": [_bound_body]},
    )
    return openai.AsyncOpenAI(
        api_key=endpoint.key,
        base_url=endpoint.url,
        default_query=endpoint.query,
        default_headers={"Accept-Encoding": "identity"},
        max_retries=0,
        timeout=limits,
        http_client=http_client,
    )


def is_broken_connection(error: openai.APITimeoutError) -> bool:
    """Whether a connection broke: the client reports that as a timeout too."""
    mapped = error.__cause__
    root = mapped.__cause__ if mapped else None
    return isinstance(root, aiohttp.ClientError) and not isinstance(root, TimeoutError)


class _BoundedStream(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream, limit: int) -> None:
        self._stream = stream
        self._limit = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        received = 0
        async for chunk in self._stream:
            received += len(chunk)
            if received > self._limit:
                raise BodyTooLargeError(self._limit)
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _bound_body(response: httpx2.Response) -> None:
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    compressed = response.headers.get("content-encoding", "identity") != "identity"
    limit = MAX_COMPRESSED_BODY if compressed else MAX_BODY
    response.stream = _BoundedStream(response.stream, limit)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _is_proxied(endpoint: Endpoint) -> bool:
    proxies = urllib.request.getproxies()
    if not (endpoint.scheme in proxies or "all" in proxies):
        return False
    return not urllib.request.proxy_bypass(endpoint.host)
