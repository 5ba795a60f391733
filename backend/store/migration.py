"""Migration of an earlier release's store to the current layout, once, before its first use.

Earlier releases kept the first control tag apart: its weights and pools lay in the version's own folder, the fields of
its model stood on the version itself, and other files called it "". Now every tag has a folder and a name.

Nothing here takes a lock. Each step is atomic, and a step that was done before does nothing. So a migration that was
killed goes on at the next start, and several processes may migrate one store at the same time. Only one of them can
move a file. A file that changes while people label gets a new name, which only one process can make, so no process
writes an old state over a newer one. A version's manifest is rewritten last.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache, partial
from typing import Any

from backend.errors import LabelConfigError, StoreError
from backend.labelstudio import label_config
from backend.storage import Files
from backend.store.paths import (
    ASIDE,
    LABELED,
    LAYOUT,
    answer_keys_file,
    manifest_file,
    numbers_in,
    project_folder,
    review_file,
    scored_folder,
    signs_file,
    version_folder,
    versions_folder,
)
from backend.store.records import ManifestFile

log = logging.getLogger(__name__)

_CURRENT = b"2"
_OF_A_TAG = re.compile(r"(pool|votes)-[0-9]+\.npz|weights\.pt")
_OF_A_MODEL = (
    *("from_name", "task", "classes", "sha256", "base_model", "metrics", "champion_metrics", "hyper_parameters"),
    *("reason", "calibration", "class_quality", "carried", "learned", "lesson"),
)

Fields = dict[str, Any]  # of a JSON file


def migrate(files: Files) -> None:
    """Migrate a store to the current layout, unless that was done before. Raises StoreError."""
    if _read(files, LAYOUT) is not None:
        return
    projects = numbers_in(files, "projects")
    for project_id in projects:
        migrate_project(files, project_id)
    if projects:
        with suppress(StoreError):  # without the right to write, the migrated store can still be read
            files.create(LAYOUT, _CURRENT, shared=True)


def migrate_project(files: Files, project_id: int) -> None:
    """Migrate a project to the current layout. A damaged version stays as it is; its reader reports the cure."""
    if "versions" not in files.entries(project_folder(project_id)):
        return  # nothing was scored yet
    config_tag = cache(partial(_config_tag, files, project_id))
    numbers = numbers_in(files, versions_folder(project_id))
    names = {number: _migrate_version(files, project_id, number, config_tag) for number in numbers}
    old = f"{project_folder(project_id)}/signs.json"
    _replace(files, old, signs_file(project_id), lambda content: _name_signs(content, names))


def _migrate_version(files: Files, project_id: int, number: int, config_tag: Callable[[], str | None]) -> str | None:
    """Migrate a version to the current layout. Return the name of its first tag, None if it is not known."""
    path, manifest = manifest_file(project_id, number), None
    if number == 0:
        name = config_tag()  # the base model has no manifest
    else:
        data = _read(files, path)
        try:
            content = json.loads(data or b"null")
            if content["format"] != 1:
                return str(content["version"]["models"][0]["from_name"])
            name = content["version"].get("from_name") or config_tag() or ""
            manifest = ManifestFile.model_validate_json(json.dumps(_with_models(content, name))).encode()
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            return None
    if name is not None:
        _move(files, project_id, number, name)
        folder = version_folder(project_id, number)
        _replace(files, f"{folder}/pool_keys.json", answer_keys_file(project_id, number), partial(_name_keys, name))
        _replace(files, f"{folder}/label_errors.json", review_file(project_id, number), partial(_name_limits, name))
    if manifest is not None:
        files.write(path, manifest)
        log.info("project %d: version %d has the layout of this release now", project_id, number)
    return name


def _move(files: Files, project_id: int, number: int, name: str) -> None:
    """Move weights, pools and votes of the first tag into the tag's folder; the version's ranking stays."""
    for labeled in (False, True):
        old = f"{version_folder(project_id, number)}/{LABELED}" if labeled else version_folder(project_id, number)
        new = scored_folder(project_id, number, name, labeled=labeled)
        for entry in sorted(filter(_OF_A_TAG.fullmatch, files.entries(old))):
            files.move(f"{old}/{entry}", f"{new}/{entry}")


def _replace(files: Files, old: str, new: str, convert: Callable[[Fields], None]) -> None:
    """Write a JSON file under its current name, and remove the old one. A damaged file is copied unchanged."""
    data = _read(files, old)
    if data is None:
        return
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        content = json.loads(data)
        convert(content)
        data = json.dumps(content, indent=1).encode()
    files.create(new, data, shared=True)
    files.remove(old)


def _with_models(content: Fields, name: str) -> Fields:
    """Return a manifest in the current format: the fields of the first tag become a model like the others."""
    version, others = dict(content["version"]), content["version"].get("others", [])
    first = {field: version[field] for field in _OF_A_MODEL if field in version}
    first |= {"from_name": name, "task": first.get("task", "detect")}
    if others:  # the version's reason is that of all tags, joined
        other_reasons = "".join(f"; {model['from_name']}: {model['reason']}" for model in others)
        first["reason"] = version["reason"].removeprefix(f"{name}: ").removesuffix(other_reasons)
    remaining = {field: value for field, value in version.items() if field not in {*_OF_A_MODEL, "others"} - {"reason"}}
    return {"format": 2, "version": {**remaining, "models": [first, *others]}}


def _name_keys(name: str, content: Fields) -> None:
    _name_in(content["keys"]["by_tag"], name)


def _name_limits(name: str, content: Fields) -> None:
    _name_in(content.get("thresholds", {}), name)


def _name_in(by_tag: Fields, name: str) -> None:
    if "" in by_tag:
        by_tag[name] = by_tag.pop("")


def _name_signs(content: Fields, names: Mapping[int, str | None]) -> None:
    for signs in content["signs"]:
        signs["tag"] = signs.get("tag") or names.get(signs["version"]) or ""


def _config_tag(files: Files, project_id: int) -> str | None:
    """Return the name of the first control tag of a project's label config, None where it cannot be read."""
    for name in ("project.json", ASIDE):
        data = _read(files, f"{project_folder(project_id)}/{name}")
        with suppress(ValueError, KeyError, TypeError, LabelConfigError):
            if data is not None:
                return label_config.parse(json.loads(data)["project"]["label_config"])[0].from_name
    return None


def _read(files: Files, path: str) -> bytes | None:
    try:
        with files.open(path) as file:
            return file.read()
    except FileNotFoundError:
        return None
