"""URIs of media in a task's data: check them, decode inline images, and shorten them for messages."""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import parse_qs, unquote_to_bytes

from backend.errors import MediaError

CLOUD_SCHEMES = frozenset({"s3", "s3s", "gs", "azure-blob", "azure_spi", "dbx"})  # Label Studio resolves them


def shortened(uri: str) -> str:
    """Return a URI for a message: without credentials, signatures and inline data, and at most 120 characters long.

    >>> shortened("https://me:pw@bucket.example/a.jpg?X-Signature=secret")
    'https://bucket.example/a.jpg'
    """
    if uri[:5].lower() == "data:":
        return uri.partition(",")[0][:40] + ",…"
    base, _, query = uri.partition("#")[0].partition("?")
    if base.endswith("/data/local-files/"):
        base += "?d=" + parse_qs(query).get("d", [""])[0]
    base = re.sub(r"//[^/]*@", "//", base)
    return base if len(base) <= 120 else f"{base[:80]}…{base[-39:]}"


def checked_uri(uri: object, noun: str) -> str:
    """Return the URI of an image or a video (`noun`) without white space around it; raises MediaError if it is none."""
    if isinstance(uri, str) and uri.strip():
        if any("\ud800" <= character <= "\udfff" for character in uri):  # JSON allows half of a surrogate pair
            raise MediaError("not a valid URL: broken characters", fix="correct the URL in the task's data")
        if noun == "video" and uri.strip()[:5].lower() == "data:":
            raise MediaError("a data: URI, and a video is read from a file", fix="upload it, or give the task its URL")
        return uri.strip()
    problem = (
        f"the task has no {noun}" if uri is None or isinstance(uri, str) else f"{type(uri).__name__} is no {noun} URL"
    )
    raise MediaError(
        problem, fix=f"put the {noun}'s URL into the task field that the label config names (value='$field')"
    )


def inline_bytes(uri: str, max_bytes: int) -> bytes:
    """Return the bytes of an image in a data: URI; raises MediaError if it is damaged or larger than `max_bytes`."""
    header, _, payload = uri.partition(",")
    if not re.fullmatch(r"data:image/[^,]*;base64", header, re.IGNORECASE):
        raise MediaError("a data: URI, but not of a base64 image", fix="write data:image/png;base64,…")
    if len(payload) * 3 // 4 > max_bytes:
        raise MediaError(f"larger than {max_bytes / 1e6:g} MB", fix="shrink the file or raise MAX_MEDIA_MB")
    try:
        return base64.b64decode(b"".join(unquote_to_bytes(payload).split()), validate=True)
    except binascii.Error as error:
        raise MediaError(f"not base64: {error}", fix="encode the image again") from None
