"""The datasheet names what is there and what was left out, whatever people typed."""

from __future__ import annotations

from pathlib import Path

from backend.datasets import datasheet
from backend.datasets.datasheet import Sheet
from backend.datasets.writer import LabeledImage, Split
from backend.types import LabeledBox

BOX = LabeledBox("cat", (0.5, 0.5, 0.2, 0.2), note="turned boxes learned as upright boxes")


def test_the_sheet_counts_labels_by_class_and_part_and_gives_each_reason() -> None:
    train = (LabeledImage(1, Path("1.png"), (BOX, BOX), random=True), LabeledImage(2, Path("2.png"), (), random=True))
    val = (LabeledImage(3, Path("3.png"), (BOX,), random=True),)
    sheet = Sheet("label", "detect", ("dog", "cat"), Split(train, val, held_out=True), {9: "a|b\nc"}, {3: "<i>"}, ())
    page = datasheet.render("Data set of project 7", {"labels of": "now"}, (sheet,))
    lines = page.splitlines()
    assert "| 0 | dog | 0 | 0 |" in lines
    assert "| 1 | cat | 2 | 1 |" in lines
    assert "Images: 2 in train, 1 in val. Images without a label: 1. The columns count labels." in lines
    assert "- 3 turned boxes learned as upright boxes" in lines
    assert "| 9 | a\\|b\\\\nc |" in lines
    assert "| 3 | &lt;i> |" in lines


def test_without_a_held_out_part_there_is_one_column() -> None:
    images = (LabeledImage(1, Path("1.png"), (BOX,), random=False),)
    sheet = Sheet("label", "detect", ("cat",), Split(images, images, held_out=False), {}, {}, ())
    page = datasheet.render("title", {}, (sheet,))
    assert "| 0 | cat | 1 |" in page
    assert "There is no val part" in page
    assert "Left out" not in page
