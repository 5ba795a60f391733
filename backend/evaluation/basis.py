"""The basis of a quality: how many images it was measured on, and its 95% interval; all of it in words."""

from __future__ import annotations

from backend.model_versions import Metrics

MIN_JUDGED_IMAGES = 10  # held-out images that a quality needs to mean something
NOT_JUDGED = "not judged yet"


def held_out_images(metrics: Metrics | None) -> int:
    """Return the number of held-out images on which a model was measured."""
    return 0 if metrics is None or metrics.held_out is False else metrics.images


def is_judged(metrics: Metrics | None) -> bool:
    """Return whether a model was measured on enough held-out images."""
    return held_out_images(metrics) >= MIN_JUDGED_IMAGES


def figure(metrics: Metrics) -> str:
    """Return a quality with its 95% interval.

    >>> figure(Metrics(0.75, 0.5, {}, images=100, boxes=312, detections=400, interval=(0.69, 0.801)))
    '0.750 [0.690, 0.801]'
    """
    return f"{metrics.map50:.3f}{span(metrics.interval)}"


def span(interval: tuple[float, float] | None) -> str:
    """Return an interval as the text behind a figure, "" for None."""
    return f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""


def figure_50_95(metrics: Metrics) -> str:
    """Return the mean over ten overlaps with its 95% interval."""
    return f"{metrics.map50_95:.3f}{span(metrics.interval_50_95)}"


def on_test(metrics: Metrics) -> str:
    """Return a quality on a test set with known labels, or the reason why the set is too small.

    >>> on_test(Metrics(0.924, 0.7, {}, images=4, boxes=19, detections=25))
    'not judged yet (4 test images; 10 images are needed)'
    """
    tested = f"{metrics.images} test image{'s' * (metrics.images != 1)}"
    if metrics.images < MIN_JUDGED_IMAGES:
        return f"{NOT_JUDGED} ({tested}; {MIN_JUDGED_IMAGES} images are needed)"
    return f"{figure(metrics)} on {tested}"


def change(value: float, interval: tuple[float, float] | None, images: int) -> str:
    """Return the change of a quality, with its interval and the number of held-out images.

    >>> change(0.1, (-0.02, 0.2), 24)
    '+0.100 [-0.020, +0.200] on 24 held-out images'
    """
    if images < MIN_JUDGED_IMAGES:
        return NOT_JUDGED
    ends = f" [{interval[0]:+.3f}, {interval[1]:+.3f}]" if interval else ""
    return f"{value:+.3f}{ends} on {images} held-out images"


def measured_on(metrics: Metrics | None) -> str:
    """Return the images and labels on which a quality was measured.

    >>> measured_on(Metrics(0.75, 0.5, {}, images=100, boxes=312, detections=400, held_out=True)), measured_on(None)
    ('100 held-out images, 312 labels', 'no held-out images')
    """
    images = held_out_images(metrics)
    if metrics is None or not images:
        return "no held-out images"
    return f"{images} held-out image{'s' * (images != 1)}, {metrics.boxes} label{'s' * (metrics.boxes != 1)}"


def in_words(metrics: Metrics | None) -> str:
    """Return a quality with its interval and its basis, or the reason why it is not judged yet.

    >>> in_words(Metrics(0.924, 0.7, {}, images=4, boxes=19, detections=25, held_out=True))
    'not judged yet (4 held-out images, 19 labels; 10 images are needed)'
    """
    if metrics is not None and is_judged(metrics):
        return f"{figure(metrics)} on {measured_on(metrics)}"
    return f"{NOT_JUDGED} ({measured_on(metrics)}; {MIN_JUDGED_IMAGES} images are needed)"
