"""Round zero: an open-vocabulary base model answers prompts, and prompts that are mostly wrong are switched off."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from backend.cli.label_studio_process import LabelStudioProcess
from backend.errors import ModelError
from backend.evaluation.prompt_precision import LEAST_IMAGES
from backend.loop import cycle, project_status, serving
from backend.loop.context import Context
from backend.loop.insight.standing import Machines, standing
from backend.loop.review import round_zero
from backend.loop.scoring import scoring, stored_answers
from backend.loop.served_models import ServedModel, models_for
from backend.settings import Settings
from backend.store.store import ProjectRecord
from backend.types import AnnotatedTask, Task
from backend.web import status_schemas
from tests.prompted import THING, tiny_open
from tests.support import ImageSite, cycle_of, open_context

pytestmark = pytest.mark.torch

BASE = "yolov8n-worldv2.pt"
LABELS = f'<Label value="mine" prompt="{THING}"/><Label value="other" alias="o"/>'
CONFIG = (
    '<View><Image name="image" value="$image"/>'
    f'<RectangleLabels name="label" toName="image">{LABELS}</RectangleLabels></View>'
)
SWAPPED = CONFIG.replace(f' prompt="{THING}"', "").replace('value="other"', f'value="other" prompt="{THING}"')


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_open(tmp_path_factory.mktemp("world") / BASE)


@pytest.fixture
def project(context: Context, encoder: None, world: Path) -> Context:
    folder = Path(context.settings.model_dir)
    folder.mkdir(exist_ok=True)
    (folder / BASE).write_bytes(world.read_bytes())
    set_up(context, CONFIG)
    return context


def set_up(context: Context, config: str) -> ProjectRecord:
    # The admin's own choice of weights, so that they need no approval.
    object.__setattr__(context, "settings", context.settings.model_copy(update={"base_model": BASE}))
    return serving.setup(context, 7, config, "http://studio.example", "", "http://backend.example:9090")


def score(context: Context, images: ImageSite, count: int = LEAST_IMAGES) -> tuple[ProjectRecord, list[Task]]:
    """Score tasks with the base model, as the jobs do."""
    record = context.store.project(7)
    assert record is not None
    tasks = [Task(number, {"image": images.add(f"{number}.png", number)}) for number in range(1, count + 1)]
    models = models_for(context, record, accepted=True)
    stored_answers.of(context, models).begin(models)
    scoring.save_shards(context, models, scoring.predict_shards(context, models, 0, tasks))
    return record, tasks


def push_all(context: Context, record: ProjectRecord, tasks: Sequence[Task]) -> None:
    """Score tasks, and write the predictions to Label Studio, as the jobs do."""
    models = models_for(context, record, accepted=True)
    stored_answers.of(context, models).begin(models)
    scoring.save_shards(context, models, scoring.predict_shards(context, models, 0, tasks))
    cycle.rank_push_and_flip(context, record.project_id, 0)


def annotated(tasks: Sequence[Task], results: Sequence[Sequence[object]]) -> list[AnnotatedTask]:
    return [
        AnnotatedTask(task, 100 - task.id, "2026-01-01", tuple(result))  # type: ignore[arg-type]
        for task, result in zip(tasks, results, strict=True)
    ]


def labels_of(context: Context, config: str, task: Task) -> set[str]:
    (result,) = serving.predict(context, 7, config, [task])
    assert result.version == "yolov8n-worldv2-v0"
    return {region["value"]["rectanglelabels"][0] for region in result.regions}


def served(context: Context, record: ProjectRecord) -> ServedModel:
    (model,) = models_for(context, record, accepted=True)
    return model


def test_the_prompts_of_labels_make_the_first_pre_annotations(project: Context, images: ImageSite) -> None:
    task = Task(1, {"image": images.add("1.png", 1)})
    assert labels_of(project, CONFIG, task) == {"mine"}
    assert labels_of(project, SWAPPED, task) == {"o"}  # a result has the alias


def test_without_the_text_encoder_a_person_reads_what_to_put_where(context: Context, world: Path) -> None:
    folder = Path(context.settings.model_dir)
    folder.mkdir(exist_ok=True)
    (folder / BASE).write_bytes(world.read_bytes())
    record = set_up(context, CONFIG)  # needs no encoder
    with pytest.raises(ModelError, match="prompts need") as missing:
        served(context, record)
    assert "ViT-B-32.pt" in str(missing.value)
    assert "yolo-backend score" in missing.value.fix


def test_a_changed_prompt_asks_for_a_new_scoring(project: Context) -> None:
    keys = [served(project, set_up(project, config)).pool_key for config in (CONFIG, SWAPPED, CONFIG)]
    assert keys[0] == keys[2] != keys[1]


def test_labels_that_are_mostly_wrong_are_switched_off(project: Context, images: ImageSite) -> None:
    record, tasks = score(project, images)
    nothing = annotated(tasks, [[] for _ in tasks])
    assert not round_zero.measure_on(project, record, nothing[1:])  # too few
    assert project_status.status(project, 7).prompts == ()
    assert round_zero.measure_on(project, record, nothing)
    status = project_status.status(project, 7)
    mine, other = status_schemas.project_out(status).prompts
    assert (mine.label, mine.prompt, mine.right, mine.off) == ("mine", THING, 0, True)
    assert mine.shown >= LEAST_IMAGES
    assert (other.label, other.prompt, other.shown, other.off) == ("o", "other", 0, False)
    problems = [alert.problem for alert in standing(status, Machines()).alerts]
    assert f"The prompt {THING!r} of the label 'mine' was right in 0 of {mine.shown}" in " ".join(problems)

    off = served(project, record)
    assert off.classes == ("o",)
    assert stored_answers.of(project, [off]).outdated([off])  # so the next scoring takes the boxes away
    assert labels_of(project, CONFIG, tasks[0]) == set()
    changed = set_up(project, CONFIG.replace(THING, "another thing"))
    assert served(project, changed).classes == ("mine", "o")


def test_labels_that_are_mostly_right_stay(project: Context, images: ImageSite) -> None:
    record, tasks = score(project, images)
    results = [answer.regions for answer in serving.predict(project, 7, CONFIG, tasks)]
    assert not round_zero.measure_on(project, record, annotated(tasks, results))
    mine, _ = project_status.status(project, 7).prompts
    assert mine.right == mine.shown > 0
    assert served(project, record).classes == ("mine", "o")
    assert not round_zero.is_due(project, record)  # once is enough


def test_without_any_label_there_is_no_model(project: Context, images: ImageSite) -> None:
    record = set_up(project, CONFIG.replace('<Label value="other" alias="o"/>', ""))
    _, tasks = score(project, images)
    assert round_zero.measure_on(project, record, annotated(tasks, [[] for _ in tasks]))
    assert served(project, record).weights is None
    assert not round_zero.measure_on(project, record, annotated(tasks, [[] for _ in tasks]))


@pytest.mark.label_studio
def test_in_label_studio_the_boxes_of_a_label_that_was_switched_off_disappear(
    label_studio: LabelStudioProcess, settings: Settings, images: ImageSite, encoder: None, world: Path
) -> None:
    folder = Path(settings.model_dir)
    folder.mkdir(exist_ok=True)
    (folder / BASE).write_bytes(world.read_bytes())
    keys = {"label_studio_url": label_studio.url, "label_studio_api_key": label_studio.api_key, "base_model": BASE}
    with open_context(settings.model_copy(update=keys)) as context:
        client, steps = context.label_studio, cycle_of(context)
        project = client.projects.create("round zero", CONFIG)
        client.http.send(
            "POST", f"/api/projects/{project}/import", [{"image": images.add("1.png")}] * (LEAST_IMAGES + 1)
        )
        record = serving.setup(context, project, CONFIG, "", "", "")
        tasks = list(client.tasks.unlabeled(project))
        push_all(context, record, tasks)
        shown = client.predictions.of_task(tasks[-1].id)
        assert {region["value"]["rectanglelabels"][0] for region in shown[0].result} == {"mine"}

        for task in tasks[:-1]:
            client.annotations.create(task.id, ())
        steps.check(project)
        steps.measure_effort(project)
        mine, _ = project_status.status(context, project).prompts
        assert (mine.right, mine.is_off) == (0, True)
        steps.start_scoring(project)
        push_all(context, record, tasks[-1:])
        (empty,) = client.predictions.of_task(tasks[-1].id)
        assert (empty.version, list(empty.result)) == ("yolov8n-worldv2-v0", [])
