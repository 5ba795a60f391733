"""Loads the models of recently used projects when the server starts, because loading takes 20 s and more.

It runs in the background, so the server answers meanwhile. A request for a model that is not loaded yet waits for it.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from pathlib import Path

from PIL import Image

from backend.errors import BackendError
from backend.labelstudio import label_config
from backend.loop import sam_weights
from backend.loop.context import Context
from backend.loop.served_models import models_for
from backend.media.cache import MediaFile

log = logging.getLogger(__name__)

PROJECTS = 3  # that are likely in use at the same time; each may have a model per tag
_PIXELS = 64
COLD, LOADING, WARM = "not loaded", "loading", "loaded"


class Warmth:
    """Loads the models in the background; /ready shows its `state`."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.state = COLD

    def start(self) -> threading.Thread:
        """Start to load in a background thread, and return the thread."""
        self.state = LOADING
        thread = threading.Thread(target=self._load, daemon=True)
        thread.start()
        return thread

    def _load(self) -> None:
        failures = []
        for project_id in recent_projects(self._context):
            try:
                _predict_once(self._context, project_id)
            except (BackendError, OSError, RuntimeError, ValueError) as error:  # the next /predict reports it
                log.warning("project %d: its model is not loaded: %s", project_id, error)
                failures.append(f"project {project_id}: {error}")
        self.state = f"{COLD}: {'; '.join(failures)}" if failures else WARM


def note_use(context: Context, project_id: int) -> None:
    """Record that predictions of a project were requested; a file that cannot be written is ignored."""
    use_file = _use_file(context, project_id)
    with suppress(OSError):
        use_file.parent.mkdir(parents=True, exist_ok=True)
        use_file.touch()


def recent_projects(context: Context) -> tuple[int, ...]:
    """Return the ids of the PROJECTS projects that were used or trained last; ties go to the newest project."""
    last = {}
    for project_id in context.store.project_ids():
        created = [version.created.timestamp() for version in context.store.versions(project_id)]
        last[project_id] = (max(_last_use(context, project_id), *created, 0.0), project_id)
    return tuple(sorted(last, key=last.__getitem__, reverse=True)[:PROJECTS])


def _last_use(context: Context, project_id: int) -> float:
    try:
        return _use_file(context, project_id).stat().st_mtime
    except OSError:
        return 0.0


def _use_file(context: Context, project_id: int) -> Path:
    return context.work_dir / "asked" / str(project_id)


def _predict_once(context: Context, project_id: int) -> None:
    """Load a project's models and predict a gray image with each, because the first prediction is slow too."""
    record = context.store.project(project_id)
    if record is None:
        return
    path = context.work_dir / "gray.png"
    _write_gray(path)
    for model in models_for(context, record, accepted=False):
        list(model.predict([MediaFile(path, _PIXELS, _PIXELS)]))
    if label_config.is_smart(record.label_config) and (weights := sam_weights.approved(context)):
        context.predictors.sam(weights, context.settings.device)


def _write_gray(path: Path) -> None:
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (_PIXELS, _PIXELS), (114, 114, 114)).save(path)
