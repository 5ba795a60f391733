"""The cost of a committee of K members, compared with K scorings of the same images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from backend.yolo.detector import load_detector
from backend.yolo.ensemble import Member, augmented, consult, perturbed, snapshots
from tests.benchmarks import parts
from tests.benchmarks.report import Result
from tests.benchmarks.timing import interleaved

IMAGES, PIXELS, IMGSZ = 64, 640, 320
ROUNDS = 5


def run(folder: Path) -> list[Result]:
    """Compare each kind of committee with as many scorings. At most 1, as images are read once."""
    trained = parts.weights(folder)
    files = parts.images(folder / "images", IMAGES, PIXELS)
    detectors = [load_detector(trained, IMGSZ, "cpu") for _ in range(3)]
    kinds = {
        "snapshots": snapshots(detectors),
        "augmented": augmented(detectors[0]),
        "perturbed": perturbed(detectors[0]),
    }
    return [_against(name, members, files) for name, members in kinds.items()]


def _against(name: str, members: tuple[Member, ...], files: Sequence[Path]) -> Result:
    detector, size = members[0].detector, len(members)
    committee_s, single_s = interleaved(
        ROUNDS, lambda: list(consult(members, files)), lambda: list(detector.predict(files))
    )
    value = median(together / (size * alone) for together, alone in zip(committee_s, single_s, strict=True))
    title = f"{name} of {size}, {IMAGES} images at {IMGSZ} px, vs {size} scorings"
    details = {"committee s": median(committee_s), "one scoring s": median(single_s)}
    return Result("committee", title, value, 1.0, "x", at_most=True, details=details)
