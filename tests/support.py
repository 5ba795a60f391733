"""What several test modules need."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def require(condition: bool, message: str) -> None:
    """Skip the test unless `condition` holds; with REQUIRE_ALL=1 in the environment fail instead."""
    if condition:
        return
    if os.environ.get("REQUIRE_ALL") == "1":
        pytest.fail(f"REQUIRE_ALL=1, but {message}")
    pytest.skip(message)
