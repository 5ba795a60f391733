"""Puts an error's text into the HTTP reason phrase: Label Studio shows nothing else of a failed /setup.

LS keeps str() of the `requests` exception, "400 Client Error: <reason phrase> for url: ...", and drops the body.
"""

from __future__ import annotations

from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

REASON_HEADER = b"x-error"
_MAX_CHARACTERS = 500


def as_reason(text: str) -> str:
    """Return `text` as a reason phrase: one line of printable ASCII.

    >>> as_reason("unknown setting FOO\\nFix: see Settings → Model")
    'unknown setting FOO Fix: see Settings > Model'
    """
    line = " ".join(text.replace("→", ">").split())
    return "".join(each if " " <= each <= "~" else "?" for each in line)[:_MAX_CHARACTERS]


class _Connection(h11.Connection):
    def send_with_data_passthrough(self, event: h11.Event) -> list[bytes] | None:
        """Both of h11's ways to send end here."""
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
