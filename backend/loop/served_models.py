"""Which model answers for a project: its served version, the accepted one on its way there, or the base model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from backend.errors import ModelError, NotFoundError
from backend.labelstudio import label_config, label_renames
from backend.labelstudio.tags import answer_options
from backend.loop.context import Context
from backend.media.cache import MediaFile
from backend.media.video import Video
from backend.model_versions import Metrics, ModelVersion, TagModel, is_weights_name, renamed
from backend.policy import strategy_pool
from backend.policy.voters import committee_versions, voters
from backend.settings import Settings
from backend.store.store import ProjectRecord, version_name
from backend.types import ControlTag, FloatArray, Prediction, YoloTask
from backend.yolo import approved_weights, base_weights, ensemble, frame_classifier, tracking
from backend.yolo.classifier import Classifier
from backend.yolo.detector import Detector
from backend.yolo.ensemble import Member
from backend.yolo.predictors import Predictors
from backend.yolo.tasks import weights_name


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What a version says of one control tag, and how to predict with it; without weights it predicts nothing."""

    project_id: int
    number: int
    name: str
    classes: tuple[str, ...]
    class_weights: FloatArray | None
    temperature: float  # of its confidences
    weights: Path | None
    imgsz: int
    device: str
    tag: ControlTag  # whose regions its predictions become
    key: str  # the tag's name in the store of the version
    config: tuple[ControlTag, ...] = ()  # all tags of the label config
    trained: bool = True  # False: these are the base weights
    metrics: Metrics | None = None
    predictors: Predictors = field(default_factory=Predictors, repr=False, compare=False)  # hold its model in memory
    pool_key: str = ""  # a hash of what its raw answers depend on, as the store knows it

    def predict(self, files: Sequence[MediaFile]) -> Iterator[Prediction]:
        """Yield a Prediction per file, in order."""
        if self.weights is None:
            return (_empty_prediction(file, len(self.classes)) for file in files)
        return self.predictors.get(self.weights, self.imgsz, self.device).predict([file.path for file in files])

    def watch(self, video: Video, tag: ControlTag) -> Prediction:
        """Return the objects of a video, or what its frames show. Raises MediaError where it does not decode."""
        found = None if self.weights is None else self.predictors.get(self.weights, self.imgsz, self.device)
        if tag.task == "classify" and isinstance(found, Classifier):
            return frame_classifier.watch(found, video, tag)
        if tag.task != "classify" and isinstance(found, Detector):
            return tracking.watch(found, video, tag.frame_rate, answer_options(tag))
        return _empty_prediction(video, len(self.classes))  # no model, or one from before the label config was changed


def require_project(context: Context, project_id: int) -> ProjectRecord:
    """Return what the last /setup brought of a project; raises NotFoundError if it was never set up."""
    record = context.store.project(project_id)
    if record is None:
        fix = f"in Label Studio, Settings > Model, connect this backend; or run `yolo-backend connect {project_id}`"
        raise NotFoundError(f"project {project_id} was never set up", fix=fix)
    return record


def project_record(context: Context, project_id: int) -> ProjectRecord:
    """Return the project as Label Studio has it now, with the settings its last /setup brought."""
    record = require_project(context, project_id)
    return replace(record, label_config=context.label_studio.projects.get(project_id).label_config)


def serving_number(context: Context, project_id: int) -> int:
    """Return the number of the version that serves; 0 is the base model."""
    serving = context.store.serving(project_id)
    return serving.number if serving else 0


def name_of(context: Context, record: ProjectRecord, *, accepted: bool = False) -> str:
    """Return the name of the version that serves the project; touches no weights, so /setup may ask."""
    version = _stored(context, record.project_id, accepted=accepted)
    return version.name if version else version_name(base_model(context, record), 0)


def base_model(context: Context, record: ProjectRecord) -> str:
    """Return the weights a project starts from, and its versions are called by: those of its first control tag."""
    return tag_base_model(context, record, label_config.parse(record.label_config)[0])


def tag_base_model(context: Context, record: ProjectRecord, tag: ControlTag) -> str:
    """Return the weights a tag starts from: the config's model_path, else BASE_MODEL's counterpart for the task."""
    return tag.model_path or weights_name(context.project_settings(record).base_model, tag.task)


def _is_admins_choice(context: Context, name: str, task: YoloTask) -> bool:
    return name == weights_name(context.settings.base_model, task)


def check_base(context: Context, record: ProjectRecord) -> None:
    """Raise ModelError if the project names weights that the admin has not approved; opens no weights."""
    for tag in label_config.parse(record.label_config):
        name = tag_base_model(context, record, tag)
        if not _is_admins_choice(context, name, tag.task):
            context.store.fetch(approved_weights.LISTING, context.work_dir)
            approved_weights.listed(name, context.work_dir)


def open_base(context: Context, record: ProjectRecord, tag: ControlTag) -> base_weights.BaseWeights:
    """Find the weights a tag starts from; raises ModelError if they are not approved, or cannot be used."""
    name = tag_base_model(context, record, tag)
    if is_weights_name(name):
        for path in (name, f"base/{name}", approved_weights.LISTING):
            context.store.fetch(path, context.work_dir)
    if not _is_admins_choice(context, name, tag.task):
        approved_weights.check(name, context.work_dir)
    return base_weights.base_weights(name, context.work_dir, tag.task)


