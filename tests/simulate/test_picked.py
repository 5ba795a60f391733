"""The picks of strategies on the page of an experiment."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from backend.simulate import picked
from backend.simulate.records import Row


def row(strategy: str, number: int, images: tuple[str, ...], seed: int = 0) -> Row:
    quality = {"map50": 0.5, "map50_95": 0.4, "class_ap50": {}, "published": True, "unranked": ""}
    took = {"train_s": 1, "score_s": 1, "rank_s": 1}
    where = {"strategy": strategy, "seed": seed, "round": number, "images": 2, "boxes": 2}
    return Row.model_validate({**where, **quality, **took, "picked": images})


def test_each_picture_is_in_the_page_once(tmp_path: Path) -> None:
    names = [f"<{number}>.png" for number in range(26)]
    for name in names:
        Image.new("RGB", (200, 100), "red").save(tmp_path / name)
    paths = {name: tmp_path / name for name in names}
    many = tuple(names[:25])
    rows = [row("a&b", 2, (names[0], names[25])), row("a&b", 1, many), row("c", 1, many), row("c", 1, (), seed=1)]
    gallery = picked.gallery(["a&b", "c"], rows, paths)
    assert len(gallery.pictures) == 25  # the last of the 25 is under none of the 24 shown
    assert sorted(gallery.places.values()) == list(range(25))
    assert all(picture.startswith("data:image/jpeg;base64,") for picture in gallery.pictures)
    first, second = gallery.strategies
    assert (first.name, second.name) == ("a&b", "c")
    assert [picks.title for picks in first.rounds] == [
        "25 images of the first batch, 24 of them",
        "2 images for round 2",
    ]
    assert [picks.images for picks in second.rounds] == [many[:24]]  # of the first seed alone


def test_nothing_was_picked() -> None:
    assert picked.gallery([], [], {}) == picked.Gallery((), (), {})
    (strategy,) = picked.gallery(["a"], [row("a", 1, ())], {}).strategies
    assert [picks.title for picks in strategy.rounds] == ["0 images of the first batch"]
