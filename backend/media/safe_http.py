"""Downloads of URLs that any user may have written: no private hosts, no leaked token, limited time and size."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import BinaryIO

import httpcore
import httpx

from backend.errors import BackendError, LabelStudioError, MachineError, MediaError, SettingError, is_out_of_sockets
from backend.media import deadline
from backend.media.deadline import Clock
from backend.media.token_places import is_media
from backend.settings import Settings
from backend.urls.origin import origin_of
from backend.urls.signed_urls import expiry

CONNECT_S = 5.0
READ_S = 30.0  # between two chunks of an answer, and until its headers have come
TOTAL_S = 300.0  # of the whole download
KEEPALIVE_S = 2.0  # common servers close after 5 s; this is less, so that we never write into a closing connection
MAX_REDIRECTS = 5
MAX_ADDRESSES = 4  # of one host name, tried in turn

_EXPIRED = frozenset({400, 401, 403})  # what object stores answer to an expired URL
REDIRECTS = frozenset({301, 302, 303, 307, 308})
UNICAST6 = IPv6Network("2000::/3")  # the only global unicast block
NAT64 = IPv6Network("64:ff9b::/96")


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Return whether an address is on the public internet; an IPv6 address with an IPv4 address in it counts as that.

    >>> is_public(ip_address("8.8.8.8")), is_public(ip_address("::ffff:127.0.0.1"))
    (True, False)
    """
    if isinstance(address, IPv4Address):
        return address.is_global and not address.is_multicast
    embedded = address.ipv4_mapped or address.sixtofour
    if address in NAT64:
        embedded = IPv4Address(int(address) & 0xFFFFFFFF)
    return is_public(embedded) if embedded else address.is_global and address in UNICAST6


