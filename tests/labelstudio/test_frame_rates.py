from __future__ import annotations

from typing import Any

import pytest

from backend.errors import MediaError
from backend.labelstudio import frame_rates, label_config, task_fields
from backend.types import ControlTag, Task

CONFIG = """<View><Labels name="labels" toName="video"><Label value="cat"/></Labels>
<Video name="video" value="$video" frameRate="RATE"/><VideoRectangle name="box" toName="video"/></View>"""


def tag(rate: str) -> ControlTag:
    return label_config.parse(CONFIG.replace("RATE", rate))[0]


@pytest.mark.parametrize(
    ("value", "rate"),
    [
        (25, 25),
        (29.97, 29.97),
        ("29.97", 29.97),
        (" 30 ", 30),
        ("2.5e1", 25),
        (0.04, 25),
        (True, 1),
        (0, 24),
        ("", 24),
        ("0", 24),
        ("30fps", 24),
        ("30,5", 24),
        ("nan", 24),
        ("1_0", 24),
        (None, 24),
        ({}, 24),
    ],
)
def test_a_task_has_the_rate_that_the_editor_makes_of_its_field(value: Any, rate: float) -> None:
    assert frame_rates.of_task(tag("$fps"), Task(1, {"fps": value})).frame_rate == pytest.approx(rate)


@pytest.mark.parametrize("value", [-25, 1e9, 1e-9, "-1"])
def test_a_rate_that_no_video_has_costs_its_task(value: Any) -> None:
    with pytest.raises(MediaError, match=r"is no number of frames per second.*task 7") as caught:
        frame_rates.of_task(tag("$meta.fps"), Task(7, {"meta": {"fps": value}}))
    assert "meta.fps" in caught.value.fix


def test_a_rate_in_the_label_config_is_that_of_all_tasks() -> None:
    assert frame_rates.of_task(tag("25"), Task(1, {"fps": 30})) is tag("25")


@pytest.mark.parametrize("rate", ["", "0", "30fps"])
def test_a_rate_that_the_editor_ignores_is_told(rate: str) -> None:
    assert tag(rate).frame_rate == 24
    (warning,) = label_config.warnings(CONFIG.replace("RATE", rate))
    assert f'Video "video": frameRate="{rate}" is no rate, so Label Studio counts 24 frames per second' in warning
    assert label_config.warnings(CONFIG.replace("RATE", "$fps")) == ()


def test_another_rate_in_the_task_needs_another_prediction() -> None:
    slow, fast = (Task(1, {"video": "a.mp4", "fps": fps}) for fps in (25, 50))
    assert task_fields.source(tag("$fps"), slow) != task_fields.source(tag("$fps"), fast)
    assert task_fields.source(tag("25"), slow) == task_fields.source(tag("25"), fast)
