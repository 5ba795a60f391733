"""Where the store keeps what, under its folder or fsspec URL.

layout                                   "2": the files lie as told here; see `migration`
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
projects/<id>/pool_signs.json            what each scored pool says of stopping
projects/<id>/versions/<n>/reserved      makes a number ours; stays, so that no number is used twice
projects/<id>/versions/<n>/manifest.json     of a published version; version 0 is the base model, and has none
projects/<id>/versions/<n>/ranking.npz       the order of the queue
projects/<id>/versions/<n>/answer_keys.json  what of the label config the scored pools depend on
projects/<id>/versions/<n>/label_review.json which labels the version doubts
projects/<id>/versions/<n>/label_marks.json  tasks whose score in Label Studio tells of that
projects/<id>/versions/<n>/tags/<hash of its name>/  of each control tag:
    weights.pt                               its model
    pool-*.npz                               what that says of the pool
    labeled/pool-*.npz                       and of images that have labels
    votes-*.npz                              what a committee says of the pool
    ranking.npz                              how the tag by itself ranks the pool, where there are several
"""

from __future__ import annotations

import hashlib

from backend.storage import Files

ASIDE = "project.aside.json"
LABELED = "labeled"
LAYOUT = "layout"
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
    """Return where the files of a version's control tags are kept."""
    return f"{version_folder(project_id, number)}/{TAGS}"


def version_folders(files: Files, project_id: int, number: int) -> list[str]:
    """Return the folders that hold a version's files: its own, and one for each control tag."""
    tags = tags_folder(project_id, number)
    return [version_folder(project_id, number), *(f"{tags}/{name}" for name in files.entries(tags))]


def tag_folder(project_id: int, number: int, tag: str) -> str:
    """Return where a tag's files are; a tag may have any name, a folder may not."""
    key = hashlib.sha256(tag.encode()).hexdigest()[:16]
    return f"{tags_folder(project_id, number)}/{key}"


def scored_folder(project_id: int, number: int, tag: str, *, labeled: bool = False) -> str:
    """Return where a version keeps what a tag's model says of the pool or of labeled tasks."""
    folder = tag_folder(project_id, number, tag)
    return f"{folder}/{LABELED}" if labeled else folder


def weights_file(project_id: int, number: int, tag: str) -> str:
    """Return where a tag's weights are kept."""
    return f"{tag_folder(project_id, number, tag)}/weights.pt"


def manifest_file(project_id: int, number: int) -> str:
    """Return where the manifest of a version is."""
    return f"{version_folder(project_id, number)}/manifest.json"


def signs_file(project_id: int) -> str:
    """Return where it is kept what the scored pools of a project say of stopping."""
    return f"{project_folder(project_id)}/pool_signs.json"


def answer_keys_file(project_id: int, number: int) -> str:
    """Return where it is kept what the stored answers of a version depend on."""
    return f"{version_folder(project_id, number)}/answer_keys.json"


def review_file(project_id: int, number: int) -> str:
    """Return where a version's review of the labels is kept."""
    return f"{version_folder(project_id, number)}/label_review.json"


def numbers_in(files: Files, folder: str) -> list[int]:
    """Return the numbers among the names in a folder, ascending."""
    return sorted(int(name) for name in files.entries(folder) if name.isdecimal())
