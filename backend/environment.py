"""The versions of the software that trains models."""

from __future__ import annotations

import platform
from importlib.metadata import version

_PACKAGES = ("yolo-backend", "ultralytics", "torch", "numpy", "label-studio-sdk")


def versions() -> dict[str, str]:
    """Return the software versions on which the result of a training depends, by name."""
    return {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}
