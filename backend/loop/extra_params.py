"""The settings of a project: those of the environment, with overrides from its extra params.

Extra params are the JSON field of the ML backend in Label Studio's own UI.
"""

from __future__ import annotations

import difflib
import functools
import json
from collections.abc import Mapping
from typing import Any

from backend.errors import SettingError
from backend.settings import PROJECT_SETTINGS, Settings, validated

_REMEMBERED = 32  # extra params of projects whose settings are cached
_PLACE = "extra params of the ML backend"
_LONGEST = 100_000  # highest number of characters of extra params
_EXAMPLE = 'write an object like {"RETRAIN_EVERY": 20}'


def for_project(settings: Settings, extra_params: str | Mapping[str, Any] | None) -> Settings:
    """Return the settings with one project's overrides applied.

    `extra_params` comes from Label Studio's /setup request: a JSON text or a parsed object, with names in any case.
    Raises SettingError for text that is not a JSON object, an unknown name, or a value out of range.
    """
    if not extra_params:
        return settings
    if isinstance(extra_params, str):
        return _for_text(settings, extra_params)
    return _overridden(settings, extra_params)


@functools.lru_cache(_REMEMBERED)
def _for_text(settings: Settings, extra_params: str) -> Settings:
    """Return the settings for a text; cached, because every request needs them several times."""
    return _overridden(settings, _parsed(extra_params))


def parsed_params(extra_params: str) -> dict[str, Any]:
    """Return the extra params of a project as an object. Raises SettingError if the text is not a JSON object."""
    params = _parsed(extra_params) if extra_params else {}
    if not isinstance(params, dict):
        raise SettingError("not a JSON object", where=_PLACE, fix=_EXAMPLE)
    return params


def _overridden(settings: Settings, params: object) -> Settings:
    if not isinstance(params, Mapping):
        raise SettingError("not a JSON object", where=_PLACE, fix=_EXAMPLE)
    overrides = {str(name).lower(): value for name, value in params.items()}
    unknown = sorted(set(overrides) - set(PROJECT_SETTINGS))
    if unknown:
        raise SettingError(f"unknown setting {unknown[0].upper():.80}", where=_PLACE, fix=_nearest(unknown[0]))
    return validated(settings.model_dump() | overrides, where=_PLACE)


def _parsed(text: str) -> Any:
    """Return the value of a JSON text. Raises SettingError if it is not JSON, too long or nested too deeply."""
    if len(text) > _LONGEST:
        raise SettingError(f"{len(text)} characters, and at most {_LONGEST} are read", where=_PLACE, fix=_EXAMPLE)
    try:
        return json.loads(text)
    except RecursionError:
        raise SettingError("not JSON that can be read: it is nested too deep", where=_PLACE, fix=_EXAMPLE) from None
    except ValueError as error:
        raise SettingError(f"not JSON: {error}", where=_PLACE, fix=_EXAMPLE) from None


def _nearest(name: str) -> str:
    """Return the cure for an unknown name: the most similar names."""
    names = [setting.upper() for setting in PROJECT_SETTINGS]
    near = difflib.get_close_matches(name.upper()[:80], names, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(near)}?" if near else "see the settings of a project in docs/settings.md"
