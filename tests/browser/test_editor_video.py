"""Label Studio's own editor with videos in a real Chromium: it shows our pre-annotations at the right place and time.

It submits the regions that we sent, with these differences: it counts `framesCount` and `duration` itself, computes
`time` anew as frame / frameRate, and leaves out the size of the frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from backend.cli.label_studio_process import LabelStudioProcess
from backend.geometry import keyframes
from backend.labelstudio import label_config, tags
from backend.labelstudio.client.connection import LabelStudioClient, PredictionRow
from backend.media import video
from backend.media.video import Video
from backend.types import BoolArray, ControlTag, FloatArray, IntArray, Json, Prediction, Tracks
from tests import clips
from tests.browser import open_first, signed_in, submit
from tests.clips import Mover
from tests.studio_database import LOGIN
from tests.support import ROOT

pytestmark = [pytest.mark.label_studio, pytest.mark.browser]

VERSION = "yolo11n-v1"
PATIENCE_MS = 60_000
SIZE, FRAMES, RATE = (160, 120), 40, 25.0
RED = Mover("red", (0, 20), (3, 0), (40, 30))  # across the whole video, at an even speed
BOXES = (ROOT / "label_config" / "videorectangle.xml").read_text(encoding="utf-8")
EVENTS = (ROOT / "label_config" / "timelinelabels.xml").read_text(encoding="utf-8")

# The first column in row 35 of the video with bright red, or with an opaque pixel, in pixels from the left.
EDGE = """({canvas, channel, width, height}) => {
  const shown = document.querySelector(canvas);
  const [left, top] = [(shown.width - width) / 2, (shown.height - height) / 2];
  const row = shown.getContext('2d').getImageData(left, top + 35, width, 1).data;
  return row.filter((_, at) => at % 4 === channel).findIndex(value => value > 130);
}"""
PICTURE: Json = {"canvas": ".lsf-video-canvas canvas", "channel": 0, "width": SIZE[0], "height": SIZE[1]}
DRAWN: Json = PICTURE | {"canvas": ".konvajs-content canvas", "channel": 3}
# The key frames in the rows of the timeline by region: a list for each range of frames with the object.
KEYS = """() => Object.fromEntries([...document.querySelectorAll('.lsf-keypoints')].map(row => [row.dataset.id,
  [...row.querySelectorAll('.lsf-keypoints__lifespan')].map(stretch =>
    [...stretch.querySelectorAll('.lsf-keypoints__point')].map(point =>
      (parseFloat(stretch.style.left) + parseFloat(point.style.left) + 8) / 16))]))"""
RANGES = """() => Object.fromEntries([...document.querySelectorAll('.lsf-keypoints')].map(row =>
  [row.dataset.id, [Number(row.dataset.start), Number(row.dataset.end)]]))"""


@pytest.fixture(scope="module")
def page(label_studio: LabelStudioProcess) -> Iterator[Page]:
    with signed_in(label_studio.url, LOGIN["email"], LOGIN["password"]) as page:
        yield page


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Video:
    """Return a video in VP8, which every build of Chromium decodes."""
    return video.probe(clips.write(tmp_path_factory.mktemp("clips") / "clip.webm", [RED], FRAMES, SIZE, RATE))


@dataclass(frozen=True)
class Editor:
    """The editor with a video and our prediction of it."""

    page: Page
    client: LabelStudioClient
    project: int
    sent: list[Json]

    def go(self, number: int) -> None:
        """Show a frame. It cannot be the last one, which the page accepts only from its buttons."""
        shown = self.page.locator(".lsf-frames-control")
        shown.click()
        shown.locator("input").fill(str(number))
        shown.locator("input").press("Enter")
        length = self.sent[0]["value"]["framesCount"]
        expect(shown).to_have_text(f"{number} of {length}", timeout=PATIENCE_MS)

    def await_edge(self, layer: Json, at: int, off: int) -> None:
        """Wait until the object begins at a column: the page shows the frame's number before it paints the frame."""
        near = f"([layer, at, off]) => Math.abs(({EDGE})(layer) - at) <= off"
        self.page.wait_for_function(near, arg=[layer, at, off], timeout=PATIENCE_MS)

    def select(self, label: str) -> None:
        self.page.locator(".lsf-outliner-item").filter(has_text=label).click()

    def submit(self) -> tuple[Mapping[str, Any], ...]:
        return submit(self.page, self.client, self.project).result


