"""The pool of the served version: its map with what each image is now, class balance, near-duplicates, odd images.

It reads the store and redis alone, so it works while Label Studio is down.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from backend.errors import NotFoundError
from backend.evaluation.effort import EffortLog, counted
from backend.evaluation.pool_map import PoolMap
from backend.labelstudio import label_config, label_renames
from backend.loop.context import Context
from backend.loop.served_models import name_of, require_project, serving_number
from backend.model_versions import renamed
from backend.store.store import ProjectRecord
from backend.types import ControlTag, IntArray, Ranking

# What an image is now, in the order in which the map's legend lists it; a number on the map is a place in this list.
STATES = ("labeled", "failed", "next", "chance", "unlabeled")
SHOWN = 24  # groups and images that a list names


@dataclass(frozen=True, slots=True)
class ClassBalance:
    """How often a label was given, and how often the model predicts it on unlabeled images."""

    label: str
    labels: int
    predicted: int


@dataclass(frozen=True, slots=True)
class OddImage:
    """An image that resembles no other; `oddness` is its distance to its neighbours as a share of the fence."""

    task_id: int
    oddness: float


@dataclass(frozen=True, slots=True)
class PoolView:
    """The answers of the view on the pool."""

    version: str
    map_stamp: str  # see `map_stamp`
    tags: tuple[str, ...]  # names of the control tags
    tag: str  # the one that is shown
    drawn: PoolMap | None  # None: not drawn yet
    states: npt.NDArray[np.uint8]  # (n,) of the map's images: places in STATES
    counts: Mapping[str, int]  # images of the map per state
    late: int  # ranked tasks that came after the map was drawn
    failed: int  # tasks that could not be used, on the map or not
    balance: tuple[ClassBalance, ...]  # in the label config's order
    groups: tuple[tuple[int, ...], ...]  # task ids of near-duplicates, the largest group first, at most SHOWN
    group_count: int
    repeated: int  # images that repeat another one
    odd: tuple[OddImage, ...]  # the oddest first, at most SHOWN
    odd_count: int


def view(context: Context, project_id: int, tag: str = "") -> PoolView:
    """Return the pool by one control tag's model; the first tag without a name.

    Raises NotFoundError for an unknown project or tag.
    """
    record, number = require_project(context, project_id), serving_number(context, project_id)
    chosen = _tag(record, tag)
    stamp = map_stamp(context, project_id, tag)  # before the map, which may be drawn again meanwhile
    drawn = context.store.maps.load(project_id, number, tag=_key(context, record, number, chosen))
    order, log = context.store.pools.ranking(project_id, number), context.store.state.effort(project_id)
    failures = context.progress.failures(project_id).keys()
    batch = context.project_settings(record).retrain_every
    states = _states(drawn, order, log, list(failures), batch) if drawn else np.zeros(0, np.uint8)
    numbers = np.bincount(states, minlength=len(STATES)).tolist()
    groups, odd = (_groups(drawn), _odd(drawn)) if drawn else ([], [])
    return PoolView(
        version=name_of(context, record),
        map_stamp=stamp,
        tags=tuple(tag.from_name for tag in label_config.parse(record.label_config)),
        tag=chosen.from_name,
        drawn=drawn,
        states=states,
        counts=dict(zip(STATES, numbers, strict=True)),
        late=_late(drawn, order),
        failed=len(failures),
        balance=_balance(context, record, chosen, log, drawn),
        groups=tuple(groups[:SHOWN]),
        group_count=len(groups),
        repeated=sum(len(group) - 1 for group in groups),
        odd=tuple(odd[:SHOWN]),
        odd_count=len(odd),
    )


def map_stamp(context: Context, project_id: int, tag: str = "") -> str:
    """Return a text that differs for each map that is drawn; "" if the served version has none. Raises as `view`."""
    record, number = require_project(context, project_id), serving_number(context, project_id)
    key = _key(context, record, number, _tag(record, tag))
    stamp = context.store.maps.stamp(project_id, number, tag=key)
    return f"{number} {stamp}" if stamp else ""


def _tag(record: ProjectRecord, name: str) -> ControlTag:
    tags = label_config.parse(record.label_config)
    chosen = next((tag for tag in tags if tag.from_name == name or not name), None)
    if chosen is None:
        names = ", ".join(tag.from_name for tag in tags)
        raise NotFoundError(f"project {record.project_id} has no control tag {name[:80]!r}", fix=f"use one of {names}")
    return chosen


def _key(context: Context, record: ProjectRecord, number: int, tag: ControlTag) -> str:
    """Return a tag's name in the store."""
    if not number:
        return tag.from_name
    version = context.store.version(record.project_id, number)
    return renamed(version, label_config.parse(record.label_config)).key_of(tag.from_name)


