"""A training of several control tags: a model each, judged against its own champion, published as one version."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from backend.cli.label_studio_process import LabelStudioProcess
from backend.datasets.writer import Split
from backend.errors import BusyError, TrainingError
from backend.labelstudio import label_config
from backend.loop import cycle, demands, serving
from backend.loop.context import Context
from backend.loop.scoring import scoring
from backend.loop.training import retraining, snapshot
from backend.loop.training.snapshot import TagPlan, TrainingLabels
from backend.loop.training.tag_training import Candidate
from backend.model_versions import Metrics, ModelVersion, TagModel, TrainingSnapshot
from backend.settings import Settings
from backend.storage import file_sha256
from backend.store.store import ProjectRecord
from backend.types import Json, Task
from tests.support import CLASSES, CONFIG, ImageSite, open_context, tiny_yolo

BOTH = CONFIG.replace(
    "</View>",
    '<Choices name="quality" toName="image" model_score_threshold="0">'
    '<Choice value="good"/><Choice value="bad"/></Choices></View>',
)
TAGS = label_config.parse(BOTH)
QUALITIES = ("good", "bad")


# Which model each tag has in a version


def model(name: str, sha256: str, reason: str = "published: the first version") -> TagModel:
    metrics = Metrics(0.5, 0.3, {}, 12, 20, 30)
    tag = next(one for one in TAGS if one.from_name == name)
    return TagModel(name, tag.task, tag.labels, sha256, "yolo11n.pt", metrics, None, {}, reason)


def candidate(tmp_path: Path, name: str, *, accepted: bool, fallback: str = "", trained: bool = True) -> Candidate:
    """Return a candidate whose weights hold the tag's name; the weights of its fallback hold the text `fallback`."""
    path, before = tmp_path / f"{name}.pt", tmp_path / f"{name}-before.pt"
    path.write_bytes(name.encode())
    before.write_bytes(fallback.encode())
    reason = "published" if accepted else "not published: worse" if trained else "not trained: no labels"
    fallback_model = replace(
        model(name, file_sha256(before) if fallback else "", f"{reason}; the previous model stays"), carried=True
    )
    return Candidate(
        model(name, file_sha256(path) if trained else "", reason),
        path if trained else None,
        accepted,
        fallback_model,
        before if fallback else None,
        {"train": 2.0} if trained else {},
    )


def published(context: Context, *candidates: Candidate) -> ModelVersion:
    record = ProjectRecord(7, BOTH, "", "", "", "")
    snapshot = TrainingSnapshot(7, "hash", {}, (1,), (2,))
    plan = TagPlan(record, context.settings, TAGS[0], snapshot, Split((), (), held_out=False))
    labels = TrainingLabels(record, TAGS, {"label": plan}, {})
    return retraining.publish(context, labels, candidates, 1.0, context.store.current(7))


def test_a_tag_whose_challenger_is_worse_keeps_its_model(context: Context, tmp_path: Path) -> None:
    worse = candidate(tmp_path, "label", accepted=False, fallback="old boxes")
    version = published(context, worse, candidate(tmp_path, "quality", accepted=True))
    assert version.promoted
    assert context.store.current(7) == version
    assert context.store.weights(version, "label").read_bytes() == b"old boxes"
    assert context.store.weights(version, "quality").read_bytes() == b"quality"
    assert [one.carried for one in version.models] == [True, False]
    assert version.reason == "label: not published: worse; the previous model stays; quality: published"
    assert version.timings == {"prepare": 1.0, "train": 4.0, "evaluate": 0.0}


def test_a_tag_that_was_never_trained_may_wait(context: Context, tmp_path: Path) -> None:
    waiting = candidate(tmp_path, "quality", accepted=False, trained=False)
    version = published(context, candidate(tmp_path, "label", accepted=True), waiting)
    assert version.promoted
    assert [one.sha256 != "" for one in version.models] == [True, False]
    assert "quality: not trained: no labels" in version.reason
    assert version.model_of(TAGS[1]) is None


