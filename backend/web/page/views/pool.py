"""The view Pool: a map of all images, class balance, near-duplicates, and images that do not belong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from backend.errors import RequestError
from backend.loop import steering
from backend.loop.insight import pool
from backend.loop.insight.pool import STATES, PoolView
from backend.loop.served_models import name_of
from backend.queue.rq_queue import Jobs
from backend.types import FloatArray, IntArray
from backend.web.page import rendering
from backend.web.page.plots import script_safe
from backend.web.page.view import Form, Parts, View, Visit

STATE_COLOURS = ("#4477aa", "#cc3311", "#ee7733", "#228833", "#9aa5b1")  # of STATES
STATE_WORDS = {
    "labeled": "labeled",
    "failed": "could not be used",
    "next": "in the next batch",
    "chance": "drawn by chance",
    "unlabeled": "unlabeled",
}
OTHER_COLOUR = "#9aa5b1"  # of classes without a colour, and of images without a box
DEFAULT_TITLE = "Selection from the pool"
LONGEST_TITLE = 60
_NONE = 255  # in a byte: an image without a box has no uncertainty
_NO_POINTS = bytes(8)  # see `packed`


@dataclass(frozen=True, slots=True)
class PoolPage:
    """The pool, and what its map needs in the browser."""

    view: PoolView
    map: str  # JSON for pool.mjs, safe inside a script element
    words: dict[str, str]
    colours: dict[str, str]  # of the states


def read(visit: Visit) -> PoolPage:
    """Return the pool as the store has it."""
    shown = pool.view(visit.context, visit.project_id, visit.tag.from_name)
    names = shown.drawn.names if shown.drawn else ()
    value = {
        "states": [
            {"name": STATE_WORDS[state], "colour": colour} for state, colour in zip(STATES, STATE_COLOURS, strict=True)
        ],
        "classes": [{"name": name, "colour": visit.colours.get(name, OTHER_COLOUR)} for name in names],
        "other": OTHER_COLOUR,
        "task": visit.task_url,
        "picture": f"/projects/{visit.project_id}/tasks/TASK/picture?tag={quote(visit.tag.from_name)}&width=160",
    }
    colours = dict(zip(STATES, STATE_COLOURS, strict=True))
    return PoolPage(shown, script_safe(json.dumps(value)), STATE_WORDS, colours)


def live(visit: Visit) -> Parts:
    """Return the offer of another map, if the one that `?shown=` names is not the newest."""
    newest = pool.map_stamp(visit.context, visit.project_id, visit.tag.from_name)
    is_newer = newest not in ("", visit.query.get("shown"))
    version = name_of(visit.context, visit.record) if is_newer else ""
    return {"newer-map": rendering.fragment("newer_map.html.j2", version=version, tag=visit.tag.from_name)}


def points(visit: Visit) -> bytes:
    """Return the images of the map for pool.mjs, see `packed`."""
    shown = pool.view(visit.context, visit.project_id, visit.tag.from_name)
    if shown.drawn is None:
        return _NO_POINTS
    drawn = shown.drawn
    return packed(drawn.task_ids, drawn.places, drawn.classes, shown.states, drawn.uncertainty)


def boxes(visit: Visit) -> bytes:
    """Return the boxes of the map for pool.mjs, each with the state of its image and its confidence."""
    shown = pool.view(visit.context, visit.project_id, visit.tag.from_name)
    if shown.drawn is None:
        return _NO_POINTS
    drawn = shown.drawn
    rows = np.searchsorted(drawn.task_ids, drawn.box_tasks).clip(max=max(len(drawn) - 1, 0))
    states = shown.states[rows] if len(drawn) else np.full(len(rows), len(STATES) - 1)
    return packed(drawn.box_tasks, drawn.box_places, drawn.box_classes, states, drawn.box_confidence)


def packed(
    task_ids: IntArray, places: FloatArray, classes: IntArray, states: npt.NDArray[np.uint8], shares: FloatArray
) -> bytes:
    """Return n points as bytes: their number twice (uint32), then one column after another, little-endian.

    The columns are task ids (float64, because a browser has no other number for them), x and y (float32), classes
    (int16, −1: none), states (uint8), and shares in 0 … 254 (uint8, 255: none).
    """
    count = np.array([len(task_ids)] * 2, dtype="<u4")
    scaled = np.where(np.isnan(shares), _NONE, np.clip(shares, 0, 1) * (_NONE - 1))
    columns = (
        *(task_ids.astype("<f8"), places[:, 0].astype("<f4"), places[:, 1].astype("<f4")),
        *(classes.astype("<i2"), states.astype("u1"), scaled.astype("u1")),
    )
    return b"".join(array.tobytes() for array in (count, *columns))


def make_tab(visit: Visit, _jobs: Jobs, form: Form) -> str:
    """Add a tab of the selected tasks to Label Studio's Data Manager. Raises RequestError for no or too many tasks."""
    ids = _task_ids(form)
    title = " ".join(form.fields.get("title", "").split())[:LONGEST_TITLE] or DEFAULT_TITLE
    visit.context.label_studio.tabs.add_selection(visit.project_id, title, ids)
    return f"Label Studio has a tab “{title}” with {len(ids)} {'task' if len(ids) == 1 else 'tasks'} now."


def pin(visit: Visit, jobs: Jobs, form: Form) -> str:
    """Pin the selected tasks to the front of the queue. Raises RequestError for no or too many tasks."""
    ids = _task_ids(form)
    pinned = steering.pin(visit.context, jobs, visit.project_id, ids, "front", form.who)
    done = f" {len(pinned.labeled)} of them are labeled, so their pins have no effect." if pinned.labeled else ""
    count = "1 task goes" if len(ids) == 1 else f"{len(ids)} tasks go"
    return f"{count} to the front of the queue, over all versions, until labeled.{done}"


def _task_ids(form: Form) -> Sequence[int]:
    texts = [text for text in form.fields.get("tasks", "").split(",") if text]
    if not texts or not all(text.isascii() and text.isdecimal() and len(text) < 19 for text in texts):
        raise RequestError("no task is selected", where="the map of the pool", fix="draw a lasso around some images")
    return sorted({int(text) for text in texts})


VIEW = View(
    "pool",
    "Pool",
    "What is in the pool, what was chosen from it, and what is missing?",
    read,
    {"tab": make_tab, "pin": pin},
    {"points": points, "boxes": boxes},
    live,
)
