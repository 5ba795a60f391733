"""Errors by their cause: the machine, so that a job is retried, or the data."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from errno import EMFILE, ENFILE, ENOBUFS, ENOMEM

from backend.errors import MachineError

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
