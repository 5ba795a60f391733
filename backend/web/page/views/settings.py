"""The view Settings: what is in force, where it comes from, and the strategies."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

from backend import acquisition
from backend import settings as settings_table
from backend.acquisition import Acquisition
from backend.settings import PROJECT_SETTINGS, Settings
from backend.web.page.view import View, Visit

_SECRETS = ("label_studio_api_key", "basic_auth_pass", "redis_url")  # an address of redis may hold a password


@dataclass(frozen=True, slots=True)
class SettingRow:
    """A setting that is in force."""

    name: str  # of the environment variable
    value: str
    source: str  # "default", "environment" or "extra params"
    allowed: str
    help: str
    per_project: bool


@dataclass(frozen=True, slots=True)
class InForce:
    """All settings of a project, those that differ from the default first, and the strategies."""

    rows: tuple[SettingRow, ...]
    strategies: tuple[Acquisition, ...]
    strategy: str  # the one in force


def read(visit: Visit) -> InForce:
    """Return the settings of a project."""
    settings = visit.context.project_settings(visit.record)
    own = {name.lower() for name in _extra_params(visit.record.extra_params)}
    rows = [_row(settings, name, own) for name in Settings.model_fields]
    return InForce(
        rows=tuple(sorted(rows, key=lambda row: row.source == "default")),
        strategies=tuple(acquisition.get(name) for name in acquisition.names()),
        strategy=settings.strategy,
    )


def _row(settings: Settings, name: str, own: set[str]) -> SettingRow:
    value, default = getattr(settings, name), Settings.model_fields[name].default
    source = "extra params" if name in own else "environment" if name.upper() in os.environ else "default"
    if source == "default" and value != default:
        source = "command line"
    return SettingRow(
        name=name.upper(),
        value=("set" if value else "not set") if name in _SECRETS else str(value),
        source=source,
        allowed=settings_table.allowed(name),
        help=Settings.model_fields[name].description or "",
        per_project=name in PROJECT_SETTINGS,
    )


def _extra_params(text: str) -> Mapping[str, object]:
    try:
        params = json.loads(text or "{}")
    except ValueError:
        return {}
    return params if isinstance(params, dict) else {}


VIEW = View("settings", "Settings", "Which settings are in force, and where do they come from?", read, {})
