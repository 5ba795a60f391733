from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from backend.web import metrics


@pytest.mark.parametrize("depth", [0, 12])
def test_all_metrics_can_be_parsed(depth: int) -> None:
    metrics.REQUESTS.labels("/health", "200").observe(0.01)
    metrics.WEBHOOKS.labels("TASKS_CREATED").inc()
    text = metrics.render(depth).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    ours = {name for name in families if name.startswith("yolo_backend_")}
    assert ours >= {
        "yolo_backend_request_seconds",
        "yolo_backend_predicted_tasks",
        "yolo_backend_webhooks",
        "yolo_backend_queue_depth",
    }
    assert families["yolo_backend_queue_depth"].samples[0].value == depth
    assert all(families[name].documentation for name in ours)
    assert metrics.CONTENT_TYPE.startswith("text/plain")
