"""Effort of a project in a real Label Studio: lead times, and what became of pre-annotations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from backend.cli.label_studio_process import LabelStudioProcess
from backend.errors import NotFoundError
from backend.labelstudio.client.connection import LabelStudioClient, PredictionRow
from backend.labelstudio.regions import region_id
from backend.loop.context import Context
from backend.loop.insight import effort, overlaps
from backend.queue.rq_queue import Jobs
from backend.settings import Settings
from backend.store.store import ProjectRecord
from backend.types import Json, Ranking, Region
from tests.support import CONFIG, cycle_of, open_context, publish, sign_up

pytestmark = pytest.mark.label_studio


def region(task_id: int, row: int, x: float = 10.0) -> Region:
    """Return a region as version 1 writes it."""
    value = {"x": x, "y": 10, "width": 30, "height": 30, "rotation": 0, "rectanglelabels": ["cat"]}
    name = region_id(f"{task_id}/yolo11n-v1", "label", row)
    return Region(name, "rectanglelabels", "label", "image", value, 0.5, 100, 100)


@dataclass
class Desk:
    """A project with version 1, whose queue holds six tasks with two regions each; the last one is a control."""

    context: Context
    project: int
    tasks: list[int]

    @property
    def client(self) -> LabelStudioClient:
        return self.context.label_studio

    def submit(self, place: int, result: list[Json], seconds: float | None, *, from_prediction: bool = True) -> int:
        """Submit an annotation as the editor does."""
        task = self.tasks[place]
        (prediction,) = self.client.predictions.of_task(task)
        parent = {"parent_prediction": prediction.id} if from_prediction else {}
        body = {"result": result, "lead_time": seconds, **parent}
        return int(self.client.http.send("POST", f"/api/tasks/{task}/annotations/", body)["id"])

    def shown(self, place: int) -> list[Json]:
        """Return the regions of a task's prediction, as the editor submits them unchanged."""
        return [region(self.tasks[place], row).as_json() | {"origin": "prediction"} for row in (0, 1)]


@pytest.fixture
def desk(label_studio: LabelStudioProcess, settings: Settings, tiny_weights: Path) -> Iterator[Desk]:
    keys = {"label_studio_url": label_studio.url, "label_studio_api_key": label_studio.api_key}
    with open_context(settings.model_copy(update=keys)) as context:
        client = context.label_studio
        project = client.projects.create("effort", CONFIG)
        images = [{"image": f"http://images.example/{n}.png"} for n in range(6)]
        client.http.send("POST", f"/api/projects/{project}/import", images)
        tasks = [task.id for task in client.tasks.unlabeled(project)]
        context.store.save_project(ProjectRecord(project, CONFIG, "", "", "", ""))
        version = publish(context.store, project, tiny_weights)
        context.store.activate(project, version.number)
        regions = {task: (region(task, 0), region(task, 1)) if task != tasks[-1] else () for task in tasks}
        rows = [PredictionRow(task, 0.5, regions[task]) for task in tasks]
        client.prediction_import.run(project, version.name, rows)
        client.projects.set_model_version(project, version.name)
        values, ids = np.linspace(0, 1, 6, dtype=np.float32), np.array(tasks)
        order = Ranking(ids, values, values, np.isin(ids, tasks[4:]), "random")
        context.store.pools.save_ranking(project, 1, order)
        context.store.state.save_blank_tasks(project, 1, tasks[-1:])
        yield Desk(context, project, tasks)


def test_annotations_are_measured_once_and_again_after_a_change(desk: Desk) -> None:
    kept, moved = desk.shown(0)
    moved = region(desk.tasks[0], 1, x=40).as_json() | {"origin": "prediction-changed"}
    drawn = region(desk.tasks[0], 7).as_json() | {"id": "by hand", "origin": "manual"}
    first = desk.submit(0, [kept, moved, drawn], 12.5)
    desk.submit(1, desk.shown(1)[:1], 8.0)
    assert not effort.measure(desk.context, desk.project)
    by_id = {entry.annotation_id: entry for entry in desk.context.store.state.effort(desk.project).efforts}
    entry = by_id[first]
    assert (entry.seconds, entry.version, entry.blank, entry.chance) == (12.5, 1, False, False)
    assert (entry.kept, entry.moved, entry.relabeled, entry.deleted, entry.added) == (1, 1, 0, 0, 1)
    desk.client.annotations.update(first, [kept, moved])
    assert not effort.measure(desk.context, desk.project)
    (row,) = effort.view(desk.context, desk.project).versions
    assert (row.kept, row.moved, row.deleted, row.added, row.seconds) == (2, 1, 1, 0, 10.25)
    desk.client.annotations.delete(first)
    effort.measure(desk.context, desk.project)
    assert effort.view(desk.context, desk.project).annotations == 1


