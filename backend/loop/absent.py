"""Steps of projects that were never set up or are deleted: each ends with one line of log.

The files of a deleted project are put aside.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from backend.errors import NotFoundError
from backend.loop.context import Context

log = logging.getLogger(__name__)
P = ParamSpec("P")
S = TypeVar("S", bound="WithContext")


class WithContext(Protocol):
    """An object whose methods are the steps of a project."""

    context: Context


def tolerant(step: Callable[Concatenate[S, int, P], None]) -> Callable[Concatenate[S, int, P], None]:
    """Return a step that ends with one line of log if its project does not exist, instead of a traceback per try.

    The step's first argument is the project id. The media files that the step fetches stay in the cache until it ends.
    """

    @functools.wraps(step)
    def run(self: S, project_id: int, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Run the step, and log a project that does not exist."""
        with tolerated(self.context, project_id, step.__name__), self.context.media.in_use():
            step(self, project_id, *args, **kwargs)

    return run


@contextmanager
def tolerated(context: Context, project_id: int, work: str) -> Iterator[None]:
    """End the block with one line of log if the project was never set up here, or is deleted in Label Studio.

    `work` names the step in that line. Any other NotFoundError is raised.
    """
    try:
        yield
    except NotFoundError:
        if context.store.project(project_id) is None:
            log.info("project %d was never set up, or is put aside: no %s", project_id, work)
        elif _is_gone(context, project_id):
            context.store.put_aside(project_id)
            log.warning("project %d is gone from Label Studio: put aside, see docs/troubleshooting.md", project_id)
        else:
            raise


def _is_gone(context: Context, project_id: int) -> bool:
    try:
        context.label_studio.projects.get(project_id)
    except NotFoundError:
        return True
    return False
