"""Where ultralytics looks for the folder that a data.yaml calls `path`. This module does not import ultralytics."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def roots(data_yaml: Path, path: Any) -> tuple[Path, ...]:
    """Return the folders that a data set's splits may be relative to, in the order in which they are tried.

    Without `path` it is the folder of the data.yaml. A relative path is looked up in the working directory, in
    ultralytics' `datasets_dir` (as its `check_det_dataset` does), and last in the folder of the data.yaml.
    """
    if not path:
        return (data_yaml.parent,)
    root = Path(str(path))
    places = (Path.cwd() / root, datasets_folder() / root, data_yaml.parent.absolute() / root)
    return tuple(dict.fromkeys(places))  # with an absolute `path` all are the same


def datasets_folder() -> Path:
    """Return ultralytics' setting `datasets_dir`; without its settings file, `datasets` in the working directory."""
    try:
        folder = json.loads((_config_folder() / "settings.json").read_text())["datasets_dir"]
    except (OSError, ValueError, KeyError, TypeError):
        folder = "datasets"
    return Path.cwd() / str(folder)


def _config_folder() -> Path:
    if folder := os.environ.get("YOLO_CONFIG_DIR"):
        return Path(folder).expanduser() / "Ultralytics"
    return Path(os.environ.get("XDG_CONFIG_HOME", Path.home() / ".config")) / "Ultralytics"
