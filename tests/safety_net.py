"""Recordings that must not change while code is moved or renamed.

`python -m tests.safety_net FILE` compares what this code does with what FILE has of it: it prints each difference and
ends with status 1. What FILE lacks is recorded there. Compare on the machine that recorded: floats differ between
processors. It takes some minutes. Three things are looked at:

- `simulate`: the picks and metrics of a small experiment, with strategies of every family, of boxes and of choices;
- `answers`: what /setup and /predict say for every kind of control tag, by the same weights each time;
- `store`: the files that all of this leaves, arrays by their hash, without times and random names.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from redis import Redis

from backend.cli.redis_process import start_redis
from backend.datasets import synthetic
from backend.loop.context import Context
from backend.loop.scoring import pool_ranking, scoring
from backend.loop.served_models import models_for
from backend.settings import Settings
from backend.types import Json, Task
from backend.yolo.tasks import weights_name
from tests import clips
from tests.kinds import KINDS
from tests.loop.test_tags_together import BOXES_AND_CHOICE
from tests.loop.test_timeline_loop import CONFIG as TIMELINE
from tests.loop.test_video_tasks import CONFIG as VIDEO
from tests.loop.test_video_tasks import MOVERS
from tests.simulate.test_simulation_tasks import with_classes
from tests.support import CLASSES, IMGSZ, ROOT, ImageSite, open_context, serve, serve_images, tiny_yolo

OF_BOXES = "class_entropy,margin,information_density_unique,auto,core_set,localization,choi,ppal,learning_loss,random"
OF_CHOICES = "class_entropy,margin,core_set,max_herding,bald,random"
TASKS = 5
_TIMED = re.compile(r".*_s$|timings|created|finished|started|seconds")
_RANDOM = ("secret", "installation", "token")
_BY_CHANCE = ("sources", "written")  # arrays: of addresses that have a port, and of the time
_DIGEST = re.compile(r"[0-9a-f]{64}")  # of an address, in the name of a file


def parts(folder: Path) -> Iterator[tuple[str, Json]]:
    """Run everything in `folder` and yield what came out, part by part."""
    yield from answers(folder / "answers")
    yield "simulate choices", simulated(folder / "choices", OF_CHOICES, choices=True)
    yield "simulate boxes", simulated(folder / "boxes", OF_BOXES, choices=False)


# Experiments


def simulated(folder: Path, strategies: str, *, choices: bool) -> Json:
    """Return picks and metrics of each round of a small experiment."""
    folder.mkdir(parents=True)
    weights = tiny_yolo(
        folder / ("tiny-cls.pt" if choices else "tiny.pt"),
        ("blue", "red") if choices else synthetic.CLASSES,
        task="classify" if choices else "detect",
    )
    data = with_classes(folder / "data") if choices else synthetic.generate(folder / "data", pool=24, test=6, seed=0)
    options = {"initial": 6 if choices else 8, "batch": 3, "rounds": 3, "seeds": 1, "steps": 4, "imgsz": IMGSZ}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    environ = {
        "BASE_MODEL": weights.name,
        "MODEL_DIR": str(folder),
        "MIN_EPOCHS": "1",
        "DEVICE": "cpu",
        "TOLERANCE": "1",
        "VAL_SHARE": "0.3",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "backend.cli", "simulate", "--data", str(data), "--out", str(folder / "out")]
    subprocess.run(
        [*command, "--strategies", strategies, *words],
        env={**os.environ, **environ},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    rounds = sorted((folder / "out").glob("seed-*/*/round-*.json"))
    return {str(path.relative_to(folder / "out")): settled(json.loads(path.read_text())) for path in rounds}


# Answers and stores


def answers(folder: Path) -> Iterator[tuple[str, Json]]:
    """Yield each kind of control tag, with the backend's answers and files for its tasks."""
    folder.mkdir(parents=True)
    with start_redis(folder / "redis") as redis, serve_images(folder / "images") as images:
        for kind, config, task, classes, options in _kinds():
            Redis.from_url(redis.url).flushall()
            home = folder / re.sub(r"\W", "-", kind)
            home.mkdir()
            settings = Settings(
                model_dir=str(home),
                redis_url=redis.url,
                allowed_hosts="127.0.0.1",
                imgsz=IMGSZ,
                device="cpu",
                model_score_threshold=0.05,
            )
            tiny_yolo(home / weights_name(settings.base_model, task), classes, task=task, **options)
            if kind == "two tags":
                tiny_yolo(home / weights_name(settings.base_model, "classify"), classes, task="classify")
            with open_context(settings) as context:
                yield (
                    f"answers {kind}",
                    answered(context, config, _tasks(images, video="<Video" in config), images.url, home),
                )