def _states(
    drawn: PoolMap, order: Ranking | None, log: EffortLog, failures: Sequence[int], batch: int
) -> npt.NDArray[np.uint8]:
    """Return what each image of the map is now (n,); the first state of STATES that holds."""
    labeled = np.isin(drawn.task_ids, list(log.stamps)) if log.stamps else drawn.labeled
    explored: IntArray = np.zeros(0, np.int64)
    following: IntArray = np.zeros(0, np.int64)
    if order is not None:
        explored = order.task_ids[order.explored]
        waiting = ~np.isin(order.task_ids, drawn.task_ids[labeled])
        queue = order.task_ids[waiting][np.argsort(order.priority[waiting], kind="stable")]
        following = queue[:batch]
    holds = {
        "labeled": labeled,
        "failed": np.isin(drawn.task_ids, failures),
        "next": np.isin(drawn.task_ids, following),
        "chance": np.isin(drawn.task_ids, explored),
    }
    conditions = [holds[state] for state in STATES[:-1]]
    return np.asarray(np.select(conditions, range(len(conditions)), default=len(conditions)), dtype=np.uint8)


def _late(drawn: PoolMap | None, order: Ranking | None) -> int:
    if drawn is None or order is None:
        return 0
    return int((~np.isin(order.task_ids, drawn.task_ids)).sum())


def _groups(drawn: PoolMap) -> list[tuple[int, ...]]:
    """Return the task ids of each group of near-duplicates, the largest group first."""
    leaders, counts = np.unique(drawn.twins, return_counts=True)
    members: dict[int, list[int]] = {leader: [] for leader in leaders[counts > 1].tolist()}
    repeated = np.isin(drawn.twins, leaders[counts > 1])
    for leader, task_id in zip(drawn.twins[repeated].tolist(), drawn.task_ids[repeated].tolist(), strict=True):
        members[leader].append(task_id)
    return sorted(map(tuple, members.values()), key=lambda group: (-len(group), group))


def _odd(drawn: PoolMap) -> list[OddImage]:
    """Return the images that do not belong, the oddest first."""
    rows: IntArray = np.flatnonzero(drawn.oddness > 1)
    worst = rows[np.argsort(-drawn.oddness[rows], kind="stable")]
    return [OddImage(int(drawn.task_ids[row]), float(drawn.oddness[row])) for row in worst.tolist()]


def _balance(
    context: Context, record: ProjectRecord, tag: ControlTag, log: EffortLog, drawn: PoolMap | None
) -> tuple[ClassBalance, ...]:
    """Return the balance of the tag's labels, then of other predicted classes."""
    renames = label_renames.parse(context.project_settings(record).label_renames)
    labels, predicted = Counter[str](), Counter[str]()
    for effort in counted(log):
        for entry in effort.labels:
            if entry.tag == tag.label_holder:
                labels[renames.get(entry.label, entry.label)] += entry.count
    if drawn is not None:
        for name, count in zip(drawn.names, drawn.pool_counts.tolist(), strict=False):
            predicted[name] += count
    others = sorted(name for name in (labels | predicted) if name not in tag.labels and (labels | predicted)[name])
    return tuple(ClassBalance(name, labels[name], predicted[name]) for name in (*tag.labels, *others))
