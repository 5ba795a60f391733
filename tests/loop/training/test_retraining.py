"""A training of several control tags: a model each, judged against its own champion, published as one version."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from backend.cli.label_studio_process import LabelStudioProcess
from backend.datasets.writer import Split
from backend.errors import BusyError, TrainingError
from backend.evaluation.held_out_report import EvaluationReport, LearnedLabels
from backend.labelstudio import label_config
from backend.loop import cycle, demands, serving
from backend.loop.context import Context
from backend.loop.scoring import scoring
from backend.loop.training import label_counts, retraining
from backend.loop.training.snapshot import TagPlan, TrainingLabels
from backend.loop.training.tag_training import Candidate
from backend.model_versions import Metrics, ModelVersion, TagModel, TrainingSnapshot
from backend.settings import Settings
from backend.storage import file_sha256
from backend.store.store import ProjectRecord, StoredEvaluation
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
    tag = next(tag for tag in TAGS if tag.from_name == name)
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
    assert [tag_model.carried for tag_model in version.models] == [True, False]
    assert version.reason == "label: not published: worse; the previous model stays; quality: published"
    assert version.timings == {"prepare": 1.0, "train": 4.0, "evaluate": 0.0}


def test_only_the_evaluations_of_published_challengers_are_stored(context: Context, tmp_path: Path) -> None:
    report = EvaluationReport(("cat",), LearnedLabels(2, 3, {"cat": 3}), None, None)
    stored = StoredEvaluation(report, None)
    worse = candidate(tmp_path, "label", accepted=False, fallback="old boxes")
    better = candidate(tmp_path, "quality", accepted=True)
    published(context, replace(worse, evaluation=stored), replace(better, evaluation=stored))
    assert context.store.evaluations.report(7, 1, "label") is None
    assert context.store.evaluations.report(7, 1, "quality") == report


def test_a_tag_that_was_never_trained_may_wait(context: Context, tmp_path: Path) -> None:
    waiting = candidate(tmp_path, "quality", accepted=False, trained=False)
    version = published(context, candidate(tmp_path, "label", accepted=True), waiting)
    assert version.promoted
    assert [tag_model.sha256 != "" for tag_model in version.models] == [True, False]
    assert "quality: not trained: no labels" in version.reason
    assert version.model_of(TAGS[1]) is None


def test_without_a_single_better_model_nothing_changes(context: Context, tmp_path: Path) -> None:
    worse = [candidate(tmp_path, name, accepted=False, fallback="old") for name in ("label", "quality")]
    version = published(context, *worse)
    assert not version.promoted
    assert context.store.current(7) is None
    # For the record.
    assert [tag_model.sha256 for tag_model in version.models] == [tag_model.challenger.sha256 for tag_model in worse]


def test_a_rejected_version_also_has_the_models_of_tags_that_were_not_trained(context: Context, tmp_path: Path) -> None:
    """So the quality of the version is the mean over all tags, as for the versions before."""
    worse = candidate(tmp_path, "label", accepted=False, fallback="old")
    untrained = candidate(tmp_path, "quality", accepted=False, fallback="old", trained=False)
    version = published(context, worse, untrained)
    assert not version.promoted
    assert [tag_model.sha256 for tag_model in version.models] == [worse.challenger.sha256, untrained.fallback.sha256]
    assert version.models[1:] == (untrained.fallback,)
    assert version.reason == "label: not published: worse; quality: not trained: no labels; the previous model stays"


def test_the_reason_of_a_single_tag_is_the_reason_of_the_version(context: Context, tmp_path: Path) -> None:
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

    def change_choice(self, quality: str) -> None:
        """Change the choice of the first task's annotation, but not its box."""
        client = self.context.label_studio
        all_annotated = client.annotations.annotated_tasks(self.project)
        annotated = next(annotated for annotated in all_annotated if annotated.task.id == self.tasks[0].id)
        result = [dict(region) for region in annotated.result]
        for region in result:
            if region["from_name"] == "quality":
                region["value"] = {"choices": [quality]}
        client.annotations.update(annotated.annotation_id, result)

    def freeze(self, *names: str) -> str:
        """Switch the training of these tags off, and of the others on; return the label config."""
        config = BOTH
        for name in names:
            config = config.replace(f'name="{name}"', f'name="{name}" model_trainable="false"')
        self.context.label_studio.http.send("PATCH", f"/api/projects/{self.project}", {"label_config": config})
        return config

    def score(self) -> None:
        """Score the pool with the accepted version and push the ranking, as the jobs do."""
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
    assert [(tag_model.from_name, tag_model.task, tag_model.classes) for tag_model in version.models] == [
        ("label", "detect", CLASSES),
        ("quality", "classify", QUALITIES),
    ]
    assert version.promoted
    assert version.reason.startswith("label: published")
    assert "; quality: published" in version.reason
    studio.score()
    stored = [context.label_studio.predictions.of_task(task.id) for task in studio.tasks[4:]]
    assert [len(predictions) for predictions in stored] == [1, 1]
    for (prediction,) in stored:
        assert from_names(tuple(map(dict, prediction.result))) == {"label", "quality"}
    assert sorted(prediction.score for (prediction,) in stored if prediction.score is not None) == pytest.approx(
        [1 / 3, 2 / 3]
    )

    # Neither boxes nor a choice, so the choices have no new label.
    context.label_studio.annotations.create(studio.tasks[4].id, [])
    # From now on the images, of 80 x 60 pixels, are seen in tiles.
    context.store.save_project(ProjectRecord(project, BOTH, '{"TILE": 64}', "", "", ""))
    second = retraining.retrain(context, project)
    assert second.parent == version.number
    assert [tag_model.hyper_parameters.get("tile") for tag_model in second.models] == [64, None]
    assert [tag_model.champion_metrics is not None for tag_model in second.models] == [True, True]


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
    (prediction,) = context.label_studio.predictions.of_task(studio.tasks[4].id)
    assert from_names(tuple(map(dict, prediction.result))) == {"label", "quality"}  # boxes of the base weights
    (answer,) = serving.predict(context, project, BOTH, [studio.tasks[4]])
    assert len(answer.regions) == len(prediction.result)

    for task in studio.tasks[4:]:
        studio.annotate(task, quality="")
    second = retraining.retrain(context, project)
    assert second.models[0].sha256
    assert second.models[0].reason.startswith("published: the first version")
    assert [tag_model.champion_metrics is not None for tag_model in second.models] == [False, True]


