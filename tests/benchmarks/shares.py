"""`python -m tests.benchmarks.shares`: the time of a small scoring, alone and beside a long one of another project.

Label Studio, redis and one `yolo-backend worker` are real. A scoring ends when its predictions are in Label Studio. The
scorings alone run before and after those beside the long one, so that a busy machine slows both alike.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rq import Queue
from rq.serializers import JSONSerializer

from backend.cli.label_studio_process import label_studio_binary, start_label_studio
from backend.cli.redis_process import start_redis
from backend.loop.context import Context, build
from backend.queue.rq_queue import CONTROL, Jobs
from backend.settings import from_env
from backend.store.store import ProjectRecord
from backend.subprocesses import running
from tests.benchmarks import parts, report
from tests.benchmarks.report import Result
from tests.support import CONFIG, ImageSite, publish, tiny_yolo

SMALL, LONG = 36, 2_000  # tasks
IMAGES = 64  # that the tasks show in turn
ALONE = 3  # scorings before the long one, and as many after it
SHARE = 0.5  # with one worker for two projects the small one may take twice as long
PATIENCE_S = 1_800.0


@dataclass(frozen=True, slots=True)
class Bench:
    """A worker, and what it works on."""

    context: Context
    images: ImageSite

    def project(self, name: str, tasks: int, weights: Path) -> int:
        """Make a project with a version that serves it."""
        client = self.context.label_studio
        project_id = client.projects.create(name, CONFIG)
        rows = [{"image": f"{self.images.url}/{task % IMAGES}.png"} for task in range(tasks)]
        client.http.send("POST", f"/api/projects/{project_id}/import", rows)
        self.context.store.save_project(ProjectRecord(project_id, CONFIG, "", "", "", ""))
        publish(self.context.store, project_id, weights)
        return project_id

    def start(self, project_id: int) -> float:
        """Ask for a scoring; return when."""
        started = time.perf_counter()
        Jobs(self.context.redis).put("start_scoring", project_id)
        _await(lambda: self.is_scoring(project_id))
        return started

    def seconds(self, project_id: int) -> float:
        """Score a project; return how long that took."""
        started = self.start(project_id)
        _await(lambda: not self.is_scoring(project_id))
        return time.perf_counter() - started

    def is_scoring(self, project_id: int) -> bool:
        return self.context.progress.scoring(project_id) is not None

    def waiting(self, queue: str) -> int:
        """Return how many jobs wait in a queue."""
        return int(Queue(queue, connection=self.context.redis, serializer=JSONSerializer).count)

    def alone(self, project_id: int) -> list[float]:
        """Score a project several times, each time with nothing else to do."""
        seconds = []
        for _ in range(ALONE):
            _await(lambda: not self.waiting(CONTROL))
            seconds.append(self.seconds(project_id))
        return seconds

    def beside(self, small: int, long: int) -> tuple[list[float], float]:
        """Score the small project again and again while the long one is scored; return its times and the long one's."""
        started, seconds = self.start(long), []
        _await(lambda: self.done(long) > 0)
        while self.is_scoring(long):
            seconds.append(self.seconds(small))
            _await(lambda: not self.waiting(CONTROL))  # what the last one left to do is not of the next one
        return seconds, time.perf_counter() - started

    def done(self, project_id: int) -> int:
        """Return how many tasks of the scoring at work are scored."""
        scoring = self.context.progress.scoring(project_id)
        return scoring.done if scoring else 0


def run(folder: Path) -> list[Result]:
    """Measure the share that a small scoring gets."""
    with _bench(folder) as bench:
        weights = tiny_yolo(folder / "tiny.pt")
        small, long = bench.project("small", SMALL, weights), bench.project("long", LONG, weights)
        bench.seconds(small)  # the first one fetches the images
        alone = bench.alone(small)
        beside, whole = bench.beside(small, long)
        alone += bench.alone(small)
    details = {
        "alone s": median(alone),
        "beside s": median(beside),
        "fastest beside s": min(beside),
        "slowest beside s": max(beside),
        "scorings beside": len(beside),
        f"all {LONG:,} and these s": whole,
    }
    title = f"scoring {SMALL} tasks alone vs beside {LONG:,} of another project"
    return [Result("shares", title, median(alone) / median(beside), SHARE, "x", details=details)]


@contextmanager
def _bench(folder: Path) -> Iterator[Bench]:
    pictures = folder / "images"
    pictures.mkdir()
    with ExitStack() as stack:
        images = ImageSite(pictures, stack.enter_context(parts.origin(pictures)))
        for number in range(IMAGES):
            images.add(f"{number}.png", number)
        studio = stack.enter_context(
            start_label_studio(
                label_studio_binary(),
                folder / "label-studio",
                email="bench@example.com",
                password="a-bench-password",
            )
        )
        environ = {
            "LABEL_STUDIO_URL": studio.url,
            "LABEL_STUDIO_API_KEY": studio.api_key,
            "MODEL_DIR": str(folder / "models"),
            "REDIS_URL": stack.enter_context(start_redis(folder / "redis")).url,
            "ALLOWED_HOSTS": "127.0.0.1",
            "IMGSZ": "64",
            "DEVICE": "cpu",
            "RECONCILE_S": "86400",  # nothing but what is measured
            "LOG_LEVEL": "WARNING",
        }
        command = [sys.executable, "-m", "backend.cli", "worker"]
        stack.enter_context(running(command, {**os.environ, **environ}, folder / "worker.log"))
        context = build(from_env(environ))
        stack.callback(context.close)
        yield Bench(context, images)


def _await(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"nothing came of it within {PATIENCE_S:.0f} s")
        time.sleep(0.01)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="yolo-bench-") as scratch:
        Console(width=220).print(report.table(run(Path(scratch))))
