"""Rooms: imports point down, from package to package, and every external system has one home.

A new package goes into ROOMS with the packages that it may import; an external
system that it uses goes into HOMES.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.support import ROOT

# Package -> the packages that it may import, beside the modules of the root. Each imports only packages below it.
ROOMS: dict[str, tuple[str, ...]] = {
    "cli": (
        *("web", "worker", "loop", "simulate", "queue", "store"),
        *("yolo", "labelstudio", "sampling", "evaluation", "acquisition", "datasets"),
    ),
    "web": ("loop", "queue", "store", "labelstudio", "evaluation", "sampling", "acquisition"),
    "worker": ("loop", "simulate", "queue"),
    "loop": (
        *("policy", "queue", "store", "yolo", "labelstudio", "media", "datasets"),
        *("sampling", "evaluation", "acquisition", "geometry", "urls"),
    ),
    "simulate": (
        *("policy", "queue", "yolo", "labelstudio", "datasets"),
        *("sampling", "evaluation", "acquisition", "geometry"),
    ),
    "policy": ("sampling", "evaluation", "acquisition", "geometry"),
    "queue": (),
    "store": ("labelstudio", "sampling", "evaluation", "acquisition"),
    "yolo": ("datasets", "media", "evaluation", "acquisition", "geometry"),
    "labelstudio": ("geometry", "urls"),
    "datasets": ("geometry",),
    "media": ("geometry", "urls"),
    "sampling": ("acquisition",),
    "evaluation": ("acquisition", "geometry"),
    "acquisition": ("geometry",),
    "geometry": (),
    "urls": (),
}
# What all share: values, errors, settings. These import nothing but each other.
ROOT_MODULES = (
    "environment",
    "errors",
    "model_versions",
    "settings",
    "storage",
    "subprocesses",
    "types",
)

# External package -> the packages that may import it.
HOMES: dict[str, tuple[str, ...]] = {
    "ultralytics": ("yolo",),
    "torch": ("yolo",),
    "torchvision": ("yolo",),
    "label_studio_sdk": ("labelstudio.client",),
    "label_studio_ml": ("web.ml_backend_plugin",),
    "rq": ("queue",),
    "fastapi": ("web",),
    "starlette": ("web",),
    "sse_starlette": ("web.page",),
    "uvicorn": ("web",),
    "typer": ("cli",),
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
    """Return whether the code in `node` does not run when its module is imported."""
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


def room(module: str) -> str:
    """Return the package of a module by its dotted name under `backend`, "" for a module of the root."""
    first = module.partition(".")[0]
    return "" if first in ROOT_MODULES else first


def violations(module: str, source: str) -> list[str]:
    """Return what is wrong with the imports of `module`, its dotted name under `backend`."""
    mine = room(module)
    if mine and mine not in ROOMS:
        return [f"backend/{mine} is no room: add it to ROOMS in tests/test_architecture.py"]
    package = ".".join(["backend", *module.split(".")[:-1]])
    wrong = []
    for imported in imports(source, package):
        top, _, inner = imported.target.partition(".")
        if top == "backend" and inner and inner != "__version__":
            theirs = room(inner)
            if theirs and theirs != mine and theirs not in ROOMS.get(mine, ()):
                wrong.append(f"line {imported.line}: {mine or 'the root'} may not import {theirs}")
        homes = HOMES.get(top)
        if homes is not None and not any(f"{module}.".startswith(f"{home}.") for home in homes):
            wrong.append(f"line {imported.line}: {top} may only be imported in {', '.join(homes)}")
        elif top in INSIDE_FUNCTIONS and not imported.deferred:
            wrong.append(
                f"line {imported.line}: import {top} inside the function that needs it; it takes seconds to load"
            )
    return wrong


def _modules() -> dict[str, Path]:
    """Return all modules by their dotted name under `backend`; a package's own is that of its `__init__`."""
    modules = {}
    for path in sorted((ROOT / "backend").rglob("*.py")):
        parts = path.relative_to(ROOT / "backend").with_suffix("").parts
        if parts != ("__init__",):
            modules[".".join(parts)] = path
    return modules


MODULES = _modules()


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down_and_stay_at_home(module: str) -> None:
    assert violations(module, MODULES[module].read_text(encoding="utf-8")) == []


def test_every_room_is_there_and_has_a_sign_at_its_door() -> None:
    folders = {path.parent.name: path for path in (ROOT / "backend").glob("*/__init__.py")}
    assert set(folders) == set(ROOMS)
    for path in folders.values():
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), f"{path} does not say what lies there"


def test_the_root_holds_only_what_all_share() -> None:
    assert sorted(path.stem for path in (ROOT / "backend").glob("[!_]*.py")) == sorted(ROOT_MODULES)


def test_rooms_lie_above_each_other() -> None:
    try:
        TopologicalSorter(ROOMS).prepare()
    except CycleError as error:
        pytest.fail(f"rooms in a circle: {' -> '.join(error.args[1])}")


