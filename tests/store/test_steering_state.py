"""What people decided about a project is bounded, and outlives everything but the store."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from backend.evaluation.label_quality import LabelIssue
from backend.sampling.pins import Pins
from backend.store.records import AcceptedLabel, Pause
from backend.store.steering_state import MAX_ENTRIES, MAX_NAME, MAX_TEXT, without_accepted
from backend.store.store import Store

PROJECT = 3


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def test_a_journal_says_when_who_and_what_newest_first(store: Store) -> None:
    assert store.journal.entries(PROJECT) == ()
    before = datetime.now(UTC)
    store.journal.append(PROJECT, "ann", "pause", "no training starts by itself")
    last = store.journal.append(PROJECT, "bob", "resume", "trainings start by themselves")
    newest, oldest = Store(store.files.where(".")).journal.entries(PROJECT)
    assert newest == last
    assert (oldest.who, oldest.action, oldest.project_id) == ("ann", "pause", PROJECT)
    assert before <= oldest.at <= newest.at <= datetime.now(UTC)
    assert store.journal.entries(PROJECT + 1) == ()


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("two\nlines\x00\x1b[31m", "two lines [31m"),
        ("é" * 1000, "é" * (MAX_TEXT - 1) + "…"),
        ("<b>bold</b> 😀 ‏עברית", "<b>bold</b> 😀 עברית"),
        ("", ""),
    ],
)
def test_a_text_is_one_line_and_short(store: Store, text: str, stored: str) -> None:
    assert store.journal.append(PROJECT, "ann", "pin", text).text == stored
    assert store.journal.entries(PROJECT)[0].text == stored


def test_a_name_is_short_and_never_empty(store: Store) -> None:
    assert store.journal.append(PROJECT, "\n", "pin", "").who == "unknown"
    assert len(store.journal.append(PROJECT, "a" * 500, "pin", "").who) == MAX_NAME


def test_a_journal_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.store.steering_state.MAX_ENTRIES", 3)
    assert MAX_ENTRIES > 3
    for number in range(5):
        store.journal.append(PROJECT, "ann", "pin", str(number))
    assert [entry.text for entry in store.journal.entries(PROJECT)] == ["4", "3", "2"]


def test_the_first_pause_stays_until_the_loop_is_resumed(store: Store) -> None:
    first, second = (Pause(who, datetime(2026, 1, day, tzinfo=UTC)) for day, who in ((1, "ann"), (2, "bob")))
    assert store.steering.pause(PROJECT) is None
    assert not store.steering.set_pause(PROJECT, None)
    assert store.steering.set_pause(PROJECT, first)
    assert not store.steering.set_pause(PROJECT, second)
    assert store.steering.pause(PROJECT) == first
    assert store.steering.set_pause(PROJECT, None)
    assert store.steering.pause(PROJECT) is None


def test_a_pause_and_pins_keep_each_other(store: Store) -> None:
    pause = Pause("ann", datetime(2026, 1, 1, tzinfo=UTC))
    store.steering.set_pause(PROJECT, pause)
    assert store.steering.change_pins(PROJECT, lambda pins: pins.moved([5, 4], "front")) == Pins((5, 4))
    store.steering.change_pins(PROJECT, lambda pins: pins.moved([6], "back"))
    assert store.steering.pause(PROJECT) == pause
    store.steering.set_pause(PROJECT, None)
    assert store.steering.pins(PROJECT) == Pins((5, 4), (6,))


def issue(annotation: int, updated: str, tag: str = "label", score: float = 0.1) -> LabelIssue:
    return LabelIssue(annotation, annotation, updated, score, "swapped", "cat", (1, 2, 3, 4), learned=False, tag=tag)


def test_an_accepted_label_counts_as_clean_until_its_annotation_changes(store: Store) -> None:
    store.steering.accept_label(PROJECT, AcceptedLabel(1, "monday", "label"), {(1, "monday"), (2, "monday")})
    accepted = store.steering.accepted_labels(PROJECT)
    issues = (issue(1, "monday"), issue(1, "monday", "second", 0.2), issue(1, "tuesday"), issue(2, "monday"))
    judged = without_accepted(issues, accepted)
    assert [entry.score for entry in judged] == [0.1, 0.1, 0.2, 1.0]
    assert (judged[-1].suspicion, judged[-1].box, judged[-1].suspicious) == ("", None, False)
    assert judged[-1].tag == "label"


def test_labels_of_annotations_that_have_changed_are_forgotten(store: Store) -> None:
    for annotation in (1, 2):
        store.steering.accept_label(PROJECT, AcceptedLabel(annotation, "monday", "label"), {(1, "monday")})
    assert store.steering.accepted_labels(PROJECT) == {
        AcceptedLabel(1, "monday", "label"),
        AcceptedLabel(2, "monday", "label"),
    }
    store.steering.accept_label(PROJECT, AcceptedLabel(3, "tuesday", "label"), {(2, "monday"), (3, "tuesday")})
    assert {label.annotation_id for label in store.steering.accepted_labels(PROJECT)} == {2, 3}
