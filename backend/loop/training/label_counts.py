"""How many labels a training would read, and how many of them the last training did not read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from backend.labelstudio import consensus
from backend.loop.context import Context
from backend.loop.training.snapshot import last_snapshot
from backend.queue.run_state import LabelCounts


@dataclass(frozen=True, slots=True)
class CurrentLabels:
    """The annotations that Label Studio holds now."""

    read: Mapping[int, str]  # annotation id -> updated_at of those that a training would read
    submitted: frozenset[int]  # ids of all, also of those that CONSENSUS leaves out
    tasks: int  # labeled tasks
    waiting: int  # labeled tasks that wait for a ground truth


def current(context: Context, project_id: int) -> CurrentLabels:
    """Read which annotations a training would read now. Raises NotFoundError and LabelStudioError."""
    rule = context.project_settings(context.store.project(project_id)).consensus
    labels = context.label_studio.annotations.stamps_by_task(project_id).values()
    return CurrentLabels(
        read={annotation: stamp for label in labels for annotation, stamp in consensus.stamps(rule, label).items()},
        submitted=frozenset().union(*(label.submitted for label in labels)),
        tasks=len(labels),
        waiting=sum(consensus.is_undecided(rule, label) for label in labels),
    )


def count_changes(before: Mapping[int, str], now: Mapping[int, str], submitted: Collection[int]) -> int:
    """Return how many annotations are new, changed or deleted among those that a training reads.

    `submitted` are the ids of all annotations. One that is left out now and still exists, because another one counts or
    its task waits for a ground truth, is not deleted.

    >>> count_changes({1: "a", 2: "a", 3: "a", 5: "a"}, {1: "a", 2: "b", 4: "a"}, submitted={1, 2, 4, 5})
    3
    """
    changed = sum(before.get(annotation) != stamp for annotation, stamp in now.items())
    return changed + len(before.keys() - now.keys() - set(submitted))


def count(context: Context, project_id: int) -> LabelCounts:
    """Count the project's labels in Label Studio, and store the counts for the status page."""
    snapshot = last_snapshot(context, project_id)
    labels = current(context, project_id)
    new = count_changes(snapshot.annotations if snapshot else {}, labels.read, labels.submitted)
    tasks = context.label_studio.projects.get(project_id).task_count
    counts = LabelCounts(tasks, labels.tasks, new, labels.waiting)
    context.progress.set_counts(project_id, counts)
    return counts