def test_a_control_task_is_told_from_one_without_any_box(desk: Desk) -> None:
    drawn = [{**region(desk.tasks[5], 0).as_json(), "id": "x", "origin": "manual"}]
    desk.submit(5, drawn, 30.0)
    desk.submit(4, desk.shown(4), 9.0)
    desk.submit(3, [], 4.0, from_prediction=False)
    effort.measure(desk.context, desk.project)
    view = effort.view(desk.context, desk.project)
    assert [(row.version, row.blank, row.annotations) for row in view.versions] == [
        (None, False, 1),
        (1, False, 1),
        (1, True, 1),
    ]
    assert view.controls == 1
    assert view.saving is None
    assert view.hours == pytest.approx(43 / 3600)
    assert [entry.chance for entry in desk.context.store.state.effort(desk.project).efforts] == [True, True, False]


def test_measured_corrections_outlive_the_predictions(desk: Desk) -> None:
    desk.submit(0, desk.shown(0)[:1], 5.0)
    effort.measure(desk.context, desk.project)
    late = desk.submit(1, desk.shown(1)[:1], 6.0)
    for task in desk.tasks:
        for prediction in desk.client.predictions.of_task(task):
            desk.client.predictions.delete(prediction.id)
    effort.measure(desk.context, desk.project)
    (row,) = effort.view(desk.context, desk.project).versions
    assert (row.version, row.kept, row.deleted, row.uncounted) == (1, 2, 1, 1), "the ids of regions name the version"
    assert late


def test_imported_annotations_and_copies_are_told_apart(desk: Desk) -> None:
    first = desk.submit(0, desk.shown(0), None)
    body = {"result": desk.shown(0), "lead_time": 3.0, "parent_annotation": first}
    desk.client.http.send("POST", f"/api/tasks/{desk.tasks[0]}/annotations/", body)
    effort.measure(desk.context, desk.project)
    view = effort.view(desk.context, desk.project)
    assert (view.annotations, view.untimed, view.copies) == (2, 1, 1)


def test_people_who_labeled_the_same_task_are_compared(desk: Desk) -> None:
    """The tests have one user, so a second one signs up."""
    desk.submit(0, desk.shown(0), 5.0)
    sign_up(desk.client, f"second-{desk.project}@example.com", "a-second-password")
    people = desk.client.http.get("/api/users/")
    own = desk.client.http.get("/api/current-user/whoami")["id"]
    second = next(person["id"] for person in people if person["email"] == f"second-{desk.project}@example.com")
    for result in (desk.shown(0)[:1], [{**desk.shown(0)[0], "value": {"x": "wide"}}]):
        annotation = desk.submit(0, result, 5.0)
        desk.client.http.send("PATCH", f"/api/annotations/{annotation}/", {"completed_by": second})
        effort.measure(desk.context, desk.project)
        log = desk.context.store.state.effort(desk.project)
        if len(result[0]["value"]) > 1:
            assert [(task.tag, task.annotators, task.pairs, task.boxes) for task in log.agreements] == [
                ("label", 2, 1, 3)
            ]
            agreement = overlaps.by_tag(desk.context, desk.project)["label"]
            assert sorted(person.of for person in agreement.people) == sorted({str(own), str(second)})
            assert {(person.tasks, person.boxes) for person in agreement.people} == {(1, 3)}
        else:
            assert log.agreements == (), "an annotation that cannot be read is not compared"


def test_a_skip_is_no_annotation(desk: Desk) -> None:
    desk.client.annotations.create(desk.tasks[0], [], was_cancelled=True)
    assert not effort.measure(desk.context, desk.project)
    assert effort.view(desk.context, desk.project).annotations == 0


def test_before_the_first_measurement_and_for_an_unknown_project(desk: Desk) -> None:
    view = effort.view(desk.context, desk.project)
    assert (view.annotations, view.versions, view.saving, view.longest) == (0, (), None, None)
    assert [(point.number, point.hours) for point in view.curve] == [(1, 0.0)]
    with pytest.raises(NotFoundError, match="never set up"):
        effort.view(desk.context, 10**9)


def test_a_check_measures_soon_and_a_reconcile_draws_a_lost_map(desk: Desk) -> None:
    cycle, jobs = cycle_of(desk.context), Jobs(desk.context.redis)
    desk.submit(0, desk.shown(0), 5.0)
    cycle.check(desk.project)
    assert not jobs.once("measure_effort", desk.project), "it waits already"
    cycle.measure_effort(desk.project)
    assert effort.view(desk.context, desk.project).annotations == 1
    cycle.reconcile()
    assert not jobs.once("map_pool", desk.project, 1), "it waits already"
    cycle.map_pool(desk.project, 1)
    assert desk.context.store.maps.exists(desk.project, 1, tag="label")
    cycle.map_pool(desk.project, 2)
    assert not desk.context.store.maps.exists(desk.project, 2, tag="label"), "another version serves"
