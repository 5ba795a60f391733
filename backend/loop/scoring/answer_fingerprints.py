"""Whether stored answers are those that the label config asks for now: each tag's key was kept when it was scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from backend.errors import LabelConfigError, SettingError
from backend.loop import served_models
from backend.loop.context import Context
from backend.loop.served_models import ServedModel
from backend.store.store import PoolKeys, ProjectRecord


def outdated(context: Context, served: Sequence[ServedModel]) -> frozenset[str]:
    """Return the tags, by their names in the store, whose stored answers were asked with something else.

    A tag of which no key is known is none: nothing of it is stored, or an earlier release stored it.
    """
    known = context.store.pool_keys(served[0].project_id, served[0].number).by_tag
    return frozenset(model.beside for model in served if known.get(model.beside, model.pool_key) != model.pool_key)


def is_due(context: Context, record: ProjectRecord) -> bool:
    """Return whether Label Studio lacks what the label config asks the accepted version for.

    Its pool was scored under another one, or was begun to be scored and never pushed.
    """
    known = _known(context, record.project_id)
    asked = served_models.pool_keys(context, record).items()
    return not known.pushed or any(known.by_tag.get(tag, key) != key for tag, key in asked)


def adopt(context: Context, record: ProjectRecord) -> None:
    """Give a scored pool the keys it lacks, those of `record`: what an earlier release stored, and tags added since.

    Without them nothing would tell that the next label config asks for something else.
    """
    if context.store.ranking(record.project_id, _number(context, record.project_id)) is None:
        return
    known = _known(context, record.project_id)
    try:
        keys = served_models.pool_keys(context, record)
    except (LabelConfigError, SettingError):
        return  # an earlier release took what this one does not
    if not keys.keys() <= known.by_tag.keys():
        kept = replace(known, by_tag={**keys, **known.by_tag})
        context.store.save_pool_keys(record.project_id, _number(context, record.project_id), kept)


def begin(context: Context, served: Sequence[ServedModel]) -> None:
    """Keep the keys of a pool that is about to be scored."""
    model = served[0]
    before = context.store.pool_keys(model.project_id, model.number)
    by_tag, stale = {one.beside: one.pool_key for one in served}, before.outdated or bool(outdated(context, served))
    keys = PoolKeys(by_tag, outdated=stale, pushed=False)
    context.store.save_pool_keys(model.project_id, model.number, keys)


def end(context: Context, served: ServedModel, pushed: PoolKeys) -> None:
    """Keep that Label Studio holds the answers that were stored under these keys, unless others are asked for since."""
    now = replace(pushed, outdated=False, pushed=True)
    if pushed != now and context.store.pool_keys(served.project_id, served.number) == pushed:
        context.store.save_pool_keys(served.project_id, served.number, now)


def _known(context: Context, project_id: int) -> PoolKeys:
    return context.store.pool_keys(project_id, _number(context, project_id))


def _number(context: Context, project_id: int) -> int:
    version = context.store.current(project_id)
    return version.number if version else 0
