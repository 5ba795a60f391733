"""The fuzz of requests, in its fast form; in full: `python -m tests.fuzz requests --cases 5000`."""

from __future__ import annotations

from tests.fuzz import requests


def test_no_request_escapes() -> None:
    report = requests.run(cases=250, seed=2)
    assert report.escapes == []
    assert report.cases == 250
    assert report.outcomes["400"] > 10
    assert report.outcomes["200"] + report.outcomes["201"] > 10  # else the cases are all alike
