"""Which weights a project may name: those whose sha256 the admin wrote into MODEL_DIR/weights.sha256.

Weights are pickles, which can run any code, and people who are not admins write label configs and extra params.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path, PurePosixPath

from backend.errors import ModelError
from backend.model_versions import is_weights_name
from backend.storage import file_sha256

LISTING = "weights.sha256"  # in the format of sha256sum
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


def listed(name: str, model_dir: Path) -> frozenset[str]:
    """Return the sha256 sums that the admin listed for the weights `name`; this opens no weights.

    Raises ModelError if there is none, with the command that adds one.
    """
    if not is_weights_name(name):
        raise ModelError(f"{name!r} is not the plain name of a .pt file", fix="write a name like yolo11n.pt")
    path = model_dir / LISTING
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    entries = (_LINE.fullmatch(line.strip()) for line in lines)
    sums = frozenset(line[1] for line in entries if line is not None and PurePosixPath(line[2]).name == name)
    if not sums:
        raise ModelError(f"the weights {name} are not approved", where=str(path), fix=_cure(name, model_dir))
    return sums


def entry(name: str, sha256: str) -> str:
    """Return the line that approves weights.

    >>> entry("mine.pt", "0" * 64).split()[1]
    'mine.pt'
    """
    return f"{sha256}  {name}"


def check(name: str, model_dir: Path) -> None:
    """Raise ModelError unless the weights `name` are in `model_dir` or its base folder, and their sum is listed."""
    sums = listed(name, model_dir)
    path = next((path for path in (model_dir / name, model_dir / "base" / name) if path.is_file()), None)
    if path is None:
        raise ModelError("no such weights", where=str(model_dir / name), fix="put the file there")
    if file_sha256(path) not in sums:
        raise ModelError(
            f"the weights {name} differ from the approved file", where=str(path), fix=_cure(name, model_dir)
        )


def _cure(name: str, model_dir: Path) -> str:
    folder = shlex.quote(str(model_dir.absolute()))
    return f"the backend's admin puts a file they trust there and runs: cd {folder} && sha256sum {name} >> {LISTING}"
