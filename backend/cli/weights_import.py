"""`yolo-backend import-weights`: a weights file is checked in a child process, put into MODEL_DIR, and approved."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from pydantic import BaseModel, ValidationError

from backend.errors import ModelError, SettingError
from backend.model_versions import is_weights_name
from backend.settings import Settings
from backend.storage import Files, file_sha256
from backend.store.store import Store
from backend.subprocesses import spawn
from backend.yolo import approved_weights

CHECK_S = 300.0  # longest time for the check
COMMAND = "inspect-weights"  # the hidden command that runs in the child
_SECRETS = ("LABEL_STUDIO_API_KEY", "BASIC_AUTH_PASS", "REDIS_URL")  # what opens the file need not know them


class WeightsOut(BaseModel):
    """What the child says of a weights file."""

    task: str
    classes: list[str]


def inspected(path: Path) -> WeightsOut:
    """Open a weights file, in this process, and return its task and classes; raises ModelError."""
    from backend.yolo.runtime import load_model, task_of

    model = load_model(path, None)
    return WeightsOut(task=str(task_of(model)), classes=[str(name) for name in dict(model.names).values()])


def import_weights(file: Path, settings: Settings) -> WeightsOut:
    """Check a file, copy it into MODEL_DIR under its name, and list its sha256 among the approved weights.

    Raises SettingError for a name that cannot be used or is taken, ModelError for a file that is no model of ours.
    """
    name, store = file.name, Store(settings.model_dir)
    if not is_weights_name(name):
        raise SettingError(f"{name!r} is not the plain name of a .pt file", fix="rename it to something like mine.pt")
    if not file.is_file():
        raise SettingError("no such file", where=str(file), fix="correct the path")
    with tempfile.TemporaryDirectory(prefix="yolo-backend-") as folder:
        copy = Path(folder) / name  # the file may change meanwhile, and the copy does not
        shutil.copyfile(file, copy)
        sha256 = file_sha256(copy)
        _refuse_other(store.files, name, sha256)
        weights = _in_child(copy)
        store.files.put(copy, name)
    _approve(store.files, name, sha256)
    return weights


def _refuse_other(files: Files, name: str, sha256: str) -> None:
    """Raise SettingError if MODEL_DIR has other weights of this name, which a project may use."""
    try:
        with files.open(name) as stored, tempfile.NamedTemporaryFile(suffix=".pt") as there:
            shutil.copyfileobj(stored, there)
            there.flush()
            same = file_sha256(Path(there.name)) == sha256
    except FileNotFoundError:
        return
    if not same:
        fix = "rename the file, or remove the old one if nothing uses it"
        raise SettingError(f"MODEL_DIR has other weights named {name}", where=files.where(name), fix=fix)


def _in_child(path: Path) -> WeightsOut:
    """Let a child process open the file, without our secrets; raises ModelError with the reason that it gives."""
    environ = {key: value for key, value in os.environ.items() if key not in _SECRETS}
    log = path.with_suffix(".log")
    with log.open("wb") as sink:
        child = spawn([sys.executable, "-m", "backend.cli", COMMAND, str(path)], environ, sink)
        try:
            child.wait(CHECK_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = lines[-1] if lines else f"its process ended with status {child.returncode}"
    try:
        if child.returncode == 0:
            return WeightsOut.model_validate_json(last)
    except ValidationError:
        pass
    reason = last.removeprefix("error: ").replace(str(path), path.name)
    raise ModelError(f"these weights cannot be used: {reason}", where=path.name)


def _approve(files: Files, name: str, sha256: str) -> None:
    try:
        with files.open(approved_weights.LISTING) as stored:
            text = stored.read().decode("utf-8")
    except FileNotFoundError:
        text = ""
    line = approved_weights.entry(name, sha256)
    if line not in text.splitlines():
        start = text if not text or text.endswith("\n") else f"{text}\n"
        files.write(approved_weights.LISTING, f"{start}{line}\n".encode())
