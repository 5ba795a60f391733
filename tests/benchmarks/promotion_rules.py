"""Comparison of rules that decide whether a challenger replaces the champion while hardly any image is held out.

Every rule decides on the same sequences of trainings, so that only the decisions differ. A project has some rounds of
labels. Each round trains two challengers, a good one and a spoiled one; few_labels.py and few_boxes.py train them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
from pydantic import BaseModel

from backend.evaluation import bootstrap
from backend.evaluation.samples import Matches
from backend.types import IntArray

TOLERANCE, DRAWS = 0.02, 60


@dataclass(frozen=True, slots=True)
class Challenger:
    """A training on all labels of a round, and two more, each without one half of the new labels."""

    whole: Matches
    without: tuple[Matches, ...]  # () in a first round, which has no champion


@dataclass(frozen=True, slots=True)
class Round:
    """The images of a round, as rows of the matches, and its two challengers."""

    held: IntArray
    labeled: IntArray
    halves: tuple[IntArray, IntArray]  # of the labels that the champion has not learned from
    challengers: Mapping[str, Challenger]  # "good" and "spoiled"


Version = tuple[int, str]  # the number of its round, "good" or "spoiled"
# Whether a challenger replaces the champion, decided from what the live loop may know in that round.
Rule = Callable[[Round, Challenger, Matches], bool]


class Project:
    """The rounds of one seed; images are the rows of the matches. No rule has access to the test images."""

    def __init__(self, rounds: Sequence[Round], test: IntArray) -> None:
        self.rounds, self.test = tuple(rounds), test

    @cache  # noqa: B019 the projects live as long as the program
    def tested(self, version: Version) -> float:
        """Return the mAP50 of a training on the test images."""
        number, kind = version
        return quality(self.rounds[number - 1].challengers[kind].whole, self.test)

    @cache  # noqa: B019 as above
    def decides(self, rule: Rule, champion: Version, challenger: Version) -> bool:
        """Return whether a rule replaces an earlier training by a later one."""
        now, before = self.rounds[challenger[0] - 1], self.rounds[champion[0] - 1]
        return rule(now, now.challengers[challenger[1]], before.challengers[champion[1]].whole)


def halves_of(fresh: IntArray) -> tuple[IntArray, IntArray]:
    """Return the new labels in two parts, for the cross-validation."""
    return fresh[::2], fresh[1::2]


def quality(matches: Matches, rows: IntArray) -> float:
    """Return the mAP50 on some of the images."""
    counts = np.zeros((1, matches.size), dtype=np.int64)
    counts[0, rows] = 1
    return float(np.nan_to_num(matches.quality(counts))[0])


def part(matches: Matches, rows: IntArray) -> Matches:
    """Return the matches on some of the images."""
    place = np.full(matches.size, -1)
    place[rows] = np.arange(len(rows))
    is_selected = place[matches.images] >= 0
    return Matches(
        place[matches.images[is_selected]],
        matches.classes[is_selected],
        matches.confidence[is_selected],
        matches.right[is_selected],
        matches.labels[rows],
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
    """Publish every challenger that has not collapsed, the rule of earlier releases."""
    return bool((challenger.whole.confidence >= 0.05).any())


def held_out(now: Round, challenger: Challenger, champion: Matches) -> bool:
    """Publish a challenger that is not worse on the few held-out images."""
    if not len(now.held):
        return True
    return quality(challenger.whole, now.held) >= quality(champion, now.held) - TOLERANCE


def clearly(now: Round, challenger: Challenger, champion: Matches) -> bool:
    """Publish a challenger that is better in 97.5% of the draws of the held-out images."""
    if not len(now.held):
        return False
    ours, theirs = part(challenger.whole, now.held), part(champion, now.held)
    span = bootstrap.difference(ours, theirs, np.random.default_rng(0), DRAWS)
    return span is not None and span[0] > 0


def crossed(now: Round, challenger: Challenger, champion: Matches) -> bool:
    """Publish a challenger whose recipe is not worse on the new labels, by cross-validation over two halves."""
    first, second = (part(matches, rows) for matches, rows in zip(challenger.without, now.halves, strict=True))
    both, rows = joined(first, second), np.concatenate(now.halves)
    return quality(both, np.arange(both.size)) >= quality(champion, rows) - TOLERANCE


def labels(now: Round, challenger: Challenger, champion: Matches) -> bool:
    """Publish a challenger that is not worse on all labeled images, including learned ones."""
    return quality(challenger.whole, now.labeled) >= quality(champion, now.labeled) - TOLERANCE


def clearly_on_labels(now: Round, challenger: Challenger, champion: Matches) -> bool:
    """Publish a challenger that is better in 97.5% of the draws of all labeled images."""
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


def rules_of(projects: Sequence[Project]) -> Mapping[str, Rule]:
    """Return the rules that can decide; cross-validation only if its trainings were run."""
    later = [
        challenger for project in projects for now in project.rounds[1:] for challenger in now.challengers.values()
    ]
    return {
        name: rule
        for name, rule in RULES.items()
        if rule is not crossed or all(challenger.without for challenger in later)
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
    """The loss of a rule against the rule that knows the test images, in mAP50, the mean over seeds."""

    rule: str
    scenario: str
    loss: float
    low: float  # 95% bootstrap interval over seeds
    high: float
    served: float  # mAP50 of the serving versions


class Table(BaseModel):
    """The results, and the setup of the experiment."""

    seeds: int
    labels: list[int]
    held_out: list[float]  # images, mean over seeds
    good: list[float]  # mAP50 of the good trainings, mean over seeds
    spoiled: list[float]
    lines: list[Line]
    software: dict[str, str]


def lines_of(projects: Sequence[Project]) -> Iterator[Line]:
    """Yield the loss of each rule: with good trainings only, and with one spoiled training."""
    most_of = {project: best(project) for project in projects}
    sequences = list(product(("good", "spoiled"), repeat=len(projects[0].rounds) - 1))
    for scenario, spoiled in {"none spoiled": 0, "one spoiled": 1}.items():
        chosen = [kinds for kinds in sequences if kinds.count("spoiled") == spoiled]
        best_scores = np.array([np.mean([served(p, kinds, most_of[p]) for kinds in chosen]) for p in projects])
        for name, rule in rules_of(projects).items():
            scores = np.array([np.mean([served(p, kinds, rule) for kinds in chosen]) for p in projects])
            draws = np.random.default_rng(0).integers(0, len(scores), (2000, len(scores)))
            low, high = np.quantile((best_scores - scores)[draws].mean(axis=1), [0.025, 0.975]).tolist()
            loss, mean = float((best_scores - scores).mean()), float(scores.mean())
            yield Line(rule=name, scenario=scenario, loss=loss, low=low, high=high, served=mean)


def table(projects: Sequence[Project], software: Mapping[str, str]) -> Table:
    """Return the results of all seeds."""
    rounds = range(len(projects[0].rounds))

    def means(kind: str) -> list[float]:
        return [float(np.mean([project.tested((n + 1, kind)) for project in projects])) for n in rounds]

    return Table(
        seeds=len(projects),
        labels=[len(round_.labeled) for round_ in projects[0].rounds],
        held_out=[float(np.mean([len(project.rounds[n].held) for project in projects])) for n in rounds],
        good=means("good"),
        spoiled=means("spoiled"),
        lines=list(lines_of(projects)),
        software=dict(software),
    )


def losses(results: Table) -> str:
    """Return the table of the losses in Markdown."""
    cells = {(line.rule, line.scenario): f"{line.loss:.3f} [{line.low:.3f}, {line.high:.3f}]" for line in results.lines}
    scenarios = tuple(dict.fromkeys(line.scenario for line in results.lines))
    rules = dict.fromkeys(line.rule for line in results.lines)
    rows = "".join(f"| {rule} | " + " | ".join(cells[rule, name] for name in scenarios) + " |\n" for rule in rules)
    return f"| rule | {' | '.join(scenarios)} |\n|---|{'---|' * len(scenarios)}\n{rows}"
