"""LABEL_RENAMES: labels that were renamed in the config while annotations still have the old name."""

from __future__ import annotations

import pytest

from backend.errors import SettingError
from backend.labelstudio import label_config, label_renames, regions, tags
from backend.labelstudio.client.annotations import Annotations
from backend.loop import serving
from backend.loop.context import Context
from backend.loop.training import label_reading
from backend.types import AnnotatedTask, Json, Task
from tests.support import CONFIG, ImageSite

RENAMES = {"kitten": "cat", "Animals > Cat": "Animals > Cats"}


def result(label: object, kind: str = "rectanglelabels") -> Json:
    value = {"x": 10, "y": 10, "width": 30, "height": 30, "rotation": 0, kind: [label]}
    return {"id": "r1", "from_name": "label", "to_name": "image", "type": kind, "value": value}


@pytest.mark.parametrize("text", ["kitten", "a ->", "-> b", "a -> b -> c", "a -> b; c"])
def test_what_names_no_old_and_no_new_label_is_refused(text: str) -> None:
    with pytest.raises(SettingError, match="LABEL_RENAMES") as caught:
        label_renames.parse(text)
    assert caught.value.fix


def test_several_and_none() -> None:
    assert label_renames.parse("") == {}
    assert label_renames.parse(" a, b → c ; d => e;") == {"a, b": "c", "d": "e"}


def test_a_task_has_the_names_of_today() -> None:
    items = (result("kitten"), result("dog"), result(["Animals", "Cat"], "taxonomy"), None, {"value": None})
    task = AnnotatedTask(Task(1, {}), 1, "then", items)  # type: ignore[arg-type]  # Label Studio imports anything
    first, second, third, *others = label_renames.in_task(task, RENAMES).result
    assert first["value"]["rectanglelabels"] == ["cat"]
    assert second["value"]["rectanglelabels"] == ["dog"]
    assert third["value"]["taxonomy"] == [["Animals", "Cats"]]
    assert others == [None, {"value": None}]
    assert items[0]["value"]["rectanglelabels"] == ["kitten"], "what was read is left as it is"
    assert label_renames.in_task(task, {}) is task


def test_a_renamed_label_is_learned(context: Context, images: ImageSite, monkeypatch: pytest.MonkeyPatch) -> None:
    task = AnnotatedTask(Task(1, {"image": images.add("1.png")}), 1, "then", (result("kitten"),))
    monkeypatch.setattr(Annotations, "annotated_tasks", lambda *_: iter([task]))
    (tag,) = label_config.parse(CONFIG)

    def learned(extra_params: str) -> list[str]:
        serving.setup(context, 7, CONFIG, "", extra_params, "")
        annotated = tuple(context.annotated_tasks(7))
        (read,) = label_reading.labeled_images(context, 7, (tag,), annotated, frozenset())
        return [box.label for image in read.images for box in image.boxes]

    assert learned('{"LABEL_RENAMES": "kitten -> cat"}') == ["cat"]
    assert context.progress.failures(7) == {}
    with pytest.raises(SettingError, match="LABEL_RENAMES"):
        serving.setup(context, 7, CONFIG, "", '{"LABEL_RENAMES": "kitten"}', "")


def test_without_it_the_reason_names_the_cure() -> None:
    (tag,) = label_config.parse(CONFIG)
    (reason,) = tags.unreadable(tag, [result("kitten")])
    assert reason == (
        "region r1 has the label 'kitten', which is not in the label config: if it was renamed, write the old name as "
        "the new label's alias, or set LABEL_RENAMES"
    )


def test_a_version_that_knows_the_old_name_shows_the_new_one() -> None:
    (tag,) = label_config.parse(CONFIG)
    assert regions.class_labels(tag, ("kitten", "dog")) == [None, "dog"]
    assert regions.class_labels(label_renames.in_tag(tag, {"kitten": "cat"}), ("kitten", "dog")) == ["cat", "dog"]
    assert label_renames.in_tag(tag, {"kitten": "horse"}) is tag
