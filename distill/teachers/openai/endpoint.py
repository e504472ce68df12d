"""The base URL and key of a server, and the redaction of their secrets."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote, urlsplit

from distill.config import redacted_url

# Shorter strings, such as the key "none" of servers without keys, also occur in ordinary text.
MIN_SECRET_LENGTH = 5


class Endpoint:
    """A server's base URL and its key.

    url: the base URL without user, password and query, fit to be shown to people
    auth: user and password, where the URL has them
    """

    def __init__(self, base_url: str, key: str) -> None:
        parts = urlsplit(base_url)
        self.key = key
        self.url = redacted_url(base_url)
        self.query = dict(parse_qsl(parts.query, keep_blank_values=True))
        self.auth: tuple[str, str] | None = None
        if parts.username is not None or parts.password is not None:
            self.auth = (unquote(parts.username or ""), unquote(parts.password or ""))
        self.host = parts.hostname or ""
        self.scheme = parts.scheme
        secrets = {key, parts.password or "", *(self.auth or ())[1:]}
        # Some servers take their key as ?key=…
        for pair in parts.query.split("&"):
            value = pair.partition("=")[2]
            secrets |= {value, unquote(value)}
        # The longest first: a secret may be part of another.
        self._secrets = sorted((s for s in secrets if len(s) >= MIN_SECRET_LENGTH), key=len)[::-1]

    def redact(self, text: str) -> str:
        """`text` without the key or a password, which some servers repeat."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text
