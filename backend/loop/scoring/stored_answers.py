"""Whether a version's stored predictions are answers to what the label config asks for now."""

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
    """The state of one version's answers: its predictions in the store and in Label Studio.

    The fingerprint of a tag is a hash of its weights, its media and its options (`ServedModel.pool_key`). The
    fingerprints of all tags are stored when a scoring begins. The answers go from state to state:

        unknown ──begin──► scoring ──end──► pushed ──begin──► scoring
           └──────────────adopt──────────────►┘

    - unknown: nothing is stored, or an earlier release stored it. Its answers count as current.
    - scoring: the pool is being scored, or a scoring began and was never pushed. Answers are due until `end`.
    - pushed: Label Studio holds the answers. They are due again once the label config asks for other answers.

    If a tag's fingerprint differs from the stored one, its stored answers are `outdated`: they are not used, and no new
    ones are added to them. If a scoring begins with other fingerprints, `pool_keys.outdated` says that predictions in
    Label Studio may be outdated, until the push has replaced them.
    """

    def __init__(self, context: Context, project_id: int, number: int) -> None:
        self._context = context
        self._project_id = project_id
        self._number = number

    @property
    def pool_keys(self) -> PoolKeys:
        """The stored fingerprints, and whether the answers are pushed."""
        return self._context.store.state.pool_keys(self._project_id, self._number)

    @property
    def state(self) -> Literal["unknown", "scoring", "pushed"]:
        """The state of the answers."""
        keys = self.pool_keys
        if not keys.pushed:
            return "scoring"
        return "pushed" if keys.by_tag else "unknown"

    def outdated(self, models: Sequence[ServedModel]) -> frozenset[str]:
        """Return the tags whose stored fingerprint differs from the model's, by their names in the store."""
        stored = self.pool_keys.by_tag
        return frozenset(model.key for model in models if stored.get(model.key, model.pool_key) != model.pool_key)

    def are_due(self, record: ProjectRecord) -> bool:
        """Return whether Label Studio lacks the answers that the label config asks for; of the accepted version."""
        stored = self.pool_keys
        current = served_models.pool_keys(self._context, record).items()
        return not stored.pushed or any(stored.by_tag.get(tag, key) != key for tag, key in current)

    def adopt(self, record: ProjectRecord) -> None:
        """Store fingerprints that a scored pool lacks: of all tags after an upgrade, and of tags that were added since.

        They show later that a new label config asks for other answers.
        """
        if self._context.store.pools.ranking(self._project_id, self._number) is None:
            return
        stored = self.pool_keys
        try:
            current = served_models.pool_keys(self._context, record)
        except (LabelConfigError, SettingError):
            return  # an earlier release accepted a label config or a setting that this one refuses
        if not current.keys() <= stored.by_tag.keys():
            self._save(replace(stored, by_tag={**current, **stored.by_tag}))

    def begin(self, models: Sequence[ServedModel]) -> None:
        """Store the fingerprints of a pool when its scoring begins."""
        outdated = self.pool_keys.outdated or bool(self.outdated(models))
        self._save(PoolKeys({model.key: model.pool_key for model in models}, outdated=outdated, pushed=False))

    def end(self, written: PoolKeys) -> None:
        """Store that a push is complete. `written` are the pool keys at its start: a newer scoring has other keys."""
        pushed = replace(written, outdated=False, pushed=True)
        if written != pushed and self.pool_keys == written:
            self._save(pushed)

    def _save(self, keys: PoolKeys) -> None:
        self._context.store.state.save_pool_keys(self._project_id, self._number, keys)


def of(context: Context, models: Sequence[ServedModel]) -> StoredAnswers:
    """Return the answers of the version that these models belong to."""
    return StoredAnswers(context, models[0].project_id, models[0].number)


def of_accepted(context: Context, project_id: int) -> StoredAnswers:
    """Return the answers of the accepted version."""
    version = context.store.current(project_id)
    return StoredAnswers(context, project_id, version.number if version else 0)
