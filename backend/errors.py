"""One error tree: every error says what is wrong, where, and how to fix it, and knows its HTTP status.

BackendError                    500
├── RequestError                400
│   ├── SettingError            400
│   ├── TooLargeError           413
│   ├── ContentTypeError        415
│   ├── DataError               400
│   ├── RegionError             400
│   └── LabelConfigError        400
├── AuthError                   401
├── ForbiddenError              403
├── NotFoundError               404
├── MediaError                  422
├── TrainingError               422
├── BusyError                   409
├── ModelError                  409
├── MachineError                503
│   └── StoreError              503
├── RedisDownError              503
├── OverloadedError             503
└── LabelStudioError            502
    ├── LabelStudioAuthError    502
    ├── LabelStudioRefusedError 502
    └── LabelStudioBlockedError 502
"""

from __future__ import annotations


class BackendError(Exception):
    """Something is wrong (`what`), with its place (`where`), its cure (`fix`) and its HTTP status."""

    status = 500

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        problem = f"{self.what} [{self.where}]" if self.where else self.what
        if not self.fix:
            return problem
        stop = "" if problem.endswith((".", "?", "!", ":")) else "."
        return f"{problem}{stop} Fix: {self.fix}"


def one_line(text: str) -> str:
    r"""Return `text` with line breaks and other unprintable characters as escapes.

    >>> one_line("a.png\n2026-01-01 ERROR forged")
    'a.png\\n2026-01-01 ERROR forged'
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


class RequestError(BackendError):
    """The caller sent something that cannot be used."""

    status = 400


class SettingError(RequestError):
    """A setting is unknown, or its value is not allowed."""


class TooLargeError(RequestError):
    """The request is larger than the limit."""

    status = 413


class ContentTypeError(RequestError):
    """The Content-Type of the request is not JSON."""

    status = 415


class DataError(RequestError):
    """A data set on disk cannot be read."""


class RegionError(RequestError):
    """A region of an annotation cannot be read."""


class LabelConfigError(RequestError):
    """The label config is not XML, or has no tag that can be predicted."""


class AuthError(BackendError):
    """Credentials are missing or wrong."""

    status = 401


class ForbiddenError(BackendError):
    """The request comes from a page of another site, or names a host that is not ours."""

    status = 403


class NotFoundError(BackendError):
    """There is no such project or version."""

    status = 404


class MediaError(BackendError):
    """A task's media cannot be fetched or read. Users typed addresses and file names, so line breaks are escaped."""

    status = 422

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(one_line(what), where=one_line(where), fix=one_line(fix))


class TrainingError(BackendError):
    """The labels do not allow a training."""

    status = 422


class BusyError(BackendError):
    """Another job holds the project, or a lock was lost."""

    status = 409


class ModelError(BackendError):
    """Weights are missing, damaged, not ours, or cannot do what was requested."""

    status = 409


class MachineError(BackendError):
    """This machine lacks disk space, memory or rights; no task is at fault, and the job is retried."""

    status = 503


class RedisDownError(BackendError):
    """redis does not answer, so nothing can be queued."""

    status = 503


class StoreError(MachineError):
    """MODEL_DIR cannot be read or written."""


class OverloadedError(BackendError):
    """There are too many requests at once."""

    status = 503


class LabelStudioError(BackendError):
    """Label Studio refused a request, or did not answer."""

    status = 502


class LabelStudioAuthError(LabelStudioError):
    """The token is missing, expired or of the wrong kind."""


class LabelStudioBlockedError(LabelStudioError):
    """Label Studio refuses private addresses (its SSRF protection)."""


class LabelStudioRefusedError(LabelStudioError):
    """The data failed Label Studio's validation, so nothing was written; `problems` are its messages."""

    def __init__(self, what: str, *, where: str = "", fix: str = "", problems: tuple[str, ...] = ()) -> None:
        super().__init__(what, where=where, fix=fix)
        self.problems = problems
