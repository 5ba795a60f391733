"""The evaluation of each model, beside its version: a small report, and its answers on the held-out images."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

import numpy as np
from pydantic import ValidationError

from backend.errors import ModelError
from backend.evaluation.held_out_report import EvaluationReport, HeldOutAnswers
from backend.evaluation.paired_comparison import TaskSample
from backend.evaluation.samples import Answers, Matches, Pixels, Rankings, Sample
from backend.storage import Files
from backend.store import records
from backend.store.paths import answers_file, report_file
from backend.store.records import PicturesFile, ReportFile

_SAMPLES = MappingProxyType({kind.__name__: kind for kind in (Matches, Answers, Rankings, Pixels)})
_FORGET = "delete the file; the page then shows no report of this version"
_REMEMBERED = 512  # reports


@dataclass(frozen=True, slots=True)
class StoredEvaluation:
    """The evaluation of one model, as it is stored."""

    report: EvaluationReport
    answers: HeldOutAnswers | None  # None: no image is held out


class Evaluations:
    """The evaluations of the models of all versions; a version of an earlier release has none."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._reports: dict[tuple[int, int, str, str], EvaluationReport] = {}  # a report never changes

    def save(self, project_id: int, number: int, tag: str, evaluation: StoredEvaluation) -> None:
        """Write the evaluation of a tag's model; `tag` is the tag's name in the store."""
        if evaluation.answers is not None:
            self._files.write(answers_file(project_id, number, tag), encode(evaluation.answers))
        data = ReportFile(report=evaluation.report).encode()
        self._files.write(report_file(project_id, number, tag), data)

    def report(self, project_id: int, number: int, tag: str, sha256: str = "") -> EvaluationReport | None:
        """Return the report of a model, None if there is none. Raises ModelError for a damaged file.

        `sha256` is that of the model's weights: with it, the report is remembered.
        """
        key = project_id, number, tag, sha256
        if key in self._reports:
            return self._reports[key]
        file = records.load(self._files, ReportFile, report_file(project_id, number, tag), fix=_FORGET)
        if file is None:
            return None
        if sha256:
            if len(self._reports) >= _REMEMBERED:
                self._reports.clear()
            self._reports[key] = file.report
        return file.report

    def answers(self, project_id: int, number: int, tag: str) -> HeldOutAnswers | None:
        """Return a model's answers on the held-out images, None if there are none. Raises ModelError if damaged."""
        path = answers_file(project_id, number, tag)
        try:
            with self._files.open(path) as file:
                data = file.read()
        except FileNotFoundError:
            return None
        return decode(data, where=self._files.where(path))


def encode(answers: HeldOutAnswers) -> bytes:
    """Return the content of an npz file: the pictures as JSON, and the arrays of the sample."""
    pictures = PicturesFile(pictures=answers.pictures).model_dump_json().encode()
    arrays: dict[str, Any] = {"pictures": np.frombuffer(pictures, dtype=np.uint8)}
    if (measured := answers.sample) is not None and type(measured.sample).__name__ in _SAMPLES:
        sample = measured.sample
        arrays |= {"kind": type(sample).__name__, "tasks": _texts(measured.tasks), "classes": _texts(measured.classes)}
        arrays |= {f"sample_{field.name}": getattr(sample, field.name) for field in fields(sample)}  # type: ignore[arg-type]
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def decode(data: bytes, *, where: str) -> HeldOutAnswers:
    """Return what `encode` stored. Raises ModelError naming the file if it is damaged."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            pictures = PicturesFile.model_validate_json(arrays["pictures"].tobytes()).pictures
            return HeldOutAnswers(pictures, _sample(arrays) if "kind" in arrays else None)
    except (ValueError, KeyError, TypeError, EOFError, OSError, zipfile.BadZipFile, ValidationError) as error:
        raise ModelError("damaged file: these are no held-out answers", where=where, fix=_FORGET) from error


def _sample(arrays: Mapping[str, Any]) -> TaskSample:
    kind = _SAMPLES[str(arrays["kind"])]
    values = {field.name: arrays[f"sample_{field.name}"] for field in fields(kind)}
    if "size" in values:
        values["size"] = int(values["size"])
    sample: Sample = kind(**values)
    tasks, classes = (tuple(str(text) for text in arrays[name]) for name in ("tasks", "classes"))
    return TaskSample(tasks, classes, sample)


def _texts(texts: tuple[str, ...]) -> Any:
    return np.array(texts, dtype=np.str_) if texts else np.zeros(0, dtype="U1")
