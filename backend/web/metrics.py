"""Prometheus metrics of the server."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = CONTENT_TYPE_LATEST
PATHS = {
    "/",
    "/health",
    "/ready",
    "/metrics",
    "/setup",
    "/predict",
    "/webhook",
    "/train",
    "/versions",
}  # bounds the label's values

REQUESTS = Histogram("yolo_backend_request_seconds", "Seconds per request", ["path", "status"])
PREDICTED = Counter("yolo_backend_predicted_tasks", "Tasks answered by /predict")
WEBHOOKS = Counter("yolo_backend_webhooks", "Webhook events", ["action"])
_DEPTH = Gauge("yolo_backend_queue_depth", "Jobs that wait for a worker")


def render(depth: int) -> bytes:
    """Return all metrics in Prometheus's text format."""
    _DEPTH.set(depth)
    return generate_latest()
