"""Labels that each task names itself: value="$labels" on a control tag."""

from __future__ import annotations

import numpy as np
import pytest

from backend.errors import LabelConfigError
from backend.labelstudio import label_config, tags, task_labels
from backend.types import ControlTag, Json, Prediction, Task
from tests.support import CONFIG

IMAGE = '<Image name="image" value="$image"/>'
BOXES = f'<View>{IMAGE}<RectangleLabels name="label" toName="image" value="$goods"/></View>'
CHOICES = f'<View>{IMAGE}<Choices name="label" toName="image" value="$goods"/></View>'
SPLIT = (
    f'<View>{IMAGE}<Labels name="labels" toName="image" value="$goods"/><Rectangle name="label" toName="image"/></View>'
)


def task(*names: object, number: int = 1) -> Task:
    return Task(number, {"image": "a.png", "goods": list(names)})


def tag_of(config: str) -> ControlTag:
    return label_config.parse(config)[0]


def prediction(*rows: list[float]) -> Prediction:
    probs = np.array(rows, np.float32)
    boxes = np.tile(np.array([0, 0, 50, 50], np.float32), (len(rows), 1))
    return Prediction(100, 100, boxes, probs, probs.max(axis=1))


@pytest.mark.parametrize("config", [BOXES, CHOICES, SPLIT])
def test_a_tag_whose_labels_the_tasks_name_is_served(config: str) -> None:
    tag = tag_of(config)
    assert (tag.labels, tag.labels_key) == ((), "goods")
    assert label_config.warnings(config) == ()


@pytest.mark.parametrize("config", [BOXES, CHOICES, SPLIT])
def test_the_labels_of_a_project_are_those_that_its_tasks_name(config: str) -> None:
    text = task_labels.learned(config, [task("Tea", {"value": "Rum", "alias": "r"}), task({"value": "Tea"}, 7, None)])
    tag = tag_of(text)
    assert (tag.labels, tag.labels_key) == (("Tea", "r"), "goods")
    more = task_labels.learned(text, [task("Ale")])
    assert tag_of(more).labels == ("Tea", "r", "Ale")
    assert task_labels.learned(more, [task("Tea")]) == more
    assert label_config.config_hash(more) != label_config.config_hash(text)


def test_a_new_text_of_the_config_keeps_them() -> None:
    text = task_labels.learned(BOXES, [task("Tea")])
    changed = BOXES.replace("<RectangleLabels", '<RectangleLabels model_score_threshold="0.5"')
    assert tag_of(task_labels.expanded(changed, text)).labels == ("Tea",)
    assert task_labels.expanded(BOXES.replace("$goods", "$others"), text) == BOXES.replace("$goods", "$others")
    assert task_labels.expanded("no XML", text) == "no XML"
    assert task_labels.expanded(CONFIG, text) == CONFIG


def test_a_config_with_labels_of_its_own_stays_as_it_is() -> None:
    """Label Studio refuses predictions with the tasks' labels there."""
    text = BOXES.replace("/></View>", '><Label value="Rum"/></RectangleLabels></View>')
    assert (tag_of(text).labels, tag_of(text).labels_key) == (("Rum",), "")
    assert task_labels.learned(text, [task("Tea")]) == text


@pytest.mark.parametrize(
    "config",
    [
        f'<View>{IMAGE}<KeyPointLabels name="label" toName="image" value="$goods"/></View>',
        f'<View>{IMAGE}<Taxonomy name="label" toName="image" value="$goods"/></View>',
        BOXES.replace("$goods", "goods"),
    ],
)
def test_what_cannot_take_its_labels_from_tasks_has_a_reason(config: str) -> None:
    with pytest.raises(LabelConfigError, match=r'"label" '):
        label_config.parse(config)


def test_a_task_is_answered_with_its_own_labels() -> None:
    tag = tag_of(task_labels.learned(BOXES, [task("Tea", "Rum", "Ale")]))
    answer = prediction([0.9, 0.1, 0.0], [0.1, 0.8, 0.0])

    def labels(shown: Task | None) -> list[str]:
        regions = tags.encode(task_labels.of_task(tag, shown), answer, ("Tea", "Rum", "Ale"), 0.5, "k")
        return [region.value["rectanglelabels"][0] for region in regions]

    assert labels(task("Rum", "Ale")) == ["Rum"]
    assert labels(task("Tea", "Rum")) == ["Tea", "Rum"]
    assert labels(task()) == []
    assert labels(None) == ["Tea", "Rum"]


def test_base_weights_answer_with_what_a_task_names() -> None:
    tag = task_labels.of_task(tag_of(BOXES), task("Cup", "Tea"))
    regions = tags.encode(tag, prediction([0.9, 0.1], [0.2, 0.7]), ("cup", "dog"), 0.5, "k")
    assert [region.value["rectanglelabels"] for region in regions] == [["Cup"]]


def test_a_choice_is_the_likeliest_of_the_tasks_own() -> None:
    tag = tag_of(task_labels.learned(CHOICES, [task("Tea", "Rum", "Ale")]))
    shown = task_labels.of_task(tag, task("Rum", "Ale"))
    (region,) = tags.encode(shown, prediction([0.6, 0.1, 0.3]), ("Tea", "Rum", "Ale"), 0.05, "k")
    assert region.value == {"choices": ["Ale"]}


def test_a_tag_without_labels_of_tasks_is_the_same_for_all_tasks() -> None:
    tag = tag_of(CONFIG)
    assert task_labels.of_task(tag, task("Tea")) is tag


def test_labels_of_tasks_are_read() -> None:
    tag = tag_of(task_labels.learned(BOXES, [task("Tea")]))
    value = {"x": 1, "y": 1, "width": 9, "height": 9, "rotation": 0, "rectanglelabels": ["Tea"]}
    item: Json = {"id": "a", "from_name": "label", "to_name": "image", "type": "rectanglelabels", "value": value}
    (box,) = tags.decode(tag, [item])
    assert box.label == "Tea"
