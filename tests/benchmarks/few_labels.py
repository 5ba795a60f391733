"""Who decides while hardly any image is held out? `python -m tests.benchmarks.few_labels` measures six rules.

A project of scikit-learn's digits gets ten labels a round, drawn by chance. Each round trains two challengers, small
neural networks: one as it should be, and a spoiled one that ends after three epochs, as with a wrong setting. Every
rule then decides the same sequences of challengers. A network's answer is taken as a detection, so that the quality is
a mean average precision as of boxes. It takes minutes and writes docs/few-labels.json; `proof` puts
that into docs/results.md.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from backend import bootstrap, experiment
from backend.bootstrap import Matches
from backend.types import IntArray

SEEDS, ROUNDS, PER_ROUND, TEST = 8, 4, 10, 200
EPOCHS, SPOILED = 100, 3
VAL_SHARE, TOLERANCE, DRAWS = 0.2, 0.02, 60
CLASSES = 10
KEPT = Path(__file__).parents[2] / "docs" / "few-labels.json"
QUESTION = "Who decides while hardly any image is held out?"


@dataclass(frozen=True, slots=True)
class Challenger:
    """A training of one round on all its labels, and two more that left out one half of the new ones each."""

    whole: Matches
    without: tuple[Matches, Matches]


@dataclass(frozen=True, slots=True)
class Round:
    """The images of a round, as rows of the matches, and its two challengers."""

    held: IntArray
    labeled: IntArray
    halves: tuple[IntArray, IntArray]  # of the labels that the champion has not learned from
    challengers: Mapping[str, Challenger]  # "good" and "spoiled"


Version = tuple[int, str]  # the number of its round, "good" or "spoiled"
# Whether a challenger takes the place of the champion, from what production may know in that round.
Rule = Callable[[Round, Challenger, Matches], bool]


class Project:
    """The rounds of one seed; its images are the rows, the test images the last ones."""

    def __init__(self, seed: int) -> None:
        data, rng = load_digits(), np.random.default_rng(seed)
        chosen = rng.permutation(len(data.target))[: ROUNDS * PER_ROUND + TEST]
        self._pixels: npt.NDArray[Any] = data.data[chosen] / 16
        self._digits: IntArray = data.target[chosen].astype(np.int64)
        self._held = rng.random(ROUNDS * PER_ROUND) < VAL_SHARE
        self._seed = seed
        self.test: IntArray = np.arange(ROUNDS * PER_ROUND, len(chosen))
        self.rounds = tuple(self._round(number) for number in range(1, ROUNDS + 1))

    @cache  # noqa: B019 the projects live as long as the program
    def tested(self, version: Version) -> float:
        """Return the mAP50 of a training on the test images."""
        number, kind = version
        return quality(self.rounds[number - 1].challengers[kind].whole, self.test)

    @cache  # noqa: B019 as above
    def decides(self, rule: Rule, champion: Version, challenger: Version) -> bool:
        """Return whether a rule lets a training take the place of an earlier one."""
        now, before = self.rounds[challenger[0] - 1], self.rounds[champion[0] - 1]
        return rule(now, now.challengers[challenger[1]], before.challengers[champion[1]].whole)

    def _round(self, number: int) -> Round:
        labeled: IntArray = np.arange(number * PER_ROUND)
        learned = labeled[~self._held[labeled]]
        fresh = learned[learned >= (number - 1) * PER_ROUND]
        halves = fresh[::2], fresh[1::2]
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
        return Round(labeled[self._held[labeled]], labeled, halves, challengers)

    def _matches(self, rows: IntArray, epochs: int, number: int) -> Matches:
        """Train on some rows, and return what the network says of all."""
        net = MLPClassifier((32,), max_iter=epochs, random_state=1000 * self._seed + number, learning_rate_init=0.01)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            net.fit(self._pixels[rows], self._digits[rows])
        probs = net.predict_proba(self._pixels)
        said = net.classes_[probs.argmax(axis=1)].astype(np.int64)
        return Matches(
            images=np.arange(len(said)),
            classes=said,
            confidence=probs.max(axis=1).astype(np.float32),
            right=said == self._digits,
            labels=np.eye(CLASSES, dtype=np.int64)[self._digits],
        )


def quality(found: Matches, rows: IntArray) -> float:
    """Return the mAP50 on some of the images."""
    counts = np.zeros((1, found.size), dtype=np.int64)
    counts[0, rows] = 1
    return float(np.nan_to_num(found.quality(counts))[0])


def part(found: Matches, rows: IntArray) -> Matches:
    """Return the matches on some of the images."""
    place = np.full(found.size, -1)
    place[rows] = np.arange(len(rows))
    kept = place[found.images] >= 0
    return Matches(
        place[found.images[kept]], found.classes[kept], found.confidence[kept], found.right[kept], found.labels[rows]
    )


def joined(first: Matches, second: Matches) -> Matches:
    """Return the matches on the images of both."""
    return Matches(
        images=np.concatenate([first.images, second.images + first.size]),
        classes=np.concatenate([first.classes, second.classes]),
        confidence=np.concatenate([first.confidence, second.confidence]),
        right=np.concatenate([first.right, second.right]),
        labels=np.concatenate([first.labels, second.labels]),
    )


def publish(_: Round, challenger: Challenger, champion: Matches) -> bool:
    """Always, as long as it has not collapsed: the rule so far."""
    return bool((challenger.whole.confidence >= 0.05).any())


def held_out(now: Round, challenger: Challenger, champion: Matches) -> bool:
    """If it is not worse on the held-out images, few as they are."""
    if not len(now.held):
        return True
    return quality(challenger.whole, now.held) >= quality(champion, now.held) - TOLERANCE


def clearly(now: Round, challenger: Challenger, champion: Matches) -> bool:
    """If 97.5% of draws of the held-out images find it better."""
    if not len(now.held):
        return False
    ours, theirs = part(challenger.whole, now.held), part(champion, now.held)
    span = bootstrap.difference(ours, theirs, np.random.default_rng(0), DRAWS)
    return span is not None and span[0] > 0


def crossed(now: Round, challenger: Challenger, champion: Matches) -> bool:
    """If by cross-validation it is not worse on the labels that are new: half of them train, the other half judges."""
    first, second = (part(one, rows) for one, rows in zip(challenger.without, now.halves, strict=True))
    found, rows = joined(first, second), np.concatenate(now.halves)
    return quality(found, np.arange(found.size)) >= quality(champion, rows) - TOLERANCE


def labels(now: Round, challenger: Challenger, champion: Matches) -> bool:
    """If it is not worse on all labels there are, those that it has learned from as well."""
    return quality(challenger.whole, now.labeled) >= quality(champion, now.labeled) - TOLERANCE


def clearly_on_labels(now: Round, challenger: Challenger, champion: Matches) -> bool:
    """If 97.5% of draws of all labels there are find it better."""
    ours, theirs = part(challenger.whole, now.labeled), part(champion, now.labeled)
    span = bootstrap.difference(ours, theirs, np.random.default_rng(0), DRAWS)
    return span is not None and span[0] > 0


RULES: Mapping[str, Rule] = {
    "publish": publish,
    "held out": held_out,
    "clearly better": clearly,
    "cross-validation": crossed,
    "all labels": labels,
    "clearly better on all labels": clearly_on_labels,
}


def served(project: Project, kinds: Sequence[str], rule: Rule) -> float:
    """Return the mean mAP50, on the test images, of the versions that serve after each round but the first."""
    champion, scores = (1, "good"), []
    for number, kind in enumerate(kinds, 2):
        if project.decides(rule, champion, (number, kind)):
            champion = number, kind
        scores.append(project.tested(champion))
    return float(np.mean(scores))


def best(project: Project) -> Rule:
    """Return the rule that knows the test images."""
    test = project.test
    return lambda now, challenger, champion: quality(challenger.whole, test) >= quality(champion, test)


class Line(BaseModel):
    """What a rule loses against the rule that knows the test images, in mAP50: the mean over seeds."""

    rule: str
    scenario: str
    loss: float
    low: float  # 95% bootstrap interval over seeds
    high: float
    served: float  # mAP50 of what serves


class Table(BaseModel):
    """The results, and what they are of."""

    seeds: int
    labels: list[int]
    held_out: list[float]  # images, mean over seeds
    good: list[float]  # mAP50 of the trainings as they should be, mean over seeds
    spoiled: list[float]
    lines: list[Line]
    software: dict[str, str]


def lines_of(projects: Sequence[Project]) -> Iterator[Line]:
    """Yield what each rule loses: where all trainings are well, and where one of them is spoiled."""
    most_of = {project: best(project) for project in projects}
    sequences = list(product(("good", "spoiled"), repeat=ROUNDS - 1))
    for scenario, spoiled in {"none spoiled": 0, "one spoiled": 1}.items():
        chosen = [kinds for kinds in sequences if kinds.count("spoiled") == spoiled]
        most = np.array([np.mean([served(p, kinds, most_of[p]) for kinds in chosen]) for p in projects])
        for name, rule in RULES.items():
            got = np.array([np.mean([served(p, kinds, rule) for kinds in chosen]) for p in projects])
            draws = np.random.default_rng(0).integers(0, len(got), (2000, len(got)))
            low, high = np.quantile((most - got)[draws].mean(axis=1), [0.025, 0.975]).tolist()
            loss, mean = float((most - got).mean()), float(got.mean())
            yield Line(rule=name, scenario=scenario, loss=loss, low=low, high=high, served=mean)


def table(projects: Sequence[Project]) -> Table:
    """Return the results of all seeds."""

    def means(kind: str) -> list[float]:
        return [float(np.mean([project.tested((n + 1, kind)) for project in projects])) for n in range(ROUNDS)]

    return Table(
        seeds=len(projects),
        labels=[PER_ROUND * n for n in range(1, ROUNDS + 1)],
        held_out=[float(np.mean([len(project.rounds[n].held) for project in projects])) for n in range(ROUNDS)],
        good=means("good"),
        spoiled=means("spoiled"),
        lines=list(lines_of(projects)),
        software={"scikit-learn": version("scikit-learn"), "numpy": version("numpy")},
    )


def section() -> str:
    """Return the part of docs/results.md."""
    found = Table.model_validate_json(KEPT.read_bytes())
    software = ", ".join(f"{name} {version}" for name, version in found.software.items())
    losses = {(line.rule, line.scenario): f"{line.loss:.3f} [{line.low:.3f}, {line.high:.3f}]" for line in found.lines}
    scenarios = tuple(dict.fromkeys(line.scenario for line in found.lines))
    rules = dict.fromkeys(line.rule for line in found.lines)
    rows = "".join(f"| {rule} | " + " | ".join(losses[rule, each] for each in scenarios) + " |\n" for rule in rules)
    quality = ", ".join(f"{value:.3f}" for value in found.good)
    spoiled = f"{min(found.spoiled):.3f} to {max(found.spoiled):.3f}"
    return f"""
## {QUESTION}

`python -m tests.benchmarks.few_labels`

{found.seeds} seeds, {software}. Small networks on scikit-learn's digits, {found.labels[0]} labels a round up to
{found.labels[-1]}; on average {found.held_out[0]:.1f} to {found.held_out[-1]:.1f} of them are held out.
Trainings as they should be have a mAP50 of {quality}, round by round, on {TEST} test images;
spoiled ones, of {SPOILED} epochs, {spoiled}.
The table has what a rule loses against one that knows the test images: mAP50 of the version that serves, the mean over
the rounds, with the 95% bootstrap interval over seeds.

| rule | {" | ".join(scenarios)} |
|---|{"---|" * len(scenarios)}
{rows}
"publish" is the rule that was: anything that detects something. "held out" is the rule for ten images and more.
"cross-validation" trains twice more, each time without one half of the new labels. What these two models find in the
half that they lack stands beside what the champion finds there. "all labels" measures both models on all labels, though
they have learned most of them. It loses least where a training may be spoiled, and needs no further training, so it
decides. Not measured: boxes in photographs, and labels that are wrong.
"""


if __name__ == "__main__":
    experiment.write(KEPT.parent, KEPT.name, table([Project(seed) for seed in range(SEEDS)]))
