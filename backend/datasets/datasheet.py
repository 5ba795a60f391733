"""The datasheet of an exported data set: what it holds, and what was left out and why, as a page in Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from backend.datasets.writer import Split
from backend.errors import one_line


@dataclass(frozen=True, slots=True)
class Sheet:
    """The facts of one control tag's data set."""

    name: str
    task: str
    classes: tuple[str, ...]
    split: Split
    left_out: Mapping[int, str]  # task id -> why nothing of it is in the data set
    reduced: Mapping[int, str]  # task id -> why not all of it is in the data set
    notes: tuple[str, ...]  # further sentences


def render(title: str, facts: Mapping[str, str], sheets: tuple[Sheet, ...]) -> str:
    """Return the page: the facts, then a part for each control tag."""
    rows = [f"| {cell(name)} | {cell(fact)} |" for name, fact in facts.items()]
    head = [f"# {cell(title)}", "", "| | |", "|---|---|", *rows, ""]
    return "\n".join([*head, *(line for sheet in sheets for line in _part(sheet))]) + "\n"


def cell(text: str) -> str:
    """Return a text that anybody may have written as the content of a cell.

    >>> cell("a|b <b>")
    'a\\\\|b &lt;b>'
    """
    return one_line(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _part(sheet: Sheet) -> list[str]:
    parts = sheet.split.parts
    counted = {part: Counter(box.label for image in images for box in image.boxes) for part, images in parts.items()}
    table = [f"| class number | class | {' | '.join(parts)} |", "|---" * (2 + len(parts)) + "|"]
    for number, name in enumerate(sheet.classes):
        counts = " | ".join(str(counts[name]) for counts in counted.values())
        table.append(f"| {number} | {cell(name)} | {counts} |")
    images = ", ".join(f"{len(part_images)} in {part}" for part, part_images in parts.items())
    empty = sum(not image.boxes for part_images in parts.values() for image in part_images)
    lines = [f"## {cell(sheet.name)} ({sheet.task})", ""]
    lines += [f"Images: {images}. Images without a label: {empty}. The columns count labels.", "", *table, ""]
    lines += [f"- {cell(note)}" for note in (*_notes(sheet.split), *sheet.notes)]
    lines += _reasons("Left out", sheet.left_out) + _reasons("Not all of it", sheet.reduced)
    return [*lines, ""]


def _notes(split: Split) -> list[str]:
    changed = Counter(box.note for images in split.parts.values() for image in images for box in image.boxes)
    held_out = (
        "val holds randomly chosen tasks alone. A task never moves from one part to the other."
        if split.held_out
        else "There is no val part: too few randomly chosen tasks are labeled."
    )
    return [held_out, *(f"{count} {note}" for note, count in changed.items() if note)]


def _reasons(title: str, reasons: Mapping[int, str]) -> list[str]:
    if not reasons:
        return []
    rows = [f"| {task_id} | {cell(reason)} |" for task_id, reason in sorted(reasons.items())]
    return ["", f"### {title}", "", "| task | reason |", "|---|---|", *rows]
