"""The routes of the page: home, the views of a project, their actions, pictures, live events and static files."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse
from sse_starlette.sse import EventSourceResponse

from backend.errors import NotFoundError
from backend.loop.context import Context
from backend.loop.insight.pictures import WIDTHS, picture
from backend.loop.served_models import require_project
from backend.queue.rq_queue import Jobs
from backend.web.page import forms, home, rendering
from backend.web.page.live import LiveParts
from backend.web.page.view import Form, Parts, View, Visit
from backend.web.page.views import effort, labels, learning, now, pool, settings, versions
from backend.web.page.views import next as next_view
from backend.web.protocol import LARGEST_ID
from backend.web.readiness import Probe

VIEWS: tuple[View, ...] = (
    *(now.VIEW, learning.VIEW, next_view.VIEW, pool.VIEW, labels.VIEW),
    *(versions.VIEW, effort.VIEW, settings.VIEW),
)
_BY_NAME = {view.name: view for view in VIEWS}
_TYPES = {"css": "text/css", "js": "text/javascript", "mjs": "text/javascript", "svg": "image/svg+xml"}
_KEPT = {"cache-control": "private, max-age=3600", "x-content-type-options": "nosniff"}
Id = Annotated[int, Path(ge=1, le=LARGEST_ID)]


def install(app: FastAPI, context: Context, probe: Probe) -> None:
    """Add the page to the server; `/` itself belongs to `app`, because Label Studio asks it for JSON."""
    app.state.context = context
    app.state.page = pages = Pages(context, probe)
    for path, route in (
        ("/events", pages.home_events),
        ("/static/{name}", pages.static),
        ("/projects/{project_id}", pages.first_view),
        ("/projects/{project_id}/tasks/{task_id}/picture", pages.picture),
        ("/projects/{project_id}/versions/{number}/weights", pages.weights),
        ("/projects/{project_id}/{name}", pages.view),
        ("/projects/{project_id}/{name}/events", pages.events),
        ("/projects/{project_id}/{name}/{file}", pages.file),
    ):
        app.add_api_route(path, route, methods=["GET"], include_in_schema=False, response_model=None)
    app.add_api_route(
        "/projects/{project_id}/{name}/{action}",
        pages.act,
        methods=["POST"],
        include_in_schema=False,
        response_model=None,
    )


class Pages:
    """The routes over one context."""

    def __init__(self, context: Context, probe: Probe) -> None:
        self._context = context
        self._probe = probe
        self._jobs = Jobs(context.redis)
        self._live = LiveParts()

    def home(self, request: Request) -> HTMLResponse:
        """Return the page of all projects."""
        shown = home.read(self._context, str(request.base_url))
        return rendering.render(request, "home.html.j2", {"shown": shown, "readiness": self._probe.look()})

    async def home_events(self, request: Request) -> EventSourceResponse:
        """Stream the cards of the projects."""
        url = str(request.base_url)

        def read() -> Parts:
            """Return the cards as they are now."""
            return {"cards": rendering.fragment("cards.html.j2", shown=home.read(self._context, url))}

        return self._live.stream(request, "home", read)

    def first_view(self, request: Request, project_id: Id) -> RedirectResponse:
        """Lead to the first view of a project."""
        return RedirectResponse(_address(request, project_id, VIEWS[0].name), status_code=307)

    def view(self, request: Request, project_id: Id, name: str) -> HTMLResponse:
        """Return a view of a project."""
        visit = self._visit(project_id, request)
        view = _view(name)
        return rendering.render(request, f"{view.name}.html.j2", {"shown": view.read(visit), **_frame(visit, view)})

    def file(self, request: Request, project_id: Id, name: str, file: str) -> Response:
        """Return data that a module of a view reads."""
        read = _view(name).files.get(file)
        if read is None:
            raise NotFoundError(f"the view {name} has no file {file!r:.40}", fix="reload the page")
        data = read(self._visit(project_id, request))
        return Response(data, media_type="application/octet-stream", headers={"cache-control": "no-store"})

    async def events(self, request: Request, project_id: Id, name: str) -> EventSourceResponse:
        """Stream the live parts of a view."""
        await run_in_threadpool(self._visit, project_id, request)
        live = _view(name).live
        if live is None:
            raise NotFoundError(f"the view {name} has no live parts", fix="reload the page")

        def read() -> Parts:
            """Return the parts as they are now."""
            return live(self._visit(project_id, request))

        return self._live.stream(request, f"{request.url.path}?{request.url.query}", read)

    async def act(self, request: Request, project_id: Id, name: str, action: str) -> RedirectResponse:
        """Do what a button asks for, and lead back to its view, which shows the outcome in a sentence."""
        form = await forms.read(request, self._context.store.secret())
        sentence = await run_in_threadpool(self._act, request, project_id, name, action, form)
        response = RedirectResponse(_address(request, project_id, name), status_code=303)
        response.set_cookie(rendering.NOTICE, sentence.encode()[:1500].hex(), httponly=True, samesite="strict")
        return response

    def _act(self, request: Request, project_id: int, name: str, action: str, form: Form) -> str:
        visit = self._visit(project_id, request)
        run = _view(name).actions.get(action)
        if run is None:
            raise NotFoundError(f"the view {name} has no action {action!r:.40}", fix="reload the page and try again")
        return run(visit, self._jobs, form)

    def picture(
        self,
        request: Request,
        project_id: Id,
        task_id: Id,
        width: Annotated[int, Query(ge=1, le=WIDTHS[-1])] = WIDTHS[1],
        frame: Annotated[int, Query(ge=1, le=LARGEST_ID)] = 1,
    ) -> Response:
        """Return the picture of a task, in the field of the task's data that the tag of `?tag=` shows."""
        visit = self._visit(project_id, request)
        size = next(size for size in WIDTHS if size >= width)
        jpeg = picture(visit.context, visit.tag, project_id, task_id, size, frame)
        return Response(jpeg, media_type="image/jpeg", headers=_KEPT)

    def weights(self, request: Request, project_id: Id, number: Id) -> FileResponse:
        """Send the weights of a version for the tag that `?tag=` names, after a check of their sha256."""
        visit = self._visit(project_id, request)
        download = versions.weights(visit, number)
        headers = {**_KEPT, "cache-control": "no-store", "x-weights-sha256": download.sha256}
        return FileResponse(
            download.path, media_type="application/octet-stream", filename=download.name, headers=headers
        )

    def static(self, name: str) -> Response:
        """Return a style sheet, a module or plotly's bundle."""
        try:
            content = rendering.static_file(name)
        except FileNotFoundError:
            raise NotFoundError(f"the page has no file {name!r:.40}", fix="reload the page") from None
        return Response(content, media_type=_TYPES[name.rpartition(".")[2]], headers=_KEPT)

    def _visit(self, project_id: int, request: Request) -> Visit:
        return Visit(self._context, require_project(self._context, project_id), dict(request.query_params))


def _view(name: str) -> View:
    if name not in _BY_NAME:
        raise NotFoundError(f"there is no view {name!r:.40}", fix=f"use one of: {', '.join(_BY_NAME)}")
    return _BY_NAME[name]


def _frame(visit: Visit, view: View) -> dict[str, object]:
    """Return what the frame around a view shows."""
    urls = {"queue_url": visit.queue_url, "task_url": visit.task_url, "tag_query": visit.tag_query}
    return {"project": visit.project_id, "view": view, "views": VIEWS, "tags": visit.tags, "tag": visit.tag, **urls}


def _address(request: Request, project_id: int, name: str) -> str:
    """Return the address of a view, with the query of this request."""
    query = request.url.query
    return f"/projects/{project_id}/{name}" + (f"?{query}" if query else "")
