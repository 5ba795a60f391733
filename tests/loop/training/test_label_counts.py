"""Which changes of labels a training would learn from."""

from __future__ import annotations

import pytest

from backend.loop.training import label_counts


@pytest.mark.parametrize(
    ("before", "now", "submitted", "changes"),
    [
        ({}, {}, (), 0),
        ({}, {1: "a"}, (1,), 1),
        ({1: "a"}, {1: "a"}, (1,), 0),
        ({1: "a"}, {1: "b"}, (1,), 1),
        ({1: "a", 2: "a"}, {2: "a"}, (2,), 1),  # 1 was deleted
        ({1: "a"}, {2: "a"}, (1, 2), 1),  # a second person's annotation counts in the place of the first one
        ({1: "a"}, {}, (1, 2), 0),  # a second person annotated the task, and it waits for a ground truth
        ({}, {2: "a"}, (1, 2), 1),  # somebody decided
    ],
)
def test_new_changed_and_deleted_annotations_count(
    before: dict[int, str], now: dict[int, str], submitted: tuple[int, ...], changes: int
) -> None:
    assert label_counts.count_changes(before, now, submitted) == changes
