"""Tasks on which people disagree, in the label stream of a real Label Studio."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from backend.cli.label_studio_process import LabelStudioProcess, personal_access_token
from backend.evaluation.annotators import TaskAgreement
from backend.evaluation.effort import AnnotationEffort, EffortLog
from backend.labelstudio.client.connection import LabelStudioClient
from backend.loop.context import Context
from backend.loop.insight import effort
from backend.loop.review import disputes
from backend.settings import Settings
from backend.store.store import ProjectRecord
from backend.types import Json
from tests.support import CONFIG, cycle_of, open_context, sign_up


@dataclass(frozen=True)
class Team:
    """A project where two people annotate each task, and three people."""

    context: Context
    project: int
    people: tuple[LabelStudioClient, ...]
    tasks: tuple[int, ...]

    def annotate(self, person: int, place: int, x: float) -> int:
        return self.people[person].annotations.create(self.tasks[place], [box(x)])

    def offered(self, person: int) -> int | None:
        """Return the place of the task that Label Studio hands a person next."""
        task = self.people[person].tasks.next(self.project)
        return self.tasks.index(task.id) if task else None


def box(x: float) -> Json:
    value = {"x": x, "y": 10, "width": 30, "height": 30, "rotation": 0, "rectanglelabels": ["cat"]}
    return {"id": "a", "from_name": "label", "to_name": "image", "type": "rectanglelabels", "value": value}


@pytest.fixture
def team(settings: Settings, label_studio: LabelStudioProcess) -> Iterator[Team]:
    access = {"label_studio_url": label_studio.url, "label_studio_api_key": label_studio.api_key}
    with ExitStack() as stack:
        context = stack.enter_context(open_context(settings.model_copy(update=access)))
        people = [context.label_studio]
        project = people[0].projects.create("disputes", CONFIG)
        images = [{"image": f"http://images.example/{n}.png"} for n in range(4)]
        people[0].http.send("PATCH", f"/api/projects/{project}/", {"maximum_annotations": 2})
        people[0].http.send("POST", f"/api/projects/{project}/import", images)
        for name in ("second", "third"):
            email, password = f"{name}-{project}@example.com", "a-long-password"
            sign_up(people[0], email, password)
            key = personal_access_token(label_studio.url, email, password)
            people.append(stack.enter_context(LabelStudioClient(label_studio.url, key)))
        extra = json.dumps({"OFFER_AGAIN_BELOW": 0.5})
        context.store.save_project(ProjectRecord(project, CONFIG, extra, "", "", ""))
        tasks = tuple(task.id for task in people[0].tasks.all(project))
        yield Team(context, project, tuple(people), tasks)


@pytest.mark.label_studio
def test_a_disputed_task_is_handed_to_one_more_person_and_no_further(team: Team) -> None:
    """Two people agree on the first task and not on the second; the ground truth of the third is known."""
    for place, x in ((0, 11), (2, 60), (1, 60)):
        first = team.annotate(0, place, 10)
        second = team.annotate(1, place, x)
        if place == 2:
            team.people[0].annotations.update(second, ground_truth=True)
    cycle = cycle_of(team.context)
    cycle.measure_effort(team.project)
    assert team.offered(2) == 3, "only two people annotate here, and both had all disputed tasks"
    team.annotate(2, 3, 10)
    cycle.measure_effort(team.project)
    assert [task.id for task in team.people[0].tasks.unlabeled(team.project)] == [team.tasks[1], team.tasks[3]]
    assert disputes.offer_again(team.context, team.project) == 0, "it is offered already"
    assert team.offered(0) == 3, "who annotated it does not get it again"
    assert team.offered(2) == 1
    team.annotate(2, 1, 30)
    effort.measure(team.context, team.project)
    assert disputes.offer_again(team.context, team.project) == 0, "it was offered once, though all three disagree"
    assert team.offered(2) is None
    team.people[0].annotations.delete(first)  # not the one that counts
    effort.measure(team.context, team.project)
    by_task = {entry.task_id: entry.annotators for entry in team.context.store.state.effort(team.project).agreements}
    assert by_task[team.tasks[1]] == 2


def test_a_task_that_everybody_annotated_is_not_offered() -> None:
    """There is no other person who could complete it; person 0 is one whom Label Studio does not name."""
    work = [*((1, person) for person in (7, 8)), *((2, person) for person in (7, 8, 9)), (3, 7), (3, 0)]
    efforts = tuple(
        AnnotationEffort(number, task, person, 1.0, None, False, False, 0, 0, 0, 0, 0)
        for number, (task, person) in enumerate(work)
    )
    agreements = tuple(TaskAgreement(task, "label", 2, pairs, 4) for task, pairs in ((1, 1), (2, 0), (3, 2)))
    log = EffortLog({}, efforts, agreements)
    assert disputes.disputed_tasks(log, 0.6) == [1]
    assert disputes.disputed_tasks(log, 0.5) == []
    assert disputes.disputed_tasks(log, 1.0) == [1]
    assert disputes.disputed_tasks(EffortLog(), 1.0) == []
