"""The paths of the store's files, under its folder or fsspec URL.

layout                                   "2": the version of this layout; see `migration`
secret                                   authenticates webhooks and our own calls
runs/<n>                                 on an object store: the `yolo-backend run` that uses it; the highest n counts
projects/<id>/project.json               the project as Label Studio described it
projects/<id>/project.aside.json         the same, of a project that Label Studio no longer has
projects/<id>/current/<n>                the newest accepted version, or the one rolled back to; the highest n counts
projects/<id>/serving/<n>                the version whose predictions Label Studio's queue shows; the highest n counts
projects/<id>/shown/<n>                  the version that the queue was last set to; the highest n counts
projects/<id>/fences/<purpose>/<n>       the newest fencing token; the holder of a lower one must not write
projects/<id>/journal/<n>                what people did; the highest n counts
projects/<id>/steering/<n>               whether the loop is paused, and the pinned tasks; the highest n counts
projects/<id>/accepted_labels/<n>        labels that people called right; the highest n counts
projects/<id>/stream.json                the state of stream admission
projects/<id>/rewards.json               the bandit's reward of each round of labels
projects/<id>/pool_signs.json            the signs of stopping from each scored pool
projects/<id>/effort.json                how each submitted annotation came about: seconds, and corrected regions
projects/<id>/versions/<n>/reserved      reserves the number; it stays, so that no number is used twice
projects/<id>/versions/<n>/manifest.json     describes a published version; version 0, the base model, has none
projects/<id>/versions/<n>/ranking.npz       the order of the queue
projects/<id>/versions/<n>/answer_keys.json  everything in the label config on which the scored pools depend
projects/<id>/versions/<n>/label_review.json the label issues that the version found
projects/<id>/versions/<n>/label_marks.json  tasks whose prediction carries a label-quality score
projects/<id>/versions/<n>/blank_tasks.json  tasks that are handed out without the version's regions
projects/<id>/versions/<n>/tags/<hash of its name>/  of each control tag:
    weights.pt                               the model
    evaluation.json                          the report of its evaluation
    held_out.npz                             its answers on the held-out images, one by one
    pool-*.npz                               its predictions for the pool
    labeled/pool-*.npz                       its predictions for tasks with labels
    votes-*.npz                              a committee's predictions for the pool
    ranking.npz                              the pool's order by this tag alone, if there are several tags
    map.npz                                  the map of the pool; versions of earlier releases have none
"""

from __future__ import annotations

import hashlib

from backend.storage import Files

ANSWERS = "held_out.npz"
ASIDE = "project.aside.json"
LABELED = "labeled"
LAYOUT = "layout"
REPORT = "evaluation.json"
RUNS = "runs"
TAGS = "tags"
WEIGHTS = "weights.pt"


def project_folder(project_id: int) -> str:
    """Return the folder of a project."""
    return f"projects/{project_id}"


def pointer_folder(name: str, project_id: int) -> str:
    """Return the folder of a pointer: "current", "serving" or "shown"."""
    return f"{project_folder(project_id)}/{name}"


def pointer_file(name: str, project_id: int, place: int) -> str:
    """Return the file of a pointer's state number `place`; 0 is the single file that an earlier release wrote."""
    folder = pointer_folder(name, project_id)
    return f"{folder}/{place}" if place else f"{folder}.json"


def fence_folder(project_id: int, purpose: str) -> str:
    """Return the folder with the fencing tokens of a purpose, one file per number."""
    return f"{project_folder(project_id)}/fences/{purpose}"


def journal_folder(project_id: int) -> str:
    """Return the folder with what people did, one file per number."""
    return f"{project_folder(project_id)}/journal"


def steering_folder(project_id: int) -> str:
    """Return the folder with the pause and the pins, one file per number."""
    return f"{project_folder(project_id)}/steering"


def accepted_labels_folder(project_id: int) -> str:
    """Return the folder with the labels that people called right, one file per number."""
    return f"{project_folder(project_id)}/accepted_labels"


def versions_folder(project_id: int) -> str:
    """Return the folder with the versions of a project, one folder per number."""
    return f"{project_folder(project_id)}/versions"


def version_folder(project_id: int, number: int) -> str:
    """Return the folder of a version."""
    return f"{versions_folder(project_id)}/{number}"


def tags_folder(project_id: int, number: int) -> str:
    """Return the folder with the control tags of a version, one folder per tag."""
    return f"{version_folder(project_id, number)}/{TAGS}"


def version_folders(files: Files, project_id: int, number: int) -> list[str]:
    """Return the folders that hold a version's files: its own, and one for each control tag."""
    tags = tags_folder(project_id, number)
    return [version_folder(project_id, number), *(f"{tags}/{name}" for name in files.entries(tags))]


def tag_folder(project_id: int, number: int, tag: str) -> str:
    """Return the folder of a tag, named by a hash, because a tag's name may hold any character."""
    key = hashlib.sha256(tag.encode()).hexdigest()[:16]
    return f"{tags_folder(project_id, number)}/{key}"


def scored_folder(project_id: int, number: int, tag: str, *, labeled: bool = False) -> str:
    """Return the folder with a model's predictions for the pool, or for labeled tasks."""
    folder = tag_folder(project_id, number, tag)
    return f"{folder}/{LABELED}" if labeled else folder


def map_file(project_id: int, number: int, tag: str) -> str:
    """Return the file with a tag's map of the pool."""
    return f"{tag_folder(project_id, number, tag)}/map.npz"


def weights_file(project_id: int, number: int, tag: str) -> str:
    """Return the file with a tag's weights."""
    return f"{tag_folder(project_id, number, tag)}/{WEIGHTS}"


def report_file(project_id: int, number: int, tag: str) -> str:
    """Return the file with the report of the evaluation of a tag's model."""
    return f"{tag_folder(project_id, number, tag)}/{REPORT}"


def answers_file(project_id: int, number: int, tag: str) -> str:
    """Return the file with a model's answers on the held-out images."""
    return f"{tag_folder(project_id, number, tag)}/{ANSWERS}"


def manifest_file(project_id: int, number: int) -> str:
    """Return the file with a version's manifest."""
    return f"{version_folder(project_id, number)}/manifest.json"


def signs_file(project_id: int) -> str:
    """Return the file with a project's signs of stopping."""
    return f"{project_folder(project_id)}/pool_signs.json"


def effort_file(project_id: int) -> str:
    """Return the file with how a project's annotations came about."""
    return f"{project_folder(project_id)}/effort.json"


def prompts_file(project_id: int) -> str:
    """Return the file with how good the pre-annotations from prompts were."""
    return f"{project_folder(project_id)}/prompts.json"


def blank_tasks_file(project_id: int, number: int) -> str:
    """Return the file with the tasks that a version hands out without its regions."""
    return f"{version_folder(project_id, number)}/blank_tasks.json"


def answer_keys_file(project_id: int, number: int) -> str:
    """Return the file with the keys of a version's stored predictions."""
    return f"{version_folder(project_id, number)}/answer_keys.json"


def review_file(project_id: int, number: int) -> str:
    """Return the file with a version's review of the labels."""
    return f"{version_folder(project_id, number)}/label_review.json"


def numbers_in(files: Files, folder: str) -> list[int]:
    """Return the numbers among the names in a folder, ascending."""
    return sorted(int(name) for name in files.entries(folder) if name.isdecimal())
