"""Past faults, family by family, and the tests that prevent them from coming back.

Each `<family>.toml` beside this file is one row of docs/reliability.md.
`python -m tests.reliability` writes that page anew.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from tests.support import ROOT

FOLDER = Path(__file__).resolve().parent
PAGE = ROOT / "docs" / "reliability.md"

_SECTIONS = {
    "A": "The test command",
    "B": "Learning and display",
    "C": "The loop continues after faults",
    "D": "Hostile input and limits",
    "E": "Messages and first steps",
    "F": "Fuzzing",
}
_HEAD = """# Reliability

For one day the product was tested from the views of its users, admins and attackers. This page lists the faults of that
day, the measurements of today's tests, and the commands that run these tests. `python -m tests.reliability` writes this
page from the files in `tests/reliability/`. A test fails if a row names a test that does not exist, or if the page is
older than its rows.

The figures come from machines with 2 cores and no GPU. Some figures in the column "before" cannot be measured any more;
they come from the report of that day.
"""


@dataclass(frozen=True, slots=True)
class Family:
    """One family of faults: the fault, its effect before the repair, and the measurements now."""

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
    """Return all families, ordered by name: first by letter, then by number."""
    return sorted((_read(path) for path in FOLDER.glob("*.toml")), key=lambda family: _order(family.name))


def _read(path: Path) -> Family:
    content = tomllib.loads(path.read_text())
    return Family(path.stem, content["fault"], content["before"], content["after"], tuple(content["tests"]))


def _order(name: str) -> tuple[str, int, str]:
    number, _, part = name[1:].partition("-")
    return name[0], int(number or 0), part


def missing_tests(family: Family) -> list[str]:
    """Return the node ids of a family that name no existing test."""
    return [node for node in family.tests if not _exists(node)]


def _exists(node: str) -> bool:
    path, _, test = node.partition("::")
    file = ROOT / path
    return file.exists() and (not test or f"def {test.split('[')[0]}(" in file.read_text())


def page() -> str:
    """Return docs/reliability.md: one table per section."""
    rows = families()
    tables = [_table(title, [row for row in rows if row.name[0] == letter]) for letter, title in _SECTIONS.items()]
    return "\n".join([_HEAD, *(table for table in tables if table)])


def _table(title: str, rows: list[Family]) -> str:
    if not rows:
        return ""
    lines = [_line(row.fault, row.before, row.after, f"`{row.command}`") for row in rows]
    return "\n".join([f"## {title}", "", "| fault | before | now | command |", "|---|---|---|---|", *lines, ""])


def _line(*cells: str) -> str:
    return f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in cells)} |"
