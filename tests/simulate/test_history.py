from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backend.settings import Settings
from backend.simulate import records
from backend.simulate.history import PROGRESS_FILE, History
from backend.simulate.records import INITIAL, Pick, Round
from tests.simulate.test_records import finished

CHAMPIONS = (1, 2, 2, 4, 5, 6, 7)  # the third was not published


def done(number: int, champion: int, **changed: Any) -> Round:
    """Return a round with a single pick, the image with the round's number."""
    pick = Pick(id=number, image="", random=False, loss=number / 10)
    fields = {"picked": (pick,), "published": champion == number, "champion": champion, **changed}
    return finished(number).model_copy(update=fields)


def history(folder: Path, champions: Sequence[int] = CHAMPIONS, **settings: Any) -> History:
    """Return the history of seven rounds; all strategies share the first."""
    save(records.unit_folder(folder, INITIAL, 0), 1)
    records.save_round(records.unit_folder(folder, INITIAL, 0), done(1, champions[0]))
    filled = History(folder, "entropy", 0, Settings(**settings))
    filled.begin()
    for number, champion in enumerate(champions[1:], 2):
        filled.keep(done(number, champion), save(folder / "work", number))
    return filled


def save(folder: Path, number: int) -> Path:
    """Write a placeholder for weights, under their name."""
    folder.mkdir(parents=True, exist_ok=True)
    path = records.weights_of(folder, number)
    path.write_text(str(number))
    return path


def test_a_new_unit_has_no_rounds(tmp_path: Path) -> None:
    new = History(tmp_path, "entropy", 0, Settings())
    assert (len(new), new.champion, new.picks, new.voters(), new.older_versions()) == (0, 0, (), (), ())


def test_a_history_is_read_back_from_disk(tmp_path: Path) -> None:
    written = history(tmp_path)
    read = History(tmp_path, "entropy", 0, Settings())
    for rounds in (written, read):
        assert (len(rounds), rounds.champion, rounds.last.round) == (7, 7, 7)
        assert [pick.id for pick in rounds.picks] == [1, 2, 3, 4, 5, 6, 7]
    assert (records.unit_folder(tmp_path, "entropy", 0) / PROGRESS_FILE).read_text() == "7.0000"


def test_losses_disappear_with_deleted_pools(tmp_path: Path) -> None:
    """Before version 7 ranks, the pools of versions 6, 5 and 4 exist, with the losses of the picks after each."""
    rounds = history(tmp_path)
    assert [rounds.losses(number) for number in rounds.older_versions()] == [{7: 0.7}, {6: 0.6}, {5: 0.5}]


def test_published_rounds_vote_and_their_weights_are_kept(tmp_path: Path) -> None:
    rounds = history(tmp_path, (1, 2, 2, 4), committee_size=3)
    assert rounds.voters() == (4, 2, 1)
    assert [rounds.weights(number).read_text() for number in (1, 2, 4)] == ["1", "2", "4"]
    assert not rounds.weights(3).exists()
    assert rounds.weights(1).parent.name == INITIAL


def test_learned_tasks_include_those_of_the_start(tmp_path: Path) -> None:
    """Image 1 was held out of the first training. The second training continued from it, and held out no image."""

    def learns(picks: Sequence[Pick]) -> frozenset[int]:
        learned = frozenset(pick.id for pick in picks)
        return learned - {3} if len(picks) == 3 else learned

    rounds = history(tmp_path, (1,))
    rounds.keep(done(2, 2, started_from=1), save(tmp_path / "work", 2))
    rounds.keep(done(3, 3), save(tmp_path / "work", 3))
    rounds.keep(done(4, 4, started_from=3), save(tmp_path / "work", 4))
    assert [sorted(rounds.learned(number, learns)) for number in (1, 2, 3, 4)] == [[1], [1, 2], [1, 2], [1, 2, 3, 4]]


def test_lines_that_begin_alike_share_their_first_training(tmp_path: Path) -> None:
    for unit in (INITIAL, "initial-typiclust"):
        records.save_round(records.unit_folder(tmp_path, unit, 0), done(1, 1, reason=unit))
    lines = {
        name: History(tmp_path, name, 0, Settings()) for name in ("random", "typiclust+random", "typiclust+margin")
    }
    for history_of_line in lines.values():
        history_of_line.begin()
    assert [line.last.reason for line in lines.values()] == [INITIAL, "initial-typiclust", "initial-typiclust"]
    assert lines["typiclust+margin"].weights(1).parent.name == "initial-typiclust"
    assert (
        History(tmp_path, "margin", 0, Settings(first_batch="typiclust")).weights(1).parent.name == "initial-typiclust"
    )
