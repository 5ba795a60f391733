"""A store as the release before wrote it, when the first control tag of a version was kept apart from the others.

`python -m tests.store.old_layout FOLDER` writes one. Nothing here uses the code that writes stores today: the JSON is
spelled out, and the arrays have the names, types and order that they had. Project 7 has two tags, `label` and
`second`: the base model's pool, two published versions and a rejected one. Project 8 has a version from before there
were several tags, whose manifest names none, and a pointer that is a single file.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

CONFIG = (
    '<View><Image name="image" value="$image"/>'
    '<RectangleLabels name="label" toName="image"><Label value="a"/><Label value="b"/></RectangleLabels>'
    '<RectangleLabels name="second" toName="image"><Label value="cat"/></RectangleLabels></View>'
)
ONE_TAG = CONFIG.replace("second", "again").partition('<RectangleLabels name="again"')[0] + "</View>"
TASKS = {"label": (100, 101), "second": (100, 101)}
WRITTEN = 1_767_225_600_000_000_000  # ns since 1970

# What a pool says is told apart by its images' widths: 10 × version, + 1 for the second tag, + 5 for labeled tasks.


def width(number: int, tag: str, *, labeled: bool = False) -> int:
    """Return the width of the images that a version's tag predicted."""
    return 1000 + 10 * number + (tag == "second") + 5 * labeled


def weights(number: int, tag: str) -> bytes:
    """Return the content of a weights file."""
    return f"weights of {tag} {number}".encode()


def files() -> Iterator[tuple[str, bytes]]:
    """Yield the path and the content of each file."""
    yield "secret", b"secret"
    yield from _project_of_two_tags()
    yield from _project_of_one_tag()


def write(folder: Path) -> None:
    """Write the store into a folder."""
    for path, content in files():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


def _project_of_two_tags() -> Iterator[tuple[str, bytes]]:
    project = "projects/7"
    yield f"{project}/project.json", _project(7, CONFIG)
    yield f"{project}/signs.json", _json({"format": 1, "signs": [_signs(1, ""), _signs(1, "second"), _signs(2, "")]})
    yield f"{project}/rewards.json", _json({"format": 1, "rewards": []})
    yield f"{project}/fences/training/3", b""
    for place, number in enumerate((1, 2, 1), 1):  # somebody rolled back to the first version
        yield f"{project}/current/{place}", _pointer(number, chosen=place == 3)
    for name in ("serving", "shown"):
        yield f"{project}/{name}/1", _pointer(2)
    yield from _scored(f"{project}/versions/0", 0)
    for number in (1, 2, 3):
        folder = f"{project}/versions/{number}"
        yield f"{folder}/reserved", b""
        if number < 3:
            yield f"{folder}/weights.pt", weights(number, "label")
            yield f"{folder}/{_tag('second')}/weights.pt", weights(number, "second")
            yield from _scored(folder, number)
            yield f"{folder}/label_errors.json", _review()
            yield f"{folder}/label_marks.json", _json({"format": 1, "tasks": [101]})
        yield f"{folder}/manifest.json", _json({"format": 1, "version": _manifest(number)})


def _project_of_one_tag() -> Iterator[tuple[str, bytes]]:
    project = "projects/8"
    yield f"{project}/project.json", _project(8, ONE_TAG)
    yield f"{project}/current.json", _json({"format": 1, "number": 1})
    signs = {"version": 1, "uncertainty": 0.5, "stability": None}
    yield f"{project}/signs.json", _json({"format": 1, "signs": [signs]})
    folder = f"{project}/versions/1"
    yield f"{folder}/reserved", b""
    yield f"{folder}/weights.pt", weights(1, "label")
    yield f"{folder}/pool-000000.npz", shard(width(1, "label"))
    yield f"{folder}/ranking.npz", ranking()
    version = _manifest(1) | {"project_id": 8, "reason": "published: the first version"}
    version["snapshot"] |= {"project_id": 8}
    for name in ("task", "from_name", "carried", "learned", "lesson", "others"):
        del version[name]
    yield f"{folder}/manifest.json", _json({"format": 1, "version": version})


