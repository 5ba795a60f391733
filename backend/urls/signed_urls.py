"""Signed URLs, which object stores give out for some hours or days: what they name, and when they expire."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

_Parameters = Mapping[str, str]  # of a query, with their names in lower case
_NOT_SIGNED = (LookupError, TypeError, ValueError, OverflowError, OSError, RecursionError)
_FROM_CLOUDFRONT = str.maketrans("-_~", "+=/")  # characters of base64 that it replaces in a query


@dataclass(frozen=True, slots=True)
class _Scheme:
    """How one kind of signature is written into a query; names are in lower case."""

    signature: str
    others: frozenset[str]  # all other parameters that belong to the signature
    ends: Callable[[_Parameters], datetime | None]  # None: not known; raises one of _NOT_SIGNED for another query


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _lasting(prefix: str) -> Callable[[_Parameters], datetime]:
    """Return the end of a URL that says when it was signed, and for how many seconds."""

    def ends(values: _Parameters) -> datetime:
        signed = datetime.strptime(values[f"{prefix}-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        return signed + timedelta(seconds=int(values[f"{prefix}-expires"]))

    return ends


def _azure_end(values: _Parameters) -> datetime | None:
    """Return the end that a URL names; None if the stored access policy of the container has it."""
    if "se" not in values and values["si"] and values["sv"]:
        return None
    end = datetime.fromisoformat(values["se"])
    return end if end.tzinfo else end.replace(tzinfo=UTC)


def _second(values: _Parameters) -> datetime:
    """Return the end that a URL names in seconds, or in the custom policy of CloudFront, which is JSON in base64."""
    if "expires" in values or not values["key-pair-id"]:
        return datetime.fromtimestamp(int(values["expires"]), UTC)
    policy = json.loads(base64.b64decode(values["policy"].translate(_FROM_CLOUDFRONT), validate=True))
    (statement,) = policy["Statement"]
    return datetime.fromtimestamp(int(statement["Condition"]["DateLessThan"]["AWS:EpochTime"]), UTC)


# The parameters are those of the documentation of each service.
_SCHEMES = (
    _Scheme(  # S3, version 4
        "x-amz-signature",
        _names(
            "x-amz-algorithm x-amz-credential x-amz-date x-amz-expires x-amz-signedheaders x-amz-security-token "
            "x-amz-content-sha256"
        ),
        _lasting("x-amz"),
    ),
    _Scheme(  # Google Cloud Storage, version 4
        "x-goog-signature",
        _names("x-goog-algorithm x-goog-credential x-goog-date x-goog-expires x-goog-signedheaders"),
        _lasting("x-goog"),
    ),
    _Scheme(  # Azure, shared access signature
        "sig",
        _names("sv ss srt sr st se sp sip spr si sdd ses skoid sktid skt ske sks skv saoid suoid scid"),
        _azure_end,
    ),
    _Scheme(  # S3 and Google Cloud Storage, version 2; CloudFront; Aliyun
        "signature",
        _names("expires awsaccesskeyid googleaccessid key-pair-id policy ossaccesskeyid x-amz-security-token"),
        _second,
    ),
)


def expires(url: str) -> bool:
    """Return whether a URL is signed, so that it ends some time.

    >>> expires("https://b.example/a.jpg?sv=2024-11-04&sr=b&si=readers&sig=5f"), expires("https://b.example/a.jpg?v=2")
    (True, False)
    """
    return _signed(url) is not None


def expiry(url: str) -> datetime | None:
    """Return when a signed URL ends, None for any other text, and where the URL does not say it.

    >>> expiry("https://b.example/a.jpg?X-Amz-Date=20261101T120000Z&X-Amz-Expires=3600&X-Amz-Signature=5f").isoformat()
    '2026-11-01T13:00:00+00:00'
    >>> expiry("https://b.example/a.jpg?v=2") is None
    True
    """
    return signed[1] if (signed := _signed(url)) else None


def unsigned(url: str) -> str:
    """Return a signed URL without its signature: what it names stays the same when it is signed again.

    Any other text is returned unchanged.

    >>> unsigned("https://b.example/a.jpg?versionId=3&Expires=1793534400&Signature=5f&AWSAccessKeyId=AK")
    'https://b.example/a.jpg?versionId=3'
    >>> unsigned("https://b.example/a.jpg?expires=never&signature=mine")
    'https://b.example/a.jpg?expires=never&signature=mine'
    """
    signed = _signed(url)
    if signed is None:
        return url
    scheme, _ = signed
    base, _, query = url.partition("#")[0].partition("?")
    kept = [part for part in query.split("&") if _name(part) not in {scheme.signature, *scheme.others}]
    return f"{base}?{'&'.join(kept)}" if kept else base


def unsigned_text(shown: Any) -> str:
    """Return what a task shows as a text (JSON), in which signed URLs have no signature.

    >>> unsigned_text(["https://b.example/a.jpg?Expires=1793534400&Signature=5f", None])
    '["https://b.example/a.jpg", null]'
    """
    if isinstance(shown, list):
        shown = [unsigned(item) if isinstance(item, str) else item for item in shown]
    return json.dumps(unsigned(shown) if isinstance(shown, str) else shown, sort_keys=True, default=str)


def _signed(url: str) -> tuple[_Scheme, datetime | None] | None:
    """Return the scheme by which a URL is signed, and when it ends, if the URL says so."""
    if not re.match(r"https?://", url, re.IGNORECASE):
        return None
    query = url.partition("#")[0].partition("?")[2]
    values = {name.lower(): value for name, value in parse_qsl(query)}
    for scheme in _SCHEMES:
        if scheme.signature in values:
            try:
                return scheme, scheme.ends(values)
            except _NOT_SIGNED:
                continue
    return None


def _name(part: str) -> str:
    return next((name for name, _ in parse_qsl(part, keep_blank_values=True)), "").lower()
