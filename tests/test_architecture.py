"""Imports point down, and every external system has one home.

A new module goes into LAYERS; one that must use an external system goes into HOMES as well.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.support import ROOT

# A module may import from its own layer and those before it. A folder stands for the modules in it; * as in file names.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "faults", "log_lines", "types", "versions", "basis", "pools", "software"),
    (
        "settings",
        "geometry",
        "yolo_tasks",
        "acquisition",
        "scenes",
        "curves",
        "charts",
        "brush",
        "masks",
        "keyframes",
        "timeline",
        "temporal",
    ),
    (
        *("label_config", "control_tags", "tags", "regions", "foreign", "ellipses"),
        *("label_paths", "label_names", "label_renames", "label_xml", "skeletons", "ranking", "gate"),
        *("yolo_data", "yolo_roots", "yolo_labels", "yolo_export", "class_folders"),
        *("stream", "bandit", "stopping", "agreement", "label_errors", "choice_errors", "calibration", "validation"),
        *("bootstrap", "origins", "json_parts", "redaction"),
    ),
    (
        *(
            "media",
            "pictures",
            "png",
            "video",
            *(
                "bounded",
                "avif",
                "video_header",
                "video_frames",
                "video_packets",
                "deadline",
                "token_places",
                "cache_space",
            ),
            "tracking",
            "timeline_frames",
            "timeline_model",
            "doubt",
            "safe_http",
        ),
        *("label_studio*", "inference", "anchors", "training", "dataset", "shapes"),
        *("classifying", "semantic", "yolo_models", "letterbox", "thumbnails", "pretrained", "evaluation"),
        *(
            "store",
            "pointers",
            "layout",
            "lessons",
            "pool_store",
            "shards",
            "manifest",
            "files",
            "guarded_files",
            "weights",
        ),
        *("processes", "oracle", "committee"),
    ),
    (
        *(
            "context",
            "locks",
            "progress",
            "presence",
            "scratch",
            "warm",
            "queues",
            "models",
            "pool_keys",
            "snapshot",
            "video_shots",
            "watched",
            "frame_order",
            "challenger",
            "verdict",
            "retraining",
            "pasts",
            "evidence",
            "priorities",
            "scoring",
            "push",
            "activity",
            "studio_state",
            "old_versions",
            "holdings",
            "arrivals",
        ),
        *("serving", "review", "label_verdicts", "label_review", "label_marks"),
        *("projects", "rests", "demands", "absent", "jobs"),
        *(
            "experiment",
            "history",
            "unit_process",
            "simulation",
            "simulation_data",
            "simulation_task",
            "simulated_pool",
        ),
    ),
    (
        *("model", "protocol", "metrics", "guard", "bodies", "reason", "half_sent", "server", "listener", "readiness"),
        *(
            "workers",
            "embedded",
            "run_record",
            "supervision",
            "tables",
            "demo",
            "demo_*",
            "learning",
            "simulate",
            "report",
            "picked",
        ),
    ),
    ("startup",),
    ("cli",),
)

# External package -> the modules that may import it.
HOMES: dict[str, tuple[str, ...]] = {
    "ultralytics": (
        "inference",
        "training",
        "shapes",
        "classifying",
        "semantic",
        "tracking",
        "yolo_models",
        "letterbox",
        "pretrained",
    ),
    "torch": (
        *("inference", "training", "committee", "shapes", "classifying", "semantic", "yolo_models", "evaluation"),
        *("thumbnails", "temporal", "anchors"),
    ),
    "torchvision": ("yolo_models", "classifying"),
    "label_studio_sdk": ("label_studio*",),
    "label_studio_ml": ("model",),
    "rq": ("queues",),
    "fastapi": ("server", "guard", "bodies"),
    "starlette": ("server", "guard", "bodies"),
}
# They take seconds to import, so a server or a command that does not need them must not pay for them.
INSIDE_FUNCTIONS = ("ultralytics", "torch", "torchvision")


@dataclass(frozen=True, slots=True)
class Import:
    """One import; `target` is dotted, as in "backend.types" or "torch.nn"."""

    target: str
    line: int
    deferred: bool  # inside a function, or for the type checker alone


def imports(source: str, package: str = "backend") -> Iterator[Import]:
    """Yield all imports of a module that lies in `package`, those inside functions too."""
    yield from _imports(ast.parse(source), package, deferred=False)


def _imports(node: ast.AST, package: str, deferred: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, deferred)
        elif isinstance(child, ast.ImportFrom):
            for name in _from_targets(child, package):
                yield Import(name, child.lineno, deferred)
        else:
            yield from _imports(child, package, deferred or _defers(child))


def _defers(node: ast.AST) -> bool:
    """Say whether what is in `node` does not run when its module is imported."""
    if isinstance(node, ast.If):
        return ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def _from_targets(node: ast.ImportFrom, package: str) -> list[str]:
    base = node.module or ""
    if node.level:
        parents = package.split(".")
        base = ".".join(parents[: len(parents) - node.level + 1] + ([base] if base else []))
    # "from backend import types" names a module, "from backend.types import Pool" a thing in one.
    return [f"backend.{alias.name}" for alias in node.names] if base == "backend" else [base]


def layer(module: str) -> int | None:
    """Return the layer of a module by its name under `backend`, None for one that LAYERS does not know."""
    for number, patterns in enumerate(LAYERS):
        if any(fnmatchcase(module, pattern) for pattern in patterns):
            return number
    return None


def violations(module: str, source: str, package: str = "backend") -> list[str]:
    """Return what is wrong with the imports of `module`, its name under `backend` without a folder's parts."""
    mine = layer(module)
    if mine is None:
        return [f"backend/{module} is in no layer: add it to LAYERS in tests/test_architecture.py"]
    found = []
    for one in imports(source, package):
        top, _, rest = one.target.partition(".")
        name = rest.partition(".")[0]
        if top == "backend" and name and name not in ("__version__", module):
            theirs = layer(name)
            if theirs is None:
                found.append(f"line {one.line}: backend.{name} is in no layer: add it to LAYERS")
            elif theirs > mine:
                found.append(
                    f"line {one.line}: {module} (layer {mine}) imports {name} (layer {theirs}), which is above it"
                )
        homes = HOMES.get(top)
        if homes is not None and not any(fnmatchcase(module, home) for home in homes):
            found.append(f"line {one.line}: {top} may only be imported in {', '.join(homes)}")
        elif top in INSIDE_FUNCTIONS and not one.deferred:
            found.append(f"line {one.line}: import {top} inside the function that needs it; it takes seconds to load")
    return found


