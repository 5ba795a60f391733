"""Whether a version's stored answers are those that the label config asks for now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from backend.errors import LabelConfigError, SettingError
from backend.loop import served_models
from backend.loop.context import Context
from backend.loop.served_models import ServedModel
from backend.store.store import PoolKeys, ProjectRecord


class StoredAnswers:
    """What is known of the answers of one version that the store and Label Studio hold.

    A fingerprint of a tag is a hash of the weights that answer, of what they look at, and how. Those of all tags are
    kept when a scoring begins. That leads from state to state:

        unknown ──begin──► scoring ──end──► pushed ──begin──► scoring
           └──────────────adopt──────────────►┘

    - unknown: nothing is stored, or an earlier release stored it. Its answers count as current.
    - scoring: the pool is being scored, or a scoring was begun and never pushed. Until `end` it is due.
    - pushed: Label Studio holds the answers. They are due again once the label config asks for something else.

    Answers of a tag with another fingerprint than the kept one are `outdated`: they are neither given nor kept. If a
    scoring begins with other fingerprints, `kept.outdated` says that predictions in Label Studio may be such answers,
    until its push has replaced them.
    """

    def __init__(self, context: Context, project_id: int, number: int) -> None:
        self._context = context
        self._project_id = project_id
        self._number = number

    @property
    def kept(self) -> PoolKeys:
        """What the store has of them."""
        return self._context.store.state.pool_keys(self._project_id, self._number)

    @property
    def state(self) -> Literal["unknown", "scoring", "pushed"]:
        """The state that the answers are in."""
        kept = self.kept
        if not kept.pushed:
            return "scoring"
        return "pushed" if kept.by_tag else "unknown"

    def outdated(self, models: Sequence[ServedModel]) -> frozenset[str]:
        """Return the tags, by their names in the store, whose answers were asked with something else."""
        kept = self.kept.by_tag
        return frozenset(model.key for model in models if kept.get(model.key, model.pool_key) != model.pool_key)

    def are_due(self, record: ProjectRecord) -> bool:
        """Return whether Label Studio lacks what the label config asks this version, the accepted one, for."""
        kept = self.kept
        asked = served_models.pool_keys(self._context, record).items()
        return not kept.pushed or any(kept.by_tag.get(tag, key) != key for tag, key in asked)

    def adopt(self, record: ProjectRecord) -> None:
        """Give a scored pool the fingerprints it lacks: of what an earlier release stored, and of tags added since.

        Without them nothing would tell that the next label config asks for something else.
        """
        if self._context.store.ranking(self._project_id, self._number) is None:
            return
        kept = self.kept
        try:
            keys = served_models.pool_keys(self._context, record)
        except (LabelConfigError, SettingError):
            return  # an earlier release took what this one does not
        if not keys.keys() <= kept.by_tag.keys():
            self._keep(replace(kept, by_tag={**keys, **kept.by_tag}))

    def begin(self, models: Sequence[ServedModel]) -> None:
        """Keep the fingerprints of a pool that is about to be scored."""
        stale = self.kept.outdated or bool(self.outdated(models))
        self._keep(PoolKeys({model.key: model.pool_key for model in models}, outdated=stale, pushed=False))

    def end(self, written: PoolKeys) -> None:
        """Keep that Label Studio holds what was stored when `written` was kept, unless a newer scoring has begun."""
        now = replace(written, outdated=False, pushed=True)
        if written != now and self.kept == written:
            self._keep(now)

    def _keep(self, keys: PoolKeys) -> None:
        self._context.store.state.save_pool_keys(self._project_id, self._number, keys)


def of(context: Context, models: Sequence[ServedModel]) -> StoredAnswers:
    """Return the answers of the version whose models these are."""
    return StoredAnswers(context, models[0].project_id, models[0].number)


def of_accepted(context: Context, project_id: int) -> StoredAnswers:
    """Return the answers of the accepted version."""
    version = context.store.current(project_id)
    return StoredAnswers(context, project_id, version.number if version else 0)