@contextmanager
def opened(studio: LabelStudioProcess, page: Page, config: str, clip: Video, predicted: Prediction) -> Iterator[Editor]:
    """Open a video with its prediction, as an annotator does."""
    (tag,) = label_config.parse(config)
    sent = tags.encode(tag, predicted, tag.labels, 0.5, "1")
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    with LabelStudioClient(studio.url, studio.api_key) as client:
        project = client.projects.create("videos", config)
        client.tasks.upload_images(project, [clip.path])
        (task,) = client.tasks.unlabeled(project)
        client.prediction_import.run(project, VERSION, [PredictionRow(task.id, 0.0, sent)])
        client.projects.set_model_version(project, VERSION)
        open_first(page, client.url, project)
        yield Editor(page, client, project, [region.as_json() for region in sent])
    assert problems == []


def tracks(rate: float = RATE) -> Prediction:
    """Return a prediction of a red object, visible to the end, and below it a blue object that is visible twice."""
    length = round(FRAMES * rate / RATE)
    ends = [RED.box(0, *SIZE), RED.box(FRAMES - 1, *SIZE)]
    red = [[x, y, x + width, y + height] for x, y, width, height in filter(None, ends)]
    blue = [[90, 60, 130.5, 110], [80, 60.25, 120, 110], [30, 62, 80, 100], [30, 70, 80, 118]]
    frames = np.array([1, length, 5, 14, 17, 19])
    enabled = np.array([True, True, True, False, True, False])
    certain = [[0.9, 0.1]] * 2 + [[0.2, 0.8]] * 4
    return _prediction(red + blue, certain, frames, np.array([0, 0, 1, 1, 1, 1]), enabled, rate)


def events() -> Prediction:
    """Return a prediction for every fourth frame: first one label, then both, then the other."""
    certain = [[0.9 * (1 <= place < 6), 0.8 * (4 <= place < 9)] for place in range(10)]
    whole = [[0, 0, *SIZE]] * 10
    return _prediction(whole, certain, np.arange(10) * 4 + 1, np.zeros(10, np.int64), np.ones(10, np.bool_), RATE)


def _prediction(
    boxes: list[Any], certain: list[list[float]], frames: IntArray, objects: IntArray, enabled: BoolArray, rate: float
) -> Prediction:
    probs: FloatArray = np.array(certain, np.float32)
    return Prediction(
        width=SIZE[0],
        height=SIZE[1],
        boxes=np.array(boxes, np.float32),
        class_probs=probs,
        confidence=probs.max(axis=1),
        embedding=np.zeros(1, np.float32),
        tracks=Tracks(frames, objects, enabled, round(FRAMES * rate / RATE), rate),
    )


def labels_shown(page: Page) -> list[str]:
    return page.locator(".lsf-outliner-item__title").all_inner_texts()


def assert_kept(tag: ControlTag, sent: list[Json], done: tuple[Mapping[str, Any], ...]) -> None:
    """Check that the submitted regions have the values, the metadata and the training labels of the sent ones."""
    assert [item["value"] for item in done] == [item["value"] for item in sent]
    for key in ("id", "type", "from_name", "to_name", "score"):
        assert [item[key] for item in done] == [item[key] for item in sent]
    assert all("original_width" not in item for item in done)
    assert tags.explain(tag, done) == ()
    assert tags.decode(tag, done) == tags.decode(tag, sent)


def test_objects_go_through_the_editor(label_studio: LabelStudioProcess, page: Page, clip: Video) -> None:
    """Between its key frames a box lies on its object."""
    (tag,) = label_config.parse(BOXES)
    with opened(label_studio, page, BOXES, clip, tracks()) as editor:
        expect(page.locator(".lsf-frames-control")).to_have_text(f"1 of {FRAMES}", timeout=PATIENCE_MS)
        assert labels_shown(page) == ["Vehicle", "Person"]
        red, blue = (item["id"] for item in editor.sent)
        assert page.evaluate(KEYS) == {red: [[1, FRAMES]], blue: [[5, 14], [17, 19]]}
        for number in (2, 21, FRAMES - 1):
            editor.go(number)
            editor.await_edge(PICTURE, 3 * (number - 1), 1)
            editor.await_edge(DRAWN, 3 * (number - 1), 2)  # its line is 2 wide
        done = editor.submit()
    assert_kept(tag, editor.sent, done)


@pytest.mark.parametrize("rate", [12.5, 25.025])
def test_a_frame_is_the_one_we_look_at(label_studio: LabelStudioProcess, page: Page, clip: Video, rate: float) -> None:
    """The label config's `frameRate` is half of the file's, or a little more, such as 24 for 23.976."""
    config = BOXES.replace('frameRate="25"', f'frameRate="{rate:g}"')
    numbers = [2, 7, 13, clip.length(rate) - 1]
    with opened(label_studio, page, config, clip, tracks(rate)) as editor:
        for number, pixels in zip(numbers, video.frames(clip, numbers, rate), strict=True):
            editor.go(number)
            editor.await_edge(PICTURE, int(np.flatnonzero(pixels[35, :, 2] > 130)[0]), 1)