def _kinds() -> Iterator[tuple[str, str, Any, Sequence[str], Mapping[str, Any]]]:
    for name, kind in KINDS.items():
        yield name, kind.label_config(), kind.task, kind.classes, kind.options
    yield "VideoRectangle", VIDEO, "detect", ("cat", "dog"), {}
    yield "TimelineLabels", TIMELINE, "classify", ("red", "blue"), {}
    yield "two tags", BOXES_AND_CHOICE, "detect", CLASSES, {}


def _tasks(images: ImageSite, *, video: bool) -> list[Task]:
    if not video:
        return [Task(number, {"image": images.add(f"{number}.png", number)}) for number in range(1, TASKS + 1)]
    clips.write(images.folder / "clip.avi", MOVERS, count=12)
    return [Task(1, {"video": f"{images.url}/clip.avi"})]


def answered(context: Context, config: str, tasks: Sequence[Task], url: str, home: Path) -> Json:
    """Set a project up, ask for predictions, score and rank its tasks, and ask again."""
    body = {"tasks": [{"id": task.id, "data": task.data} for task in tasks], "project": "7.1", "label_config": config}
    setup = {"project": "7.1", "schema": config, "hostname": "http://studio.example", "access_token": "dead"}
    with serve(context) as client:
        first = [client.post("/setup", json=setup).text, client.post("/predict", json=body).text]
        record = context.store.project(7)
        assert record is not None, first
        models = models_for(context, record, accepted=False)
        scoring.save_shards(context, models, scoring.predict_shards(context, models, 0, tasks))
        ranking = pool_ranking.rank_pool(context, record, models)
        context.store.pools.save_ranking(7, models[0].number, ranking)
        again = client.post("/predict", json=body).text
    texts = [text.replace(url, "http://images.example") for text in (*first, again)]
    return {"said": [settled(json.loads(text)) for text in texts], "files": files(home)}


def files(home: Path) -> Json:
    """Return a store's files by their path, without random parts."""
    digests = {}
    for path in sorted(home.rglob("*")):
        name = str(path.relative_to(home))
        if path.is_file() and path.suffix in (".json", ".npz") and not name.startswith(("media", ".")):
            digests[_DIGEST.sub("*", name)] = contents(path)
    return digests


def contents(path: Path) -> Json:
    if path.suffix == ".json":
        return {"json": settled(json.loads(path.read_text()))}
    arrays = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
    return {name: _fingerprint(name, arrays[name]) for name in arrays.files}


def _fingerprint(name: str, array: np.ndarray[Any, Any]) -> str:
    digest = "" if name in _BY_CHANCE else hashlib.sha256(array.tobytes()).hexdigest()[:16]
    return f"{array.dtype} {array.shape} {digest}"


def settled(value: Any) -> Any:
    """Return JSON without times, secrets and ports."""
    if isinstance(value, dict):
        return {key: settled(item) for key, item in value.items() if not _TIMED.match(key) and key not in _RANDOM}
    if isinstance(value, list):
        return [settled(item) for item in value]
    return re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1", value) if isinstance(value, str) else value


# Comparison


def differences(before: Any, after: Any, where: str = "") -> Iterator[str]:
    """Yield a line for each place where two recordings differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            yield from differences(before.get(key, "nothing"), after.get(key, "nothing"), f"{where} / {key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for place, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from differences(old, new, f"{where} / {place}")
    elif before != after:
        yield f"{where}: {str(before)[:100]} -> {str(after)[:100]}"


def main() -> int:
    """Compare with the file named on the command line, and add missing recordings to it."""
    path, changed = Path(sys.argv[1]), 0
    recorded = json.loads(path.read_text()) if path.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        for name, now in parts(Path(folder)):
            now = json.loads(json.dumps(now))
            lines = list(differences(recorded[name], now)) if name in recorded else [": recorded"]
            changed += name in recorded and bool(lines)
            print("\n".join(f"{name}{line}" for line in lines) or f"{name}: equal", flush=True)
            recorded.setdefault(name, now)
            path.write_text(json.dumps(recorded, indent=1, sort_keys=True))
    return min(changed, 1)


if __name__ == "__main__":
    sys.exit(main())