@pytest.mark.label_studio
def test_a_tag_whose_labels_did_not_change_keeps_its_model(studio: Studio) -> None:
    context, project = studio.context, studio.project
    for place, task in enumerate(studio.tasks[:4]):
        studio.annotate(task, quality=QUALITIES[place % 2])
    first = retraining.retrain(context, project)
    studio.change_choice("bad")
    second = retraining.retrain(context, project)
    assert second.promoted
    reason = "label: not trained: its labels have not changed; the previous model stays; quality: published"
    assert second.reason.startswith(reason)
    assert [model.carried for model in second.models] == [True, False]
    same = [new.sha256 == old.sha256 for new, old in zip(second.models, first.models, strict=True)]
    assert same == [True, False]
    carried, before = second.models[0], first.models[0]
    assert (carried.metrics, carried.learned, carried.lesson) == (before.metrics, before.learned, before.lesson)
    assert context.store.weights(second, "label").read_bytes() == context.store.weights(first, "label").read_bytes()
    assert label_counts.count(context, project).new == 0

    third = retraining.retrain(context, project)  # no label has changed, so all tags are trained
    assert [tag_model.carried for tag_model in third.models] == [False, False]
    studio.change_choice("good")
    fourth = retraining.retrain(context, project, forced=True)
    assert [tag_model.carried for tag_model in fourth.models] == [False, False]


@pytest.mark.label_studio
def test_a_tag_whose_training_is_switched_off_keeps_its_model(studio: Studio) -> None:
    context, project = studio.context, studio.project
    for place, task in enumerate(studio.tasks[:4]):
        studio.annotate(task, quality=QUALITIES[place % 2])
    studio.freeze("label")
    version = retraining.retrain(context, project)
    assert version.promoted
    assert version.reason.startswith('label: not trained: its tag says model_trainable="false"; quality: published')
    assert [tag_model.sha256 != "" for tag_model in version.models] == [False, True]

    studio.freeze()
    second = retraining.retrain(context, project)
    # The choices have not changed since the first training.
    assert [tag_model.carried for tag_model in second.models] == [False, True]

    studio.freeze("label")
    studio.annotate(studio.tasks[4])
    third = retraining.retrain(context, project)
    assert third.models[0].sha256 == second.models[0].sha256
    assert third.models[0].carried
    reason = 'label: not trained: its tag says model_trainable="false"; the previous model stays; quality: published'
    assert third.reason.startswith(reason)
    assert third.models[1].sha256 != second.models[1].sha256


@pytest.mark.label_studio
def test_a_training_fails_with_a_reason_if_the_training_of_all_tags_is_switched_off(studio: Studio) -> None:
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
    """Another training publishes, or somebody rolls back, between the last check and the publishing."""
    context, project = studio.context, studio.project
    for place, task in enumerate(studio.tasks[:4]):
        studio.annotate(task, quality=QUALITIES[place % 2])
    first = retraining.retrain(context, project)
    second = retraining.retrain(context, project)
    assert (second.promoted, second.parent) == (True, first.number)
    studio.change_choice("bad")
    reserve = context.store.reserve_number

    def overtaken(project_id: int) -> int:
        context.store.rollback(project_id, first.number)
        return reserve(project_id)

    monkeypatch.setattr(context.store, "reserve_number", overtaken)
    with pytest.raises(BusyError, match="version 1 was accepted while the successor of version 2 was made"):
        retraining.retrain(context, project)
    assert [version.number for version in context.store.versions(project)] == [1, 2]
    assert context.store.current(project) == first
