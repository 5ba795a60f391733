"""Projects that are not there: one line of log each, and what is kept of a deleted one is put aside."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, TypeAlias

from backend.errors import NotFoundError
from backend.loop.context import Context

log = logging.getLogger(__name__)
P = ParamSpec("P")
Job: TypeAlias = Callable[Concatenate[int, P], None]  # its first argument is the project


def jobs_of(context: Callable[[], Context]) -> Callable[[Job[P]], Job[P]]:
    """Return a decorator for jobs of one project: where it is not there they end with one line, not four tracebacks.

    The images that a job fetches stay in the cache until it ends.
    """

    def tolerant(job: Job[P]) -> Job[P]:
        @functools.wraps(job)
        def run(project_id: int, /, *args: P.args, **kwargs: P.kwargs) -> None:
            with tolerated(context(), project_id, job.__name__), context().media.in_use():
                job(project_id, *args, **kwargs)

        return run

    return tolerant


@contextmanager
def tolerated(context: Context, project_id: int, work: str) -> Iterator[None]:
    """End a piece of work quietly where its project was never set up here, or is gone from Label Studio.

    Something else that is not found is an error as ever.
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
        context.label_studio.project(project_id)
    except NotFoundError:
        return True
    return False
