"""The description of the API at /openapi.json."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from backend import __version__
from backend.web.protocol import PredictRequest, SetupRequest, TrainRequest, WebhookRequest

# The routes read bodies themselves, so FastAPI cannot see them.
_BODIES: dict[str, type[BaseModel]] = {
    "/setup": SetupRequest,
    "/predict": PredictRequest,
    "/webhook": WebhookRequest,
    "/train": TrainRequest,
}
_SCHEMAS = "#/components/schemas/{model}"


def describe(app: FastAPI) -> None:
    """Let /openapi.json show the body of each POST."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=__version__, summary=app.summary, routes=app.routes)
            _, models = models_json_schema([(model, "validation") for model in _BODIES.values()], ref_template=_SCHEMAS)
            schema["components"]["schemas"] |= models["$defs"]
            for path, model in _BODIES.items():
                content = {"application/json": {"schema": {"$ref": _SCHEMAS.format(model=model.__name__)}}}
                schema["paths"][path]["post"]["requestBody"] = {"required": True, "content": content}
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation extends it
