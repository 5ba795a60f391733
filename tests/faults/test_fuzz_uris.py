"""The fuzz of addresses, in its fast form; in full: `python -m tests.fuzz uris --cases 15000`."""

from __future__ import annotations

from tests.fuzz import uris


def test_no_address_escapes() -> None:
    report = uris.run(cases=600, seed=2)
    assert report.escapes == []
    assert report.cases == 600
    assert min(report.outcomes["images"], report.outcomes["refused"]) > 10  # else the cases are all alike
