"""Messages for users: each has a cure, and no text that Label Studio's page would remove."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend import errors
from backend.errors import BackendError
from backend.web.reason import reason_of
from tests.support import ROOT

TAG = re.compile("<[A-Za-z/!]")
HARD = re.compile(r"\b(of which|such a one|what is asked|ha(s|ve) (a|no) say|accuses?|told of|voices?)\b")
OURS = {name for name in dir(errors) if name.endswith("Error")} | {"refuse"}
# What /setup and /webhook answer; other errors have a `fix` where there is one.
ANSWERED = {
    "LabelConfigError",
    "SettingError",
    "RequestError",
    "AuthError",
    "TooLargeError",
    "RedisDownError",
    "refuse",
}


def raised(path: Path) -> Iterator[ast.Call]:
    """Yield the calls in a module that create our errors."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in OURS:
            yield node


def words(node: ast.AST) -> str:
    """Return the literal text in a call."""
    parts = (part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str))
    return " ".join(parts)


@pytest.mark.parametrize("path", sorted((ROOT / "backend").rglob("*.py")), ids=lambda path: path.stem)
def test_no_message_has_what_looks_like_a_tag_and_each_has_a_cure(path: Path) -> None:
    for call in raised(path):
        place = f"{path.name}:{call.lineno}"
        assert not TAG.search(words(call)), place
        assert not HARD.search(words(call)), place
        name = call.func.id if isinstance(call.func, ast.Name) else ""
        arguments = {keyword.arg for keyword in call.keywords}
        has_fix = "fix" in arguments or (name == "refuse" and len(call.args) == 5)
        assert has_fix or name not in ANSWERED, place


def test_some_messages_are_looked_at() -> None:
    calls = [call for path in (ROOT / "backend").rglob("*.py") for call in raised(path)]
    assert len(calls) > 100


@pytest.mark.parametrize(
    ("fix", "reason"),
    [
        ("write one", "Write one. Reason: it is broken [there]"),
        ("did you mean A?", "Did you mean A? Reason: it is broken [there]"),
        ("", "it is broken [there]"),
    ],
)
def test_the_cure_comes_first(fix: str, reason: str) -> None:
    assert reason_of(BackendError("it is broken", where="there", fix=fix)) == reason


def test_a_long_message_keeps_its_cure() -> None:
    reason = reason_of(BackendError("x" * 9000, fix="shorten it"))
    assert reason.startswith("Shorten it. Reason: xxx")
    assert reason.endswith("...")
    assert len(reason) == 500