class SafeHttp:
    """Downloads files; `authorize(url)` returns the headers that are sent to Label Studio's own origin alone."""

    def __init__(self, settings: Settings, authorize: Callable[[str], Mapping[str, str]]) -> None:
        """Raise SettingError for a LABEL_STUDIO_URL or ALLOWED_HOSTS that cannot be read."""
        self._base = _label_studio_url(settings.label_studio_url)
        self.origin = origin_of(self._base) if self._base else None
        self._authorize = authorize
        trusted = _allowed_hosts(settings.allowed_hosts)
        if self.origin:
            trusted |= {self.origin[1:]}
        self._pool = httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context(),  # honours SSL_CERT_FILE, for a Label Studio with its own CA
            max_connections=None,
            keepalive_expiry=KEEPALIVE_S,
            network_backend=_Guard(trusted),
        )
        weakref.finalize(self, self._pool.close)

    def download(self, url: str, sink: BinaryIO, max_bytes: int, task_id: int | None = None) -> str:
        """Write the body of a URL to `sink` and return its content type; redirects are followed, and each is checked.

        A root-relative URL (`/data/...`) is Label Studio's. `task_id` is the task whose data name the URL. Raises
        MediaError for an address that is not allowed, a bad status, a time-out, a broken connection, and a body larger
        than `max_bytes`. Raises LabelStudioError if Label Studio itself cannot be reached.
        """
        if url.startswith("/") and not self._base:
            raise MediaError("a path without a host, and no Label Studio to ask", fix="set LABEL_STUDIO_URL")
        target = _joined(self._base if url.startswith("/") else None, url)
        try:
            with deadline.within(TOTAL_S) as clock:
                for _ in range(MAX_REDIRECTS + 1):
                    clock.next_answer(READ_S)
                    answer = self._get(target, sink, max_bytes, task_id, clock)
                    if isinstance(answer, str):
                        return answer
                    target = answer
        except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
            raise self._no_connection(target, error) from error
        except httpcore.TimeoutException:
            raise MediaError(
                f"no answer from {target.host} in time (its headers {READ_S:g} s, all of it {TOTAL_S:g} s)",
                fix="check that the host is up and reachable from the backend, then try again",
            ) from None
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            problem = f"the connection to {target.host} broke: {error}"
            raise MediaError(problem, fix="try again; if it breaks again, see that server's log") from None
        raise MediaError(f"more than {MAX_REDIRECTS} redirects", fix="give the task the final URL")

    def _get(
        self, url: httpx.URL, sink: BinaryIO, max_bytes: int, task_id: int | None, clock: Clock
    ) -> str | httpx.URL:
        """Write the body of one URL to `sink` and return its content type, or return the URL that it redirects to."""
        if url.scheme not in ("http", "https") or not url.host:
            raise MediaError(f"{url.scheme or 'no'}:// is not fetched", fix="use an http(s) URL or upload the file")
        with self._pool.stream(
            "GET",
            httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=self._headers(url, task_id),
            extensions={"timeout": {"connect": CONNECT_S, "read": READ_S, "write": READ_S, "pool": READ_S}},
        ) as response:
            clock.begun = True
            headers = {name.lower(): value.decode("latin-1") for name, value in response.headers}
            if response.status in REDIRECTS and b"location" in headers:
                return _joined(url, headers[b"location"])
            self._check_status(response.status, url, task_id)
            _copy(response.iter_stream(), headers.get(b"content-length", ""), sink, max_bytes)
            return headers.get(b"content-type", "")

    def _no_connection(self, url: httpx.URL, error: Exception) -> BackendError:
        """Return the error: MediaError for a task's host that is down, LabelStudioError if all tasks would fail."""
        if is_out_of_sockets(error):
            return MachineError("this machine can open no more connections", fix="raise its limit of open files")
        if self._is_label_studio(url):
            problem = f"Label Studio cannot be reached: {error}"
            fix = "start Label Studio, or correct LABEL_STUDIO_URL as seen from this machine"
            return LabelStudioError(problem, where=f"{url.scheme}://{url.netloc.decode('ascii')}", fix=fix)
        problem = f"no connection to {url.host}: {error or f'no answer within {CONNECT_S:g} s'}"
        return MediaError(problem, fix="check that the host is up and reachable from the backend, then try again")

    def _is_label_studio(self, url: httpx.URL) -> bool:
        return self.origin is not None and origin_of(url) == self.origin

    def _takes_token(self, url: httpx.URL, task_id: int | None) -> bool:
        """Return whether a URL is one of Label Studio's media; the token would open users and exports as well."""
        if self._base is None or not self._is_label_studio(url):
            return False
        path = url.raw_path.partition(b"?")[0].decode("ascii")
        return is_media(path, self._base.raw_path.decode("ascii").rstrip("/"), task_id)

    def _headers(self, url: httpx.URL, task_id: int | None) -> list[tuple[str | bytes, str | bytes]]:
        token = self._authorize(str(url)) if self._takes_token(url, task_id) else {}
        return [
            ("Host", url.netloc),
            ("User-Agent", "yolo-backend"),
            ("Accept-Encoding", "identity"),
            *token.items(),
        ]

    def _check_status(self, status: int, url: httpx.URL, task_id: int | None) -> None:
        if status == 200:
            return
        end = expiry(str(url))
        if status in _EXPIRED and end is not None and end < datetime.now(UTC):
            problem = f"the signed URL expired on {end:%Y-%m-%d at %H:%M} UTC, and the media cache lacks the file"
            fix = (
                "write a newly signed URL into the task, or let Label Studio import the tasks from a cloud storage: it "
                "signs their URLs anew each time"
            )
        elif status in (401, 403):
            if self._is_label_studio(url) and not self._takes_token(url, task_id):
                problem = f"Label Studio answered {status}, and the token is sent to its media alone"
                fix = "name a file under /data/ or /storage-data/ of Label Studio, or a cloud storage's URI"
            elif self._is_label_studio(url):
                problem = f"the token cannot read this: Label Studio answered {status}"
                fix = "use the LABEL_STUDIO_API_KEY of a user who can open the project"
            else:
                problem = f"{url.host} refuses access ({status})"
                fix = "renew the URL if it was signed, make it public, or connect the storage to Label Studio"
        elif status in (404, 410):
            problem, fix = f"not found on {url.host} ({status})", "upload the file again or correct the task's URL"
        elif status == 429 or status >= 500:
            problem, fix = f"{url.host} failed with {status}", "try again later; see that server's log"
        else:
            problem, fix = f"unexpected status {status} from {url.host}", "open the URL in a browser and correct it"
        raise MediaError(problem, fix=fix)


