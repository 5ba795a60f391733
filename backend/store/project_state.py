"""The state of a project between its rounds: small files of the store, written by one job at a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from backend.evaluation.annotators import TaskAgreement
from backend.evaluation.effort import EffortLog
from backend.evaluation.label_quality import LabelIssue, Review
from backend.evaluation.prompt_precision import PromptPrecision
from backend.sampling.bandit import Reward
from backend.sampling.stream_admission import StreamState
from backend.storage import Files
from backend.store import records
from backend.store.paths import (
    answer_keys_file,
    blank_tasks_file,
    effort_file,
    project_folder,
    prompts_file,
    review_file,
    signs_file,
    version_folder,
)
from backend.store.records import (
    AgreementsFile,
    BlankTasksFile,
    EffortFile,
    MarksFile,
    PoolKeys,
    PoolKeysFile,
    PoolSigns,
    PromptPrecisionFile,
    ReviewFile,
    RewardsFile,
    SignsFile,
    StreamFile,
)
from backend.store.steering_state import SteeringState, without_accepted

_FORGET = "delete the file; the backend then collects its content again"

_SCORE = "delete the file, and score the project again"


T = TypeVar("T")
ReadKey = tuple[int, object]  # a project, and the stamp of its file; a stamp of None is not known


class LastRead(Generic[T]):
    """The content that was read last of a file, while the file stays as it was."""

    def __init__(self) -> None:
        self._kept: tuple[ReadKey, T] | None = None

    def find(self, key: ReadKey) -> T | None:
        """Return the content that was kept under this key."""
        kept = self._kept
        return kept[1] if kept is not None and key[1] is not None and kept[0] == key else None

    def keep(self, key: ReadKey, content: T) -> None:
        """Keep a content in place of the one before."""
        self._kept = key, content

    def forget(self) -> None:
        """Keep nothing: the file was written."""
        self._kept = None


class ProjectState:
    """Stream admission, the bandit's rewards, signs of stopping, label reviews and the keys of stored predictions."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._steering = SteeringState(files)
        # Several views of the page read the log, and it grows with labels.
        self._effort = LastRead[EffortLog]()
        self._agreements = LastRead[tuple[TaskAgreement, ...]]()

    def stream(self, project_id: int) -> StreamState:
        """Return the state of stream admission, a fresh state if none is stored."""
        file = records.load(self._files, StreamFile, f"{project_folder(project_id)}/stream.json", fix=_FORGET)
        return file.stream if file else StreamState()

    def save_stream(self, project_id: int, state: StreamState) -> None:
        """Write the state of stream admission, replacing the one before."""
        self._files.write(f"{project_folder(project_id)}/stream.json", StreamFile(stream=state).encode())

    def rewards(self, project_id: int) -> tuple[Reward, ...]:
        """Return the bandit's reward of each round, ascending by version."""
        file = records.load(self._files, RewardsFile, f"{project_folder(project_id)}/rewards.json", fix=_FORGET)
        return file.rewards if file else ()

    def save_reward(self, project_id: int, reward: Reward) -> None:
        """Add a version's reward, replacing an earlier one of the same version."""
        others = [earlier for earlier in self.rewards(project_id) if earlier.version != reward.version]
        rewards = tuple(sorted([*others, reward], key=lambda earlier: earlier.version))
        self._files.write(f"{project_folder(project_id)}/rewards.json", RewardsFile(rewards=rewards).encode())

    def signs(self, project_id: int) -> tuple[PoolSigns, ...]:
        """Return the signs of stopping from the scored pools, ascending by version and tag."""
        file = records.load(self._files, SignsFile, signs_file(project_id), fix=_FORGET)
        return file.signs if file else ()

    def save_signs(self, project_id: int, signs: PoolSigns) -> None:
        """Add the signs of one version and tag, replacing earlier ones."""
        by_key = {(entry.version, entry.tag): entry for entry in (*self.signs(project_id), signs)}
        merged = tuple(by_key[key] for key in sorted(by_key))
        self._files.write(signs_file(project_id), SignsFile(signs=merged).encode())

    def pool_keys(self, project_id: int, number: int) -> PoolKeys:
        """Return the keys of a version's stored predictions; empty if none are stored."""
        file = records.load(self._files, PoolKeysFile, answer_keys_file(project_id, number), fix=_SCORE)
        return file.keys if file else PoolKeys({})

    def save_pool_keys(self, project_id: int, number: int, keys: PoolKeys) -> None:
        """Write the keys of a version's stored predictions, replacing those before."""
        self._files.write(answer_keys_file(project_id, number), PoolKeysFile(keys=keys).encode())

    def review(self, project_id: int, number: int) -> Review | None:
        """Return a version's last review of the labels, None before its first."""
        file = records.load(self._files, ReviewFile, review_file(project_id, number), fix=_FORGET)
        if file is None:
            return None
        return Review(file.doubts, file.reviewed, file.shards, file.thresholds, file.rules)

    def save_review(self, project_id: int, number: int, review: Review) -> None:
        """Write a version's review of the labels, replacing the one before."""
        reviewed = None if review.reviewed is None else dict(review.reviewed)
        file = ReviewFile(
            doubts=review.issues,
            reviewed=reviewed,
            shards=review.shards,
            thresholds=dict(review.thresholds),
            rules=review.rules,
        )
        self._files.write(review_file(project_id, number), file.encode())

    def label_issues(self, project_id: int, number: int) -> tuple[LabelIssue, ...]:
        """Return the label issues that a version found, worst first; none before its first review.

        Labels that somebody called right count as clean.
        """
        review = self.review(project_id, number)
        return without_accepted(review.issues, self._steering.accepted_labels(project_id)) if review else ()

    def effort(self, project_id: int) -> EffortLog:
        """Return how the project's annotations came about, as far as it was measured."""
        key = self._effort_key(project_id)
        log = self._effort.find(key)
        if log is None:
            file = records.load(self._files, EffortFile, effort_file(project_id), fix=_FORGET)
            log = EffortLog(file.stamps, file.efforts, file.agreements) if file else EffortLog()
            self._effort.keep(key, log)
        return log

    def agreements(self, project_id: int) -> tuple[TaskAgreement, ...]:
        """Return how far people agree on tasks: the agreements of `effort`, without reading the rest of it."""
        key = self._effort_key(project_id)
        log, agreements = self._effort.find(key), self._agreements.find(key)
        if log is not None:
            return log.agreements
        if agreements is None:
            file = records.load(self._files, AgreementsFile, effort_file(project_id), fix=_FORGET)
            agreements = file.agreements if file else ()
            self._agreements.keep(key, agreements)
        return agreements

    def _effort_key(self, project_id: int) -> ReadKey:
        return project_id, self._files.stamp(effort_file(project_id))

    def save_effort(self, project_id: int, log: EffortLog) -> None:
        """Write how the project's annotations came about, replacing what was measured before."""
        file = EffortFile(stamps=dict(log.stamps), efforts=log.efforts, agreements=log.agreements)
        self._files.write(effort_file(project_id), file.encode())
        self._effort.forget()
        self._agreements.forget()

    def prompt_precision(self, project_id: int) -> tuple[PromptPrecision, ...]:
        """Return how good the pre-annotations of round zero were, per label; empty if that was not measured."""
        file = records.load(self._files, PromptPrecisionFile, prompts_file(project_id), fix=_FORGET)
        return file.labels if file else ()

    def save_prompt_precision(self, project_id: int, labels: Iterable[PromptPrecision]) -> None:
        """Write how good the pre-annotations of round zero were, replacing what was measured before."""
        self._files.write(prompts_file(project_id), PromptPrecisionFile(labels=tuple(labels)).encode())

    def blank_tasks(self, project_id: int, number: int) -> frozenset[int] | None:
        """Return the tasks that a version hands out without its regions; None if they were never drawn."""
        file = records.load(self._files, BlankTasksFile, blank_tasks_file(project_id, number), fix=_SCORE)
        return frozenset(file.tasks) if file else None

    def save_blank_tasks(self, project_id: int, number: int, tasks: Iterable[int]) -> None:
        """Write the tasks that a version hands out without its regions."""
        file = BlankTasksFile(tasks=tuple(sorted(tasks)))
        self._files.write(blank_tasks_file(project_id, number), file.encode())

    def marks(self, project_id: int, number: int) -> frozenset[int]:
        """Return the tasks whose prediction carries a label-quality score instead of a queue priority."""
        file = records.load(
            self._files, MarksFile, f"{version_folder(project_id, number)}/label_marks.json", fix=_FORGET
        )
        return frozenset(file.tasks if file else ())

    def save_marks(self, project_id: int, number: int, tasks: Iterable[int]) -> None:
        """Write the ids of the tasks whose prediction carries a label-quality score, replacing those before."""
        file = MarksFile(tasks=tuple(sorted(tasks)))
        self._files.write(f"{version_folder(project_id, number)}/label_marks.json", file.encode())
