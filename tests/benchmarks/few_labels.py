"""Which rule should decide while hardly any image is held out? `python -m tests.benchmarks.few_labels` measures six.

A project with scikit-learn's digits gets ten random labels per round. Each round trains two challengers, small neural
networks: a good one, and a spoiled one that ends after three epochs, as with a wrong setting. promotion_rules.py has
the rules. The answer of a network counts as a detection, so that the quality is a mean average precision as for boxes.
The run takes minutes and writes docs/few-labels.json; `proof` writes the results into docs/results.md.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from backend.evaluation.samples import Matches
from backend.simulate import records
from backend.types import BoolArray, IntArray
from tests.benchmarks.promotion_rules import Challenger, Project, Round, Table, halves_of, losses, table

SEEDS, ROUNDS, PER_ROUND, TEST = 8, 4, 10, 200
EPOCHS, SPOILED = 100, 3
VAL_SHARE = 0.2
CLASSES = 10
KEPT = Path(__file__).parents[2] / "docs" / "few-labels.json"
QUESTION = "Which rule should decide while hardly any image is held out?"


def project_of_digits(seed: int) -> Project:
    """Draw the images of a seed, and train its rounds."""
    data, rng = load_digits(), np.random.default_rng(seed)
    chosen = rng.permutation(len(data.target))[: ROUNDS * PER_ROUND + TEST]
    digits = _Digits(data.data[chosen] / 16, data.target[chosen].astype(np.int64), seed)
    held = rng.random(ROUNDS * PER_ROUND) < VAL_SHARE
    rounds = [digits.round(number, held) for number in range(1, ROUNDS + 1)]
    return Project(rounds, np.arange(ROUNDS * PER_ROUND, len(chosen)))


@dataclass(frozen=True, slots=True)
class _Digits:
    """The images of one seed: first those that get labels, in labeling order, then the test images."""

    pixels: npt.NDArray[Any]
    digits: IntArray
    seed: int

    def round(self, number: int, held: BoolArray) -> Round:
        labeled: IntArray = np.arange(number * PER_ROUND)
        learned = labeled[~held[labeled]]
        halves = halves_of(learned[learned >= (number - 1) * PER_ROUND])
        challengers = {
            kind: Challenger(
                self._matches(learned, epochs, number),
                (
                    self._matches(np.setdiff1d(learned, halves[0]), epochs, number),
                    self._matches(np.setdiff1d(learned, halves[1]), epochs, number),
                ),
            )
            for kind, epochs in (("good", EPOCHS), ("spoiled", SPOILED))
        }
        return Round(labeled[held[labeled]], labeled, halves, challengers)

    def _matches(self, rows: IntArray, epochs: int, number: int) -> Matches:
        """Train on some rows, and return the network's answers for all rows."""
        net = MLPClassifier((32,), max_iter=epochs, random_state=1000 * self.seed + number, learning_rate_init=0.01)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            net.fit(self.pixels[rows], self.digits[rows])
        probs = net.predict_proba(self.pixels)
        likeliest = net.classes_[probs.argmax(axis=1)].astype(np.int64)
        return Matches(
            images=np.arange(len(likeliest)),
            classes=likeliest,
            confidence=probs.max(axis=1).astype(np.float32),
            right=likeliest == self.digits,
            labels=np.eye(CLASSES, dtype=np.int64)[self.digits],
        )


def section() -> str:
    """Return this experiment's part of docs/results.md."""
    results = Table.model_validate_json(KEPT.read_bytes())
    software = ", ".join(f"{name} {number}" for name, number in results.software.items())
    quality = ", ".join(f"{value:.3f}" for value in results.good)
    spoiled = f"{min(results.spoiled):.3f} to {max(results.spoiled):.3f}"
    held_out = f"{results.held_out[0]:.1f} to {results.held_out[-1]:.1f}"
    return f"""
## {QUESTION}

`python -m tests.benchmarks.few_labels`

{results.seeds} seeds, {software}.
Small networks learn scikit-learn's digits, with {results.labels[0]} new labels per round, up to {results.labels[-1]};
on average, {held_out} of them are held out. Good trainings have {EPOCHS} epochs at most. Their mAP50 in the rounds is
{quality}, on {TEST} test images. Spoiled trainings have {SPOILED} epochs, and an mAP50 of {spoiled}.
The table shows the loss of each rule against a rule that knows the test images. The loss is in mAP50 of the serving
version, the mean over the rounds, with the 95% bootstrap interval over seeds.

{losses(results)}
- "publish" was the rule before: it publishes every version that detects something.
- "held out" is the rule for ten and more held-out images.
- "cross-validation" trains two more models, each without one half of the new labels. Their detections on the half that
  they have not learned are compared with the champion's.
- "all labels" measures both models on all labeled images, although they have learned most of these.
- "clearly better" publishes only if 97.5% of the bootstrap draws prefer the challenger.

"all labels" loses least if a training may be spoiled, and needs no further training. So it is the rule for few held-out
images. The next table has the same question for YOLO. We did not measure boxes in photographs or wrong labels.
"""


if __name__ == "__main__":
    software = {name: version(name) for name in ("scikit-learn", "numpy")}
    records.write(KEPT.parent, KEPT.name, table([project_of_digits(seed) for seed in range(SEEDS)], software))
