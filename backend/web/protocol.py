"""Label Studio's ML backend protocol: what it sends and what it gets, as pydantic models.

Fields that we do not name are ignored. A missing field is an error that names it.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny

from backend.types import Json

MAX_TASKS = 10_000  # Label Studio's largest request is "Retrieve predictions" on all tasks of a project
LARGEST_ID = 2**63 - 1  # the largest id in Label Studio's database


def _project_id(value: object) -> object:
    """Return the id in a project: Label Studio sends "<id>.<created timestamp>" or the whole object."""
    if isinstance(value, dict):
        value = value.get("id")
    return value.split(".")[0] or None if isinstance(value, str) else value


ProjectId = Annotated[int, Field(ge=1, le=LARGEST_ID), BeforeValidator(_project_id)]
MaybeProjectId = Annotated[ProjectId | None, BeforeValidator(_project_id)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="ignore")


class SetupRequest(_Request):
    """The body of POST /setup."""

    project: ProjectId
    schema_: str = Field(alias="schema")  # the label config
    hostname: str = ""
    extra_params: str | Json | None = None

    @property
    def extra_text(self) -> str:
        """The extra params as text; Label Studio sends text or an object, as the user wrote them."""
        return json.dumps(self.extra_params) if isinstance(self.extra_params, dict) else self.extra_params or ""


class PredictTask(_Request):
    """One task in the body of POST /predict."""

    id: Annotated[int, Field(ge=1, le=LARGEST_ID)] | None = None
    data: Json | None  # null costs only its own task


class PredictRequest(_Request):
    """The body of POST /predict."""

    tasks: Annotated[list[PredictTask], Field(max_length=MAX_TASKS)]
    label_config: str
    project: MaybeProjectId = None
    params: Any = None  # login and password of the task's storage, which we do not use, and the context

    @property
    def drawn(self) -> list[Any] | None:
        """The regions that a smart tool has drawn, as Label Studio sends them in the context; None: none asks."""
        context = self.params.get("context") if isinstance(self.params, dict) else None
        if not isinstance(context, dict) or "result" not in context:
            return None
        return context["result"] if isinstance(context["result"], list) else []


class WebhookRequest(_Request):
    """The body of POST /webhook."""

    action: str
    project: ProjectId


class TrainRequest(_Request):
    """The body of POST /train."""

    project: ProjectId


class PredictionOut(BaseModel):
    """The prediction for one task."""

    result: list[Json]
    score: float
    model_version: str


class SuggestionOut(PredictionOut):
    """The answer to a smart tool: Label Studio passes it on to the browser as it is."""

    reason: str  # why there is no region; "" where there is one


class PredictResponse(BaseModel):
    """The answer to POST /predict: one prediction per task, in order."""

    results: list[SerializeAsAny[PredictionOut]]
    model_version: str