def _scored(folder: str, number: int) -> Iterator[tuple[str, bytes]]:
    """Yield a version's predictions for the pool and, except for the base model, for labeled tasks."""
    for tag, place in (("label", folder), ("second", f"{folder}/{_tag('second')}")):
        yield f"{place}/pool-000000.npz", shard(width(number, tag))
        if number:
            yield f"{place}/labeled/pool-000000.npz", shard(width(number, tag, labeled=True), ids=(200, 201))
            yield f"{place}/votes-000000.npz", votes()
        yield f"{folder}/{_tag(tag)}/ranking.npz", ranking("margin" if number else "random")
    yield f"{folder}/ranking.npz", ranking("margin" if number else "random")
    keys = {"by_tag": {"": f"key of label {number}", "second": f"key of second {number}"}}
    yield f"{folder}/pool_keys.json", _json({"format": 1, "keys": {**keys, "outdated": False, "pushed": True}})


def _tag(name: str) -> str:
    return f"tags/{hashlib.sha256(name.encode()).hexdigest()[:16]}"


# JSON


def _json(content: Any) -> bytes:
    return json.dumps(content, indent=1, ensure_ascii=False).encode()


def _project(project_id: int, config: str) -> bytes:
    names = ("project_id", "label_config", "extra_params", "hostname", "backend_url", "configured")
    values = (project_id, config, "", "http://ls", "http://me:9090", "")
    return _json({"format": 1, "project": dict(zip(names, values, strict=True))})


def _pointer(number: int, *, chosen: bool = False) -> bytes:
    return _json({"format": 1, "number": number, "chosen": chosen})


def _signs(number: int, tag: str) -> dict[str, Any]:
    return {"version": number, "uncertainty": 0.25, "stability": None if number == 1 else 0.75, "tag": tag}


def _review() -> bytes:
    doubt = {"task_id": 200, "annotation_id": 11, "updated_at": "x", "score": 0.5, "suspicion": "swapped", "label": "a"}
    doubt |= {"box": [1.0, 2.0, 3.0, 4.0], "learned": False, "tag": "label"}
    measured = {"sure": [0.5], "absent": [], "floor": 0.25, "images": 3, "since": 1}
    content = {"doubts": [doubt], "reviewed": {"11": "x"}, "shards": [WRITTEN]}
    return _json({"format": 1, **content, "thresholds": {"": measured, "second": measured}, "rules": "rules"})


def _metrics(value: float) -> dict[str, Any]:
    parts = {"map50": value, "map50_95": 0.25, "class_ap50": {"a": float("nan"), "b": 0.5}, "images": 12, "boxes": 20}
    return parts | {"detections": 5, "interval": [0.25, 0.5], "interval_50_95": None, "gained": None, "held_out": True}


def _model(tag: str, number: int, task: str = "detect") -> dict[str, Any]:
    """Return the fields of a tag, which stood on the version for the first tag and in `others` for the next ones."""
    return {
        "from_name": tag,
        "task": task,
        "classes": ["a", "b"] if tag == "label" else ["cat"],
        "sha256": hashlib.sha256(weights(number, tag)).hexdigest(),
        "base_model": "yolo11n.pt",
        "metrics": _metrics(0.5 if tag == "label" else 0.75),
        "champion_metrics": None,
        "hyper_parameters": {"epochs": 3, "pretrained": True},
        "reason": f"published: {tag}",
        "calibration": {"temperature": 1.5, "detections": 9, "nll_before": 0.5, "nll_after": 0.25, "reason": ""},
        "class_quality": {"a": 0.5},
        "carried": False,
        "learned": [1, 2],
        "lesson": f"lesson of {tag}",
    }