def models_for(context: Context, record: ProjectRecord, *, accepted: bool) -> tuple[ServedModel, ...]:
    """Return the served model of each control tag, in the config's order.

    With `accepted` those of the newest published version, whose scores may not be in LS yet. A tag that was renamed has
    the model that it had; one that the version has no model for is answered by its base weights. Raises ModelError if
    weights are damaged or are not ours.
    """
    version, tags = version_of(context, record, accepted=accepted), label_config.parse(record.label_config)
    return tuple(_model(context, record, version, tag, tags) for tag in tags)


def pool_keys(context: Context, record: ProjectRecord) -> dict[str, str]:
    """Return the `pool_key` of each of the accepted models by its tag's name in the store; opens no weights."""
    version, tags = version_of(context, record, accepted=True), label_config.parse(record.label_config)
    return {_key(version, tag): _pool_key(context, record, version, tag) for tag in tags}


def _key(version: ModelVersion | None, tag: ControlTag) -> str:
    """Return a tag's name in the store."""
    return version.key_of(tag.from_name) if version else tag.from_name


def _pool_key(context: Context, record: ProjectRecord, version: ModelVersion | None, tag: ControlTag) -> str:
    """Return a hash of which weights a tag's answers are of, what they look at and how; thresholds change nothing.

    Base weights count by their name: whether each machine could fetch them is no reason to ask all anew.
    """
    known = version.model_of(tag) if version else None
    weights = known.sha256 if known else tag_base_model(context, record, tag)
    depends = (weights, tag.task, tag.data_key, tag.frame_rate, sorted(answer_options(tag).items()))
    return hashlib.sha256(repr(depends).encode()).hexdigest()


def _model(
    context: Context,
    record: ProjectRecord,
    version: ModelVersion | None,
    tag: ControlTag,
    config: tuple[ControlTag, ...],
) -> ServedModel:
    settings = context.project_settings(record)
    known = version.model_of(tag) if version else None
    if version is not None and known is not None:
        path: Path | None = context.store.weights(version, known.from_name)
        classes, tail, temperature = known.classes, weights_of(known, settings), known.temperature
    else:
        base = open_base(context, record, tag)
        path = Path(base.source) if base.pretrained else None
        classes, tail, temperature = (), None, 1.0
        if path:
            classes = context.predictors.get(path, settings.imgsz, settings.device).classes
    number, name = (version.number, version.name) if version else (0, version_name(base_model(context, record), 0))
    return ServedModel(
        predictors=context.predictors,
        project_id=record.project_id,
        number=number,
        name=name,
        classes=classes,
        class_weights=tail,
        temperature=temperature,
        weights=path,
        imgsz=settings.imgsz,
        device=settings.device,
        tag=label_renames.in_tag(tag, label_renames.parse(settings.label_renames)),
        key=_key(version, tag),
        config=config,
        trained=known is not None,
        metrics=known.metrics if known else None,
        pool_key=_pool_key(context, record, version, tag),
    )


def weights_of(model: TagModel, settings: Settings) -> FloatArray | None:
    """Return how much each class of a model counts (C,), as CLASS_WEIGHTS says; None: all the same."""
    return strategy_pool.weights_of(settings, model.classes, model.metrics, model.class_quality)


def committee_for(context: Context, settings: Settings, model: ServedModel) -> tuple[Member, ...]:
    """Return who votes on a pool that `model` scores: as COMMITTEE says, COMMITTEE_SIZE members at most.

    Raises ModelError where there are no two versions to ask, or no model at all.
    """
    if model.weights is None:
        raise ModelError("a committee needs a trained version, and there is none yet", fix="label more images first")
    paths, count = [model.weights], committee_versions(settings)
    if count > 1:
        paths = [
            context.store.weights(version, known.from_name) for version, known in voting_models(context, model, count)
        ]
    loaded = [context.predictors.get(path, model.imgsz, model.device) for path in paths]
    return ensemble.committee_members(settings.committee, settings.committee_size, list(map(ensemble.voter, loaded)))


def promoted_models(context: Context, model: ServedModel) -> list[tuple[ModelVersion, TagModel]]:
    """Return the promoted versions up to the model's own that have one for its tag, newest first, each with that."""
    versions = [one for one in context.store.versions(model.project_id) if one.promoted and one.number <= model.number]
    of_today = (renamed(version, model.config) for version in reversed(versions))
    found = ((version, version.model_of(model.tag)) for version in of_today)
    return [(version, known) for version, known in found if known is not None]


def voting_models(context: Context, model: ServedModel, count: int) -> list[tuple[ModelVersion, TagModel]]:
    """Return the models that vote, newest first, each with its version."""
    models = promoted_models(context, model)
    return [models[place] for place in voters([(known.sha256, known.carried) for _, known in models], count)]


def version_of(context: Context, record: ProjectRecord, *, accepted: bool) -> ModelVersion | None:
    """Return the accepted or the served version, its models by the names of today's tags; None: the base model."""
    version = _stored(context, record.project_id, accepted=accepted)
    return renamed(version, label_config.parse(record.label_config)) if version else None


def _stored(context: Context, project_id: int, *, accepted: bool) -> ModelVersion | None:
    return context.store.current(project_id) if accepted else context.store.serving(project_id)


def _empty_prediction(file: MediaFile | Video, classes: int) -> Prediction:
    return Prediction(
        width=file.width,
        height=file.height,
        boxes=np.zeros((0, 4), dtype=np.float32),
        class_probs=np.zeros((0, classes), dtype=np.float32),
        confidence=np.zeros(0, dtype=np.float32),
        embedding=np.zeros(0, dtype=np.float32),
    )
