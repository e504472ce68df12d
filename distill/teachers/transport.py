"""The HTTP client under the openai client: the same, with its connections in several small pools.

httpcore2's pool looks at all of its connections for each request and for each response, which at
128 connections costs more than all the rest of a request. Imported only when a request is sent.
"""

from __future__ import annotations

import ssl
import urllib.request

import httpx2
import openai

from distill.teachers.address import Address

# Connections in one pool: enough that a single pool does for most runs against a small server.
POOL = 8


class _Pool:
    def __init__(self, context: ssl.SSLContext) -> None:
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
        self.transport = httpx2.AsyncHTTPTransport(verify=context, limits=limits)
        self.load = 0


class PooledTransport(httpx2.AsyncBaseTransport):
    """As many small pools as the requests under way need; the first that has room takes one."""

    def __init__(self) -> None:
        self._pools: dict[str, list[_Pool]] = {}
        self._contexts: dict[str, ssl.SSLContext] = {}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        pool = self._with_room(request.url.scheme)
        pool.load += 1
        try:
            return await pool.transport.handle_async_request(request)
        finally:
            # The body is still to be read. By then the pool has a few connections more, at most.
            pool.load -= 1

    async def aclose(self) -> None:
        for pools in self._pools.values():
            for pool in pools:
                await pool.transport.aclose()

    def _with_room(self, scheme: str) -> _Pool:
        pools = self._pools.setdefault(scheme, [])
        for pool in pools:
            if pool.load < POOL:
                return pool
        pools.append(_Pool(self._context(scheme)))
        return pools[-1]

    def _context(self, scheme: str) -> ssl.SSLContext:
        # Certificates take longer to load than many a request, and plain HTTP needs none: its
        # context trusts nobody.
        if scheme not in self._contexts:
            plain = scheme == "http"
            self._contexts[scheme] = (
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if plain else httpx2.create_ssl_context()
            )
        return self._contexts[scheme]


def open_client(address: Address, timeout: float) -> openai.AsyncOpenAI:
    """A client without retries of its own. timeout: seconds that a connection may take to open

    The proxies of the environment are used, as by openai's own client.
    """
    # An attempt as a whole is timed by the teacher.
    connect = min(timeout, openai.DEFAULT_TIMEOUT.connect or timeout)
    limits = httpx2.Timeout(None, connect=connect)
    http_client = openai.DefaultAsyncHttpxClient(
        transport=None if _is_proxied(address) else PooledTransport(),
        auth=address.auth,
        timeout=limits,
    )
    return openai.AsyncOpenAI(
        api_key=address.key,
        base_url=address.url,
        max_retries=0,
        timeout=limits,
        http_client=http_client,
    )


def _is_proxied(address: Address) -> bool:
    proxies = urllib.request.getproxies()
    if not (address.scheme in proxies or "all" in proxies):
        return False
    return not urllib.request.proxy_bypass(address.host)