def test_no_edge_is_allowed_that_nobody_needs() -> None:
    used = {
        (room(module), room(imported.target.removeprefix("backend.")))
        for module, path in MODULES.items()
        for imported in imports(path.read_text(encoding="utf-8"))
        if imported.target.startswith("backend.")
    }
    assert {(mine, theirs) for mine, allowed in ROOMS.items() for theirs in allowed} <= used


def test_imports_make_no_circle() -> None:
    graph: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        package = ".".join(["backend", *module.split(".")[:-1]])
        targets = {imported.target.removeprefix("backend.") for imported in imports(path.read_text(), package)}
        name = module.removesuffix(".__init__")
        graph.setdefault(name, set()).update(targets & {other for other in MODULES if other != name})
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import circle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("types", "from backend.loop.context import Context", "line 1: the root may not import loop"),
        ("types", "import backend.worker.jobs", "the root may not import worker"),
        ("types", "def f():\n    from backend.cli.app import main", "line 2: the root may not import cli"),
        ("geometry.masks", "if True:\n    from backend.yolo import tasks", "line 2: geometry may not import yolo"),
        ("geometry.masks", "from ..yolo import tasks", "geometry may not import yolo"),
        ("simulate.units", "from backend.loop.scoring import push", "simulate may not import loop"),
        ("attic.box", "", "add it to ROOMS"),
        ("store.store", "def f():\n    import torch", "torch may only be imported in yolo"),
        ("store.store", "import ultralytics.nn", "ultralytics may only"),
        ("yolo.training", "from torch import nn", "inside the function"),
        ("yolo.training", "class A:\n    import ultralytics", "line 2: import ultralytics inside"),
        ("labelstudio.regions", "from label_studio_sdk.client import LabelStudio", "label_studio_sdk may only"),
        ("web.app", "import rq", "rq may only"),
        ("worker.jobs", "from fastapi import FastAPI", "fastapi may only"),
        ("web.app", "from label_studio_ml.model import LabelStudioMLBase", "label_studio_ml may only"),
    ],
)
def test_finds_what_is_wrong(module: str, source: str, complaint: str) -> None:
    (wrong,) = violations(module, source)
    assert complaint in wrong


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("types", ""),
        ("cli.app", "from backend.worker.jobs import x\nfrom backend import __version__, errors"),
        (
            "labelstudio.tags.choices",
            "from backend.labelstudio import regions\nfrom . import y\nfrom ...types import z",
        ),
        ("yolo.detector", "if TYPE_CHECKING:\n    import torch"),
        ("yolo.training", "def f():\n    import torch\n    from ultralytics import YOLO"),
        ("labelstudio.client.tasks", "import label_studio_sdk"),
        ("labelstudio.regions", "import label_studio_tools"),
        ("queue.rq_queue", "from rq.job import Job"),
        ("web.app", "from fastapi import APIRouter"),
        ("web.ml_backend_plugin", "from label_studio_ml.model import LabelStudioMLBase"),
    ],
)
def test_lets_the_rest_pass(module: str, source: str) -> None:
    assert violations(module, source) == []


def test_no_two_classes_share_a_name() -> None:
    places: dict[str, list[str]] = {}
    for path in sorted((ROOT / "backend").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert {name: lines for name, lines in places.items() if len(lines) > 1} == {}


def private_names(source: str) -> list[str]:
    """Return the private names that a test imports from the backend, or replaces."""
    names: list[tuple[str, ast.expr | ast.alias]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("backend"):
            names += [(alias.name, alias) for alias in node.names]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "setattr":
            texts = [argument for argument in node.args[:2] if isinstance(argument, ast.Constant)]
            names += [(str(text.value).rpartition(".")[2], text) for text in texts]
    return [f"line {node.lineno}: {name}" for name, node in names if name[:1] == "_" != name[1:2]]


TESTS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("*.py"))
FOREIGN = {"_load_checkpoint"}  # ultralytics' own, see tests/test_contracts.py


@pytest.mark.parametrize("path", TESTS)
def test_tests_reach_no_private_name(path: str) -> None:
    """ruff finds the attributes (SLF); a test that needs a private name shows that a seam is missing."""
    reached = private_names((ROOT / path).read_text(encoding="utf-8"))
    assert [place for place in reached if place.split()[-1] not in FOREIGN] == []


@pytest.mark.parametrize(
    ("source", "reached"),
    [
        ("from backend.storage import _sync", ["line 1: _sync"]),
        ("\npatch.setattr('backend.storage._sync', 1)", ["line 2: _sync"]),
        ("patch.setattr(record, '_at', 1)", ["line 1: _at"]),
        ("from backend import __version__\npatch.setattr(os, 'fsync', '_')\nfrom tests.x import _y", []),
    ],
)
def test_finds_private_names(source: str, reached: list[str]) -> None:
    assert private_names(source) == reached
