"""Tasks that were read a moment ago."""

from __future__ import annotations

from backend.labelstudio.client.recent_tasks import MOST, SECONDS, RecentTasks
from backend.types import Task


def test_a_task_is_known_for_a_while_and_in_its_project_only() -> None:
    now = 100.0
    recent = RecentTasks(lambda: now)
    recent.note(7, [Task(1, {"image": "a"}), Task(2, {"image": "b"})])
    recent.note(7, [Task(2, {"image": "c"})])
    now += SECONDS - 1
    assert recent.find(7, 2) == Task(2, {"image": "c"})
    assert recent.find(8, 2) is None
    assert recent.find(7, 3) is None
    now += 1
    assert recent.find(7, 2) is None


def test_the_oldest_are_forgotten() -> None:
    recent = RecentTasks()
    recent.note(7, (Task(number, {}) for number in range(1, MOST + 2)))
    assert recent.find(7, 1) is None
    assert recent.find(7, 2) == Task(2, {})
