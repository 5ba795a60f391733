"""The view Next: the tasks that come next, and why; the same under any other strategy, and pins."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlencode

from backend import acquisition
from backend.errors import BackendError, NotFoundError, RequestError
from backend.loop import steering
from backend.loop.insight.next_tasks import NextTask, NextTasks, next_tasks, without_votes
from backend.queue.rq_queue import Jobs
from backend.sampling.pins import as_place
from backend.web.page.overlays import Overlay, overlay
from backend.web.page.view import Form, View, Visit


@dataclass(frozen=True, slots=True)
class NextTile:
    """A task with the shapes over its picture."""

    task: NextTask
    overlay: Overlay


@dataclass(frozen=True, slots=True)
class Next:
    """The front of the queue."""

    order: NextTasks | None  # None: there is no order to show
    problem: str  # why there is none, or why another strategy cannot be shown; "" if there is no problem
    tiles: tuple[NextTile, ...]
    strategies: tuple[tuple[str, str], ...]  # name, and the question that it asks about an image
    without_votes: tuple[str, ...]  # of them: no committee has voted yet, so their order cannot be shown
    chosen: str  # the strategy that the address asks for; "": the project's
    query: str  # of the forms' addresses, so that they lead back to the same order


def read(visit: Visit) -> Next:
    """Return the front of the queue, under the strategy that `?strategy=` chooses."""
    chosen, order, problem = visit.query.get("strategy", ""), None, ""
    try:
        order = next_tasks(visit.context, visit.project_id, visit.tag, chosen)
    except NotFoundError:
        problem = "No task has a place yet. The worker ranks the pool after the project is connected."
    except BackendError as error:
        if not chosen:
            raise
        problem = str(error)
    colours = visit.colours
    tiles = tuple(NextTile(task, overlay(task.drawing, colours, "model")) for task in (order.tasks if order else ()))
    strategies = tuple((name, acquisition.get(name).asks) for name in acquisition.names())
    silent = without_votes(visit.context, visit.project_id)
    kept = {"tag", "strategy"} if order else {"tag"}
    query = "?" + urlencode({name: value for name, value in visit.query.items() if name in kept and value})
    return Next(order, problem, tiles, strategies, silent, chosen, query)


def pin(visit: Visit, jobs: Jobs, form: Form) -> str:
    """Pin tasks: the field `task` has their ids with blanks between, `place` is front, back or none."""
    place = as_place(form.fields.get("place", ""))
    words = form.fields.get("task", "").split()
    if not all(word.isascii() and word.isdecimal() and len(word) < 19 for word in words):
        raise RequestError("a task id is not a whole number", where="task", fix="reload the page and try again")
    task_ids = [int(word) for word in words]
    steering.pin(visit.context, jobs, visit.project_id, task_ids, place, form.who)
    named = f"Task {task_ids[0]} is" if len(task_ids) == 1 else f"{len(task_ids)} tasks are"
    where = {"front": "at the front of the queue now", "back": "at the back now", "none": "no longer pinned"}[place]
    return f"{named} {where}. Label Studio follows within seconds."


def use_strategy(visit: Visit, jobs: Jobs, form: Form) -> str:
    """Make a strategy the project's."""
    strategy = form.fields.get("strategy", "")
    steering.use_strategy(visit.context, jobs, visit.project_id, strategy, form.who)
    return f"{strategy} orders the queue now. The worker writes the new places, the front of the queue first."


ACTIONS = {"pin": pin, "strategy": use_strategy}
VIEW = View("next", "Next", "Which tasks come next, and why?", read, ACTIONS)
