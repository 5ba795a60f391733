"""What the rounds so far taught, and how a pool was asked: small files of the store, written by one job at a time."""

from __future__ import annotations

from collections.abc import Iterable

from backend.evaluation.label_quality import LabelIssue, Review
from backend.sampling.bandit import Reward
from backend.sampling.stream_admission import StreamState
from backend.storage import Files
from backend.store import records
from backend.store.paths import answer_keys_file, project_folder, review_file, signs_file, version_folder
from backend.store.records import (
    MarksFile,
    PoolKeys,
    PoolKeysFile,
    PoolSigns,
    ReviewFile,
    RewardsFile,
    SignsFile,
    StreamFile,
)

_FORGET = "delete the file; the backend then collects its content again"

_SCORE = "delete the file, and score the project again"


class ProjectState:
    """What the store remembers of a project's rounds: rewards, signs of stopping, reviews, keys of stored answers."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def stream(self, project_id: int) -> StreamState:
        """Return what the stream rule remembers, a fresh state if nothing."""
        found = records.load(self._files, StreamFile, f"{project_folder(project_id)}/stream.json", fix=_FORGET)
        return found.stream if found else StreamState()

    def save_stream(self, project_id: int, state: StreamState) -> None:
        self._files.write(f"{project_folder(project_id)}/stream.json", StreamFile(stream=state).encode())

    def rewards(self, project_id: int) -> tuple[Reward, ...]:
        """Return what the labels of each round gained, by version."""
        found = records.load(self._files, RewardsFile, f"{project_folder(project_id)}/rewards.json", fix=_FORGET)
        return found.rewards if found else ()

    def save_reward(self, project_id: int, reward: Reward) -> None:
        """Keep a version's reward, replacing the one before."""
        others = [one for one in self.rewards(project_id) if one.version != reward.version]
        rewards = tuple(sorted([*others, reward], key=lambda one: one.version))
        self._files.write(f"{project_folder(project_id)}/rewards.json", RewardsFile(rewards=rewards).encode())

    def signs(self, project_id: int) -> tuple[PoolSigns, ...]:
        """Return what the scored pools say of stopping, by version and tag."""
        found = records.load(self._files, SignsFile, signs_file(project_id), fix=_FORGET)
        return found.signs if found else ()

    def save_signs(self, project_id: int, signs: PoolSigns) -> None:
        """Keep what a version's pool says by a tag, replacing what it said before."""
        known = {(one.version, one.tag): one for one in (*self.signs(project_id), signs)}
        kept = tuple(known[key] for key in sorted(known))
        self._files.write(signs_file(project_id), SignsFile(signs=kept).encode())

    def pool_keys(self, project_id: int, number: int) -> PoolKeys:
        """Return what the stored answers of a version depend on, as far as that is known."""
        found = records.load(self._files, PoolKeysFile, answer_keys_file(project_id, number), fix=_SCORE)
        return found.keys if found else PoolKeys({})

    def save_pool_keys(self, project_id: int, number: int, keys: PoolKeys) -> None:
        """Keep what the stored answers of a version depend on, replacing what was known."""
        self._files.write(answer_keys_file(project_id, number), PoolKeysFile(keys=keys).encode())

    def review(self, project_id: int, number: int) -> Review | None:
        """Return a version's last review of the labels, None before its first."""
        found = records.load(self._files, ReviewFile, review_file(project_id, number), fix=_FORGET)
        if found is None:
            return None
        return Review(found.doubts, found.reviewed, found.shards, found.thresholds, found.rules)

    def save_review(self, project_id: int, number: int, review: Review) -> None:
        """Keep a version's review of the labels, replacing the one before."""
        known = None if review.reviewed is None else dict(review.reviewed)
        file = ReviewFile(
            doubts=review.issues,
            reviewed=known,
            shards=review.shards,
            thresholds=dict(review.thresholds),
            rules=review.rules,
        )
        self._files.write(review_file(project_id, number), file.encode())

    def label_issues(self, project_id: int, number: int) -> tuple[LabelIssue, ...]:
        """Return what a version thinks of the labels, worst first; nothing before its first review."""
        review = self.review(project_id, number)
        return review.issues if review else ()

    def marks(self, project_id: int, number: int) -> frozenset[int]:
        """Return the tasks whose prediction of a version has a score of the review and not its place in the queue."""
        found = records.load(
            self._files, MarksFile, f"{version_folder(project_id, number)}/label_marks.json", fix=_FORGET
        )
        return frozenset(found.tasks if found else ())

    def save_marks(self, project_id: int, number: int, tasks: Iterable[int]) -> None:
        file = MarksFile(tasks=tuple(sorted(tasks)))
        self._files.write(f"{version_folder(project_id, number)}/label_marks.json", file.encode())
