"""Whose fault an error is: the machine's, so that it is tried again, or that of what was read."""

from __future__ import annotations

from errno import EMFILE, ENFILE, ENOBUFS, ENOMEM

_NO_SOCKETS = frozenset({EMFILE, ENFILE, ENOBUFS, ENOMEM})
_CV_NO_MEMORY = -4  # cv2.Error.StsNoMem


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether Python or OpenCV could not get the memory that they asked for."""
    if isinstance(error, MemoryError):
        return True
    return type(error).__module__ == "cv2" and getattr(error, "code", None) == _CV_NO_MEMORY


def is_of_disk(error: BaseException) -> bool:
    """Tell whether the system refused to read or write; decoders raise OSError too, without its number."""
    return isinstance(error, OSError) and error.errno is not None


def is_out_of_sockets(error: BaseException | None) -> bool:
    """Tell whether an error, or the one behind it, says that this machine can open no more connections."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_SOCKETS:
            return True
        error = error.__cause__ or error.__context__  # httpcore raises from None
    return False
