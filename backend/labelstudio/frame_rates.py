"""The rate at which Label Studio counts the frames of a video: the frameRate of its tag, or a field of the task."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from backend.errors import MediaError
from backend.labelstudio import task_fields
from backend.labelstudio.label_xml import attributes_of, refuse, spell
from backend.types import ControlTag, Task

DEFAULT = 24.0  # of Label Studio's editor
MOST = 1000.0
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
_FIX = f"write the frames per second of your videos, up to {MOST:g}, e.g. 25"


def of_value(value: Any) -> float:
    """Return the frames per second that Label Studio's editor makes of a value; DEFAULT for 0 and for no number.

    A value below 1 is the seconds of one frame. Raises ValueError for a rate that no video has.

    >>> of_value("25"), of_value(0.04), of_value("30fps"), of_value("0"), of_value(None)
    (25.0, 25.0, 24.0, 24.0, 24.0)
    """
    number = float(value) if isinstance(value, int | float) or _is_number(value) else 0.0
    rate = (number if number >= 1 else 1 / number) if number else DEFAULT
    if not 0 < rate <= MOST:
        raise ValueError(f"{value!r:.80} is no number of frames per second from 0.001 to {MOST:g}")
    return rate


def _is_number(value: Any) -> bool:
    return isinstance(value, str) and _NUMBER.fullmatch(value.strip()) is not None


def of_tag(video: ET.Element) -> tuple[float, str]:
    """Return the rate of a Video tag, and the field of the task that has it instead, if the tag names one.

    Raises LabelConfigError for a rate that no video has.
    """
    value = _written(video)
    if task_fields.VARIABLE.search(value):
        return DEFAULT, task_fields.field(value)
    try:
        return of_value(value), ""
    except ValueError:
        raise refuse(video, "frameRate", value, "is not a number of frames per second", _FIX) from None


def warnings(video: ET.Element) -> Iterator[str]:
    """Yield a warning about a rate that Label Studio's editor replaces by DEFAULT."""
    value = _written(video)
    no_rate = not _is_number(value) or not float(value)
    if no_rate and not task_fields.VARIABLE.search(value) and "framerate" in attributes_of(video):
        yield (
            f'{spell(video)}: frameRate="{value:.80}" is no rate, so Label Studio counts {DEFAULT:g} frames per second.'
            f" Fix: {_FIX}"
        )


def of_task(tag: ControlTag, task: Task) -> ControlTag:
    """Return a tag with the frame rate of a task's video; raises MediaError if the task has a rate that is unusable."""
    if not tag.frame_rate_key:
        return tag
    try:
        return replace(tag, frame_rate=of_value(task_fields.shown(task, tag.frame_rate_key)))
    except ValueError as error:
        fix = f"correct the rate in the data of the task (frameRate of the Video tag: {tag.frame_rate_key:.80})"
        raise MediaError(str(error), where=f"task {task.id}", fix=fix) from None


def _written(video: ET.Element) -> str:
    return attributes_of(video).get("framerate", f"{DEFAULT:g}").strip()
