"""The models of a project: those of its served version, of its accepted version, or the base models."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from backend.errors import ModelError, NotFoundError
from backend.labelstudio import label_config, label_renames, region_choices, task_labels
from backend.labelstudio.tags import answer_options
from backend.loop import prompts
from backend.loop.base_models import base_model, open_base, tag_base_model
from backend.loop.context import Context
from backend.media.cache import MediaFile
from backend.media.video import Video
from backend.model_versions import Metrics, ModelVersion, TagModel, renamed
from backend.policy import region_crops, strategy_pool, tiling
from backend.policy.voters import committee_versions, voters
from backend.settings import Settings
from backend.store.store import ProjectRecord, version_name
from backend.types import ControlTag, FloatArray, Prediction
from backend.yolo import (
    box_classifier,
    ensemble,
    frame_classifier,
    tiled_prediction,
    tracking,
)
from backend.yolo.candidates import Candidates
from backend.yolo.classifier import Classifier
from backend.yolo.detector import Detector
from backend.yolo.ensemble import Member
from backend.yolo.predictors import Predictors


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The model of a version for one control tag; without weights its predictions are empty."""

    project_id: int
    number: int
    name: str
    classes: tuple[str, ...]
    class_weights: FloatArray | None
    temperature: float  # of the confidences
    weights: Path | None
    imgsz: int
    device: str
    tag: ControlTag  # its predictions become regions of this tag
    key: str  # the tag's name in the store of the version
    config: tuple[ControlTag, ...] = ()  # all tags of the label config
    trained: bool = True  # False: the weights are base weights
    metrics: Metrics | None = None
    predictors: Predictors = field(default_factory=Predictors, repr=False, compare=False)  # hold the loaded model
    pool_key: str = ""  # a hash of what its raw predictions depend on
    tile: int = 0  # side in pixels of the tiles in which it sees larger images; 0: none
    lowest_box: float = 0.0  # for a tag about boxes: the lowest confidence of a box that it is asked about

    def predict(self, files: Sequence[MediaFile]) -> Iterator[Prediction]:
        """Yield one prediction per file, in order."""
        if self.weights is None:
            return (_empty_prediction(file, len(self.classes)) for file in files)
        predictor = self.predictors.get(self.weights, self.imgsz, self.device)
        return tiled_prediction.predict(predictor, [file.path for file in files], self.tile)

    def predict_boxes(self, file: MediaFile, boxes: FloatArray) -> Prediction:
        """Return the classes of the boxes (n, 4) of an image, xyxy in pixels. Raises MediaError for a damaged file."""
        predictor = None if self.weights is None else self.predictors.get(self.weights, self.imgsz, self.device)
        if not isinstance(predictor, Classifier) or not len(boxes):
            return _empty_prediction(file, len(self.classes))
        return box_classifier.predict(predictor, file.path, boxes)

    def candidates(self, file: MediaFile) -> Candidates:
        """Return all boxes that the model sees in an image before NMS; raises ModelError where there is no model."""
        if self.weights is None:
            fix = "label some images and let the backend train, or put base weights into MODEL_DIR"
            raise ModelError(f"{self.tag.from_name} has no model yet", where=self.name, fix=fix)
        return self.predictors.candidates(self.weights, self.imgsz, self.device, file.path)

    def predict_video(self, video: Video, tag: ControlTag) -> Prediction:
        """Return the objects of a video, or the classes of its frames. Raises MediaError if it cannot be decoded."""
        predictor = None if self.weights is None else self.predictors.get(self.weights, self.imgsz, self.device)
        if tag.task == "classify" and isinstance(predictor, Classifier):
            return frame_classifier.predict_video(predictor, video, tag)
        if tag.task != "classify" and isinstance(predictor, Detector):
            return tracking.predict_video(predictor, video, tag.frame_rate, answer_options(tag))
        return _empty_prediction(video, len(self.classes))  # no model, or one of an earlier label config


def require_project(context: Context, project_id: int) -> ProjectRecord:
    """Return a project as its last /setup described it; raises NotFoundError if it was never set up."""
    record = context.store.project(project_id)
    if record is None:
        fix = f"in Label Studio, Settings > Model, connect this backend; or run `yolo-backend connect {project_id}`"
        raise NotFoundError(f"project {project_id} was never set up", fix=fix)
    return record


