"""The versions of a project beside each other: what each learned from, how it was trained, and where two differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from backend.errors import ModelError
from backend.evaluation import basis
from backend.evaluation.judged_images import PictureAnswers
from backend.evaluation.paired_comparison import PairedComparison, compare_samples
from backend.loop.context import Context
from backend.loop.insight.tag_models import VersionModel, held_out_answers, model_of_version, version_models
from backend.loop.served_models import serving_number
from backend.store.paths import WEIGHTS, tag_folder
from backend.store.store import ProjectRecord
from backend.types import ControlTag

MOST_PICTURES = 12  # where two versions disagree most


@dataclass(frozen=True, slots=True)
class SettingChange:
    """A setting of a training that differs from the version before; "" where a version does not have it."""

    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class VersionRow:
    """A version, as the table of versions shows it for one control tag."""

    number: int
    name: str
    created: datetime
    state: str  # "serves", "accepted", "earlier", or "rejected"
    quality: str  # with interval and basis, or why it is not judged
    value: float | None  # the quality; None: not judged
    carried_from: int | None  # the version whose model it keeps
    images: int  # that it was trained on
    boxes: int | None  # labels; None: version of an earlier release
    classes: int
    changes: tuple[SettingChange, ...]
    seconds: float  # of its training, with preparation and evaluation
    reason: str
    can_serve: bool  # it was accepted, and its weights are still in the store


def version_rows(context: Context, record: ProjectRecord, tag: ControlTag) -> tuple[VersionRow, ...]:
    """Return all versions with a model of the tag, newest first."""
    models = version_models(context, record, tag)
    current = context.store.current(record.project_id)
    accepted, serving = current.number if current else 0, serving_number(context, record.project_id)
    rows = []
    for before, shown in zip((None, *models), models, strict=False):
        number, is_promoted = shown.version.number, shown.version.promoted
        state = "accepted" if number == accepted else "earlier" if is_promoted else "rejected"
        has_weights = is_promoted and _has_weights(context, shown, tag)
        rows.append(_row(before, shown, "serves" if number == serving else state, can_serve=has_weights))
    return tuple(reversed(rows))


def _row(before: VersionModel | None, shown: VersionModel, state: str, *, can_serve: bool) -> VersionRow:
    version, model, report = shown.version, shown.model, shown.report
    return VersionRow(
        number=version.number,
        name=version.name,
        created=version.created,
        state=state,
        quality=basis.in_words(model.metrics),
        value=model.metrics.map50 if model.metrics and basis.is_judged(model.metrics) else None,
        carried_from=shown.made_by if shown.made_by != version.number else None,
        images=report.learned.images if report else len(version.snapshot.train_tasks),
        boxes=report.learned.boxes if report else None,
        classes=len(model.classes),
        changes=_changes(before, shown),
        seconds=sum(version.timings.values()),
        reason=model.reason or version.reason,
        can_serve=can_serve,
    )


def _has_weights(context: Context, shown: VersionModel, tag: ControlTag) -> bool:
    version = shown.version
    folder = tag_folder(version.project_id, version.number, version.key_of(tag.from_name))
    return WEIGHTS in context.store.files.entries(folder)


def _changes(before: VersionModel | None, shown: VersionModel) -> tuple[SettingChange, ...]:
    """Return the settings of a training that differ from those of the version before."""
    if before is None or shown.model.carried:
        return ()
    old, new = _settings(before), _settings(shown)
    names = dict.fromkeys((*old, *new))
    return tuple(
        SettingChange(name, _text(old.get(name, "")), _text(new.get(name, "")))
        for name in names
        if old.get(name, "") != new.get(name, "")
    )


def _settings(shown: VersionModel) -> Mapping[str, Any]:
    classes = ", ".join(shown.model.classes)
    return {**shown.model.hyper_parameters, "base model": shown.model.base_model, "classes": classes}


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True, slots=True)
class PictureDifference:
    """One held-out image, with the answers of two versions."""

    task_id: int
    frame: int
    before: PictureAnswers
    after: PictureAnswers

    @property
    def change(self) -> float:
        """The F1 score of the second version on the image, minus that of the first."""
        return self.after.f1 - self.before.f1


@dataclass(frozen=True, slots=True)
class VersionComparison:
    """Two versions on the held-out images that they have in common."""

    before: VersionModel
    after: VersionModel
    paired: PairedComparison | None  # None: a version has no stored answers
    pictures: tuple[PictureDifference, ...]  # the largest changes first
    same: int  # common images on which both have the same F1 score
    obstacle: str  # why nothing can be compared, "" if something can


def compare(context: Context, record: ProjectRecord, tag: ControlTag, first: int, second: int) -> VersionComparison:
    """Compare two versions, per class and per image.

    A damaged file is an obstacle. Raises NotFoundError for a version without a model of the tag.
    """
    models = version_models(context, record, tag)
    before, after = (model_of_version(models, number) for number in (first, second))
    try:
        old, new = (held_out_answers(context, shown) for shown in (before, after))
    except ModelError as error:
        return VersionComparison(before, after, None, (), 0, str(error))
    if old is None or new is None:
        lacking = before if old is None else after
        obstacle = f"{lacking.version.name} has no answers on held-out images in the store."
        return VersionComparison(before, after, None, (), 0, obstacle)
    paired = compare_samples(old.sample, new.sample) if old.sample and new.sample else None
    differences = _differences(old.pictures, new.pictures)
    changed = [difference for difference in differences if difference.change]
    obstacle = "" if differences else "The two versions were judged on different images."
    return VersionComparison(
        before=before,
        after=after,
        paired=paired if paired and paired.images else None,
        pictures=tuple(sorted(changed, key=lambda difference: -abs(difference.change))[:MOST_PICTURES]),
        same=len(differences) - len(changed),
        obstacle=obstacle,
    )


def _differences(old: Sequence[PictureAnswers], new: Sequence[PictureAnswers]) -> list[PictureDifference]:
    earlier = {(picture.task_id, picture.frame): picture for picture in old}
    pairs = [(earlier.get((picture.task_id, picture.frame)), picture) for picture in new]
    return [PictureDifference(after.task_id, after.frame, before, after) for before, after in pairs if before]
