"""The models that the versions of a project have for one control tag, with the reports of their evaluations."""

from __future__ import annotations

from dataclasses import dataclass

from backend.errors import ModelError, NotFoundError
from backend.evaluation.held_out_report import EvaluationReport, HeldOutAnswers
from backend.labelstudio import label_config
from backend.loop.context import Context
from backend.model_versions import ModelVersion, TagModel, renamed
from backend.store.store import ProjectRecord
from backend.types import ControlTag


@dataclass(frozen=True, slots=True)
class VersionModel:
    """The model of a version for a tag, and the report of the training that made it."""

    version: ModelVersion
    model: TagModel
    made_by: int  # the version whose training made it: an earlier one if the model was carried over
    key: str  # the tag's name in the store of that version
    report: EvaluationReport | None  # None: made by an earlier release, or the file is damaged
    problem: str = ""  # why the report cannot be read


def version_models(context: Context, record: ProjectRecord, tag: ControlTag) -> tuple[VersionModel, ...]:
    """Return the model of each version that has one for the tag, oldest first, rejected challengers too."""
    tags = label_config.parse(record.label_config)
    origins: dict[str, tuple[int, str]] = {}
    models = []
    for stored in context.store.versions(record.project_id):
        version = renamed(stored, tags)
        model = version.model_of(tag)
        if model is None:
            continue
        own = version.number, version.key_of(tag.from_name)
        made_by, key = origins.setdefault(model.sha256, own) if model.carried else own
        origins.setdefault(model.sha256, own)
        report, problem = _report(context, record.project_id, made_by, key, model.sha256)
        models.append(VersionModel(version, model, made_by, key, report, problem))
    return tuple(models)


def _report(
    context: Context, project_id: int, number: int, key: str, sha256: str
) -> tuple[EvaluationReport | None, str]:
    try:
        return context.store.evaluations.report(project_id, number, key, sha256), ""
    except ModelError as error:
        return None, str(error)


def held_out_answers(context: Context, shown: VersionModel) -> HeldOutAnswers | None:
    """Return a model's answers on the held-out images, None if there are none. Raises ModelError if damaged."""
    return context.store.evaluations.answers(shown.version.project_id, shown.made_by, shown.key)


def model_of_version(models: tuple[VersionModel, ...], number: int) -> VersionModel:
    """Return the model of a version. Raises NotFoundError if the version has none for the tag."""
    for shown in models:
        if shown.version.number == number:
            return shown
    numbers = ", ".join(str(shown.version.number) for shown in models) or "none yet"
    raise NotFoundError(f"version {number} has no model of this tag", fix=f"versions with one: {numbers}")
