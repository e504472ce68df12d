"""The HTTP client under the openai client. Imported only when a request is sent."""

from __future__ import annotations

import ipaddress
import urllib.request

import aiohttp
import httpx2
import openai

from distill.teachers.openai.address import Address


def open_client(address: Address, timeout: float) -> openai.AsyncOpenAI:
    """A client without retries of its own. timeout: seconds that a connection may take to open

    It stands on aiohttp: httpx's own pool looks at all of its connections for each request and
    each response, which at 128 of them costs more than the rest of a request. A proxy of the
    environment is used, though never for this machine, with httpx, which knows every kind.
    """
    own = _is_loopback(address.host)
    proxied = not own and _is_proxied(address)
    make = openai.DefaultAsyncHttpxClient if proxied else openai.DefaultAioHttpClient
    # An attempt as a whole is timed by the teacher, and what is under way is counted there.
    connect = min(timeout, openai.DEFAULT_TIMEOUT.connect or timeout)
    limits = httpx2.Timeout(None, connect=connect)
    http_client = make(
        auth=address.auth,
        timeout=limits,
        limits=httpx2.Limits(max_connections=None if proxied else 0),
        trust_env=not own,
    )
    return openai.AsyncOpenAI(
        api_key=address.key,
        base_url=address.url,
        default_query=address.query,
        max_retries=0,
        timeout=limits,
        http_client=http_client,
    )


def is_broken_connection(error: openai.APITimeoutError) -> bool:
    """Whether a connection broke rather than took too long: the client tells both as a timeout."""
    mapped = error.__cause__
    root = mapped.__cause__ if mapped else None
    return isinstance(root, aiohttp.ClientError) and not isinstance(root, TimeoutError)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _is_proxied(address: Address) -> bool:
    proxies = urllib.request.getproxies()
    if not (address.scheme in proxies or "all" in proxies):
        return False
    return not urllib.request.proxy_bypass(address.host)
