"""The chosen control tag stays chosen on every way from a view of a project to another one."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from backend.loop.context import Context
from backend.store.store import ProjectRecord
from backend.web.page import forms
from backend.web.page.site import VIEWS
from tests.evaluated import evaluation, judged, publish_evaluated
from tests.support import CONFIG, serve

# The versions are those of the second tag.
FIRST = '<RectangleLabels name="a &amp; b" toName="image"><Label value="cat"/></RectangleLabels>'
TWO_TAGS = CONFIG.replace('<RectangleLabels name="label"', FIRST + '<RectangleLabels name="label"')
HTML = {"accept": "text/html"}


class Ways(HTMLParser):
    """The addresses to which links and forms of a page lead, with the hidden fields of forms that ask."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, list[str]]] = []  # address, and the tags that it names
        self._is_asking = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        fields = {name: value or "" for name, value in attrs}
        if tag == "form" and fields.get("method") == "get":
            self._is_asking = True
            self.tags.append(("the form that asks", []))
        elif tag == "input" and self._is_asking and fields.get("name") == "tag":
            self.tags[-1][1].append(fields["value"])
        elif tag in ("a", "form"):
            self._note(fields.get("href", fields.get("action", "")))

    def _note(self, address: str) -> None:
        parts = urlsplit(address)
        is_view = parts.path.startswith("/projects/7/") and parts.path != "/projects/7/data"  # Label Studio's
        if is_view or address.startswith("?"):
            self.tags.append((address, parse_qs(parts.query).get("tag", [])))

    def handle_endtag(self, tag: str) -> None:
        self._is_asking = self._is_asking and tag != "form"


@pytest.fixture
def client(context: Context, tiny_weights: Path) -> Iterator[httpx.Client]:
    context.store.save_project(ProjectRecord(7, TWO_TAGS, "", "", "", ""))
    stored, metrics = evaluation(judged(range(100, 112), 0.5))
    for _ in range(2):
        publish_evaluated(context, 7, tiny_weights, stored, metrics)
    with serve(context) as client:
        yield client


@pytest.mark.parametrize("chosen", ["label", "a & b"])
def test_links_and_buttons_of_all_views_keep_the_tag(client: httpx.Client, chosen: str) -> None:
    for view in VIEWS:
        answer = client.get(f"/projects/7/{view.name}", params={"tag": chosen}, headers=HTML)
        assert answer.status_code == 200
        ways = Ways()
        ways.feed(answer.text)
        switch = {tags[0] for address, tags in ways.tags if address.startswith("?")}
        assert switch >= {"label", "a & b"}  # the switch of tags alone leads to another one
        lost = [address for address, tags in ways.tags if tags != [chosen] and not address.startswith("?")]
        assert not lost, view.name
        assert len(ways.tags) >= len(VIEWS) + len(switch)


def test_a_button_and_the_address_of_a_project_lead_to_the_tag(client: httpx.Client, context: Context) -> None:
    form = {"token": forms.token(context.store.secret())}
    answer = client.post("/projects/7/now/pause?tag=label", data=form, headers=HTML)
    assert answer.headers["location"] == "/projects/7/now?tag=label"
    assert client.get("/projects/7?tag=label", headers=HTML).headers["location"] == "/projects/7/now?tag=label"
