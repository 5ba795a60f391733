"""Which software a version was made with."""

from __future__ import annotations

import platform
from importlib.metadata import version

_PACKAGES = ("yolo-backend", "ultralytics", "torch", "numpy", "label-studio-sdk")


def versions() -> dict[str, str]:
    """Return the versions that decide what a training gives."""
    return {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}
