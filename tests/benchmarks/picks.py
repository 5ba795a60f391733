"""The number of different scenes, and of images that do not belong, among the labels of an experiment.

`python -m tests.benchmarks.picks FOLDER/heuristics-repeated-many/arm-1`, the folder of a finished arm.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from backend.simulate import records, runner
from tests.benchmarks.experiments import REPEATED


def count(images: Sequence[str], pool: int) -> tuple[int, int]:
    """Return the number of different scenes among images of a pool with copies, and of images that do not belong."""
    _, copies, foreign = runner.SCENES[REPEATED]
    belong = pool - round(pool * foreign)
    places = [int(Path(image).stem) for image in images]
    return len({place // copies for place in places if place < belong}), sum(place >= belong for place in places)


def main(folder: Annotated[Path, typer.Argument(help="of a finished arm")]) -> None:
    """Print the mean over seeds, without the initial images, which all strategies share."""
    results = records.load_results(folder / "results.json")
    picked: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in results.rows:
        if row.round > 1:
            picked[row.strategy][row.seed] += row.picked
    for strategy, seeds in picked.items():
        counts = [count(images, results.plan.pool) for images in seeds.values()]
        scenes, strangers = (sum(column) / len(counts) for column in zip(*counts, strict=True))
        labels = len(next(iter(seeds.values())))
        Console().print(f"{strategy}: {labels} labels, {scenes:.1f} scenes, {strangers:.1f} images that do not belong")


if __name__ == "__main__":
    typer.run(main)
