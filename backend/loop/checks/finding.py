"""The outcome of one check."""

from __future__ import annotations

from dataclasses import dataclass

from backend.errors import BackendError


@dataclass(frozen=True, slots=True)
class Finding:
    """Whether a part of the installation works, and how to mend it if it does not."""

    subject: str
    ok: bool
    detail: str
    fix: str = ""


def works(subject: str, detail: str) -> Finding:
    """Return the finding of a part that works."""
    return Finding(subject, True, detail)


def fails(subject: str, error: BackendError) -> Finding:
    """Return the finding of a part that fails with our error."""
    place = f" [{error.where}]" if error.where else ""
    return Finding(subject, False, f"{error.what}{place}", error.fix)
