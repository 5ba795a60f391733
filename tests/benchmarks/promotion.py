"""Rules that say whether a challenger takes the champion's place while hardly any image is held out, side by side.

Every rule decides the same sequences of trainings, so that nothing differs but the judging. A project has some rounds
of labels; each round trains two challengers, one as it should be and a spoiled one. few_labels.py and few_boxes.py
train them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
from pydantic import BaseModel

from backend.evaluation import bootstrap
from backend.evaluation.bootstrap import Matches
from backend.types import IntArray

TOLERANCE, DRAWS = 0.02, 60


@dataclass(frozen=True, slots=True)
class Challenger:
    """A training of one round on all its labels, and two more that left out one half of the new ones each."""

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
# Whether a challenger takes the place of the champion, from what production may know in that round.
Rule = Callable[[Round, Challenger, Matches], bool]


class Project:
    """The rounds of one seed, whose images are the rows of the matches; no rule sees the test images."""

    def __init__(self, rounds: Sequence[Round], test: IntArray) -> None:
        self.rounds, self.test = tuple(rounds), test

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


def halves_of(fresh: IntArray) -> tuple[IntArray, IntArray]:
    """Return the new labels in two parts, for the cross-validation."""
    return fresh[::2], fresh[1::2]


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


def rules_of(projects: Sequence[Project]) -> Mapping[str, Rule]:
    """Return the rules that can be asked: not cross-validation where its trainings were not run."""
    later = [one for project in projects for now in project.rounds[1:] for one in now.challengers.values()]
    return {name: rule for name, rule in RULES.items() if rule is not crossed or all(one.without for one in later)}


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
    sequences = list(product(("good", "spoiled"), repeat=len(projects[0].rounds) - 1))
    for scenario, spoiled in {"none spoiled": 0, "one spoiled": 1}.items():
        chosen = [kinds for kinds in sequences if kinds.count("spoiled") == spoiled]
        most = np.array([np.mean([served(p, kinds, most_of[p]) for kinds in chosen]) for p in projects])
        for name, rule in rules_of(projects).items():
            got = np.array([np.mean([served(p, kinds, rule) for kinds in chosen]) for p in projects])
            draws = np.random.default_rng(0).integers(0, len(got), (2000, len(got)))
            low, high = np.quantile((most - got)[draws].mean(axis=1), [0.025, 0.975]).tolist()
            loss, mean = float((most - got).mean()), float(got.mean())
            yield Line(rule=name, scenario=scenario, loss=loss, low=low, high=high, served=mean)


def table(projects: Sequence[Project], software: Mapping[str, str]) -> Table:
    """Return the results of all seeds."""
    rounds = range(len(projects[0].rounds))

    def means(kind: str) -> list[float]:
        return [float(np.mean([project.tested((n + 1, kind)) for project in projects])) for n in rounds]

    return Table(
        seeds=len(projects),
        labels=[len(one.labeled) for one in projects[0].rounds],
        held_out=[float(np.mean([len(project.rounds[n].held) for project in projects])) for n in rounds],
        good=means("good"),
        spoiled=means("spoiled"),
        lines=list(lines_of(projects)),
        software=dict(software),
    )


def losses(results: Table) -> str:
    """Return the table of what each rule loses, in Markdown."""
    cells = {(line.rule, line.scenario): f"{line.loss:.3f} [{line.low:.3f}, {line.high:.3f}]" for line in results.lines}
    scenarios = tuple(dict.fromkeys(line.scenario for line in results.lines))
    rules = dict.fromkeys(line.rule for line in results.lines)
    rows = "".join(f"| {rule} | " + " | ".join(cells[rule, name] for name in scenarios) + " |\n" for rule in rules)
    return f"| rule | {' | '.join(scenarios)} |\n|---|{'---|' * len(scenarios)}\n{rows}"
