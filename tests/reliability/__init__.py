"""What went wrong once, family by family, and the tests that keep it from coming back.

Each `<family>.toml` beside this file is one row of docs/reliability.md.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from tests.support import ROOT

FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Family:
    """One family of faults: what users ran into, and what the tests measure now."""

    name: str
    fault: str
    before: str
    after: str
    tests: tuple[str, ...]  # node ids as pytest takes them: a file, or file::test

    @property
    def command(self) -> str:
        """The command that runs the tests of this family."""
        return f".venv/bin/pytest {' '.join(self.tests)}"


def families() -> list[Family]:
    """Read every family, in the order of their names: letter first, then number."""
    return sorted((_read(path) for path in FOLDER.glob("*.toml")), key=lambda family: _order(family.name))


def _read(path: Path) -> Family:
    content = tomllib.loads(path.read_text())
    return Family(path.stem, content["fault"], content["before"], content["after"], tuple(content["tests"]))


def _order(name: str) -> tuple[str, int, str]:
    number, _, part = name[1:].partition("-")
    return name[0], int(number or 0), part


def missing_tests(family: Family) -> list[str]:
    """Return the node ids of a family that name no test in the tree."""
    return [node for node in family.tests if not _exists(node)]


def _exists(node: str) -> bool:
    path, _, test = node.partition("::")
    file = ROOT / path
    return file.exists() and (not test or f"def {test.split('[')[0]}(" in file.read_text())
