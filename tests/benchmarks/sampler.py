"""Time and memory of the sampler on 100,000 images, growth from 10,000, and k-center compared with scikit-activeml."""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from backend import acquisition
from backend.acquisition.distances import unit
from backend.acquisition.diversity import k_center
from backend.acquisition.pool import Pool
from backend.types import FloatArray
from tests.benchmarks.report import Result
from tests.benchmarks.timing import interleaved, speedup

SIZES = (1_000, 10_000, 100_000)  # images
BOXES, CLASSES, DIMENSIONS, LABELED, LOOKS = 10, 20, 256, 1_000, 200
COPIES = 0.1  # share of the pool that is nearly another image
BATCH, CENTERS = 500, 1_000
GREEDY = ("information_density_unique", "auto warm", "auto cold")  # the default, and auto
ENTROPY = ("least_confidence", "margin", "variance", "entropy", "class_entropy")
ENTROPY_S, AUTO_S, AUTO_GB, GROWTH, TARGET = 1.0, 20.0, 3.0, 12.0, 20.0
RIVAL_IMAGES, ROUNDS = 10_000, 3  # a distance of the rival's is float64 and computed anew: 100,000 take minutes


def run(_folder: Path) -> list[Result]:
    """Measure all."""
    seconds = {case: _seconds(case) for case in (*ENTROPY, *GREEDY, "core_set")}
    worst = max(ENTROPY, key=lambda name: seconds[name][-1])
    results = [_limit("entropy family", seconds[worst], ENTROPY_S, "1M boxes")]
    results += [_limit(case, seconds[case], AUTO_S, f"B = {BATCH}") for case in GREEDY]
    results += [_growth(case, seconds[case]) for case in (worst, *GREEDY, "core_set")]
    peak = max(map(_peak, GREEDY))
    results.append(Result("sampler", "peak memory of these, 100,000 images", peak, AUTO_GB, "GB", at_most=True))
    return [*results, _rival()]


def pool(images: int, seed: int = 0) -> Pool:
    """Return a pool of 200 looks, a tenth of it near-duplicates."""
    rng = np.random.default_rng(seed)
    looks = rng.standard_normal((LOOKS, DIMENSIONS), dtype=np.float32)
    embeddings = _embeddings(looks, images, rng)
    copies = int(images * COPIES)
    noise = rng.standard_normal((copies, DIMENSIONS), dtype=np.float32)
    embeddings[images - copies :] = embeddings[:copies] + 1e-3 * noise
    thumbnails = rng.integers(0, 256, (images, 192)).astype(np.uint8)
    thumbnails[images - copies :] = thumbnails[:copies]
    return Pool(
        task_ids=np.arange(images),
        offsets=np.arange(images + 1) * BOXES,
        class_probs=rng.random((images * BOXES, CLASSES), dtype=np.float32),
        columns={"embeddings": embeddings, "thumbnails": thumbnails},
        class_weights=np.linspace(1, 3, CLASSES, dtype=np.float32),
        labeled_embeddings=_embeddings(looks, LABELED, rng),
        labeled_thumbnails=rng.integers(0, 256, (LABELED, 192)).astype(np.uint8),
        batch=BATCH,
        map50=0.6,
    )


def _embeddings(looks: FloatArray, count: int, rng: np.random.Generator) -> FloatArray:
    noise = rng.standard_normal((count, DIMENSIONS), dtype=np.float32)
    return looks[rng.integers(0, len(looks), count)] + np.float32(0.7) * noise


def _case(case: str, images: int) -> tuple[str, Pool]:
    name, _, state = case.partition(" ")
    made = pool(images)
    if state == "cold":
        made = replace(made, map50=0.1)
    return name, replace(made, batch=CENTERS) if name == "core_set" else made


def _seconds(case: str) -> list[float]:
    """Return the best of three runs on each size of pool."""
    fastest = []
    for images in SIZES:
        name, made = _case(case, images)
        times = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            acquisition.get(name)(made, np.random.default_rng(0))
            times.append(time.perf_counter() - started)
        fastest.append(min(times))
    return fastest


def _details(seconds: list[float]) -> dict[str, float]:
    return {f"{images:,} s": value for images, value in zip(SIZES, seconds, strict=True)}


def _limit(case: str, seconds: list[float], target: float, title: str) -> Result:
    title = f"{case}, {SIZES[-1]:,} images, {title}"
    return Result("sampler", title, seconds[-1], target, "s", at_most=True, details=_details(seconds))


def _growth(case: str, seconds: list[float]) -> Result:
    title = f"{case}, 100,000 images vs 10,000"
    return Result("sampler", title, seconds[-1] / seconds[-2], GROWTH, "x", at_most=True, details=_details(seconds))


def _peak(case: str) -> float:
    """Return the largest resident size in GB of a process that makes the pool and ranks it."""
    fresh = multiprocessing.get_context("spawn")
    answers = fresh.SimpleQueue()
    child = fresh.Process(target=_measure, args=(case, answers))
    child.start()
    child.join()
    if child.exitcode:
        raise RuntimeError(f"{case} ended with status {child.exitcode}")
    peak: float = answers.get()
    return peak


def _measure(case: str, answers: multiprocessing.SimpleQueue[float]) -> None:
    name, made = _case(case, SIZES[-1])
    acquisition.get(name)(made, np.random.default_rng(0))
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    answers.put(int(line.split()[1]) * 1024 / 1e9)


def _rival() -> Result:
    """Take 1,000 picks of 10,000 images in turns with scikit-activeml, and see that they are the same."""
    from skactiveml.pool import CoreSet  # a development dependency, and slow to import

    rng = np.random.default_rng(0)
    points = unit(rng.standard_normal((RIVAL_IMAGES, DIMENSIONS), dtype=np.float32))
    labeled = 100
    labels = np.full(RIVAL_IMAGES, np.nan)
    labels[:labeled] = 0
    picks: dict[str, list[int]] = {}

    def ours() -> None:
        picks["ours"] = k_center(points[labeled:], points[:labeled], CENTERS).tolist()

    def theirs() -> None:
        rows = CoreSet(random_state=0).query(points, labels, batch_size=CENTERS)
        picks["theirs"] = (rows - labeled).tolist()

    ours_s, theirs_s = interleaved(ROUNDS, ours, theirs)
    if picks["ours"] != picks["theirs"]:
        raise RuntimeError("k_center and scikit-activeml's CoreSet pick different images")
    details = {"ours s": min(ours_s), "scikit-activeml s": min(theirs_s)}
    title = f"k-center, {CENTERS:,} of {RIVAL_IMAGES:,} images, vs scikit-activeml's CoreSet"
    return Result("sampler", title, speedup(ours_s, theirs_s), TARGET, "x", details=details)
