"""Puts an error's text into the HTTP reason phrase: Label Studio shows nothing else of a failed /setup.

LS keeps str() of the `requests` exception, "400 Client Error: <reason phrase> for url: ...", and drops the body.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from backend.errors import BackendError

REASON_HEADER = b"x-error"
_MAX_CHARACTERS = 500
_SPELLED = {"→": ">", "≥": ">=", "≤": "<=", "–": "-", "—": "-", "…": "...", "×": "x", "ß": "ss", "≠": "!="}
_TAG = re.compile(r"<(?=[^\s=\d])")  # Label Studio's page would take it for an HTML tag and not show it


def reason_of(error: BackendError) -> str:
    """Return an error as text for Label Studio's page: the cure first, then the problem and the place.

    >>> reason_of(BackendError("unknown setting BACH", where="extra params", fix="did you mean BATCH?"))
    'Did you mean BATCH? Reason: unknown setting BACH [extra params]'
    """
    place = f" [{error.where}]" if error.where else ""
    if not error.fix:
        return as_reason(f"{error.what}{place}")
    cure = error.fix[0].upper() + error.fix[1:]
    end = "" if cure.endswith((".", "?", "!")) else "."
    return as_reason(f"{cure}{end} Reason: {error.what}{place}")


def as_reason(text: str) -> str:
    """Return `text` as a reason phrase: one line of printable ASCII that contains nothing like an HTML tag.

    Letters lose their accents. Other letters become escapes, as in Python and JSON.

    >>> as_reason("see Settings → Model\\nof the café, <猫> ≥ 1")
    'see Settings > Model of the cafe, (\\\\u732b> >= 1'
    """
    line = " ".join("".join(_SPELLED.get(letter, letter) for letter in text).split())
    reason = _TAG.sub("(", "".join(map(_ascii, line)))
    return reason if len(reason) <= _MAX_CHARACTERS else f"{reason[: _MAX_CHARACTERS - 3]}..."


def _ascii(letter: str) -> str:
    """Return a letter as printable ASCII."""
    if " " <= letter <= "~":
        return letter
    plain = "".join(part for part in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(part))
    if plain and all(" " <= part <= "~" for part in plain):
        return plain
    return letter.encode("unicode_escape").decode("ascii")  # control characters too


class _Connection(h11.Connection):
    def send_with_data_passthrough(self, event: h11.Event) -> list[bytes] | None:
        """Put the x-error header into the reason phrase; both of h11's ways to send call this method."""
        if isinstance(event, h11.Response) and event.status_code >= 400:
            reasons = [value for name, value in event.headers if name == REASON_HEADER]
            if reasons:
                event = h11.Response(status_code=event.status_code, headers=list(event.headers), reason=reasons[0])
        return super().send_with_data_passthrough(event)


class ReasonProtocol(H11Protocol):
    """uvicorn's h11 protocol, with the reason phrase taken from the x-error header where there is one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        limit = self.config.h11_max_incomplete_event_size or 64 * 1024
        self.conn = _Connection(h11.SERVER, limit)
