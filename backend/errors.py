"""One error tree: every error says what is wrong, where, and how to fix it, and knows its HTTP status.

The functions at the end find the fault of this machine that caused an error of other software.

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

import errno
from collections.abc import Iterator
from errno import EMFILE, ENFILE, ENOBUFS, ENOMEM

_NO_SOCKETS = frozenset({EMFILE, ENFILE, ENOBUFS, ENOMEM})
_CV_NO_MEMORY = -4  # cv2.Error.StsNoMem
_DISK = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file grew past the size that the system allows",
    errno.EROFS: "the disk can only be read",
    errno.EIO: "the disk fails",
}
_DISK_FIX = "make room in MODEL_DIR"
_MEMORY_FIX = "lower BATCH or IMGSZ, or give the worker more memory"
_GPU_FULL = ("CUDA out of memory", "MPS backend out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
_GPU_FIX = "lower IMGSZ, choose a smaller BASE_MODEL, or end what else uses the GPU"


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


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether Python or OpenCV ran out of memory."""
    if isinstance(error, MemoryError):
        return True
    return type(error).__module__ == "cv2" and getattr(error, "code", None) == _CV_NO_MEMORY


def is_disk_error(error: BaseException) -> bool:
    """Return whether the system failed to read or write; an OSError of a decoder has no errno."""
    return isinstance(error, OSError) and error.errno is not None


def is_out_of_sockets(error: BaseException | None) -> bool:
    """Return whether an error, or one of its causes, is that this machine can open no more connections."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_SOCKETS:
            return True
        error = error.__cause__ or error.__context__  # httpcore raises from None
    return False


def machine_fault(error: BaseException) -> MachineError | None:
    """Return the fault of the machine that caused an error, None if the machine is not the cause."""
    for cause in _causes(error):
        if isinstance(cause, MachineError):
            return cause
        if fault := _of_system(cause) or _of_text(cause):
            return fault
    return None


def out_of_gpu_memory(error: BaseException) -> bool:
    """Return whether a GPU ran out of memory, so that a smaller batch may fit."""
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _GPU_FULL)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes, outermost first."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


def _of_system(error: BaseException) -> MachineError | None:
    if is_out_of_memory(error) or (isinstance(error, OSError) and error.errno == ENOMEM):
        return MachineError("the machine has no memory left", fix=_MEMORY_FIX)
    if isinstance(error, OSError) and error.errno in _DISK:
        return MachineError(_DISK[error.errno], where=str(error.filename or ""), fix=_DISK_FIX)
    return None


def _of_text(error: BaseException) -> MachineError | None:
    """Return the fault that a message of torch describes; torch has no error classes for these."""
    if out_of_gpu_memory(error):
        return MachineError("the GPU has no memory left", fix=_GPU_FIX)
    text = str(error) if isinstance(error, RuntimeError) else ""
    if "DefaultCPUAllocator" in text or "can't allocate memory" in text:
        return MachineError("the machine has no memory left", fix=_MEMORY_FIX)
    if "PytorchStreamWriter failed" in text or "file write failed" in text:
        return MachineError(_DISK[errno.ENOSPC], fix=_DISK_FIX)
    return None
