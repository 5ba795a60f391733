"""Errors while the media of a task are read: which are the task's own, and which concern every task alike."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from backend.errors import (
    BackendError,
    LabelStudioError,
    MachineError,
    MediaError,
    is_disk_error,
    is_out_of_memory,
    one_line,
)
from backend.media.uris import shortened

log = logging.getLogger(__name__)

F = TypeVar("F")
T = TypeVar("T")


@contextmanager
def errors_of_task(uri: object, task_id: int | None) -> Iterator[None]:
    """Raise what goes wrong in this block as MediaError of the task, MachineError or LabelStudioError.

    An error that we did not foresee counts as the task's: one strange file must not stop a whole project.
    """
    try:
        yield
    except (MachineError, LabelStudioError):
        raise
    except BackendError as error:
        raise task_error(error, uri, task_id) from error
    except Exception as error:
        if is_out_of_memory(error):
            fix = "give the machine more memory, or lower MAX_MEGAPIXELS"
            raise MachineError("no memory is left to read an image", fix=fix) from error
        if is_disk_error(error):
            problem = f"the media cache cannot be written or read: {getattr(error, 'strerror', '') or error}"
            fix = "make room in MODEL_DIR, and let the backend's user write there"
            raise MachineError(problem, where="MODEL_DIR", fix=fix) from error
        log.exception("unexpected error for %s", one_line(_place(uri, task_id)))
        problem = f"the file cannot be read: {type(error).__name__}: {error}"
        fix = "open its URL in a browser; if the browser shows it, report this with the backend's log"
        raise task_error(MediaError(problem, fix=fix), uri, task_id) from error


def answers_or_errors(files: Sequence[F], ask: Callable[[Sequence[F]], Iterator[T]]) -> Iterator[T | MediaError]:
    """Yield the answer of `ask` for each file, in order, or the MediaError of a file that is damaged or deleted.

    `ask` takes files and yields one answer per file.
    """
    done = 0
    while done < len(files):
        try:
            for answer in ask(files[done:]):
                yield answer
                done += 1
        except MediaError:  # any file of a batch may be the cause: ask for the next file alone, then for the others
            try:
                yield next(ask(files[done : done + 1]))
            except MediaError as error:
                yield error
            done += 1


def task_error(error: BackendError, uri: object, task_id: int | None) -> MediaError:
    """Return the error of a cached file as an error of its task and URI: users do not know the names in the cache."""
    return MediaError(error.what, where=_place(uri, task_id), fix=error.fix)


def _place(uri: object, task_id: int | None) -> str:
    task = "" if task_id is None else f"task {task_id}"
    return ": ".join(filter(None, (task, shortened(uri) if isinstance(uri, str) else "")))
