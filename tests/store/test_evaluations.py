"""The evaluation of a model, beside its version."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from backend.errors import ModelError
from backend.evaluation.held_out_report import (
    ClassQuality,
    EvaluationReport,
    GroupQuality,
    HeldOutAnswers,
    HeldOutReport,
    LabeledSince,
    LearnedLabels,
    Mistake,
)
from backend.evaluation.judged_images import PictureAnswers, ShownAnswer
from backend.evaluation.paired_comparison import TaskSample
from backend.evaluation.reliability import ReliabilityBin
from backend.evaluation.samples import Answers, Matches, Mean, Pixels, Rankings, Sample
from backend.store.evaluations import StoredEvaluation, decode, encode
from backend.store.paths import answers_file, report_file
from backend.store.store import Store

CLASSES = ("<b>cat</b>", "שלום 🐈" * 50)
ANSWER = ShownAnswer(0, 1, 0.5, (1.0, 2.0, 3.0, 4.0), (0.0, 0.0, 9.0, 9.0), (((1.0, 2.0), (3.0, 4.0), (0.5, 9.0)),))
PICTURES = (PictureAnswers(7, 0, 1, 2, 3, (ANSWER,)), PictureAnswers(8, 5, 0, 0, 0))
GROUP = GroupQuality(12, 30, 0.5, (0.4, 0.6))
REPORT = EvaluationReport(
    CLASSES,
    LearnedLabels(9, 20, {CLASSES[0]: 20}),
    HeldOutReport(
        12,
        (ReliabilityBin(0.5, 0.4, 3),),
        (),
        ((1, 0, 0), (0, 1, 0), (0, 0, 0)),
        (ClassQuality(CLASSES[0], 0.5, (0.4, 0.6), 8), ClassQuality(CLASSES[1], None, None, 0)),
        GROUP,
        (Mistake(7, 0, ANSWER),),
    ),
    LabeledSince(3, GROUP, GroupQuality(0, 0, None, None)),
)
ONES = np.ones((2, 2), np.int64)
SAMPLES: tuple[Sample, ...] = (
    Matches(np.array([0, 1]), np.array([0, 1]), np.array([0.9, 0.1], np.float32), np.array([True, False]), ONES),
    Answers(ONES, ONES),
    Rankings(np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.3]], np.float32), ONES > 0, 2),
    Pixels(ONES / 2, ONES / 1, ONES / 1),
)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)
def test_answers_go_into_a_file_and_back(sample: Sample) -> None:
    answers = HeldOutAnswers(PICTURES, TaskSample(("1", "12"), CLASSES, sample))
    back = decode(encode(answers), where="here")
    assert back.pictures == PICTURES
    assert back.sample is not None
    assert (back.sample.tasks, back.sample.classes) == (("1", "12"), CLASSES)
    counts = np.array([[1, 1], [2, 0]])
    assert back.sample.sample.by_class(counts).tolist() == sample.by_class(counts).tolist()
    assert back.sample.sample.quality(counts).tolist() == sample.quality(counts).tolist()


def test_a_sample_that_no_model_is_judged_by_is_left_out() -> None:
    answers = HeldOutAnswers((), TaskSample(("1", "2"), CLASSES, Mean((Answers(ONES, ONES),))))
    assert decode(encode(answers), where="here") == HeldOutAnswers((), None)


def test_reports_are_kept_beside_the_version(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.evaluations.save(7, 1, "label", StoredEvaluation(REPORT, HeldOutAnswers(PICTURES, None)))
    store.evaluations.save(7, 2, "label", StoredEvaluation(REPORT, None))
    again = Store(str(tmp_path))
    assert again.evaluations.report(7, 1, "label", "sha") == REPORT
    assert again.evaluations.report(7, 1, "label", "sha") == REPORT  # from memory
    assert again.evaluations.answers(7, 1, "label") == HeldOutAnswers(PICTURES, None)
    assert again.evaluations.answers(7, 2, "label") is None


def test_a_version_of_an_earlier_release_has_none(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    assert store.evaluations.report(7, 1, "label") is None
    assert store.evaluations.answers(7, 1, "label") is None


def test_a_damaged_file_is_named_with_a_cure(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.files.write(report_file(7, 1, "label"), b"{}")
    store.files.write(answers_file(7, 1, "label"), b"PK no archive")
    with pytest.raises(ModelError, match=r"evaluation\.json.*delete the file"):
        store.evaluations.report(7, 1, "label")
    with pytest.raises(ModelError, match=r"held_out\.npz.*delete the file"):
        store.evaluations.answers(7, 1, "label")
