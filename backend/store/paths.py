"""Where the store keeps what, under its folder or fsspec URL.

secret                                   shared by webhooks and our own calls
runs/<n>                                 on an object store: which `yolo-backend run` is at work; the highest n counts
projects/<id>/project.json               what Label Studio told us
projects/<id>/project.aside.json         the same of a project that Label Studio no longer has
projects/<id>/current/<n>                the newest accepted version, or the one rolled back to; the highest n counts
projects/<id>/serving/<n>                the version whose predictions Label Studio's queue shows, likewise
projects/<id>/shown/<n>                  the version that we last pointed that queue at, likewise
projects/<id>/fences/<purpose>/<n>       the fencing token given last: who holds a lower one must not write
projects/<id>/stream.json                what the stream rule remembers
projects/<id>/rewards.json               what each round of labels gained, for the bandit
projects/<id>/signs.json                 what each scored pool says of stopping
projects/<id>/versions/<n>/reserved      makes a number ours; stays, so that no number is used twice
projects/<id>/versions/<n>/{weights.pt, manifest.json, pool-*.npz, ranking.npz}
projects/<id>/versions/<n>/votes-*.npz   what a committee says of the pool
projects/<id>/versions/<n>/pool_keys.json  what of the label config the scored pool depends on
projects/<id>/versions/<n>/labeled/      what the version says of images that have labels
projects/<id>/versions/<n>/label_errors.json  which of those labels it doubts
projects/<id>/versions/<n>/label_marks.json   tasks whose score in Label Studio tells of that
projects/<id>/versions/<n>/tags/<hash>/  the same of each control tag but the first: all but manifest and label errors
"""

from __future__ import annotations

import hashlib

from backend.model_versions import ModelVersion

ASIDE = "project.aside.json"
LABELED = "labeled"
RUNS = "runs"
TAGS = "tags"


def project_folder(project_id: int) -> str:
    """Return where all of a project is kept."""
    return f"projects/{project_id}"


def pointer_folder(name: str, project_id: int) -> str:
    """Return where the files of a pointer ("current" or "serving") are."""
    return f"{project_folder(project_id)}/{name}"


def pointer_file(name: str, project_id: int, place: int) -> str:
    """Return where a pointer is after it has moved `place` times; before the first move it may be an older store's."""
    folder = pointer_folder(name, project_id)
    return f"{folder}/{place}" if place else f"{folder}.json"


def fence_folder(project_id: int, purpose: str) -> str:
    """Return where the fencing tokens of a purpose are, each a file of its number."""
    return f"{project_folder(project_id)}/fences/{purpose}"


def versions_folder(project_id: int) -> str:
    """Return where the versions of a project are kept, each in a folder of its number."""
    return f"{project_folder(project_id)}/versions"


def version_folder(project_id: int, number: int) -> str:
    """Return where a version of a project is kept."""
    return f"{versions_folder(project_id)}/{number}"


def tags_folder(project_id: int, number: int) -> str:
    """Return where a version's further control tags are kept."""
    return f"{version_folder(project_id, number)}/{TAGS}"


def scored_folder(project_id: int, number: int, *, labeled: bool = False, tag: str = "") -> str:
    """Return where a version, or one of its further tags, keeps what it says of the pool or of labeled tasks."""
    folder = _tag_folder(project_id, number, tag) if tag else version_folder(project_id, number)
    return f"{folder}/{LABELED}" if labeled else folder


def weights_file(version: ModelVersion, tag: str) -> str:
    """Return where a tag's weights are kept."""
    project_id, number = version.project_id, version.number
    folder = version_folder(project_id, number) if tag == version.from_name else _tag_folder(project_id, number, tag)
    return f"{folder}/weights.pt"


def _tag_folder(project_id: int, number: int, tag: str) -> str:
    """Return where a tag's files are; a tag may have any name, a folder may not."""
    key = hashlib.sha256(tag.encode()).hexdigest()[:16]
    return f"{tags_folder(project_id, number)}/{key}"
