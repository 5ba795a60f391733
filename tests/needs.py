"""Programs that some tests need and `make` cannot install: Debian's packages. Without them, the tests are skipped.

`python3 tests/needs.py` prints the packages, one a line, before there is any environment: `.ci/run` installs these.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

WITHOUT = "WITHOUT_DEBIAN"  # "1": as if none of the packages was installed
PACKAGES = {
    "chromium": "chromium",
    "docker-compose": "docker-compose",
    "initdb": "postgresql",
    "redis-server": "redis-server",
}
_FOLDERS = {"initdb": ("/usr/lib/postgresql", "*/bin/initdb")}  # Debian keeps these programs off PATH
_WANTS = re.compile(r"wants (\S+)$")


def hidden() -> bool:
    """Return whether the tests run as if none of the packages was installed."""
    return os.environ.get(WITHOUT) == "1"


def find(program: str) -> Path | None:
    """Return the path of one of Debian's programs, None if its package is not installed."""
    if hidden():
        return None
    if on_path := shutil.which(program):
        return Path(on_path)
    root, pattern = _FOLDERS.get(program, ("/nonexistent", "*"))
    return max(Path(root).glob(pattern), default=None)


def complaint(program: str) -> str:
    """Return the reason of a skip for want of a program.

    >>> complaint("chromium")
    'wants chromium'
    """
    return f"wants {PACKAGES[program]}"


def hide(folder: Path, path: str) -> str:
    """Return a PATH that has all programs of `path` but Debian's: links in `folder`."""
    for source in map(Path, path.split(os.pathsep)):
        for program in sorted(source.glob("*")) if source.is_dir() else ():
            link = folder / program.name
            if program.is_file() and program.name not in PACKAGES and not link.is_symlink():  # the first on PATH counts
                link.symlink_to(program.absolute())
    return str(folder)


def package(reason: str) -> str:
    """Return the package whose absence is the reason of a skip, "" for another reason."""
    match = _WANTS.search(reason)
    return match[1] if match else ""


def last_line(reasons: Iterable[str]) -> str:
    """Return what a run of the tests says at its end of its skips, "" without any.

    >>> last_line(["Skipped: wants chromium", "Skipped: wants postgresql", "Skipped: wants chromium"])
    '3 tests were skipped for want of chromium, postgresql (Debian: apt-get install chromium postgresql)'
    >>> last_line(["Skipped: there is no /proc"])
    '1 test was skipped: there is no /proc'
    """
    counts = Counter(reasons)
    names = sorted({name for reason in counts if (name := package(reason))})
    other = sorted({reason.removeprefix("Skipped: ") for reason in counts if not package(reason)})
    tests = f"{counts.total()} test{' was' if counts.total() == 1 else 's were'} skipped"
    wanted = f" for want of {', '.join(names)} (Debian: apt-get install {' '.join(names)})" if names else ""
    return f"{tests}{wanted}{': ' if other else ''}{'; '.join(other)}" if counts else ""


if __name__ == "__main__":
    print("\n".join(sorted(set(PACKAGES.values()))))
