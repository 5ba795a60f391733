"""The base weights of a project's control tags: their names, and whether they may be opened."""

from __future__ import annotations

from backend.labelstudio import label_config
from backend.loop.context import Context
from backend.model_versions import is_weights_name
from backend.store.store import ProjectRecord
from backend.types import ControlTag, YoloTask
from backend.yolo import approved_weights, base_weights
from backend.yolo.tasks import weights_name


def base_model(context: Context, record: ProjectRecord) -> str:
    """Return the name of the base weights of the first control tag: the project's versions are named after them."""
    return tag_base_model(context, record, label_config.parse(record.label_config)[0])


def tag_base_model(context: Context, record: ProjectRecord, tag: ControlTag) -> str:
    """Return the name of a tag's base weights: its model_path, else the counterpart of BASE_MODEL for its task."""
    return tag.model_path or weights_name(context.project_settings(record).base_model, tag.task)


def _is_admins_choice(context: Context, name: str, task: YoloTask) -> bool:
    return name == weights_name(context.settings.base_model, task)


def check_base(context: Context, record: ProjectRecord) -> None:
    """Raise ModelError if the label config names weights that the admin has not approved; opens no weights."""
    for tag in label_config.parse(record.label_config):
        name = tag_base_model(context, record, tag)
        if not _is_admins_choice(context, name, tag.task):
            context.store.fetch(approved_weights.LISTING, context.work_dir)
            approved_weights.listed(name, context.work_dir)


def open_base(context: Context, record: ProjectRecord, tag: ControlTag) -> base_weights.BaseWeights:
    """Return the base weights of a tag; raises ModelError if they are not approved, or cannot be used."""
    name = tag_base_model(context, record, tag)
    if is_weights_name(name):
        for path in (name, f"base/{name}", approved_weights.LISTING):
            context.store.fetch(path, context.work_dir)
    if not _is_admins_choice(context, name, tag.task):
        approved_weights.check(name, context.work_dir)
    return base_weights.base_weights(name, context.work_dir, tag.task)
