"""Protection from requests that a page of another site makes a browser send.

Label Studio sends JSON without an Origin header. A page of another site can make a browser send text or a form to any
address. If it has a host name that points at our address, it can send anything, so we refuse unknown host names.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from backend.errors import ContentTypeError, ForbiddenError

# Nobody can register a name under these: RFC 6761, 6762 and 8375, ICANN's "internal", and Kubernetes' services.
_PRIVATE = (".localhost", ".local", ".internal", ".home.arpa", ".test", ".svc")


def check_content_type(method: str, headers: Mapping[str, str], where: str) -> None:
    """Raise ContentTypeError unless a body is declared as JSON, which a page of another site cannot do."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if method in ("POST", "PUT", "PATCH") and kind != "application/json":
        raise ContentTypeError(
            f"the content type is {kind or 'missing'}",
            where=where,
            fix="send the header Content-Type: application/json",
        )


def check_origin(headers: Mapping[str, str], where: str) -> None:
    """Raise ForbiddenError for a request from a page of another site."""
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
        raise ForbiddenError(
            "the request comes from a web page of another site",
            where=where,
            fix="send it from a program, or from a page of the backend itself",
        )


def check_host(host: str, backend_url: str, where: str) -> None:
    """Raise ForbiddenError for a host name that a stranger may have registered; `host` is the Host header."""
    name = name_of(host)
    if not name or is_private(name) or name == name_of(urlsplit(backend_url).netloc):
        return
    raise ForbiddenError(
        f"{name} is not a known address of this backend",
        where=where,
        fix=f"set BACKEND_URL to the address that Label Studio uses, like http://{host}, or set BASIC_AUTH_USER",
    )


def name_of(host: str) -> str:
    """Return the host name in a Host header, in lower case and without the port.

    >>> name_of("Backend:9090"), name_of("[::1]:9090"), name_of("localhost.")
    ('backend', '::1', 'localhost')
    """
    name = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    return name.lower().rstrip(".")


def is_private(name: str) -> bool:
    """Return whether a host name is an IP address, or a name that nobody can register.

    >>> is_private("10.0.0.7"), is_private("backend"), is_private("host.docker.internal"), is_private("evil.example")
    (True, True, True, False)
    """
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return "." not in name or name.endswith(_PRIVATE)
    return True


def is_loopback(host: str) -> bool:
    """Return whether a server that listens on `host` can be reached only from this machine.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0"), is_loopback("")
    (True, True, False, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
