"""The SAM weights with which smart tools are answered, where the admin has put some into MODEL_DIR and listed them."""

from __future__ import annotations

import functools
import logging
from pathlib import Path

from backend.loop.context import Context
from backend.yolo import approved_weights, sam

log = logging.getLogger(__name__)


def approved(context: Context) -> Path | None:
    """Return the first SAM weights in the admin's list, None where it has none; opens no weights.

    Raises ModelError for listed weights that are missing, or that differ from the approved file.
    """
    folder = context.work_dir
    context.store.fetch(approved_weights.LISTING, folder)
    listed = [name for name in approved_weights.names(folder) if sam.NAMES.fullmatch(name)]
    if not listed:
        for path in folder.glob("*sam*.pt"):
            if sam.NAMES.fullmatch(path.name):
                _warn(path)
        return None
    for path_in_store in (listed[0], f"base/{listed[0]}"):
        context.store.fetch(path_in_store, folder)
    return approved_weights.check(listed[0], folder)


@functools.cache
def _warn(path: Path) -> None:
    """Log once that weights are not used."""
    log.warning("smart tools do not use %s: %s", path, approved_weights.cure(path.name, path.parent))
