"""The file data.yaml of an ultralytics data set: class names, key points, and what ultralytics takes in their place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from backend.errors import DataError


def load(data_yaml: Path) -> dict[str, Any]:
    """Return the content of a data.yaml; raises DataError naming the file, the line and the cure."""
    text = read_text(data_yaml, fix="give the path of an ultralytics data.yaml")
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise DataError(f"not YAML: {problem}", where=f"{data_yaml}{line}", fix="correct that line") from None
    if not isinstance(config, dict):
        raise DataError("not a data set", where=str(data_yaml), fix="write the keys train, val and names")
    if "val" not in config and "validation" in config:
        config["val"] = config["validation"]
    return config


def has_points(data_yaml: Path) -> bool:
    """Return whether the labels of a data set have key points; raises DataError for a file that is not a data.yaml."""
    return "kpt_shape" in load(data_yaml)


def read_text(path: Path, *, fix: str) -> str:
    """Return the text of a file of a data set; raises DataError with `fix` where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError("no such file", where=str(path), fix=fix) from None
    except UnicodeDecodeError:
        raise DataError("not a text file in UTF-8", where=str(path), fix="save it as UTF-8 text") from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path), fix=fix) from None


def class_count(count: Any, where: str) -> int | None:
    """Return `nc`, the number of classes, which may be written as text; None where it is missing."""
    if count is None:
        return None
    try:
        number = float(count)
        if number != int(number) or number < 1 or isinstance(count, bool):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"nc is {count!r}", where=where, fix="write the number of classes, or leave nc out") from None
    return int(number)


def class_names(names: Any, count: int | None, where: str) -> tuple[str, ...]:
    """Return the class names by id from `names`, a list or a map of ids 0, 1, ...; without names they are numbered."""
    if names is None and count is not None:
        return tuple(f"class_{index}" for index in range(count))
    if isinstance(names, dict):
        by_id = {int(key) if str(key).isdecimal() else key: name for key, name in names.items()}
        if set(by_id) != set(range(len(names))):
            raise DataError(f"names has the ids {list(names)}", where=where, fix="number the classes 0, 1, 2, ...")
        names = [by_id[index] for index in range(len(names))]
    if not isinstance(names, list) or not names:
        raise DataError("no class names", where=where, fix="add a line like names: [cat, dog]")
    for name in names:
        # YAML reads an unquoted `no` as False and an empty item as null; neither is the label that was meant.
        if isinstance(name, bool) or not isinstance(name, str | int) or not str(name).strip():
            raise DataError(f"{name!r} is not a class name", where=where, fix='put the name in quotes, e.g. "no"')
    classes = tuple(str(name) for name in names)
    if len(set(classes)) < len(classes):
        twice = next(name for name in classes if classes.count(name) > 1)
        raise DataError(f"the class name {twice!r} is there twice", where=where, fix="give each class its own name")
    if count is not None and count != len(classes):
        raise DataError(f"nc is {count} but names has {len(classes)}", where=where, fix="leave nc out, or correct it")
    return classes


def keypoint_shape(shape: Any, where: str) -> tuple[int, int]:
    """Return `kpt_shape`: the points of an object, and the numbers of a point, 2 or 3."""
    match shape:
        case [int(points), 2 | 3 as size] if points > 0:
            return points, size
    raise DataError(f"kpt_shape is {shape!r}", where=where, fix="write points and numbers of a point: [17, 3]")


def mirrored_points(order: Any, points: int, where: str) -> tuple[int, ...]:
    """Return `flip_idx`: the point that each point becomes in a mirrored image; empty where it is missing."""
    if order is None:
        return ()
    numbers = isinstance(order, list) and all(isinstance(index, int) for index in order)
    if not numbers or sorted(order) != list(range(points)):
        fix = f"name each of the points 0 to {points - 1} once, or leave it out"
        raise DataError(f"flip_idx is {order!r}", where=where, fix=fix)
    return tuple(order)