def _modules() -> list[Path]:
    return sorted(path for path in (ROOT / "backend").rglob("*.py") if path != ROOT / "backend/__init__.py")


def _parts(path: Path) -> tuple[str, str]:
    """Return a file's top-level name under `backend` and its dotted package."""
    relative = path.relative_to(ROOT)
    return relative.with_suffix("").parts[1], ".".join(relative.parent.parts)


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down_and_stay_at_home(path: Path) -> None:
    module, package = _parts(path)
    assert violations(module, path.read_text(encoding="utf-8"), package) == []


def test_imports_make_no_circle() -> None:
    graph: dict[str, set[str]] = {}
    for path in _modules():
        module, package = _parts(path)
        ours = [
            one.target.split(".") for one in imports(path.read_text(), package) if one.target.startswith("backend.")
        ]
        graph.setdefault(module, set()).update({parts[1] for parts in ours} - {module})
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import circle: {' -> '.join(error.args[1])}")


def test_every_module_has_one_layer() -> None:
    names = [name for patterns in LAYERS for name in patterns]
    assert len(names) == len(set(names))
    for path in _modules():
        module, _ = _parts(path)
        fits = [name for name in names if fnmatchcase(module, name)]
        assert len(fits) == 1, f"backend/{module} fits {fits or 'nothing'} in LAYERS of tests/test_architecture.py"


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("types", "from backend.settings import Settings", "settings (layer 1), which is above it"),
        ("types", "from backend import settings", "which is above it"),
        ("types", "import backend.jobs", "which is above it"),
        ("types", "def f():\n    from backend.cli import main", "line 2: types (layer 0) imports cli"),
        ("types", "if True:\n    from backend.cli import main", "line 2"),
        ("types", "from .cli import main", "which is above it"),
        ("types", "from . import cli", "which is above it"),
        ("jobs", "from backend.brand_new import x", "brand_new is in no layer: add it"),
        ("brand_new", "", "add it to LAYERS"),
        ("store", "def f():\n    import torch", "torch may only be imported in inference, training"),
        ("store", "import ultralytics.nn", "ultralytics may only"),
        ("training", "from torch import nn", "inside the function"),
        ("training", "class A:\n    import ultralytics", "line 2: import ultralytics inside"),
        ("store", "from label_studio_sdk.client import LabelStudio", "label_studio_sdk may only"),
        ("server", "import rq", "rq may only"),
        ("jobs", "from fastapi import FastAPI", "fastapi may only"),
        ("server", "from label_studio_ml.model import LabelStudioMLBase", "label_studio_ml may only"),
    ],
)
def test_finds_what_is_wrong(module: str, source: str, complaint: str) -> None:
    found = violations(module, source)
    assert len(found) == 1
    assert complaint in found[0]


@pytest.mark.parametrize(
    ("module", "source", "package"),
    [
        ("types", "", "backend"),
        ("cli", "from backend.jobs import x\nfrom backend import __version__, errors", "backend"),
        (
            "tags",
            "from backend.tags.rectanglelabels import x\nfrom . import y\nfrom ..types import Pool",
            "backend.tags",
        ),
        ("inference", "if TYPE_CHECKING:\n    import torch", "backend"),
        ("training", "def f():\n    import torch\n    from ultralytics import YOLO", "backend"),
        ("label_studio_tasks", "import label_studio_sdk", "backend"),
        ("label_studio", "import label_studio_tools", "backend"),
        ("queues", "from rq.job import Job", "backend"),
        ("server", "from fastapi import APIRouter", "backend"),
        ("model", "from label_studio_ml.model import LabelStudioMLBase", "backend"),
    ],
)
def test_lets_the_rest_pass(module: str, source: str, package: str) -> None:
    assert violations(module, source, package) == []
