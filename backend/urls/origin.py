"""The origin of a web address: two addresses of one origin belong to one server."""

from __future__ import annotations

import httpx

Origin = tuple[str, str, int]  # scheme, host (IDNA, lower case), port
DEFAULT_PORTS = {"http": 80, "https": 443}


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
