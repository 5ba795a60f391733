"""The split form: a tag such as Rectangle draws a shape, and the Labels beside it say what the shape shows.

Label Studio stores a region of this form as two entries of one id: one of the shape tag, whose type is the shape, and
one of the Labels, whose type is "labels". Both carry the whole shape. A shape tag reads and answers as the tag that
draws the same shape and has labels of its own, e.g. RectangleLabels.

Without a Labels beside it, a shape tag has one entry per region, and all of its shapes are objects of one class.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from backend.labelstudio import foreign_regions, regions, tags
from backend.labelstudio.loose_points import OBJECT
from backend.labelstudio.regions import Item
from backend.labelstudio.tags import Result, Tag
from backend.types import ControlTag, EmptyRegion, LabeledBox, Prediction, Region

LABELS = "labels"  # type of the entries that carry labels, and the key of the labels in their values


def split(whole: Tag, name: str) -> Tag:
    """Return the tag of a name that draws as `whole` does, and takes its labels from the Labels beside it."""
    of_objects = whole.task({}) != "pose"  # the points of a skeleton are no objects
    return replace(
        whole,
        name=name,
        labels_beside="Labels",
        encode=partial(_encode, whole),
        read=partial(_read, whole),
        lend=partial(_lend, whole, name.lower()) if of_objects else whole.lend,
        unnamed=of_objects,
    )


def _encode(
    whole: Tag, tag: ControlTag, prediction: Prediction, classes: Sequence[str], threshold: float, key: str
) -> tuple[Region, ...]:
    """Return each region of `whole` as two entries of one id, the shape first, as Label Studio's editor writes them."""
    encoded = whole.encode(replace(tag, kind=whole.kind), prediction, classes, threshold, key)
    return tuple(entry for region in encoded for entry in _parted(whole, tag, region))


def _parted(whole: Tag, tag: ControlTag, region: Region) -> Iterator[Region]:
    if region.kind != whole.kind:  # the box of a skeleton
        yield region
        return
    shape = {name: part for name, part in region.value.items() if name != whole.kind}
    yield replace(region, kind=tag.kind, value=shape)
    if not tag.labels_from:
        return
    value = {**shape, LABELS: region.value[whole.kind]}
    yield replace(region, kind=LABELS, from_name=tag.labels_from, value=value)


def _read(whole: Tag, tag: ControlTag, result: Result) -> Iterator[LabeledBox | EmptyRegion | str]:
    """Yield what `whole` reads in the joined entries, and why labels without a shape are not learned."""
    items = list(result)
    labels = _labels(tag, items)
    joined = (_joined(whole, tag, item, labels) if _is_own(tag, item) else item for item in items)
    yield from whole.read(replace(tag, kind=whole.kind), joined)
    drawn = {regions.id_of(item.get("id")) for item in items if _is_shape(item)}
    for name in labels.keys() - drawn:
        yield f"region {name!r:.80} has labels and no shape: delete it, and draw it again"


def _lend(whole: Tag, kind: str, tag: ControlTag, result: Result) -> Iterator[LabeledBox | EmptyRegion | str]:
    """Yield what the shapes of other tags with the same Labels, or of none, teach a tag."""
    if not tags.get(tag.kind).labels_beside:
        return
    items = list(result)
    labels = _labels(tag, items)
    named = {regions.id_of(item.get("id")) for item in items if item.get("type") == LABELS}
    others = (item for item in items if item.get("type") == kind and item.get("from_name") != tag.from_name)
    ours = (
        item
        for item in others
        if item.get("to_name") == tag.to_name
        and (regions.id_of(item.get("id")) in labels or regions.id_of(item.get("id")) not in named)
    )
    joined = (_joined(whole, tag, item, labels) for item in ours)
    for part in whole.read(replace(tag, kind=whole.kind), joined):
        yield regions.adapted(tag, part) if isinstance(part, LabeledBox) else part


def _labels(tag: ControlTag, items: Iterable[Item]) -> Mapping[str, list[object]]:
    """Return region id -> the labels that the tag's Labels give to it."""
    return {
        regions.id_of(item.get("id")): regions.labels_of(item, LABELS)
        for item in items
        if tag.labels_from and item.get("from_name") == tag.labels_from and item.get("type") == LABELS
    }


def _is_own(tag: ControlTag, item: Item) -> bool:
    return item.get("from_name") == tag.from_name and item.get("type") == tag.kind


def _is_shape(item: Item) -> bool:
    kind = item.get("type")  # of an import it may be anything
    return isinstance(kind, str) and kind in foreign_regions.SHAPES and kind != LABELS


def _joined(whole: Tag, tag: ControlTag, item: Item, labels: Mapping[str, list[object]]) -> Item:
    """Return a shape as an entry of `whole` of the tag's name, with its labels."""
    value = item.get("value")
    shape = value if isinstance(value, Mapping) else {}
    own = labels.get(regions.id_of(item.get("id")), []) if tag.labels_from else [OBJECT]
    named = {whole.kind: own}
    return {**item, "from_name": tag.from_name, "type": whole.kind, "value": {**shape, **named}}
