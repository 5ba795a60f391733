"""Classification of scikit-learn's digits by logistic regression: experiments that take minutes, with many seeds.

`python -m tests.benchmarks.digits` writes two files into docs/experiments. share-digits.json repeats the sweep of the
CIFAR-10 talk: which share of a batch should be picked by margin? choice-digits.json compares measures of the
uncertainty of a choice: over its classes, or as of a box.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from backend import acquisition
from backend.acquisition.pool import Pool
from backend.acquisition.uncertainty import margin
from backend.sampling import ranking
from backend.simulate import records
from backend.types import IntArray
from tests.benchmarks.lines import COMMITTED, Line, Table

SHARES = tuple(share / 10 for share in range(11))
MEASURES = ("entropy", "class_entropy", "least_confidence", "margin", "variance")
AS_OF_BOXES = ("least_confidence", "margin", "variance")  # the entropy as of a box is class_entropy
SEEDS, INITIAL, BATCH, ROUNDS = 20, 20, 20, 10
POOL, TEST = 1257, 540
SHARE, CHOICE = "share-digits", "choice-digits"

# (n, C) probabilities, (n,) unlabeled images, generator -> their rows in labeling order
Pick = Callable[[npt.NDArray[Any], IntArray, np.random.Generator], IntArray]


def curve(pick: Pick, seed: int) -> tuple[list[float], list[float]]:
    """Return the number of labels and the test accuracy of each round."""
    data = load_digits()
    pool_x, test_x, pool_y, test_y = train_test_split(
        data.data / 16, data.target, test_size=TEST, random_state=seed, stratify=data.target
    )
    rng = np.random.default_rng(seed)
    labeled: IntArray = rng.permutation(len(pool_x))[:INITIAL]
    labels, accuracy = [], []
    for _ in range(ROUNDS):
        model = LogisticRegression(C=10, max_iter=1000)
        with warnings.catch_warnings(action="error", category=ConvergenceWarning):
            model.fit(pool_x[labeled], pool_y[labeled])
        labels.append(float(len(labeled)))
        accuracy.append(round(float(model.score(test_x, test_y)), 4))
        unlabeled = np.setdiff1d(np.arange(len(pool_x)), labeled)
        picked = pick(model.predict_proba(pool_x[unlabeled]), unlabeled, rng)[:BATCH]
        labeled = np.concatenate([labeled, unlabeled[picked]])
    return labels, accuracy


def by_margin(share: float, probs: npt.NDArray[Any], unlabeled: IntArray, rng: np.random.Generator) -> IntArray:
    """Pick a share of every batch by margin, and the others at random."""
    by_value = ranking.top(margin(probs).astype(np.float32), unlabeled)
    return ranking.mixed(by_value, rng.permutation(len(unlabeled)), batch=BATCH, share=share)


def by_strategy(
    name: str, probs: npt.NDArray[Any], unlabeled: IntArray, rng: np.random.Generator, *, exclusive: bool
) -> IntArray:
    """Pick by an acquisition function; if not `exclusive`, the image is treated as a box, which may be nothing."""
    scores = probs.astype(np.float32)
    pool = Pool(unlabeled, np.arange(len(unlabeled) + 1), scores, exclusive=exclusive)
    return ranking.top(acquisition.get(name)(pool, rng).astype(np.float32), unlabeled)


def picks() -> dict[str, dict[str, Pick]]:
    """Return, for each experiment, the names of its lines and the functions that pick."""
    return {
        SHARE: {f"{share:.0%}": partial(by_margin, share) for share in SHARES},
        CHOICE: {
            "random": partial(by_margin, 0.0),
            **{name: partial(by_strategy, name, exclusive=True) for name in MEASURES},
            **{f"{name} as of a box": partial(by_strategy, name, exclusive=False) for name in AS_OF_BOXES},
        },
    }


def run(lines: Mapping[str, Pick]) -> Table:
    """Return the learning curves of all lines and seeds."""
    table_lines = []
    for name, pick in lines.items():
        curves = [curve(pick, seed) for seed in range(SEEDS)]
        images, quality = (tuple(tuple(result[column]) for result in curves) for column in (0, 1))
        table_lines.append(Line(name=name, images=images, quality=quality))
    facts = f"Logistic regression on 8x8 pixels, a fresh split of {POOL} pool and {TEST} test images for each seed."
    software = {name: version(name) for name in ("numpy", "scikit-learn")}
    return Table(
        lines=tuple(table_lines), facts=facts, date=datetime.now(UTC), machine=records.machine(), software=software
    )


if __name__ == "__main__":
    for name, lines in picks().items():
        records.write(COMMITTED, f"{name}.json", run(lines))
