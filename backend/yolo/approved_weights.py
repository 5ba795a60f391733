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
    if not is_weights_name(re.sub(r"\.ts$", ".pt", name)):  # .ts: TorchScript
        raise ModelError(f"{name!r} is not the plain name of a .pt file", fix="write a name like yolo11n.pt")
    sums = frozenset(sha256 for sha256, listed_name in _entries(model_dir) if listed_name == name)
    if not sums:
        where = str(model_dir / LISTING)
        raise ModelError(f"the weights {name} are not approved", where=where, fix=cure(name, model_dir))
    return sums


def names(model_dir: Path) -> tuple[str, ...]:
    """Return the names of the weights that the admin listed, in the list's order; this opens no weights."""
    return tuple(dict.fromkeys(name for _, name in _entries(model_dir)))


def _entries(model_dir: Path) -> list[tuple[str, str]]:
    """Return the sha256 and the name of each line of the list."""
    path = model_dir / LISTING
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    matches = (_LINE.fullmatch(line.strip()) for line in lines)
    return [(match[1], PurePosixPath(match[2]).name) for match in matches if match is not None]


def entry(name: str, sha256: str) -> str:
    """Return the line that approves weights.

    >>> entry("mine.pt", "0" * 64).split()[1]
    'mine.pt'
    """
    return f"{sha256}  {name}"


def check(name: str, model_dir: Path) -> Path:
    """Return the weights `name` in `model_dir` or its base folder; raises ModelError unless their sum is listed."""
    sums = listed(name, model_dir)
    path = next((path for path in (model_dir / name, model_dir / "base" / name) if path.is_file()), None)
    if path is None:
        raise ModelError("no such weights", where=str(model_dir / name), fix="put the file there")
    if file_sha256(path) not in sums:
        raise ModelError(
            f"the weights {name} differ from the approved file", where=str(path), fix=cure(name, model_dir)
        )
    return path


def cure(name: str, model_dir: Path) -> str:
    """Return how the admin approves weights."""
    folder = shlex.quote(str(model_dir.absolute()))
    return f"the backend's admin puts a file they trust there and runs: cd {folder} && sha256sum {name} >> {LISTING}"