def test_without_a_single_better_model_nothing_changes(context: Context, tmp_path: Path) -> None:
    worse = [candidate(tmp_path, name, accepted=False, fallback="old") for name in ("label", "quality")]
    version = published(context, *worse)
    assert not version.promoted
    assert context.store.current(7) is None
    assert [one.sha256 for one in version.models] == [one.challenger.sha256 for one in worse]  # for the record


def test_a_rejected_version_tells_of_the_tags_that_were_not_trained_too(context: Context, tmp_path: Path) -> None:
    """Their models stay, and the version's quality is the mean over all, as that of the versions before."""
    worse = candidate(tmp_path, "label", accepted=False, fallback="old")
    known = candidate(tmp_path, "quality", accepted=False, fallback="old", trained=False)
    version = published(context, worse, known)
    assert not version.promoted
    assert [one.sha256 for one in version.models] == [worse.challenger.sha256, known.fallback.sha256]
    assert version.models[1:] == (known.fallback,)
    assert version.reason == "label: not published: worse; quality: not trained: no labels; the previous model stays"


def test_one_tag_by_itself_gives_its_reason_as_it_is(context: Context, tmp_path: Path) -> None:
    version = published(context, candidate(tmp_path, "label", accepted=True))
    assert (version.reason, [model.from_name for model in version.models]) == ("published", ["label"])


# Through Label Studio


@dataclass(frozen=True)
class Studio:
    """A project of boxes and choices with six images."""

    context: Context
    project: int
    tasks: tuple[Task, ...]

    def annotate(self, task: Task, *, boxes: bool = True, quality: str = "good") -> None:
        result: list[Json] = []
        if boxes:
            value = {"x": 20, "y": 20, "width": 50, "height": 50, "rotation": 0, "rectanglelabels": ["cat"]}
            result.append({"id": "b", "from_name": "label", "to_name": "image", "type": "rectanglelabels"})
            result[-1]["value"] = value
        if quality:
            value = {"choices": [quality]}
            result.append({"id": "q", "from_name": "quality", "to_name": "image", "type": "choices", "value": value})
        self.context.label_studio.annotations.create(task.id, result)

    def judge_anew(self, quality: str) -> None:
        """Change the choice of the first task's annotation, and leave its box as it is."""
        client = self.context.label_studio
        one = next(
            each for each in client.annotations.annotated_tasks(self.project) if each.task.id == self.tasks[0].id
        )
        result = [dict(each) for each in one.result]
        for each in result:
            if each["from_name"] == "quality":
                each["value"] = {"choices": [quality]}
        client.annotations.update(one.annotation_id, result)

    def freeze(self, *names: str) -> str:
        """Let all tags be trained but these; return the label config."""
        config = BOTH
        for name in names:
            config = config.replace(f'name="{name}"', f'name="{name}" model_trainable="false"')
        self.context.label_studio.http.send("PATCH", f"/api/projects/{self.project}", {"label_config": config})
        return config

    def score(self) -> None:
        """Score and push the accepted version, as the jobs do."""
        current = self.context.store.current(self.project)
        assert current is not None
        unlabeled = [task.id for task in self.context.label_studio.tasks.unlabeled(self.project)]
        run = self.context.progress.start_scoring(self.project, current.number, 1, len(unlabeled))
        assert scoring.score_shard(self.context, self.project, run, 0, False, unlabeled) == current.number
        cycle.rank_push_and_flip(self.context, self.project, current.number)


