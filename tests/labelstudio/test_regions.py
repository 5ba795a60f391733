"""Different regions have different ids."""

from __future__ import annotations

from backend.labelstudio.regions import region_id


def test_an_id_depends_on_each_part_by_itself() -> None:
    assert region_id("1/v1", "a", 0) == region_id("1/v1", "a", 0)
    assert region_id("1/v1/a", "b", 0) != region_id("1/v1", "a/b", 0)
    assert region_id("1", "v1/a", 0) != region_id("1/v1", "a", 0)
