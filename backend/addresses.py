"""Web addresses: their validation, and their origin."""

from __future__ import annotations

from urllib.parse import urlsplit

import httpx

from backend.errors import SettingError

Origin = tuple[str, str, int]  # scheme, host (IDNA, lower case), port
DEFAULT_PORTS = {"http": 80, "https": 443}


def require_web_address(name: str, address: str, example: str) -> None:
    """Raise SettingError unless an address begins with http:// or https:// and names a host."""
    try:
        parts = urlsplit(address.strip())
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a broken IPv6 address
        valid = False
    if not valid:
        raise SettingError(f"{name}={address!r} is not a web address", fix=f"write it like {example}")


def origin_of(address: str | httpx.URL) -> Origin | None:
    """Return the scheme, host and port of a web address, None for other texts.

    >>> origin_of("HTTPS://Example.org/a"), origin_of("/data/a.jpg")
    (('https', 'example.org', 443), None)
    """
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL:
        return None
    host = url.raw_host.decode("ascii")
    if url.scheme not in DEFAULT_PORTS or not host:
        return None
    return url.scheme, host, url.port or DEFAULT_PORTS[url.scheme]
