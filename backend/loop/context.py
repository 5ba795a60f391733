"""The context of every job and request: it is built once at the entry point, and passed in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from redis import Redis

from backend import acquisition
from backend.labelstudio import consensus, label_config, label_renames
from backend.labelstudio.client.connection import LabelStudioClient
from backend.loop.extra_params import for_project
from backend.loop.locks import Fence, Locks
from backend.media.cache import MediaCache
from backend.queue.run_state import Progress, connect
from backend.settings import Settings
from backend.storage import local_folder, local_root
from backend.store.store import ProjectRecord, Store
from backend.types import AnnotatedTask
from backend.yolo.predictors import Predictors


@dataclass(frozen=True, slots=True)
class Context:
    """The settings, the loaded models, and access to Label Studio, the store, redis and the media cache."""

    settings: Settings
    store: Store
    redis: Redis
    progress: Progress
    label_studio: LabelStudioClient
    impatient: LabelStudioClient  # asks the same Label Studio once, for a page that can do without the answer
    media: MediaCache
    predictors: Predictors

    def close(self) -> None:
        """Close the connections and release the models."""
        self.redis.close()
        self.label_studio.close()
        self.impatient.close()
        self.predictors.close()

    def project_settings(self, record: ProjectRecord | None) -> Settings:
        """Return the settings with the project's own overrides; raises SettingError for an invalid one."""
        return self.settings if record is None else for_project(self.settings, record.extra_params)

    def lock(self, project_id: int, purpose: str) -> AbstractContextManager[Fence]:
        """Hold the project's lock for `purpose`, which is "training" or "push", while the block runs.

        Raises BusyError if another process holds it.
        """
        return Locks(self.redis, self.store).lock(project_id, purpose)

    def annotated_tasks(self, project_id: int, ids: Sequence[int] | None = None) -> Iterator[AnnotatedTask]:
        """Yield all labeled tasks, or those of `ids`; renamed labels have their current names.

        With CONSENSUS=vote the result of a task that several people annotated is what most of them agree on.
        """
        record = self.store.project(project_id)
        settings = self.project_settings(record)
        renames = label_renames.parse(settings.label_renames)
        for task in self.label_studio.annotations.annotated_tasks(project_id, ids):
            renamed = label_renames.in_task(task, renames)
            if record and settings.consensus == "vote":
                renamed = consensus.voted(label_config.parse(record.label_config), renamed)
            yield renamed

    @property
    def work_dir(self) -> Path:
        """The local folder for scratch files: the model directory itself if that is local."""
        return local_dir(self.settings)


def local_dir(settings: Settings) -> Path:
    """Return the local folder for caches and scratch files, also if MODEL_DIR is a remote URL."""
    return local_folder(settings.model_dir)


def is_remote(settings: Settings) -> bool:
    """Return whether MODEL_DIR is an object store: a file lock on this machine then does not protect it."""
    return local_root(settings.model_dir) is None


def build(settings: Settings) -> Context:
    """Return a context whose connections open at their first use. Raises SettingError for an unknown strategy."""
    acquisition.get(settings.strategy)
    access = settings.label_studio_url, settings.label_studio_api_key
    client, impatient = LabelStudioClient(*access), LabelStudioClient.impatient(*access)
    redis = connect(settings.redis_url)
    media = MediaCache(local_dir(settings) / "media", settings, client.authorize, client.resolve)
    return Context(settings, Store(settings.model_dir), redis, Progress(redis), client, impatient, media, Predictors())