class _Guard(httpcore.NetworkBackend):
    """Connects to trusted hosts, and else only to public addresses (a guard against SSRF).

    It connects to the address that it checked, so a host name that resolves differently the second time cannot get
    past the check.
    """

    def __init__(self, trusted: frozenset[tuple[str, int | None]]) -> None:
        self._trusted = trusted
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to a host; raises MediaError if it has a private address and is not trusted."""
        if (host, port) in self._trusted or (host, None) in self._trusted:
            addresses = _trusted_addresses(host, port, timeout)
        else:
            addresses = _public_addresses(host, port, timeout)
        return deadline.connect(self._sockets, addresses, port, timeout, local_address, socket_options)


def _trusted_addresses(host: str, port: int, timeout: float | None) -> list[str]:
    try:
        return deadline.addresses(host, port, timeout)[:MAX_ADDRESSES]
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError(f"no address found for {host}") from error


def _public_addresses(host: str, port: int, timeout: float | None) -> list[str]:
    try:
        addresses = deadline.addresses(host, port, timeout)
    except (OSError, UnicodeError):
        raise MediaError(f"no address found for {host}", fix="correct the host name in the URL") from None
    private = next((address for address in addresses if not is_public(ip_address(address))), None)
    if private:
        raise MediaError(
            f"{host} is a private address ({private}), which is not fetched",
            fix=f"if it may be read, add {host}:{port} to ALLOWED_HOSTS of the backend",
        )
    return addresses[:MAX_ADDRESSES]


def _joined(base: httpx.URL | None, url: str) -> httpx.URL:
    try:
        joined = base.join(url) if base else httpx.URL(url)
        if (joined.port or 0) > 65535:
            raise ValueError(f"no port {joined.port}")
        _ = joined.host  # decodes the name, and raises UnicodeError, which is a ValueError, for a name like xn--a
    except (httpx.InvalidURL, ValueError) as error:
        raise MediaError(f"not a valid URL: {error}", fix="correct the URL in the task's data") from None
    return joined


def _copy(chunks: Iterable[bytes], length: str, sink: BinaryIO, max_bytes: int) -> None:
    too_large = MediaError(f"larger than {max_bytes / 1e6:g} MB", fix="shrink the file or raise MAX_MEDIA_MB")
    if length.isdigit() and int(length) > max_bytes:
        raise too_large
    received = 0
    for chunk in chunks:
        received += len(chunk)
        if received > max_bytes:
            raise too_large
        sink.write(chunk)


def _label_studio_url(text: str) -> httpx.URL | None:
    if not text:
        return None
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host:
        raise SettingError(
            f"LABEL_STUDIO_URL={text!r} is not an http(s) address",
            where="environment",
            fix="write it like http://localhost:8080",
        )
    return url


def _allowed_hosts(text: str) -> frozenset[tuple[str, int | None]]:
    """Parse `host` and `host:port` entries; without a port every port is allowed."""
    hosts: set[tuple[str, int | None]] = set()
    for item in filter(None, map(str.strip, text.split(","))):
        try:
            url = httpx.URL(f"any://{item}")  # not http://, which would drop its default port 80
        except httpx.InvalidURL:
            url = httpx.URL("")
        if not url.host or url != httpx.URL(f"any://{url.netloc.decode('ascii')}"):
            raise SettingError(
                f"ALLOWED_HOSTS: {item!r} is not a host or host:port",
                where="environment",
                fix="write a comma list like minio.local:9000,images.local",
            )
        hosts.add((url.raw_host.decode("ascii"), url.port))
    return frozenset(hosts)
