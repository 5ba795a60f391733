"""Whether people annotate now: on SQLite, Label Studio refuses some of their requests while we delete predictions."""

from __future__ import annotations

from redis import Redis

from backend.loop.context import Context

QUIET_S = 120.0  # if there is no new label or draft for this long, nobody annotates
_NOTE = "activity:annotating"  # one for all projects: they share Label Studio's database
_NEWEST = "newest_activity"


def note(redis: Redis) -> None:
    """Record that somebody annotates, in any project; the record expires after QUIET_S."""
    redis.set(_NOTE, 1, px=int(QUIET_S * 1000))


def is_noted(redis: Redis) -> bool:
    """Return whether somebody annotated in the last QUIET_S, according to the webhooks."""
    return bool(redis.exists(_NOTE))


def people_annotate(context: Context, project_id: int) -> bool:
    """Return whether somebody annotated in the last QUIET_S, according to Label Studio and the webhooks.

    Label Studio also knows drafts, and labels whose webhook was lost. Its clock may differ from ours, so its times are
    compared only with each other. Its first answer counts as activity.
    """
    if is_noted(context.redis):
        return True
    newest = context.label_studio.annotations.newest_activity(project_id)
    if newest <= float(context.progress.recall(project_id, _NEWEST) or -1):
        return False
    context.progress.remember(project_id, _NEWEST, repr(newest))
    note(context.redis)
    return True
