"""Where a server is, and what must not be repeated of how it is reached."""

from __future__ import annotations

from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from distill.config import redacted_url

# Shorter words, such as the "none" of servers without keys, are no secrets but parts of others.
SHORTEST_SECRET = 5


class Address:
    """A server's base URL and its key.

    url: the base URL without user, password and query; auth: the former two, if it had them
    """

    def __init__(self, base_url: str, key: str) -> None:
        parts = urlsplit(base_url)
        self.key = key
        self.url = redacted_url(base_url)
        self.query = dict(parse_qsl(parts.query, keep_blank_values=True))
        self.auth = _user_and_password(parts)
        self.host = parts.hostname or ""
        self.scheme = parts.scheme
        self.place = self.url
        """The address as people may see it."""
        said = [key, parts.password or "", *(self.auth or ())[1:], *_values(parts.query)]
        self._secrets = sorted({s for s in said if len(s) >= SHORTEST_SECRET}, key=len)[::-1]

    def hide(self, text: str) -> str:
        """`text` without the key or a password, which some servers repeat."""
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, "***")
        return text


def _user_and_password(parts: SplitResult) -> tuple[str, str] | None:
    if parts.username is None and parts.password is None:
        return None
    return unquote(parts.username or ""), unquote(parts.password or "")


def _values(query: str) -> list[str]:
    """Some servers take their key as ?key=…"""
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    return [text for _, _, value in pairs for text in (value, unquote(value))]
