"""Does `prediction.cluster` keep a team from labeling near-copies at the same time?

`python -m tests.benchmarks.near_copies` asks a real Label Studio for tasks, as a team does in the label stream, and
prints a table. The pool is generated: more than half of the images are in groups of near-copies. The code of the queue
ranks it, and each prediction gets the group of its image as its cluster, or none.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from backend.acquisition.duplicates import twins
from backend.acquisition.pool import Pool
from backend.cli.label_studio_process import (
    LabelStudioProcess,
    label_studio_binary,
    personal_access_token,
    start_label_studio,
)
from backend.labelstudio.client.connection import LabelStudioClient
from backend.sampling import ranking
from backend.types import FloatArray, IntArray
from tests.support import CONFIG, sign_up

GROUPS, COPIES, SINGLES = 12, 4, 32  # groups of near-copies, images of each, and images without any
LABELED, SEEDS, EXPLORE = 40, 3, 0.2
TEAMS = (2, 8)
STRATEGIES = ("class_entropy", "information_density_unique")  # the second is the default, and sets near-copies back
VERSION, PASSWORD = "yolo11n-v1", "a-long-password"


@dataclass(slots=True)
class Handed:
    """What a team got of one queue."""

    at_once: list[bool] = field(default_factory=list)  # somebody else held a near-copy of it
    again: list[bool] = field(default_factory=list)  # somebody held or had labeled a near-copy of it
    in_order: list[bool] = field(default_factory=list)  # it had the lowest score of the free tasks


def generated(seed: int) -> tuple[Pool, IntArray]:
    """Return a pool of near-copies and single images in random order, and the look of each image (n,)."""
    rng = np.random.default_rng(seed)
    looks = rng.permutation(np.concatenate([np.repeat(np.arange(GROUPS), COPIES), GROUPS + np.arange(SINGLES)]))
    count = GROUPS + SINGLES
    thumbnails = rng.integers(0, 253, (count, 192))[looks] + rng.integers(0, 3, (len(looks), 192))
    embeddings = rng.standard_normal((count, 32))[looks] + 1e-2 * rng.standard_normal((len(looks), 32))
    probs = rng.random((count, 3, 4))[looks] + 1e-2 * rng.random((len(looks), 3, 4))  # three boxes, four classes
    pool = Pool(
        task_ids=np.arange(len(looks)),
        offsets=np.arange(len(looks) + 1) * 3,
        class_probs=(probs / 1.01).reshape(-1, 4).astype(np.float32),
        columns={"embeddings": embeddings.astype(np.float32), "thumbnails": thumbnails.astype(np.uint8)},
        batch=20,
        map50=0.6,
    )
    return pool, looks


def scores(pool: Pool, strategy: str) -> FloatArray:
    """Return the scores of the queue (n,)."""
    rng = np.random.default_rng(0)
    return ranking.rank(pool, strategy, explore_share=EXPLORE, rng=rng).priority


def project_of(
    client: LabelStudioClient, priority: FloatArray, clusters: Sequence[int | None]
) -> tuple[int, list[int]]:
    """Make a project with a prediction on each task, and return its id and those of its tasks, in order."""
    project = client.projects.create("near-copies", CONFIG)
    tasks = [{"image": f"http://images.example/{place}.png"} for place in range(len(priority))]
    client.http.send("POST", f"/api/projects/{project}/import", tasks)
    ids = [task.id for task in client.tasks.all(project)]
    for task, score, cluster in zip(ids, priority.tolist(), clusters, strict=True):
        body = {"task": task, "result": [], "score": score, "model_version": VERSION, "cluster": cluster}
        client.http.send("POST", "/api/predictions/", body)
    client.projects.set_sampling(project)
    client.projects.set_model_version(project, VERSION)
    return project, ids


def hand_out(
    team: Sequence[LabelStudioClient],
    project: int,
    ids: Sequence[int],
    looks: IntArray,
    priority: FloatArray,
    seed: int,
) -> Handed:
    """Let a team label LABELED tasks: somebody drawn at random submits, and asks for the next task."""
    rng, handed = np.random.default_rng(seed), Handed()
    holding: dict[int, int] = {}  # member of the team -> row of the task
    done: list[int] = []
    rows = {task_id: row for row, task_id in enumerate(ids)}
    turns = [*range(len(team)), *rng.integers(len(team), size=LABELED - len(team)).tolist()]
    for member in turns:
        if member in holding:
            done.append(holding.pop(member))
            team[member].annotations.create(ids[done[-1]], [])
        task = team[member].tasks.next(project)
        assert task is not None
        row = rows[task.id]
        held = list(holding.values())
        free = np.setdiff1d(np.arange(len(ids)), [*held, *done])
        handed.at_once.append(bool(np.isin(looks[row], looks[held])))
        handed.again.append(bool(np.isin(looks[row], looks[[*held, *done]])))
        handed.in_order.append(row == free[priority[free].argmin()])
        holding[member] = row
    return handed


def team_of(label_studio: LabelStudioProcess, stack: ExitStack) -> list[LabelStudioClient]:
    """Return clients of as many users as the largest team has."""
    team = [stack.enter_context(LabelStudioClient(label_studio.url, label_studio.api_key))]
    for place in range(1, max(TEAMS)):
        email = f"annotator-{place}@example.com"
        sign_up(team[0], email, PASSWORD)
        key = personal_access_token(label_studio.url, email, PASSWORD)
        team.append(stack.enter_context(LabelStudioClient(label_studio.url, key)))
    return team


def rows(team: Sequence[LabelStudioClient]) -> Iterator[str]:
    """Yield the rows of the table: each case over all seeds."""
    yield "| order | annotators | cluster | copy of a held task | copy of an earlier task | lowest score |"
    yield "|---|---|---|---|---|---|"
    for strategy in STRATEGIES:
        for size in TEAMS:
            for clustered in (False, True):
                handed = Handed()
                for seed in range(SEEDS):
                    pool, looks = generated(seed)
                    priority = scores(pool, strategy)
                    groups = twins(pool.columns["thumbnails"], np.random.default_rng(0))
                    clusters = groups.tolist() if clustered else [None] * len(looks)
                    project, ids = project_of(team[0], priority, clusters)
                    part = hand_out(team[:size], project, ids, looks, priority, seed)
                    handed.at_once += part.at_once
                    handed.again += part.again
                    handed.in_order += part.in_order
                shares = [f"{np.mean(values):.0%}" for values in (handed.at_once, handed.again, handed.in_order)]
                yield f"| `{strategy}` | {size} | {'yes' if clustered else 'no'} | {' | '.join(shares)} |"


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory(prefix="near-copies-") as folder, ExitStack() as stack:
        process = start_label_studio(
            label_studio_binary(), Path(folder) / "data", email="annotator-0@example.com", password=PASSWORD
        )
        label_studio = stack.enter_context(process)
        for row in rows(team_of(label_studio, stack)):
            print(row, flush=True)


if __name__ == "__main__":
    main()