@pytest.fixture
def studio(label_studio: LabelStudioProcess, settings: Settings, images: ImageSite) -> Iterator[Studio]:
    quick = {
        "train_steps": 1,
        "min_epochs": 1,
        "max_epochs": 1,
        "batch": 4,
        "tolerance": 1.0,
        "model_score_threshold": 0.0,
    }
    keys = {"label_studio_url": label_studio.url, "label_studio_api_key": label_studio.api_key}
    with open_context(settings.model_copy(update=keys | quick)) as context:
        folder = Path(settings.model_dir)
        folder.mkdir(exist_ok=True)
        tiny_yolo(folder / "yolo11n.pt")
        tiny_yolo(folder / "yolo11n-cls.pt", QUALITIES, task="classify")
        client = context.label_studio
        project = client.projects.create("both", BOTH)
        urls = [images.add(f"{n}.png", n) for n in range(6)]
        client.http.send("POST", f"/api/projects/{project}/import", [{"image": url} for url in urls])
        context.store.save_project(ProjectRecord(project, BOTH, "", "", "", ""))
        yield Studio(context, project, tuple(client.tasks.unlabeled(project)))


def from_names(result: tuple[Json, ...]) -> set[str]:
    return {region["from_name"] for region in result}


@pytest.mark.label_studio
def test_both_tags_learn_and_are_served(studio: Studio) -> None:
    context, project = studio.context, studio.project
    for place, task in enumerate(studio.tasks[:4]):
        studio.annotate(task, quality=QUALITIES[place % 2])
    version = retraining.retrain(context, project)
    assert [(one.from_name, one.task, one.classes) for one in version.models] == [
        ("label", "detect", CLASSES),
        ("quality", "classify", QUALITIES),
    ]
    assert version.promoted
    assert version.reason.startswith("label: published")
    assert "; quality: published" in version.reason
    studio.score()
    rest = {task.id for task in studio.tasks[4:]}
    stored = {task: context.label_studio.predictions.of_task(task) for task in rest}
    assert all(len(found) == 1 for found in stored.values())
    for (found,) in stored.values():
        assert from_names(tuple(map(dict, found.result))) == {"label", "quality"}
    assert sorted(found.score for (found,) in stored.values() if found.score is not None) == [0, 1]

    context.label_studio.annotations.create(
        studio.tasks[4].id, []
    )  # neither boxes nor a choice: nothing for the choices
    again = retraining.retrain(context, project)
    assert again.parent == version.number
    assert [one.champion_metrics is not None for one in again.models] == [True, True]


@pytest.mark.label_studio
def test_a_tag_without_labels_waits_and_keeps_its_base(studio: Studio) -> None:
    context, project = studio.context, studio.project
    for place, task in enumerate(studio.tasks[:4]):
        studio.annotate(task, boxes=False, quality=QUALITIES[place % 2])
    version = retraining.retrain(context, project)
    assert version.promoted
    assert "label: not trained: none of the 4 labeled images has a box; quality: published" in version.reason
    assert version.models[0].sha256 == ""
    studio.score()
    (found,) = context.label_studio.predictions.of_task(studio.tasks[4].id)
    assert from_names(tuple(map(dict, found.result))) == {"label", "quality"}  # boxes of the base weights
    (answer,) = serving.predict(context, project, BOTH, [studio.tasks[4]])
    assert len(answer.regions) == len(found.result)

    for task in studio.tasks[4:]:
        studio.annotate(task, quality="")
    second = retraining.retrain(context, project)
    assert second.models[0].sha256
    assert second.models[0].reason.startswith("published: the first version")
    assert [one.champion_metrics is not None for one in second.models] == [False, True]


@pytest.mark.label_studio
def test_a_tag_whose_labels_did_not_change_keeps_its_model(studio: Studio) -> None:
    context, project = studio.context, studio.project
    for place, task in enumerate(studio.tasks[:4]):
        studio.annotate(task, quality=QUALITIES[place % 2])
    first = retraining.retrain(context, project)
    studio.judge_anew("bad")
    second = retraining.retrain(context, project)
    assert second.promoted
    told = "label: not trained: its labels have not changed; the previous model stays; quality: published"
    assert second.reason.startswith(told)
    assert [one.carried for one in second.models] == [True, False]
    assert [one.sha256 == other.sha256 for one, other in zip(second.models, first.models, strict=True)] == [True, False]
    kept, before = second.models[0], first.models[0]
    assert (kept.metrics, kept.learned, kept.lesson) == (before.metrics, before.learned, before.lesson)
    assert context.store.weights(second, "label").read_bytes() == context.store.weights(first, "label").read_bytes()
    assert snapshot.count(context, project).new == 0

    third = retraining.retrain(context, project)  # no label changed, and still it is due
    assert [one.carried for one in third.models] == [False, False]
    studio.judge_anew("good")
    fourth = retraining.retrain(context, project, forced=True)
    assert [one.carried for one in fourth.models] == [False, False]