def _manifest(number: int) -> dict[str, Any]:
    """Return a manifest's version, its fields in the order that they had."""
    first = _model("label", number)
    return {
        "project_id": 7,
        "number": number,
        "name": f"yolo11n-v{number}",
        **{name: first[name] for name in ("sha256", "base_model")},
        "parent": None if number == 1 else number - 1,
        "classes": first["classes"],
        "snapshot": {
            "project_id": 7,
            "label_config_hash": "hash",
            "annotations": {"11": "2026-01-01T00:00:00Z"},
            "train_tasks": [1, 2],
            "val_tasks": [3],
            "random_tasks": [],
        },
        **{name: first[name] for name in ("metrics", "champion_metrics", "hyper_parameters")},
        "software": {"ultralytics": "8"},
        "timings": {"train": 1.25},
        "created": f"2026-01-0{number}T00:00:00Z",
        "promoted": number < 3,
        "reason": "label: published: label; second: published: second",
        **{name: first[name] for name in ("calibration", "class_quality", "task", "from_name", "carried", "learned")},
        "lesson": first["lesson"],
        "others": [_model("second", number)],
    }


# Arrays


def shard(image_width: int, ids: tuple[int, ...] = (100, 101)) -> bytes:
    """Return a shard of a pool: an image of one box, and then images without any."""
    k = len(ids)
    return _npz(
        written=np.int64(WRITTEN),
        task_ids=np.array(ids, dtype=np.int64),
        sources=np.zeros(k, dtype=np.int64),
        failed=np.zeros(k, dtype=np.bool_),
        offsets=np.array([0, *[1] * k], dtype=np.int64),
        shape=np.array([2, 3], dtype=np.int64),
        sizes=np.array([(image_width, 480)] * k, dtype=np.int64),
        boxes=np.array([[1, 2, 30, 40]], dtype=np.float32),
        class_probs=np.array([[0.75, 0.25]], dtype=np.float32),
        confidence=np.array([0.75], dtype=np.float32),
        embeddings=np.ones((k, 3), dtype=np.float32),
        box_variance=np.ones((1, 4), dtype=np.float32),
        has_variance=np.ones(k, dtype=np.bool_),
        outline_points=np.zeros((0, 2), dtype=np.float32),
        outline_rings=np.zeros(1, dtype=np.int64),
        outlines=np.zeros(1, dtype=np.int64),
        keypoints=np.zeros((0, 0, 3), dtype=np.float32),
        tracks=np.zeros((0, 3), dtype=np.int64),
        clocks=np.zeros((k, 2), dtype=np.float64),
        shape_confidence=np.zeros(0, dtype=np.float32),
        video_doubt=np.full(k, np.nan, dtype=np.float32),
        doubted_frames=np.zeros((k, 10), dtype=np.int64),
        thumbnails=np.zeros((k, 0), dtype=np.uint8),
        rotated=np.zeros((0, 5), dtype=np.float32),
        box_embeddings=np.ones((1, 3), dtype=np.float16),
    )


def votes() -> bytes:
    """Return the votes of two members on the first image's box."""
    return _npz(
        task_ids=np.array([100, 101], dtype=np.int64),
        offsets=np.array([0, 1, 1], dtype=np.int64),
        probs=np.full((2, 1, 2), 0.5, dtype=np.float32),
        boxes=np.ones((2, 1, 4), dtype=np.float32),
        variance=np.zeros((0, 0, 4), dtype=np.float32),
    )


def ranking(strategy: str = "margin") -> bytes:
    """Return a ranking in which task 101 comes first."""
    return _npz(
        task_ids=np.array([101, 100], dtype=np.int64),
        priority=np.array([0.0, 0.5], dtype=np.float32),
        acquisition=np.array([2.0, 1.0], dtype=np.float32),
        explored=np.array([False, True]),
        strategy=np.asarray(strategy),
    )


def _npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


if __name__ == "__main__":
    write(Path(sys.argv[1]))
