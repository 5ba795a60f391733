"""Every family of faults names tests that exist."""

from __future__ import annotations

import pytest

from tests.reliability import PAGE, Family, families, missing_tests, page


@pytest.mark.parametrize("family", families(), ids=lambda family: family.name)
def test_a_family_of_faults_names_tests_that_exist(family: Family) -> None:
    assert family.tests
    assert missing_tests(family) == []


def test_the_page_is_written_from_the_rows() -> None:
    assert PAGE.read_text() == page(), "python -m tests.reliability writes it anew"
