"""One error tree: every error says what is wrong, where, and how to fix it, and knows its HTTP status.

BackendError                    500  something of ours broke
├── RequestError                400  the caller sent something we cannot use
│   ├── SettingError            400  an unknown setting, or a value out of range
│   ├── TooLargeError           413  more was sent than we take
│   ├── ContentTypeError        415  a body that does not call itself JSON
│   ├── DataError               400  a data set on disk that cannot be read
│   ├── RegionError             400  a region of an annotation that cannot be read
│   └── LabelConfigError        400  the label config has nothing we can predict, or is not XML
├── AuthError                   401  missing or wrong credentials
├── ForbiddenError              403  a page of another site asks, or somebody by a name that is not ours
├── NotFoundError               404  no such project or version
├── MediaError                  422  a task's media cannot be fetched, or is not an image we can read
├── TrainingError               422  the labels do not allow a training
├── BusyError                   409  another job holds the project, or a lock was lost
├── ModelError                  409  weights are missing, damaged, not ours, or lack what was asked for
├── MachineError                503  this machine lacks room, memory or rights: no task is to blame, and it is retried
│   └── StoreError              503  MODEL_DIR cannot be read or written
├── RedisDownError              503  redis does not answer: nothing can be queued now
├── OverloadedError             503  too much is asked at once
└── LabelStudioError            502  Label Studio refused, or did not answer
    ├── LabelStudioAuthError    502  the token is missing, expired or of the wrong kind
    ├── LabelStudioRefusedError 502  what was sent does not pass Label Studio's validation
    └── LabelStudioBlockedError 502  Label Studio refuses private addresses (its SSRF protection)
"""

from __future__ import annotations


class BackendError(Exception):
    """An error with its place (`where`), its cure (`fix`) and the HTTP status it maps to."""

    status = 500

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        place = f" [{self.where}]" if self.where else ""
        cure = f" Fix: {self.fix}" if self.fix else ""
        return f"{self.what}{place}{cure}"


def one_line(text: str) -> str:
    r"""Return `text` with line breaks and other characters that cannot be printed as their escapes.

    >>> one_line("a.png\n2026-01-01 ERROR forged")
    'a.png\\n2026-01-01 ERROR forged'
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


class RequestError(BackendError):
    status = 400


class SettingError(RequestError):
    pass


class TooLargeError(RequestError):
    status = 413


class ContentTypeError(RequestError):
    status = 415


class DataError(RequestError):
    pass


class RegionError(RequestError):
    pass


class LabelConfigError(RequestError):
    pass


class AuthError(BackendError):
    status = 401


class ForbiddenError(BackendError):
    status = 403


class NotFoundError(BackendError):
    status = 404


class MediaError(BackendError):
    """An error of one task's media; it is one line, for addresses and file names are what somebody typed."""

    status = 422

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(one_line(what), where=one_line(where), fix=one_line(fix))


class TrainingError(BackendError):
    status = 422


class BusyError(BackendError):
    status = 409


class ModelError(BackendError):
    status = 409


class MachineError(BackendError):
    status = 503


class RedisDownError(BackendError):
    status = 503


class StoreError(MachineError):
    pass


class OverloadedError(BackendError):
    status = 503


class LabelStudioError(BackendError):
    status = 502


class LabelStudioAuthError(LabelStudioError):
    pass


class LabelStudioBlockedError(LabelStudioError):
    pass


class LabelStudioRefusedError(LabelStudioError):
    """Carries Label Studio's `problems`, word for word, and nothing was written."""

    def __init__(self, what: str, *, where: str = "", fix: str = "", problems: tuple[str, ...] = ()) -> None:
        super().__init__(what, where=where, fix=fix)
        self.problems = problems