def project_record(context: Context, project_id: int) -> ProjectRecord:
    """Return a project with its current label config in Label Studio and the settings of its last /setup."""
    record = require_project(context, project_id)
    current = context.label_studio.projects.get(project_id).label_config
    return replace(record, label_config=completed_config(context, record, current))


def completed_config(context: Context, record: ProjectRecord, label_config: str) -> str:
    """Return a project's label config from Label Studio, with all that the backend adds to it.

    These are labels that tasks name, as the stored `record` has them, and marks of questions that REGION_CHOICES asks.
    """
    text = task_labels.expanded(label_config, record.label_config)
    return region_choices.marked(text) if context.project_settings(record).region_choices else text


def serving_number(context: Context, project_id: int) -> int:
    """Return the number of the served version; 0 is the base model."""
    serving = context.store.serving(project_id)
    return serving.number if serving else 0


def name_of(context: Context, record: ProjectRecord, *, accepted: bool = False) -> str:
    """Return the name of the served version, or of the accepted one; reads no weights, so /setup may call it."""
    version = _stored(context, record.project_id, accepted=accepted)
    return version.name if version else version_name(base_model(context, record), 0)


def models_for(context: Context, record: ProjectRecord, *, accepted: bool) -> tuple[ServedModel, ...]:
    """Return the model of each control tag, in the order of the label config.

    They are those of the served version. With `accepted` they are those of the accepted version, whose scores may not
    be in Label Studio yet. A renamed tag keeps its model. A tag without a model in the version has its base weights.
    Raises ModelError if weights are damaged or not ours.
    """
    version, tags = version_of(context, record, accepted=accepted), label_config.parse(record.label_config)
    return tuple(_model(context, record, version, tag, tags) for tag in tags)


def pool_keys(context: Context, record: ProjectRecord) -> dict[str, str]:
    """Return the `pool_key` of each model of the accepted version, by the tag's name in the store; opens no weights."""
    version, tags = version_of(context, record, accepted=True), label_config.parse(record.label_config)
    return {_key(version, tag): _pool_key(context, record, version, tag) for tag in tags}


def _key(version: ModelVersion | None, tag: ControlTag) -> str:
    """Return a tag's name in the store."""
    return version.key_of(tag.from_name) if version else tag.from_name


def _pool_key(context: Context, record: ProjectRecord, version: ModelVersion | None, tag: ControlTag) -> str:
    """Return a hash of what a tag's predictions depend on: weights, media and options, but not thresholds.

    Base weights count by their name, so that a machine that could not fetch them does not cause a new scoring.
    """
    model = version.model_of(tag) if version else None
    weights = model.sha256 if model else _base_key(context, record, tag)
    depends = (
        weights,
        tag.task,
        tag.data_key,
        tag.frame_rate_key or tag.frame_rate or ("pages" if tag.pages else 0.0),
        sorted(answer_options(tag).items()),
        *filter(None, [tiling.tile_side(context.project_settings(record), tag)]),
        *_boxes_key(context, record, version, tag),
    )
    return hashlib.sha256(repr(depends).encode()).hexdigest()


def _boxes_key(
    context: Context, record: ProjectRecord, version: ModelVersion | None, tag: ControlTag
) -> tuple[object, ...]:
    """Return what the boxes depend on that a tag is about; empty for a tag about whole images."""
    boxes = _boxes_of(tag, label_config.parse(record.label_config))
    if boxes is None:
        return ()
    return _pool_key(context, record, version, boxes), _lowest(context.project_settings(record), boxes)


def _boxes_of(tag: ControlTag, config: Sequence[ControlTag]) -> ControlTag | None:
    """Return the tag of the boxes that a tag is about, None for a tag about whole images."""
    return next((other for other in config if other.from_name == tag.regions_of), None)


def _lowest(settings: Settings, tag: ControlTag) -> float:
    """Return the lowest confidence of a tag's regions that are shown."""
    return settings.model_score_threshold if tag.score_threshold is None else tag.score_threshold


def _base_key(context: Context, record: ProjectRecord, tag: ControlTag) -> str:
    """Return the name of a tag's base weights, with what they are asked for if they are open-vocabulary ones."""
    name = tag_base_model(context, record, tag)
    asked = prompts.vocabulary(context, record.project_id, tag, name) if prompts.are_asked(tag, name) else {}
    return f"{name} {sorted(asked.items())}" if asked else name


