"""The picture of a task is that of the field which the chosen control tag shows."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
from PIL import Image

from backend.cli.label_studio_process import LabelStudioProcess
from backend.settings import Settings
from backend.store.store import ProjectRecord
from tests.support import ImageSite, open_context, serve

TWO_IMAGES = (
    '<View><Image name="before" value="$before"/><Image name="after" value="$after"/>'
    '<RectangleLabels name="old" toName="before"><Label value="cat"/></RectangleLabels>'
    '<RectangleLabels name="new" toName="after"><Label value="cat"/></RectangleLabels></View>'
)


@dataclass(frozen=True)
class Pictures:
    """A backend, and the address of the picture of a task that shows two images."""

    http: httpx.Client
    address: str

    def size(self, query: str) -> tuple[int, int]:
        """Return the width and height of the picture."""
        answer = self.http.get(self.address + query)
        answer.raise_for_status()
        with Image.open(io.BytesIO(answer.content)) as image:
            return image.size


@pytest.fixture
def pictures(settings: Settings, label_studio: LabelStudioProcess, images: ImageSite) -> Iterator[Pictures]:
    access = {"label_studio_url": label_studio.url, "label_studio_api_key": label_studio.api_key}
    with open_context(settings.model_copy(update=access)) as context:
        client = context.label_studio
        project = client.projects.create("two images", TWO_IMAGES)
        data = {"before": images.add("before.png", size=(80, 60)), "after": images.add("after.png", size=(40, 90))}
        client.http.send("POST", f"/api/projects/{project}/import", [data])
        (task,) = client.tasks.unlabeled(project)
        context.store.save_project(ProjectRecord(project, TWO_IMAGES, "", "", "", ""))
        with serve(context) as http:
            yield Pictures(http, f"/projects/{project}/tasks/{task.id}/picture")


def test_each_tag_has_its_own_picture(pictures: Pictures) -> None:
    assert [pictures.size(query) for query in ("?tag=old", "?tag=new", "")] == [(80, 60), (40, 90), (80, 60)]
    assert pictures.http.get(pictures.address + "?tag=other").status_code == 404
