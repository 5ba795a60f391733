"""`make test-upstream` asks for the newest release of each dependency."""

from __future__ import annotations

import re
import tomllib

from tests.support import ROOT
from tests.upstream import pinned, requirements


def test_every_dependency_is_asked_for_and_none_has_an_upper_bound() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    ours = project["project"]["dependencies"] + project["dependency-groups"]["dev"]
    asked = [line.partition(" ;")[0] for line in requirements()]
    assert [re.split("[<>=]", line)[0] for line in asked] == [re.split("[<>= ]", line)[0] for line in ours]
    assert [line for line in asked if re.search("<|==|~|!", line)] == []


def test_the_locks_have_a_version_of_each_of_them() -> None:
    locks = ("requirements.lock", "requirements-gpu.lock", "requirements-dev.lock")
    locked = pinned("\n".join((ROOT / name).read_text(encoding="utf-8") for name in locks))
    assert {re.split("[>; ]", line)[0] for line in requirements()} <= set(locked)