@pytest.mark.label_studio
def test_a_tag_that_is_not_to_be_trained_keeps_what_it_has(studio: Studio) -> None:
    context, project = studio.context, studio.project
    for place, task in enumerate(studio.tasks[:4]):
        studio.annotate(task, quality=QUALITIES[place % 2])
    studio.freeze("label")
    version = retraining.retrain(context, project)
    assert version.promoted
    assert version.reason.startswith('label: not trained: its tag says model_trainable="false"; quality: published')
    assert [one.sha256 != "" for one in version.models] == [False, True]

    studio.freeze()
    second = retraining.retrain(context, project)
    assert [one.carried for one in second.models] == [False, True]  # the choices are those of the first time

    studio.freeze("label")
    studio.annotate(studio.tasks[4])
    third = retraining.retrain(context, project)
    assert third.models[0].sha256 == second.models[0].sha256
    assert third.models[0].carried
    told = 'label: not trained: its tag says model_trainable="false"; the previous model stays; quality: published'
    assert third.reason.startswith(told)
    assert third.models[1].sha256 != second.models[1].sha256


@pytest.mark.label_studio
def test_where_no_tag_is_to_be_trained_a_training_says_so(studio: Studio) -> None:
    context, project = studio.context, studio.project
    for place, task in enumerate(studio.tasks[:3]):
        studio.annotate(task, quality=QUALITIES[place % 2])
    context.store.save_project(ProjectRecord(project, studio.freeze("label", "quality"), "", "", "", ""))
    with pytest.raises(TrainingError, match=r'model_trainable="false" is set on label, quality, so nothing is trained'):
        retraining.retrain(context, project)
    assert context.store.versions(project) == ()
    status = context.progress.training(project)
    assert status.state == "failed"
    assert "remove it from the control tags that should learn" in status.error

    context.progress.remember(project, "failed_labels", demands.labels_fingerprint(context, project))
    assert demands.has_failed_on_these_labels(context, project)
    context.store.save_project(ProjectRecord(project, studio.freeze(), "", "", "", ""))  # the next /setup
    assert not demands.has_failed_on_these_labels(context, project)


@pytest.mark.label_studio
def test_labels_of_no_tag_are_an_error(studio: Studio) -> None:
    for task in studio.tasks[:3]:
        studio.annotate(task, boxes=False, quality="")
    with pytest.raises(TrainingError, match="none of the 3 labeled images has a box"):
        retraining.retrain(studio.context, studio.project)
    assert studio.context.store.versions(studio.project) == ()


@pytest.mark.label_studio
def test_a_training_whose_parent_is_no_longer_accepted_is_not_published(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another training, or somebody who rolled back, was faster between the last check and the publishing."""
    context, project = studio.context, studio.project
    for place, task in enumerate(studio.tasks[:4]):
        studio.annotate(task, quality=QUALITIES[place % 2])
    first = retraining.retrain(context, project)
    second = retraining.retrain(context, project)
    assert (second.promoted, second.parent) == (True, first.number)
    studio.judge_anew("bad")
    reserve = context.store.reserve_number

    def overtaken(project_id: int) -> int:
        context.store.rollback(project_id, first.number)
        return reserve(project_id)

    monkeypatch.setattr(context.store, "reserve_number", overtaken)
    with pytest.raises(BusyError, match="version 1 was accepted while the successor of version 2 was made"):
        retraining.retrain(context, project)
    assert [version.number for version in context.store.versions(project)] == [1, 2]
    assert context.store.current(project) == first