def test_a_frame_is_the_one_we_look_at_where_they_come_unevenly(
    label_studio: LabelStudioProcess, page: Page, tmp_path: Path
) -> None:
    """Phones and browsers record such videos; here with 50 frames per second first, then with 17."""
    path = clips.write(tmp_path / "clip.webm", [RED], FRAMES, SIZE, RATE)
    uneven = video.probe(clips.retime(path, [*range(0, 400, 20), *range(400, 1600, 60)]))
    numbers = [2, 9, 13, 24, 33, FRAMES - 1]
    assert [uneven.shown(number, RATE) for number in numbers] == [2, 16, 21, 28, 34, 38]
    with opened(label_studio, page, BOXES, uneven, tracks()) as editor:
        expect(page.locator(".lsf-frames-control")).to_have_text(f"1 of {uneven.length(RATE)}", timeout=PATIENCE_MS)
        for number, pixels in zip(numbers, video.frames(uneven, numbers, RATE), strict=True):
            editor.go(number)
            editor.await_edge(PICTURE, int(np.flatnonzero(pixels[35, :, 2] > 130)[0]), 1)


def test_what_an_annotator_changes_of_an_object(label_studio: LabelStudioProcess, page: Page, clip: Video) -> None:
    """A key frame that the annotator adds has the same box as our interpolation."""
    with opened(label_studio, page, BOXES, clip, tracks()) as editor:
        editor.select("Vehicle")
        add, toggle = (page.locator(".lsf-timeline-controls button").nth(place) for place in (2, 3))
        for number in (13, 30):
            editor.go(number)
            add.click()
        toggle.click()
        assert page.evaluate(KEYS)[editor.sent[0]["id"]] == [[1, 13, 30], [FRAMES]]
        done = editor.submit()
    drawn = keyframes.from_sequence(done[0]["value"])
    assert drawn.frames.tolist() == [1, 13, 30, FRAMES]
    assert drawn.enabled.tolist() == [True, True, False, True]
    predicted = keyframes.interpolate(keyframes.from_sequence(editor.sent[0]["value"]), drawn.frames)
    np.testing.assert_allclose(drawn.boxes, predicted.boxes, atol=1e-9)
    assert done[1]["value"] == editor.sent[1]["value"]


def test_an_annotator_who_does_not_wait_for_the_video(
    label_studio: LabelStudioProcess, page: Page, clip: Video
) -> None:
    """Until the video is loaded, the editor writes that it has one frame, together with its true duration."""
    (tag,) = label_config.parse(BOXES)
    loading = page.context.new_page()
    loading.add_init_script("Object.defineProperty(HTMLMediaElement.prototype, 'readyState', {get: () => 1})")
    with opened(label_studio, loading, BOXES, clip, tracks()) as editor:
        loading.wait_for_function("document.querySelector('video').duration > 0")
        done = editor.submit()
    loading.close()
    assert [(item["value"]["framesCount"], item["value"]["duration"]) for item in done] == [(1, 1.6)] * 2
    assert tags.explain(tag, done) == ()
    assert tags.decode(tag, done) == tags.decode(tag, editor.sent)


def test_events_go_through_the_editor(label_studio: LabelStudioProcess, page: Page, clip: Video) -> None:
    (tag,) = label_config.parse(EVENTS)
    with opened(label_studio, page, EVENTS, clip, events()) as editor:
        expect(page.locator(".lsf-frames-control")).to_have_text(f"1 of {FRAMES}", timeout=PATIENCE_MS)
        assert labels_shown(page) == ["Ball in play", "Goal"]
        spans = {box.label: (box.frame, box.last) for box in tags.decode(tag, editor.sent)}
        ids = {item["value"]["timelinelabels"][0]: item["id"] for item in editor.sent}
        assert page.evaluate(RANGES) == {ids[label]: list(span) for label, span in spans.items()}
        done = editor.submit()
    assert_kept(tag, editor.sent, done)


def test_what_an_annotator_changes_of_an_event(label_studio: LabelStudioProcess, page: Page, clip: Video) -> None:
    (tag,) = label_config.parse(EVENTS)
    with opened(label_studio, page, EVENTS, clip, events()) as editor:
        expect(page.locator(".lsf-frames-control")).to_have_text(f"1 of {FRAMES}", timeout=PATIENCE_MS)
        editor.select("Goal")
        end = page.get_by_label("End frame")
        end.fill("39")
        end.press("Enter")
        done = editor.submit()
    before, after = tags.decode(tag, editor.sent), tags.decode(tag, done)
    assert after == (before[0], replace(before[1], last=39))
