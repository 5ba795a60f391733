"""Removes the server's paths from messages to clients; only the log shows them."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from backend.settings import Settings
from backend.storage import local_folder


def roots_of(settings: Settings) -> dict[str, str]:
    """Return the folders that messages may contain -> the name that clients read instead."""
    folders = {
        "HOME": Path.home(),
        "TMP": Path(tempfile.gettempdir()),
        "PYTHON": Path(sys.prefix),
        "BACKEND": Path(__file__).resolve().parent.parent,
        "FOLDER": Path.cwd(),
        "MODEL_DIR": local_folder(settings.model_dir),
    }
    return {str(path): name for name, path in folders.items() if path != Path("/")}


def redacted(text: str, roots: Mapping[str, str]) -> str:
    """Return a text with short names in place of the server's folders; the longest matching folder is replaced first.

    >>> redacted("no weights [/srv/models/projects/7]", {"/srv": "HOME", "/srv/models": "MODEL_DIR"})
    'no weights [MODEL_DIR/projects/7]'
    """
    for root in sorted(roots, key=len, reverse=True):
        text = text.replace(root, roots[root])
    return text
