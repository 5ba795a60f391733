"""The CIFAR-10 talk's sweep on scikit-learn's digits as classification: which share of a batch to pick by margin?

`python -m tests.benchmarks.digits` writes docs/experiments/share-digits.json, in some minutes.
"""

from __future__ import annotations

import warnings
from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from backend import experiment, ranking
from backend.acquisition.uncertainty import margin
from backend.types import IntArray
from tests.benchmarks.lines import COMMITTED, Line, Table

SHARES = tuple(share / 10 for share in range(11))
SEEDS, INITIAL, BATCH, ROUNDS = 20, 20, 20, 10
POOL, TEST = 1257, 540
NAME = "share-digits"


def curve(share: float, seed: int) -> tuple[list[float], list[float]]:
    """Return labels and test accuracy of each round, `share` of every batch picked by margin."""
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
        rest = np.setdiff1d(np.arange(len(pool_x)), labeled)
        by_value = ranking.top(margin(model.predict_proba(pool_x[rest])).astype(np.float32), rest)
        picked = ranking.mixed(by_value, rng.permutation(len(rest)), batch=BATCH, share=share)[:BATCH]
        labeled = np.concatenate([labeled, rest[picked]])
    return labels, accuracy


def run() -> Table:
    """Return the learning curves of all shares and seeds."""
    lines = []
    for share in SHARES:
        found = [curve(share, seed) for seed in range(SEEDS)]
        lines.append(
            Line(
                name=f"{share:.0%}",
                images=tuple(tuple(labels) for labels, _ in found),
                quality=tuple(tuple(accuracy) for _, accuracy in found),
            )
        )
    facts = f"Logistic regression on 8x8 pixels, a fresh split of {POOL} pool and {TEST} test images for each seed."
    software = {name: version(name) for name in ("numpy", "scikit-learn")}
    return Table(
        lines=tuple(lines), facts=facts, date=datetime.now(UTC), machine=experiment.machine(), software=software
    )


if __name__ == "__main__":
    experiment.write(COMMITTED, f"{NAME}.json", run())
