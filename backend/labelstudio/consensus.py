"""One result from the annotations of several people, by vote.

People are counted once each. An object counts if more than half of them drew it: their regions match one to one where
their boxes overlap with IoU >= 0.5, the best overlap first (as weighted box fusion matches boxes, Solovyev et al. 2021,
arXiv 1910.13302, with equal weights). It gets the label that most of them gave. Upright boxes become their mean, and
masks keep the pixels that more than half of the masks have. Of other shapes the region counts that overlaps the others
most. An answer for the whole image counts if most people gave it; where several may be given, if more than half did.
Among equals the newest annotation decides.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from backend.errors import RegionError
from backend.geometry import brush_rle
from backend.geometry.coordinates import iou, label_arrays
from backend.labelstudio import regions, tags
from backend.labelstudio.client.annotations import LabelStamp
from backend.labelstudio.tags import keypointlabels
from backend.types import AnnotatedTask, BoolArray, ControlTag, FloatArray

Item = Mapping[str, Any]
MATCH_IOU = 0.5
_BOX = ("x", "y", "width", "height")


@dataclass(frozen=True, slots=True)
class DrawnObject:
    """The items of a result that belong together, such as a box with its key points, or all masks of a class."""

    person: int  # place among the results
    items: tuple[Item, ...]
    label: tuple[str, ...]
    hull: FloatArray  # (4,) xyxy in percent

    @property
    def region(self) -> tuple[Item, ...]:
        """The items of its first region: several of one id, each with the shape, where the labels have their own."""
        first = regions.id_of(self.items[0].get("id"))
        return tuple(item for item in self.items if first and regions.id_of(item.get("id")) == first) or self.items[:1]

    @property
    def value(self) -> Mapping[str, Any]:
        """The value of its only region; empty for several regions."""
        value = self.items[0].get("value") if len(self.region) == len(self.items) else None
        return value if isinstance(value, Mapping) else {}

    def reshaped(self, shape: Mapping[str, Any]) -> tuple[Item, ...]:
        """Return the items of its first region with another shape in the place of their own."""
        values = [value if isinstance(value := item.get("value"), Mapping) else {} for item in self.region]
        changed = [{**value, **shape} if shape.keys() <= value.keys() else value for value in values]
        return tuple({**item, "value": value} for item, value in zip(self.region, changed, strict=True))


def is_undecided(rule: str, label: AnnotatedTask | LabelStamp) -> bool:
    """Return whether a task waits for a ground truth, as the `rule` in CONSENSUS wants it; a training leaves it out."""
    return rule == "ground_truth" and bool(label.other_stamps)


def stamps(rule: str, label: AnnotatedTask | LabelStamp) -> dict[int, str]:
    """Return annotation id -> updated_at of what a training reads of a task, by the `rule` in CONSENSUS.

    >>> both = LabelStamp(2, "Tuesday", {1: "Monday"})
    >>> stamps("newest", both), stamps("vote", both), stamps("ground_truth", both)
    ({2: 'Tuesday'}, {2: 'Tuesday', 1: 'Monday'}, {})
    """
    if is_undecided(rule, label):
        return {}
    own = {label.annotation_id: label.updated_at}
    return {**own, **label.other_stamps} if rule == "vote" else own


def voted(control_tags: Sequence[ControlTag], task: AnnotatedTask) -> AnnotatedTask:
    """Return a task with the result on which most of its annotators agree; a ground truth has no `others`."""
    return replace(task, result=vote(control_tags, (*task.others, task.result))) if task.others else task


def vote(control_tags: Sequence[ControlTag], results: Sequence[Sequence[Any]]) -> tuple[Any, ...]:
    """Return the result on which most of the people agree; `results` has one for each person, the newest last.

    Regions that cannot be read stay, so that a training tells why. Tracks and timelines of videos, regions of
    pages, and items of other control tags, are those of the newest result.
    """
    still = [tag for tag in control_tags if tag.one_image]
    answers = [tag for tag in still if tag.task == "classify" and not tag.regions_of]
    shapes = [tag for tag in still if tag not in answers]
    skeletons = [tag for tag in shapes if tag.kind == keypointlabels.KIND]
    results = [_tied(skeletons, result) for result in results]
    items = [[item for item in result if isinstance(item, Mapping)] for result in results]
    drawn = [drawn for person, result in enumerate(items) for drawn in _objects(shapes, person, result)]
    read = {id(item) for drawn_object in drawn for item in drawn_object.items}
    readers = [reader for tag in shapes for reader in (tag, *tag.teachers)]
    names_of_shapes = {name for tag in readers for name in (tag.from_name, tag.label_holder)}
    names_of_answers = {tag.from_name for tag in answers}
    unread = [item for result in items[:-1] for item in result if item.get("from_name") in names_of_shapes]
    newest = [item for item in results[-1] if name_of_control(item) not in names_of_answers]
    return (
        *(item for cluster in clusters(drawn) for item in _agreed(cluster, len(results))),
        *(item for tag in answers for item in _answer(tag, items)),
        *(item for item in (*unread, *newest) if id(item) not in read),
    )


def _tied(skeletons: Sequence[ControlTag], result: Sequence[Any]) -> list[Any]:
    """Return a result in which the points of skeletons are under the regions of their objects."""
    items = [item for item in result if isinstance(item, Mapping)]
    for tag in skeletons:
        items = keypointlabels.tied(tag, items)
    return [*items, *(item for item in result if not isinstance(item, Mapping))] if skeletons else list(result)


def name_of_control(item: Any) -> Any:
    """Return the `from_name` of an item, None if it is not a region."""
    return item.get("from_name") if isinstance(item, Mapping) else None


def _objects(control_tags: Sequence[ControlTag], person: int, result: Sequence[Item]) -> Iterator[DrawnObject]:
    """Yield the objects that a person drew and that a control tag can read."""
    classwise = {name for tag in control_tags if tag.task == "semantic" for name in (tag.from_name, tag.label_holder)}
    for items in _groups(result, classwise):
        hulls, labels = [], []
        for tag in control_tags:
            boxes = tags.read(tag, items).boxes
            hulls.append(label_arrays(boxes, tag.labels, 100, 100)[0])
            labels += [f"{tag.from_name} {box.label}" for box in boxes]
        corners = np.concatenate(hulls) if hulls else np.zeros((0, 4))
        if len(corners):
            hull = np.concatenate([corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)])
            yield DrawnObject(person, items, tuple(sorted(set(labels))), hull)


def _groups(result: Sequence[Item], classwise: Collection[str]) -> Iterator[tuple[Item, ...]]:
    """Yield the items of a result in groups of one id, each with the items whose `parentID` it is.

    Items of the control tags `classwise` are grouped by their labels instead.
    """
    by_root: dict[str, list[Item]] = {}
    beside = {
        regions.id_of(item.get("id")): regions.labels_of(item, "labels")
        for item in result
        if item.get("type") == "labels"
    }
    ids = {regions.id_of(item.get("id")) for item in result} - {""}
    for place, item in enumerate(result):
        parent, own = regions.id_of(item.get("parentID")), regions.id_of(item.get("id"))
        root = f"id {parent if parent in ids else own}" if own else f"item {place}"
        if item.get("from_name") in classwise:
            root = f"class {regions.labels_of(item, str(item.get('type'))) or beside.get(own, [])}"
        by_root.setdefault(root, []).append(item)
    yield from map(tuple, by_root.values())


def clusters(objects: Sequence[DrawnObject]) -> list[list[DrawnObject]]:
    """Return the objects in clusters of at most one per person, joined where they overlap, the best overlap first."""
    cluster_of = list(range(len(objects)))
    hulls = np.array([drawn.hull for drawn in objects]).reshape(-1, 4)
    overlap = np.triu(iou(hulls, hulls), k=1)
    pairs = np.argwhere(overlap >= MATCH_IOU)
    for first, second in pairs[np.argsort(-overlap[tuple(pairs.T)], kind="stable")].tolist():
        left, right = cluster_of[first], cluster_of[second]
        people = [objects[place].person for place, cluster in enumerate(cluster_of) if cluster in (left, right)]
        if len(people) == len(set(people)):
            cluster_of = [left if cluster == right else cluster for cluster in cluster_of]
    return [
        [objects[place] for place, cluster in enumerate(cluster_of) if cluster == name]
        for name in dict.fromkeys(cluster_of)
    ]


def _agreed(cluster: Sequence[DrawnObject], people: int) -> tuple[Item, ...]:
    """Return the items of the object that a cluster stands for; none if at most half of the people drew it."""
    if 2 * len(cluster) <= people:
        return ()
    votes = Counter(drawn.label for drawn in cluster)
    label = max(cluster, key=lambda drawn: (votes[drawn.label], drawn.person)).label
    voters = [drawn for drawn in cluster if drawn.label == label]
    hulls = np.array([drawn.hull for drawn in voters])
    overlap = iou(hulls, hulls).sum(axis=1).round(6).tolist()
    medoid = voters[max(range(len(voters)), key=lambda place: (overlap[place], voters[place].person))]
    return _mean_box(medoid, voters) or _majority_mask(medoid, voters) or medoid.items


def _mean_box(medoid: DrawnObject, voters: Sequence[DrawnObject]) -> tuple[Item, ...]:
    """Return the region of the mean of upright boxes; none for other shapes."""
    values = [drawn.value for drawn in voters]
    sides = [[regions.number(value.get(name)) for name in _BOX] for value in values]
    if not np.isfinite(sides).all() or any(regions.number(value.get("rotation", 0)) for value in values):
        return ()
    mean = dict(zip(_BOX, np.mean(sides, axis=0).tolist(), strict=True))
    return medoid.reshaped(mean)


def _majority_mask(medoid: DrawnObject, voters: Sequence[DrawnObject]) -> tuple[Item, ...]:
    """Return the region of the pixels that more than half of the masks have; none for other shapes."""
    masks = [mask for drawn in voters if (mask := _mask(drawn)) is not None]
    if len(masks) < len(voters) or len({mask.shape for mask in masks}) > 1:
        return ()
    majority = 2 * np.sum(masks, axis=0) > len(masks)
    return medoid.reshaped({"rle": brush_rle.encode_rle(majority)})


def _mask(drawn: DrawnObject) -> BoolArray | None:
    """Return the pixels (h, w) that the items of an object paint together; None if an item is no mask."""
    painted: BoolArray | None = None
    for item in drawn.items:
        size, value = regions.image_size(item), item["value"]
        if size is None or "rle" not in value:
            return None
        width, height = map(int, size)
        try:
            mask = brush_rle.decode_rle(value["rle"], height, width)
        except RegionError:  # the reader of the tag tells why
            return None
        painted = mask if painted is None else painted | mask
    return painted


def _answer(tag: ControlTag, results: Sequence[Sequence[Item]]) -> tuple[Item, ...]:
    """Return the item with the answer for the whole image on which people agree; none if they agree on nothing."""
    given = [[item for item in result if item.get("from_name") == tag.from_name] for result in results]
    answers = [
        [json.dumps(answer) for item in items for answer in regions.labels_of(item, tag.kind)] for items in given
    ]
    votes = Counter(answer for answers_of_person in answers for answer in dict.fromkeys(answers_of_person))
    newest = {answer: place for place, answers_of_person in enumerate(answers) for answer in answers_of_person}
    if tag.multiple:
        chosen = [answer for answer in votes if 2 * votes[answer] > len(results)]
    else:
        chosen = [max(votes, key=lambda answer: (votes[answer], newest[answer]))] if votes else []
    if not chosen:
        return ()
    item = next(items[-1] for items in reversed(given) if items)
    return ({**item, "value": {**item["value"], tag.kind: [json.loads(answer) for answer in chosen]}},)
