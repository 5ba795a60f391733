"""The data of a task that a control tag shows, and its hash."""

from __future__ import annotations

from backend.labelstudio import label_config, task_fields
from backend.types import Task
from tests.support import CONFIG

SIGNATURE = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=20261101T120000Z&X-Amz-Expires=86400&X-Amz-Signature={}"


def test_a_prediction_stays_valid_when_the_url_of_its_image_is_renewed() -> None:
    (tag,) = label_config.parse(CONFIG)

    def source(path: str, signature: str) -> int:
        return task_fields.source(tag, Task(1, {"image": f"https://b.example/{path}?{SIGNATURE.format(signature)}"}))

    assert source("a.jpg", "first") == source("a.jpg", "second") != source("b.jpg", "first")
