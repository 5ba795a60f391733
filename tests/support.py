"""What several test modules need."""

from __future__ import annotations

import os
from pathlib import Path

import httpx
import pytest

from backend.label_studio import LabelStudioClient

ROOT = Path(__file__).resolve().parent.parent


def require(condition: bool, message: str) -> None:
    """Skip the test unless `condition` holds; with REQUIRE_ALL=1 in the environment fail instead."""
    if condition:
        return
    if os.environ.get("REQUIRE_ALL") == "1":
        pytest.fail(f"REQUIRE_ALL=1, but {message}")
    pytest.skip(message)


def sign_up(client: LabelStudioClient, email: str, password: str) -> None:
    """Make a user of the same Label Studio by its invite link, as a new colleague does."""
    page = client.http.get("/api/invite")["invite_url"]
    with httpx.Client(base_url=client.url, headers={"Referer": client.url}) as browser:
        browser.get(page).raise_for_status()
        form = {"email": email, "password": password, "csrfmiddlewaretoken": browser.cookies["csrftoken"]}
        assert browser.post(page, data=form).status_code == 302
