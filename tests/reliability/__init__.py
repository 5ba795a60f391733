"""What went wrong once, family by family, and the tests that keep it from coming back.

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
    "B": "What is learned and shown",
    "C": "The loop goes on",
    "D": "Hostile input and limits",
    "E": "Messages and first steps",
    "F": "Fuzzing",
}
_HEAD = """# Reliability

The product was tried for a day as its users, admins and attackers would try it. This page lists what went wrong, what
the tests measure since the repair, and the command that runs these tests. `python -m tests.reliability` writes this
page from the files in `tests/reliability/`. A test fails when a row names a test that does not exist, or when the page
is older than its rows.

Figures come from machines with 2 cores and no GPU. A figure in the column "before" that no test can measure any more is
the report of the day.
"""


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
