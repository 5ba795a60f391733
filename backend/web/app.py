"""The FastAPI app: Label Studio's ML backend protocol and the status API."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from redis.exceptions import RedisError

from backend.errors import TrainingError
from backend.loop import interactive, project_status, serving
from backend.loop.context import Context
from backend.loop.demands import MIN_LABELED, enqueue_training, require_labels
from backend.loop.insight import overlaps
from backend.loop.review import label_review
from backend.loop.scoring import activity, frame_order
from backend.loop.served_models import name_of, require_project
from backend.loop.warm import Warmth
from backend.queue import presence
from backend.queue.rq_queue import Jobs
from backend.queue.run_state import TrainingProgress
from backend.types import Task
from backend.web import metrics, middleware, openapi
from backend.web.bodies import Bodies
from backend.web.label_schemas import AgreementOut, LabelErrorOut, agreement_out, label_error_out
from backend.web.page import rendering, site
from backend.web.protocol import (
    LARGEST_ID,
    PredictionOut,
    PredictRequest,
    PredictResponse,
    SetupRequest,
    SuggestionOut,
    TrainRequest,
    WebhookRequest,
)
from backend.web.readiness import Probe
from backend.web.redaction import redacted
from backend.web.status_schemas import ProjectOut, project_out

log = logging.getLogger(__name__)
Id = Annotated[int, Path(ge=1, le=LARGEST_ID)]

LABEL_ACTIONS = {"ANNOTATION_CREATED", "ANNOTATIONS_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED"}
TASK_ACTIONS = {"TASKS_CREATED", "TASKS_DELETED", "ANNOTATIONS_DELETED"}  # may leave tasks without a prediction
IDLE_ACTIONS = {
    "PROJECT_CREATED",
    "PROJECT_UPDATED",  # also the echo of our own PATCH of model_version
    "PROJECT_DELETED",
    "LABEL_LINK_CREATED",
    "LABEL_LINK_UPDATED",
    "LABEL_LINK_DELETED",
}
FORCE_ACTION = "START_TRAINING"
KNOWN_ACTIONS = LABEL_ACTIONS | TASK_ACTIONS | IDLE_ACTIONS | {FORCE_ACTION}


def build_app(context: Context, warmth: Warmth | None = None) -> FastAPI:
    """Return the app that serves `context`; nothing heavy is loaded before the first /predict."""
    summary = "Label Studio's ML backend protocol, and the state of its projects"
    app = FastAPI(title="yolo-backend", summary=summary, docs_url=None, redoc_url=None)
    probe = Probe(context, warmth)
    site.install(app, context, probe)
    endpoints = _Endpoints(context, Jobs(context.redis))
    app.add_api_route("/health", endpoints.health, methods=["GET"])
    app.add_api_route("/ready", partial(ready, probe), methods=["GET"])
    app.add_api_route("/", endpoints.home, methods=["GET"], response_model=dict[str, str])
    app.add_api_route("/metrics", endpoints.metrics, methods=["GET"])
    app.add_api_route("/versions", endpoints.versions, methods=["GET"])
    app.add_api_route("/setup", endpoints.setup, methods=["POST"])
    app.add_api_route("/predict", endpoints.predict, methods=["POST"], response_model=PredictResponse)
    app.add_api_route("/webhook", endpoints.webhook, methods=["POST"])
    app.add_api_route("/train", endpoints.train, methods=["POST"])
    app.add_api_route("/api/projects/{project_id}", endpoints.project, methods=["GET"], response_model=ProjectOut)
    app.add_api_route("/api/projects/{project_id}/label-errors", endpoints.label_errors, methods=["GET"])
    app.add_api_route("/api/projects/{project_id}/agreement", endpoints.agreement, methods=["GET"])
    app.add_api_route("/api/projects/{project_id}/frames/{task_id}", endpoints.frames, methods=["GET"])
    openapi.describe(app)
    middleware.install(app, context.settings)
    return app


def ready(probe: Probe) -> JSONResponse:
    """Report which of the services that the backend needs answer: 200 if all do, else 503."""
    state = probe.look()
    return JSONResponse({"ready": state.ready, **asdict(state)}, status_code=200 if state.ready else 503)


class _Endpoints:
    """The routes over one context. Async routes only read the body; the work runs in the thread pool."""

    def __init__(self, context: Context, queue: Jobs) -> None:
        self._context = context
        self._queue = queue
        self._bodies = Bodies()

    async def health(self) -> dict[str, str]:
        """Report that the server is up; Label Studio waits 1 s for the answer."""
        return {"status": "UP", "model_class": "YoloBackend"}

    async def home(self, request: Request) -> Response:
        """Return the page of all projects to a browser, and the same as /health to Label Studio and programs."""
        if not rendering.wants_html(request):
            return JSONResponse(await self.health(), headers={"vary": "accept"})
        pages: site.Pages = request.app.state.page
        return await run_in_threadpool(pages.home, request)

    def metrics(self) -> Response:
        """Return the metrics in Prometheus's text format."""
        return Response(metrics.render(self._queue.depth()), media_type=metrics.CONTENT_TYPE)

    def versions(self, project: Annotated[str, Query(max_length=40)] = "") -> dict[str, list[str]]:
        """List the published versions of a project, or of all projects: Label Studio names no project."""
        store = self._context.store
        wanted = project.split(".")[0]
        ids = (int(wanted),) if wanted.isdecimal() else store.project_ids()
        names = [version.name for project_id in ids for version in store.versions(project_id) if version.promoted]
        return {"versions": list(dict.fromkeys(names))}

    def project(self, request: Request, project_id: Id) -> Response:
        """Return the status of a project."""
        text = project_out(project_status.status(self._context, project_id)).model_dump_json()
        return Response(redacted(text, request.app.state.roots), media_type="application/json")

    def label_errors(self, project_id: Id) -> list[LabelErrorOut]:
        """Return the label issues of the last review, worst first, without labels that were changed since."""
        return [label_error_out(issue) for issue in label_review.current_issues(self._context, project_id)]

    def agreement(self, project_id: Id) -> list[AgreementOut]:
        """Return how far annotators agree, for each control tag of which they annotated the same tasks."""
        by_tag = overlaps.by_tag(self._context, project_id)
        return [agreement_out(tag, agreement) for tag, agreement in by_tag.items()]

    def frames(self, project_id: Id, task_id: Id) -> list[int]:
        """Return the frames of a video to label first, the most uncertain frame first."""
        return list(frame_order.frames_to_label(self._context, project_id, task_id))

    async def setup(self, request: Request) -> dict[str, str]:
        """Check and store a project's label config and settings; answer the version that serves it."""
        async with self._bodies.read(request, SetupRequest) as body:
            url = self._context.settings.backend_url or str(request.base_url)
            return await run_in_threadpool(self._setup, body, url.rstrip("/"))

    def _setup(self, body: SetupRequest, url: str) -> dict[str, str]:
        previous = self._context.store.project(body.project)
        record = serving.setup(self._context, body.project, body.schema_, body.hostname, body.extra_text, url)
        if previous is not None and record != previous:
            self._queue.once("reconcile")  # the stored predictions may not fit the new settings
        if record.configured != record.backend_url:
            self._queue.once("configure", record.project_id)
        return {"model_version": name_of(self._context, record)}

    async def predict(self, request: Request) -> Response:
        """Answer one result per task, in order."""
        async with self._bodies.read(request, PredictRequest) as body:
            return await run_in_threadpool(self._predict, body)

    def _predict(self, body: PredictRequest) -> Response:
        # A task without an id gets a negative id, which no task of Label Studio has.
        tasks = [
            Task(-place if task.id is None else task.id, task.data or {}) for place, task in enumerate(body.tasks, 1)
        ]
        out = self._predictions(body, tasks) if body.drawn is None else self._suggestions(body, tasks, body.drawn)
        answer = PredictResponse(results=list(out), model_version=out[0].model_version if out else "")
        # We serialize here, in the thread pool: for 10,000 tasks it takes seconds, which would block the event loop.
        return Response(answer.model_dump_json(), media_type="application/json")

    def _predictions(self, body: PredictRequest, tasks: Sequence[Task]) -> Sequence[PredictionOut]:
        results = serving.predict(self._context, body.project, body.label_config, tasks)
        metrics.PREDICTED.inc(len(results))
        return [PredictionOut(result=list(r.regions), score=r.score, model_version=r.version) for r in results]

    def _suggestions(
        self, body: PredictRequest, tasks: Sequence[Task], drawn: Sequence[Any]
    ) -> Sequence[PredictionOut]:
        project = self._context, body.project, body.label_config
        answers = [interactive.suggest(*project, task, drawn) for task in tasks]
        return [
            SuggestionOut(result=list(a.regions), score=a.score, model_version=a.version, reason=a.reason)
            for a in answers
        ]

    async def webhook(self, request: Request) -> JSONResponse:
        """Take an event as a hint and answer at once; a job reads the labels from Label Studio."""
        async with self._bodies.read(request, WebhookRequest) as body:
            return await run_in_threadpool(self._webhook, request, body)

    def _webhook(self, request: Request, body: WebhookRequest) -> JSONResponse:
        if body.action == FORCE_ACTION:  # comes from LS's ML client, which sends Basic auth and cannot send our header
            middleware.check_basic(request, self._context.settings)
        else:
            middleware.check_secret(request, self._context.settings, self._context.store.secret())
            with suppress(RedisError):  # an event that asks for a job says so itself
                presence.note_event(self._context.redis, body.project)
        is_known = body.action in KNOWN_ACTIONS
        metrics.WEBHOOKS.labels(body.action if is_known else "unknown").inc()
        if not is_known:
            log.info("webhook: action %r means nothing here", body.action)
            return JSONResponse({"detail": f"ignored: unknown action {body.action!r}"})
        if body.action == FORCE_ACTION:
            self._request_training(body.project)
        if body.action in LABEL_ACTIONS:
            activity.note(self._context.redis)
        if body.action in LABEL_ACTIONS | TASK_ACTIONS:
            self._queue.once("check", body.project)
        if body.action in TASK_ACTIONS:
            self._queue.once("score_new", body.project)
        return JSONResponse({"detail": "ok"}, status_code=201)

    async def train(self, request: Request) -> JSONResponse:
        """Queue a training; Label Studio before 1.4.1 calls this route."""
        async with self._bodies.read(request, TrainRequest) as body:
            await run_in_threadpool(self._request_training, body.project)
        return JSONResponse({"detail": "training queued"}, status_code=201)

    def _request_training(self, project_id: int) -> None:
        if self._context.store.project(project_id) is None:
            self._queue.once("reconcile")  # after a lost store it sets up the projects that use this backend
        require_project(self._context, project_id)
        counts = self._context.progress.counts(project_id)
        if counts is None or counts.decided < MIN_LABELED:
            self._require_labels(project_id)
        enqueue_training(self._context, self._queue, project_id, forced=True)

    def _require_labels(self, project_id: int) -> None:
        """Raise TrainingError without labels, and store it: Label Studio's own page shows no answer of ours."""
        try:
            require_labels(self._context, project_id)
        except TrainingError as error:
            if self._context.progress.training(project_id).state != "running":
                self._context.progress.set_training(project_id, TrainingProgress("failed", error=str(error)))
            raise
