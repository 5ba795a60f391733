"""The finished rounds of one strategy with one seed, on disk, and what the next round needs from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

from backend.policy.voters import voters
from backend.settings import Settings, versions_kept
from backend.simulate import first_batches, records
from backend.simulate.records import Pick, Round
from backend.storage import LocalFiles

PROGRESS_FILE = "progress.txt"


class History:
    """The finished rounds of a unit; the first round is the training on the first batch, which lines share."""

    def __init__(self, folder: Path, strategy: str, seed: int, settings: Settings) -> None:
        self._unit = records.unit_folder(folder, strategy, seed)
        first, _ = first_batches.parts(strategy, settings.first_batch)
        self._shared = records.unit_folder(folder, first_batches.initial(first), seed)
        self._settings = settings
        self._rounds: list[Round] = list(records.load_rounds(self._unit))

    def __len__(self) -> int:
        return len(self._rounds)

    @property
    def last(self) -> Round:
        """The newest finished round."""
        return self._rounds[-1]

    @property
    def champion(self) -> int:
        """The round whose version serves, 0 if there is none yet."""
        return self.last.champion if self._rounds else 0

    @property
    def picks(self) -> tuple[Pick, ...]:
        """All images labeled so far."""
        return tuple(pick for finished in self._rounds for pick in finished.picked)

    def weights(self, number: int) -> Path:
        """Return the weights of a round."""
        return records.weights_of(self._shared if number == 1 else self._unit, number)

    def learned(self, number: int, learns: Callable[[Sequence[Pick]], frozenset[int]]) -> frozenset[int]:
        """Return the tasks that the weights of a round have ever learned from.

        `learns` returns the tasks from which a training on these picks learns.
        """
        learned = learns([pick for finished in self._rounds[:number] for pick in finished.picked])
        start = self._rounds[number - 1].started_from
        return learned | self.learned(start, learns) if start else learned

    def voters(self) -> tuple[int, ...]:
        """Return the rounds whose versions would vote on a pool, newest first."""
        published = [finished.round for finished in reversed(self._rounds) if finished.published]
        chosen = voters([(str(number), False) for number in published], self._settings.committee_size)
        return tuple(published[place] for place in chosen)

    def older_versions(self) -> tuple[int, ...]:
        """Return the earlier published rounds whose pools the live loop would still keep, newest first."""
        published = [finished.round for finished in self._rounds if finished.published]
        return tuple(reversed(published[-1 - versions_kept(self._settings) : -1]))

    def losses(self, number: int) -> dict[int, float]:
        """Return the losses of a round's version on the tasks that were labeled from its queue, by task id."""
        picks = (pick for last, then in pairwise(self._rounds) if last.champion == number for pick in then.picked)
        return {pick.id: pick.loss for pick in picks if pick.loss is not None}

    def begin(self) -> None:
        """Copy the shared training as the first round."""
        self._add(records.load_rounds(self._shared)[0])

    def keep(self, finished: Round, weights: Path) -> None:
        """Store a finished round and its weights, and delete weights that no later round needs."""
        # Before the record: a round with a record is finished.
        weights.replace(records.weights_of(self._unit, finished.round))
        self._add(finished)

    def report(self, share: float) -> None:
        """Write the number of finished rounds plus the share of the current one, for the progress bar."""
        LocalFiles(self._unit).write(PROGRESS_FILE, f"{len(self) + share:.4f}".encode())

    def _add(self, finished: Round) -> None:
        records.save_round(self._unit, finished)
        self._rounds.append(finished)
        self.report(0.0)
        needed = self.voters()
        for number in range(2, finished.round):
            if number not in needed:
                records.weights_of(self._unit, number).unlink(missing_ok=True)
