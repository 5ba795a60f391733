"""The reason of a refused /setup on Label Studio's page for connecting a backend."""

from __future__ import annotations

import pytest

from backend.cli.label_studio_process import LabelStudioProcess
from backend.labelstudio.client.connection import LabelStudioClient
from backend.loop.context import Context
from tests.browser import signed_in
from tests.studio_database import LOGIN
from tests.support import CONFIG, serve

pytestmark = pytest.mark.browser


@pytest.mark.label_studio
def test_the_page_shows_the_whole_reason_with_the_cure_first(
    label_studio: LabelStudioProcess, context: Context
) -> None:
    """Label Studio removes text that looks like a tag, and shows letters outside of ASCII as question marks."""
    refused = CONFIG.replace('name="label"', 'name="label" model_path="\u00e9t\u00e9 &lt;b>.pt"')
    with LabelStudioClient(label_studio.url, label_studio.api_key) as client:
        project = client.projects.create("reasons on a page", refused)
    with serve(context) as backend, signed_in(label_studio.url, **LOGIN) as page:
        page.goto(f"{label_studio.url}/projects/{project}/settings/ml")
        page.locator("button", has_text="Connect Model").first.click()
        page.fill("input[name=title]", "ours")
        page.fill("input[name=url]", str(backend.base_url).rstrip("/"))
        page.locator("button", has_text="Validate and Save").click()
        page.get_by_text("400 Client Error").first.wait_for()
        shown = page.get_by_text("400 Client Error").first.inner_text()
    assert "400 Client Error: Write the name of a file" in shown
    assert "Reason: RectangleLabels" in shown
    assert 'model_path="ete (b>.pt"' in shown
    assert "[label config of the project]" in shown