def _model(
    context: Context,
    record: ProjectRecord,
    version: ModelVersion | None,
    tag: ControlTag,
    config: tuple[ControlTag, ...],
) -> ServedModel:
    settings = region_crops.model_settings(context.project_settings(record), tag)
    tag_model, boxes = version.model_of(tag) if version else None, _boxes_of(tag, config)
    if version is not None and tag_model is not None:
        path: Path | None = context.store.weights(version, tag_model.from_name)
        classes, class_weights, temperature = tag_model.classes, weights_of(tag_model, settings), tag_model.temperature
    else:
        base = open_base(context, record, tag)
        path = Path(base.source) if base.pretrained else None
        if path and prompts.are_asked(tag, tag_base_model(context, record, tag)):
            path = prompts.weights(context, record.project_id, tag, tag_base_model(context, record, tag), base)
        classes, class_weights, temperature = (), None, 1.0
        if path:
            classes = context.predictors.get(path, settings.imgsz, settings.device).classes
    number, name = (version.number, version.name) if version else (0, version_name(base_model(context, record), 0))
    return ServedModel(
        predictors=context.predictors,
        project_id=record.project_id,
        number=number,
        name=name,
        classes=classes,
        class_weights=class_weights,
        temperature=temperature,
        weights=path,
        imgsz=settings.imgsz,
        device=settings.device,
        tag=label_renames.in_tag(tag, label_renames.parse(settings.label_renames)),
        key=_key(version, tag),
        config=config,
        trained=tag_model is not None,
        metrics=tag_model.metrics if tag_model else None,
        pool_key=_pool_key(context, record, version, tag),
        tile=tiling.tile_side(settings, tag),
        lowest_box=0.0 if boxes is None else _lowest(settings, boxes),
    )


def weights_of(model: TagModel, settings: Settings) -> FloatArray | None:
    """Return the weight of each class of a model (C,), as CLASS_WEIGHTS says; None: all classes count the same."""
    return strategy_pool.weights_of(settings, model.classes, model.metrics, model.class_quality)


def committee_for(context: Context, settings: Settings, model: ServedModel) -> tuple[Member, ...]:
    """Return the committee for a pool that `model` scores: as COMMITTEE says, COMMITTEE_SIZE members at most.

    Raises ModelError if the committee needs two versions and there is one, if there is no model, and if the model sees
    images in tiles.
    """
    if model.tile:
        fix = "choose a strategy without one (`yolo-backend strategies` lists what each needs), or set TILE to 0"
        raise ModelError("a committee compares whole images, and TILE cuts them into tiles", fix=fix)
    if model.weights is None:
        raise ModelError("a committee needs a trained version, and there is none yet", fix="label more images first")
    paths, count = [model.weights], committee_versions(settings)
    if count > 1:
        paths = [
            context.store.weights(version, tag_model.from_name)
            for version, tag_model in voting_models(context, model, count)
        ]
    loaded = [context.predictors.get(path, model.imgsz, model.device) for path in paths]
    return ensemble.committee_members(
        settings.committee, settings.committee_size, list(map(ensemble.member_model, loaded))
    )


def promoted_models(context: Context, model: ServedModel) -> list[tuple[ModelVersion, TagModel]]:
    """Return the promoted versions up to the model's own, newest first, each with its model for the same tag.

    Versions without a model for the tag are left out.
    """
    versions = [
        version
        for version in context.store.versions(model.project_id)
        if version.promoted and version.number <= model.number
    ]
    with_current_names = (renamed(version, model.config) for version in reversed(versions))
    pairs = ((version, version.model_of(model.tag)) for version in with_current_names)
    return [(version, tag_model) for version, tag_model in pairs if tag_model is not None]


def voting_models(context: Context, model: ServedModel, count: int) -> list[tuple[ModelVersion, TagModel]]:
    """Return the models that vote, newest first, each with its version."""
    models = promoted_models(context, model)
    weights = [(tag_model.sha256, tag_model.carried) for _, tag_model in models]
    return [models[index] for index in voters(weights, count)]


def version_of(context: Context, record: ProjectRecord, *, accepted: bool) -> ModelVersion | None:
    """Return the accepted or the served version, with the current names of its tags; None: the base model."""
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
