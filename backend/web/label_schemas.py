"""What the API tells of labels: those that look wrong, and how far people agree."""

from __future__ import annotations

from dataclasses import asdict

from pydantic import BaseModel

from backend.evaluation.annotators import TagAgreement
from backend.evaluation.label_quality import LabelIssue


class AgreementOfOut(BaseModel):
    """How far one person agrees with the others, or how far people agree on one label."""

    of: str  # id of the user in Label Studio, or the label
    tasks: int
    boxes: int
    f1: float


class DisputedTaskOut(BaseModel):
    """A task on which people disagree."""

    task: int
    people: int
    f1: float


class AgreementOut(BaseModel):
    """How far people agree on one control tag, on the tasks that several of them annotated."""

    tag: str
    tasks: int
    f1: float  # of all boxes: 2 · pairs of the same label with IoU >= 0.5 / boxes of both people
    interval: tuple[float, float] | None  # 95%, of f1
    same: int  # tasks on which all agree in every box
    people: list[AgreementOfOut]  # the lowest f1 first
    labels: list[AgreementOfOut]
    worst: list[DisputedTaskOut]


class LabelErrorOut(BaseModel):
    """One label issue."""

    task: int
    tag: str
    annotation: int
    score: float
    suspicious: bool
    suspicion: str
    label: str
    box: tuple[float, float, float, float] | None
    learned: bool


def agreement_out(tag: str, agreement: TagAgreement) -> AgreementOut:
    """Return the agreement on a control tag as GET /api/projects/{id}/agreement shows it."""
    return AgreementOut(
        tag=tag,
        tasks=agreement.tasks,
        f1=agreement.f1,
        interval=agreement.interval,
        same=agreement.same,
        people=[AgreementOfOut(**asdict(person)) for person in agreement.people],
        labels=[AgreementOfOut(**asdict(label)) for label in agreement.labels],
        worst=[DisputedTaskOut(task=task.task_id, people=task.annotators, f1=task.f1) for task in agreement.worst],
    )


def label_error_out(issue: LabelIssue) -> LabelErrorOut:
    """Return a label issue as GET /api/projects/{id}/label-errors shows it."""
    return LabelErrorOut(
        task=issue.task_id,
        tag=issue.tag,
        annotation=issue.annotation_id,
        score=issue.score,
        suspicious=issue.suspicious,
        suspicion=issue.suspicion,
        label=issue.label,
        box=issue.box,
        learned=issue.learned,
    )
